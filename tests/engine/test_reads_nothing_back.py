"""Between an image and its scores no number is read back from a tensor: on a GPU each look would wait for it."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from caap_lab.engine.blanks import blank_run
from caap_lab.engine.patched_logits import logits_of_vit
from caap_lab.engine.plan import plan_of
from caap_lab.engine.settings import CONTEXTS, TAILS, CaapSettings
from helpers.models import build, by_trait, random_images

aten = torch.ops.aten
READING = {
    aten._local_scalar_dense.default,  # a tensor as a number or truth value
    aten.nonzero.default,  # and what has as many results as there are true values
    aten.masked_select.default,
    aten._unique2.default,
    aten.repeat_interleave.Tensor,
    aten.lift_fresh.default,  # numbers that become a tensor are sent to the GPU
}
SETTINGS = [
    *(CaapSettings(context=context, cutoff=2) for context in CONTEXTS),
    *(CaapSettings(tail=tail, attention="cached") for tail in TAILS),
    CaapSettings(direction="remove", cutoff=2),
    CaapSettings(direction="remove", tail="interpolated", attention="cached"),
]


class ReadsNothingBack(TorchDispatchMode):
    """Raises where a number is read back."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        by_mask = func in (aten.index.Tensor, aten.index_put_.default) and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        assert func not in READING and not by_mask, f"{func} reads numbers back"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", by_trait())
def test_nothing_is_read_back_between_an_image_and_its_scores(family: str) -> None:
    model = build(family)
    images, run = random_images(model, 2), blank_run(model, "white")
    for settings in SETTINGS:
        if settings.context == "dropped" and not model.spec.live_prefix:
            continue
        plan = plan_of(model, settings)
        expected = logits_of_vit(model, images, [plan], run, 100, own=True)  # tables are made once, and kept
        with ReadsNothingBack():
            found = logits_of_vit(model, images, [plan], run, 100, own=True)
        assert torch.equal(found.by_range[plan.start, plan.cutoffs[0]], expected.by_range[plan.start, plan.cutoffs[0]])


def test_it_would_notice() -> None:
    x = torch.arange(3.0)
    for reads in (lambda: bool(x.sum()), lambda: x[x > 1], lambda: x.nonzero(), lambda: torch.tensor([1.0])):
        with ReadsNothingBack(), pytest.raises(AssertionError, match="reads numbers back"):
            reads()
