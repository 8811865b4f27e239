"""The number format in which a GPU multiplies float32, float32 itself or TF32, set only for the model that runs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from caap_lab.errors import InputError

TF32 = "tf32"
"""Name of the format: weights and activations in float32, multiplied with 10 mantissa bits."""
_MARK = "products_in_tf32"
"""Attribute that marks a timm model as running in TF32. It is copied with the model and part of its fingerprint."""

_turn = threading.Condition()
_runs: dict[int, list[bool]] = {}
"""Runs in progress by thread, outer ones first: True for those in TF32."""
_before: dict[str, str] = {}
"""Torch's setting for convolutions before the first run, and for matrix products before the first one in TF32."""


def check_tf32(device: torch.device) -> None:
    """Raise InputError for TF32 on a device without it, where it would be float32 under another name.

    Raises:
        InputError: the device has no TF32; the message says which devices have it.
    """
    if device.type != "cuda" or torch.version.hip is not None or torch.cuda.get_device_capability(device) < (8, 0):
        raise InputError(
            f"TF32 needs an NVIDIA GPU from Ampere on (A100, RTX 30, H100), and {str(device)!r} is not one. Use "
            "float32 there, or bfloat16, which is nearly as fast on GPUs that support it."
        )


def mark_tf32(body: nn.Module) -> None:
    """Make a timm model run in TF32; see `products`."""
    setattr(body, _MARK, True)


def in_tf32(body: nn.Module) -> bool:
    """True for a timm model that runs in TF32.

    Raises:
        InputError: it was moved to a device without TF32.
    """
    marked = bool(getattr(body, _MARK, False))
    if marked:
        check_tf32(next(body.parameters()).device)
    return marked


@contextmanager
def products(tf32: bool = False) -> Iterator[None]:
    """Context that multiplies in TF32 or float32 while a model runs, forward and backward, then restores the settings.

    Torch has one setting per process. So while a model runs in TF32, threads with models in other formats wait, and
    vice versa. For those other models, cuDNN convolutions run in float32: by default torch lets them round to TF32,
    which changes pixel gradients by about a percent. Their matrix products follow the user's setting, which is off by
    default.

    Args:
        tf32: True for a model that runs in TF32.
    """
    mine = threading.get_ident()
    with _turn:
        _turn.wait_for(lambda: all(runs[-1] == tf32 for thread, runs in _runs.items() if thread != mine))
        _runs.setdefault(mine, []).append(tf32)
        _set(tf32)
    try:
        yield
    finally:
        with _turn:
            runs = _runs[mine]
            runs.pop()
            if not runs:
                del _runs[mine]
            if runs:
                _set(runs[-1])
            elif not _runs:
                _set(False)
                torch.backends.cudnn.conv.fp32_precision = _before.pop("convolutions")  # type: ignore[attr-defined]
            _turn.notify_all()


def _set(short: bool) -> None:
    matmul, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    _before.setdefault("convolutions", convolutions.fp32_precision)
    convolutions.fp32_precision = TF32 if short else "ieee"
    if short and "matmul" not in _before:
        _before["matmul"], matmul.fp32_precision = matmul.fp32_precision, TF32
    elif not short and "matmul" in _before:
        matmul.fp32_precision = _before.pop("matmul")
