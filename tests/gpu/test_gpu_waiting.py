"""Nothing in a map makes the processor wait for the GPU, which would have nothing to do meanwhile."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import caap_lab as cl
from caap_lab.engine.blanks import blank_run
from caap_lab.engine.patched_logits import logits_of_vit
from caap_lab.engine.plan import plan_of
from caap_lab.engine.settings import CONTEXTS, TAILS, CaapSettings
from helpers.on_gpu import FORMATS, TRAITS, check, images_of, needs_gpu, on_gpu

pytestmark = needs_gpu


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    """Within it, torch raises an error where the processor waits for the GPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this is a prototype, said once per process
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("family", TRAITS)
def test_nothing_between_an_image_and_its_scores_waits(family: str, dtype: str) -> None:
    model, images = on_gpu(family, FORMATS[dtype]), images_of(family, FORMATS[dtype])
    run = blank_run(model, "white")
    settings = [CaapSettings(context=context, cutoff=2) for context in CONTEXTS]
    settings += [CaapSettings(tail=tail) for tail in TAILS] + [CaapSettings(attention="cached")]
    for one in settings:
        if one.context == "dropped" and not model.spec.live_prefix:
            continue
        plan = plan_of(model, one)
        expected = logits_of_vit(model, images, [plan], run, 100, own=True)  # tables are made once
        with waiting_is_an_error():
            found = logits_of_vit(model, images, [plan], run, 100, own=True)
        for range_ in expected.by_range:
            check([found.by_range[range_]], [expected.by_range[range_]], 1e-6, f"{one.context} {one.tail}")


def test_a_call_waits_a_few_times_however_large_the_model() -> None:
    """For looks at its images and weights, and for the scores; what is read back for each block would be more."""

    def waits(count: int) -> int:
        model, images = on_gpu("vit", torch.float32), images_of("vit", torch.float32)[:1].expand(count, -1, -1, -1)
        cl.caap(model, images, 0, progress=False)  # the blank's run is kept
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with pytest.warns() as said:
                cl.caap(model, images, 0, progress=False)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchron" in str(warning.message) for warning in said)

    assert waits(1) < 16  # it has 52 weights
    assert waits(8) < 16


def test_half_precision_runs_the_kernel_and_float32_the_plain_products() -> None:
    for dtype, expected in (("fp32", 0), ("fp16", 4), ("bf16", 4)):
        model, images = on_gpu("vit", FORMATS[dtype]), images_of("vit", FORMATS[dtype])[:1]
        cl.caap(model, images, 0)
        with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiled:
            found = cl.caap(model, images, 0)
            torch.cuda.synchronize()
        kernels = sum(event.count for event in profiled.key_averages() if event.key == "_attend")
        assert kernels == expected, dtype
        with patch("caap_lab.engine.attend.fits", lambda *_: False):
            plain = cl.caap(model, images, 0)
        check([found.all_scores], [plain.all_scores], {"fp32": 1e-6, "fp16": 0.005, "bf16": 0.04}[dtype], dtype)
