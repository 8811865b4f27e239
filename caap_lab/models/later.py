"""Read results of a GPU on the CPU while the GPU computes what comes next."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Later:
    """Marks the work queued on a GPU so far, and reads its results without waiting for work queued later.

    A GPU works asynchronously until the CPU reads a result: then the CPU waits for all queued work, and the GPU is idle
    until more is queued. So a result is read on a separate stream after the next piece of work was queued. Devices that
    compute synchronously are read at once.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @property
    def ahead(self) -> int:
        """Number of pieces of work to queue before the results of the first are read."""
        return 0 if self._stream is None else 1

    def mark(self) -> torch.cuda.Event | None:
        """An event after the work queued so far."""
        return None if self._stream is None else torch.cuda.current_stream(self.device).record_event()

    @contextmanager
    def reading(self, mark: torch.cuda.Event | None) -> Iterator[None]:
        """Context in which `.cpu()` waits only for work queued before the mark."""
        if self._stream is None or mark is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(mark)
            yield


def handed_over(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on a device, without waiting for the device's queued work."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
