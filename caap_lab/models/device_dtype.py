"""Number formats and devices: by name, and what does not depend on torch's global defaults."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

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
    if found.type not in ("cpu", "cuda", "mps"):
        try:
            torch.empty(0, device=found, dtype=torch.float32)
        except Exception as error:  # each kind of device that this PyTorch was built without has its own
            raise InputError(f"Device {str(found)!r} is not there ({error}). Use device='cpu'.") from error
    return found


def has_float64(device: torch.device) -> bool:
    """False for Apple's MPS, which computes in float32 at most."""
    return device.type != "mps"


def check_format(device: torch.device, dtype: torch.dtype) -> None:
    """Refuse float64 on a device that has none."""
    if dtype == torch.float64 and not has_float64(device):
        raise InputError(f"Device {str(device)!r} has no float64. Use dtype='float32', or device='cpu'.")


def exact(x: Tensor) -> Tensor:
    """A tensor in float64, on its own device or, where that has no float64, on the CPU."""
    return (x if has_float64(x.device) else x.cpu()).double()


def placed(x: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; in float32 there if it is float64 and the device has none."""
    return (x.float() if x.dtype == torch.float64 and not has_float64(device) else x).to(device)


@contextmanager
def plain_defaults() -> Iterator[None]:
    """Within it, other libraries make tensors in float32 on the CPU, whatever the user's defaults of torch are.

    For code of other libraries alone, which leaves formats and devices to the defaults; ours names both.
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)
