"""The model and the images that the widgets show in these tests."""

from typing import Any

import pytest

import caap_lab as cl


@pytest.fixture(scope="module")
def model() -> cl.HookedViT:
    """The bundled model with random weights."""
    return cl.load_model("demo")


@pytest.fixture(scope="module")
def scenes() -> list[Any]:
    """Scenes of two objects."""
    return cl.demo_images("two", 3, seed=1)
