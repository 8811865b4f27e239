"""What a comparison with another tool consists of, and how it is measured."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import timm
import torch
from torch import Tensor

import caap_lab as cl
from benchmarks.counting import peak_bytes, timed

MODELS: dict[str, dict[str, Any]] = {
    "ViT-tiny, 64 px": {"model_name": "vit_tiny_patch16_224", "img_size": 64},
    "ViT-tiny, 96 px": {"model_name": "vit_tiny_patch16_224", "img_size": 96},
    "ViT-tiny, 112 px": {"model_name": "vit_tiny_patch16_224", "img_size": 112},
    "ViT-tiny, 224 px": {"model_name": "vit_tiny_patch16_224"},
    "ViT-B/16, 224 px": {"model_name": "vit_base_patch16_224"},
    "small": {"model_name": "vit_tiny_patch16_224", "img_size": 48, "depth": 2, "embed_dim": 48},
}
"""What timm makes of a name, with random weights."""
TARGET = 3


@dataclass(frozen=True)
class Peer:
    """Another tool."""

    name: str
    module: str
    """Name under which Python imports it; "" for plain hooks of torch, which are always there."""
    package: str = ""
    """Name under which pip installs it."""

    @property
    def installed(self) -> bool:
        """True if it can be imported."""
        return not self.module or find_spec(self.module) is not None


PEERS = {
    peer.name: peer
    for peer in (
        Peer("Captum", "captum", "captum"),
        Peer("nnsight", "nnsight", "nnsight"),
        Peer("plain hooks", ""),
        Peer("pytorch-grad-cam", "pytorch_grad_cam", "grad-cam"),
        Peer("Quantus", "quantus", "quantus"),
        Peer("TorchLens", "torchlens", "torchlens"),
        Peer("TransformerLens", "transformer_lens", "transformer-lens transformers"),
    )
}


@dataclass(frozen=True)
class Calls:
    """The same job in both tools, ready to be called."""

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    compare: Callable[[Any, Any], float]
    """(our result, theirs) -> the number of the column "results"."""
    compared: str = "largest difference"
    """What that number is: "largest difference" or "rank correlation"."""
    after_theirs: Callable[[], Any] = lambda: None
    """What has to be undone after a call of theirs so that it does not slow down ours; not timed."""


@dataclass(frozen=True)
class Job:
    """A job that both tools can do, on one model."""

    name: str
    peer: Peer
    model: str
    prepare: Callable[[str], Calls]
    """Takes one of `MODELS`."""


@dataclass(frozen=True)
class Row:
    """A line of the table; numbers are missing if the peer is not installed."""

    job: str
    peer: str
    model: str
    ours: float | None = None
    """Seconds, median."""
    theirs: float | None = None
    ratio: float | None = None
    """Median over pairs of our time divided by theirs."""
    ours_bytes: int | None = None
    """Largest memory held at once, besides the model and the images."""
    theirs_bytes: int | None = None
    compared: str = ""
    result: float | None = None

    @property
    def memory_ratio(self) -> float | None:
        """Our peak memory divided by theirs."""
        return self.ours_bytes / self.theirs_bytes if self.ours_bytes and self.theirs_bytes else None


def build(model: str, num_classes: int = 10) -> Any:
    """A timm model with random weights, always the same."""
    torch.manual_seed(0)
    return timm.create_model(**MODELS[model], num_classes=num_classes, pretrained=False).eval()


def inputs(model: str, count: int = 1) -> tuple[Any, cl.HookedViT, Tensor]:
    """A timm model, the same model wrapped, and normally distributed images."""
    vit = build(model)
    wrapped = cl.HookedViT(vit)
    generator = torch.Generator(device="cpu").manual_seed(1)
    return vit, wrapped, torch.randn(count, 3, *wrapped.image_size, generator=generator, dtype=torch.float32)


def measure(job: Job, pairs: int) -> Row:
    """Time and compare both tools in pairs of calls that alternate; each starts every second pair."""
    calls = job.prepare(job.model)
    result = calls.compare(calls.ours(), calls.theirs())  # and both are warm
    calls.after_theirs()
    ours, theirs = [], []
    for pair in range(pairs):
        for mine in (True, False) if pair % 2 == 0 else (False, True):
            if mine:
                ours.append(timed(calls.ours))
            else:
                theirs.append(timed(calls.theirs))
                calls.after_theirs()
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    times = statistics.median(ours), statistics.median(theirs), ratio
    return Row(job.name, job.peer.name, job.model, *times, compared=calls.compared, result=result)


def memory(job: Job, mine: bool) -> int:
    """Bytes that one tool holds at its peak, in the second of two calls."""
    calls = job.prepare(job.model)
    call = calls.ours if mine else calls.theirs
    call()
    calls.after_theirs()
    return peak_bytes(call)


def largest_difference(ours: Any, theirs: Any) -> float:
    """Largest absolute difference of two arrays of one shape."""
    ours, theirs = (torch.as_tensor(x).double() for x in (ours, theirs))
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float((ours - theirs).abs().max())


def rank_correlation(ours: Any, theirs: Any) -> float:
    """Spearman's rank correlation of two arrays of one shape."""
    from scipy.stats import spearmanr

    ours, theirs = (torch.as_tensor(x).double().flatten().numpy() for x in (ours, theirs))
    return float(spearmanr(ours, theirs).statistic)
