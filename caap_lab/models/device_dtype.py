"""Number formats and devices by name, independent of torch's global defaults."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from caap_lab.errors import InputError

KNOWN = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """A floating-point format, given as itself or by name, such as "float16"."""
    for known in KNOWN:
        if str(dtype).removeprefix("torch.") == str(known).removeprefix("torch."):
            return known
    names = ", ".join(str(known).removeprefix("torch.") for known in KNOWN)
    raise InputError(f"dtype={dtype!r} is not one of {names}.")


def as_device(device: str | torch.device) -> torch.device:
    """An available device, given as itself or by name."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"{device!r} is not a device; use 'cpu' or 'cuda'.") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"Device {str(found)!r} is not available: PyTorch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices. Use device='cpu'."
        )
    if found.type == "meta" or (found.type == "mps" and not torch.backends.mps.is_available()):
        raise InputError(f"Device {str(found)!r} is not available. Use device='cpu'.")
    if found.type not in ("cpu", "cuda", "mps"):
        try:
            torch.empty(0, device=found, dtype=torch.float32)
        except Exception as error:  # PyTorch raises a different error for each kind of device that it was built without
            raise InputError(f"Device {str(found)!r} is not available ({error}). Use device='cpu'.") from error
    return found


def has_float64(device: torch.device) -> bool:
    """False for Apple's MPS, whose most precise format is float32."""
    return device.type != "mps"


def check_format(device: torch.device, dtype: torch.dtype) -> None:
    """Raise InputError for float64 on a device without it."""
    if dtype == torch.float64 and not has_float64(device):
        raise InputError(f"Device {str(device)!r} has no float64. Use dtype='float32', or device='cpu'.")


def exact(x: Tensor) -> Tensor:
    """A tensor in float64, on its own device or, if that has no float64, on the CPU."""
    return (x if has_float64(x.device) else x.cpu()).double()


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The format of results of a model in this one: float32 for half precision, others as they are."""
    return torch.promote_types(dtype, torch.float32)


def widened(x: Tensor) -> Tensor:
    """Half-precision values as float32, others unchanged."""
    return x.to(at_least_float32(x.dtype))


def all_finite(x: Shaped[Tensor, "*shape"]) -> Bool[Tensor, ""]:
    """Whether a tensor holds neither NaN nor infinity, on its own device.

    From its lowest and highest values, which are NaN if one of its values is: on CPUs this takes a tenth of the time of
    `isfinite`, which writes several tensors of this size.
    """
    if not x.is_floating_point() or not x.numel():
        return x.isfinite().all()
    values = x.float() if x.itemsize == 1 else x  # torch does not compare numbers of eight bits
    return torch.stack(values.aminmax()).isfinite().all()


def placed(x: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; converted to float32 if it is float64 and the device has no float64."""
    return (x.float() if x.dtype == torch.float64 and not has_float64(device) else x).to(device)


@contextmanager
def plain_defaults() -> Iterator[None]:
    """Context in which other libraries create float32 tensors on the CPU, whatever torch's defaults are set to.

    Only for code of other libraries, which relies on the defaults; this package states format and device itself.
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)
