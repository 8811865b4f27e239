"""Fixtures that all tests share: every family in turn, and the real weights when they are at hand."""

import gc
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.shapes import check_package

gc.disable()  # until the tests are collected: what is imported is no garbage
check_package("caap_lab")  # before anything imports it

from caap_lab import HookedViT  # noqa: E402
from caap_lab.attribution.registry import _OWN, METHODS  # noqa: E402
from caap_lab.bench.own_code import _installed  # noqa: E402
from caap_lab.metrics.catalogue import METRICS  # noqa: E402
from caap_lab.models.neighbourhoods import NEIGHBOURHOODS  # noqa: E402
from helpers.models import by_trait  # noqa: E402

# One test process a core: more threads would only wait for each other, here and in the programs that tests start.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_finish() -> None:
    """Collect garbage again, but never look through all that was imported, a third of a second each time."""
    gc.enable()
    gc.freeze()


SHARED = Path(os.environ.get("CAAP_LAB_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""Real weights and photos, beside the checkout or where the environment variable says."""


REGISTRIES: list[dict[Any, Any]] = [METHODS, _OWN, METRICS, NEIGHBOURHOODS, _installed]


@pytest.fixture(autouse=True)
def nothing_stays_registered() -> Iterator[None]:
    """Forget what a test, or an example it runs, registers: others go through whole registries, in any order."""
    before = [dict(table) for table in REGISTRIES]
    yield
    for table, own in zip(REGISTRIES, before, strict=True):
        table.clear()
        table.update(own)


@pytest.fixture(params=by_trait())
def family(request: pytest.FixtureRequest) -> str:
    """Name of every family in turn; those that add no trait to the others are slow tests."""
    return request.param


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real weights and photos; tests that need it skip without it."""
    if not SHARED.exists():
        pytest.skip("real weights and photos (shared/data beside the repository) are not here")
    return SHARED


@pytest.fixture(scope="session")
def deit_tiny(shared: Path) -> HookedViT:
    """DeiT-tiny with real ImageNet weights."""
    from caap_lab import load_model

    folder = shared / "weights" / "deit_tiny_patch16_224.fb_in1k-ln8bit"
    about = json.loads((folder / "meta.json").read_text())
    return load_model(
        about["timm_model"], checkpoint=folder / "model.safetensors", mean=about["mean"], std=about["std"]
    )


@pytest.fixture(scope="session")
def photos(shared: Path) -> list[Path]:
    """Real photos of one object class each."""
    return sorted((shared / "images" / "imagenet-samples").glob("*.JPEG"))
