"""The machine on which a number was measured."""

import platform
from pathlib import Path

import timm
import torch

from caap_lab._version import __version__
from caap_lab.labels import counted


def describe(device: str = "cpu") -> str:
    """Processor, GPU (if it is the device), threads and versions, in one line."""
    processor = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    if about.exists():
        models = [
            line.split(":")[1].strip() for line in about.read_text().splitlines() if line.startswith("model name")
        ]
        processor = models[0] if models else processor
    if device != "cpu":
        processor = f"{torch.cuda.get_device_name(device)}, {processor}"
    return (
        f"{processor}, {counted(torch.get_num_threads(), 'thread')}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, timm {timm.__version__}, caap_lab {__version__}"
    )
