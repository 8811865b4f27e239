"""Results of a GPU, read on the CPU while the GPU is at what comes next."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Later:
    """Marks what a GPU has been told to do so far, and reads its results without waiting for what it was told since.

    A GPU works while the processor goes on, until the processor reads a result: then it waits for all that was asked
    of the GPU before, and the GPU has nothing to do until more is asked. So a result is read after the next work was
    handed over, from a stream of its own. Devices that compute at once are read at once.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @property
    def ahead(self) -> int:
        """Pieces of work to hand over before the first one's results are read."""
        return 0 if self._stream is None else 1

    def mark(self) -> torch.cuda.Event | None:
        """What was handed over so far."""
        return None if self._stream is None else torch.cuda.current_stream(self.device).record_event()

    @contextmanager
    def reading(self, mark: torch.cuda.Event | None) -> Iterator[None]:
        """Within it, `.cpu()` waits for what was handed over before the mark, and nothing else."""
        if self._stream is None or mark is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(mark)
            yield


def handed_over(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU's tensor on a device, without waiting for what the device is at."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
