"""Number formats and devices by name."""

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


def as_device(device: str | torch.device) -> torch.device:
    """A device that is there, from itself or its name."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"{device!r} is no device; use 'cpu' or 'cuda'.") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"Device {str(found)!r} is not there: PyTorch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices. Use device='cpu'."
        )
    if found.type == "meta" or (found.type == "mps" and not torch.backends.mps.is_available()):
        raise InputError(f"Device {str(found)!r} is not there. Use device='cpu'.")
    return found
