"""What all widgets share: closing one leaves nothing behind."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from ipywidgets.widgets.widget import _instances

import caap_lab as cl
from caap_lab.errors import InputError
from caap_lab.widgets.background import Worker
from caap_lab.widgets.explore_view import explore
from caap_lab.widgets.layer_sweep_view import layer_sweep


@pytest.mark.parametrize("name", ["explore", "layer_sweep", "attention", "benchmark"])
def test_close_leaves_nothing_behind(
    name: str, model: cl.HookedViT, scenes: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ipywidgets keeps every row, layout and style until it is closed itself."""
    monkeypatch.setattr(Worker, "replace_jobs", lambda self, jobs: None)
    given: dict[str, Any] = {
        "explore": (model, scenes),
        "layer_sweep": (model, scenes[0]),
        "attention": (model, scenes[0]),
    }
    before = set(_instances)
    for _ in range(3):  # one after the other, and none takes what the next needs
        made = getattr(cl.widgets, name)(*given.get(name, (tmp_path / "none",)))
        assert len(_instances) > len(before) + 20
        if name == "explore":
            made.method_list.value = ("rollout", "caap")
            made.method_list.value = ("rollout",)
        made.close()
        assert set(_instances) == before
        made.close()  # once more does nothing


def test_closing_one_leaves_the_other(model: cl.HookedViT, scenes: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "replace_jobs", lambda self, jobs: None)
    for make in (cl.widgets.explore, cl.widgets.layer_sweep, cl.widgets.attention):
        before = set(_instances)
        one = make(model, scenes[0])
        first = set(_instances) - before
        other = make(model, scenes[0])
        other.close()
        assert set(_instances) - before == first
        one.close()


def test_what_is_refused_leaves_nothing_open(model: cl.HookedViT, scenes: list[Any]) -> None:
    before = set(_instances)
    for make in (explore, layer_sweep):
        with pytest.raises(InputError, match="There is no class"):
            make(model, scenes[:1], target="zebra")
    assert set(_instances) == before


def test_nothing_happens_after_closing(model: cl.HookedViT, scenes: list[Any]) -> None:
    called: list[str] = []

    async def close_before() -> None:
        made = layer_sweep(model, scenes[0].image)
        made._later(0.01, lambda: called.append("too late"))
        made.close()
        await asyncio.sleep(0.05)

    asyncio.run(close_before())
    assert not called
