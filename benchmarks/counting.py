"""Measurements besides time: operations, the machine's matrix rate, a GPU's work, memory, and where the time goes."""

import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from caap_lab.models.vit import HookedViT


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes, including its work on a GPU."""
    _settle()
    began = time.perf_counter()
    call()
    _settle()
    return time.perf_counter() - began


def _settle() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def operations(model: HookedViT, call: Callable[[], Any]) -> float:
    """Floating-point operations of a call's matrix products, counted by torch."""
    attentions = [cast(Any, model.block(layer)).attn for layer in range(model.spec.n_layers)]
    fused = [attention.fused_attn for attention in attentions]
    for attention in attentions:
        attention.fused_attn = False  # its parts are counted
    try:
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_FUSED) as counter:
            call()
    finally:
        for attention, was in zip(attentions, fused, strict=True):
            attention.fused_attn = was
    return counter.get_total_flops()


def _attention_operations(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Operations of fused attention, from the shapes of its arguments."""
    return sdpa_flop_count(query, key, value)


_FUSED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_operations}
"""What torch's counter does not know: fused attention on a CPU, which CAAP's engine calls."""


def matrix_rate(model: HookedViT, rows: int, repeats: int = 9) -> float:
    """Operations per second of one matrix product as in a model's MLP: rows x width times width x 4 width."""
    width = model.spec.d_model
    # One product takes a GPU less time than it takes to start it and wait for it.
    products = 1 if model.device.type == "cpu" else 100
    left, right = (
        torch.randn(*size, device=model.device).to(model.dtype) for size in ((rows, width), (width, 4 * width))
    )
    out = left @ right

    def call() -> None:
        for _ in range(products):
            torch.mm(left, right, out=out)

    seconds = statistics.median(timed(call) for _ in range(repeats)) / products
    return 2 * rows * width * 4 * width / seconds


def busy_seconds(call: Callable[[], Any]) -> float:
    """Seconds of a call in which a GPU works; in the rest it waits for the processor."""
    _settle()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiled:
        call()
        _settle()
    kernels = [event for event in profiled.key_averages() if event.device_type == DeviceType.CUDA]
    return sum(event.self_device_time_total for event in kernels) / 1e6


def peak_bytes(call: Callable[[], Any]) -> int:
    """Most bytes that a call holds at once on the CPU, beyond those held before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    assert profiled.profiler is not None and profiled.profiler.kineto_results is not None
    changes = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        held += change.nbytes()
        peak = max(peak, held)
    return peak


KINDS = {
    "products with weights": ("addmm", "mm", "mkldnn_convolution"),
    "products of attention": ("bmm", "baddbmm", "_scaled_dot_product_flash_attention_for_cpu"),
    "softmax": ("_softmax",),
    "moving rows": ("index_select", "index", "copy_", "cat", "gather", "scatter_", "repeat", "index_copy_", "fill_"),
    "activation, norms, sums": ("gelu", "native_layer_norm", "add", "add_", "mul", "sub", "div", "exp", "sum"),
    "checking whether weights changed": ("linalg_vector_norm",),
}
"""Kinds of work and their operations in torch; all others are "all else"."""


def shares(call: Callable[[], Any]) -> dict[str, float]:
    """Fraction of a call's processor time that each kind of work takes."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        call()
    times = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    total = sum(times.values())
    found = {kind: sum(times.get(f"aten::{name}", 0.0) for name in names) / total for kind, names in KINDS.items()}
    return found | {"all else": 1 - sum(found.values())}
