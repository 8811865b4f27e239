"""On a CPU no tensor of a ViT's linear layers is larger than `LARGEST`, and results are those of larger batches."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import caap_lab as cl
from caap_lab.models import at_once
from caap_lab.models.at_once import at_most, images_at_once, widest_layer
from helpers.models import build, random_images


class Widest(TorchDispatchMode):
    """Bytes of the largest result of a linear layer."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.addmm.default, torch.ops.aten.mm.default):
            self.bytes = max(self.bytes, result.numel() * result.element_size())
        return result


def maps(**options: Any) -> Callable[[Any, Tensor], Tensor]:
    """Scores of CAAP's maps."""
    return lambda model, images: torch.stack([m.scores for m in cl.caap(model, images, progress=False, **options)])


def curves(model: Any, images: Tensor) -> Tensor:
    """Insertion and deletion curves of a map."""
    m: Any = cl.attribute(model, images[0], "rollout", 0, progress=False)
    found: Any = cl.insertion_deletion(model, images[0], m, protocol="xplique", progress=False)
    return torch.stack([torch.from_numpy(found.insertion_curve), torch.from_numpy(found.deletion_curve)])


JOBS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "maps": maps(),
    "maps in the free context": maps(context="free"),
    "removal": maps(direction="remove"),
    "masks": lambda model, images: cl.attribute(model, images[0], "rise", samples=32, progress=False).scores,
    "Shapley values": lambda model, images: (
        cl.attribute(model, images[0], "shapley", samples=32, progress=False).scores
    ),
    "curves": curves,
}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("family", ["vit", "dinov2_swiglu"])
def test_tensors_stay_small(job: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(family, torch.float64)
    images = random_images(model, 12)
    limit = 2 * model.spec.n_tokens * widest_layer(model.spec) * images.itemsize
    monkeypatch.setattr(at_once, "LARGEST", 2**40)
    with Widest() as whole:
        expected = JOBS[job](model, images)
    monkeypatch.setattr(at_once, "LARGEST", limit)
    with Widest() as parts:
        found = JOBS[job](model, images)
    assert parts.bytes <= limit < whole.bytes
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_a_gpu_runs_what_it_is_told() -> None:
    assert at_most(64, 2**40, torch.device("cuda")) == 64


def test_one_image_always_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    monkeypatch.setattr(at_once, "LARGEST", 1)
    assert images_at_once(model, 64) == 1
    monkeypatch.setattr(at_once, "LARGEST", 3 * model.spec.n_tokens * widest_layer(model.spec) * 4)
    assert [images_at_once(model, size) for size in (2, 3, 4)] == [2, 3, 3]


NEW_PAGES = """
import resource, torch
import caap_lab.models.at_once

def step():
    return [torch.ones(2**20) for _ in range(10)]  # 4 MiB each

for _ in range(8):  # aligned blocks find their places
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator than glibc's")
def test_freed_tensors_are_used_again() -> None:
    # Who sets glibc's thresholds, as Dask does for its workers, has switched off that they adapt.
    usual = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    found = subprocess.run([sys.executable, "-c", NEW_PAGES], capture_output=True, text=True, check=True, env=usual)
    assert int(found.stdout) < 4 * 10 * 2**22 / 4096 / 10  # a tenth of the tensors' pages
