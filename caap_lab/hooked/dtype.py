"""Number formats by name."""

import torch

from caap_lab.errors import InputError

KNOWN = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """A floating-point format from itself or its name, such as "float16"."""
    for known in KNOWN:
        if str(dtype).removeprefix("torch.") == str(known).removeprefix("torch."):
            return known
    names = ", ".join(str(known).removeprefix("torch.") for known in KNOWN)
    raise InputError(f"dtype={dtype!r} is none of {names}.")
