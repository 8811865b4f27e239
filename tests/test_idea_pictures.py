"""Pictures of the ideas: they say what the package does, and have a form for the dark scheme."""

import importlib.util
import tomllib
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from caap_lab.engine.settings import CONTEXTS
from experiments.ideas import IDEAS
from experiments.ideas_contexts import BLANK, BLOCK, LIVE, SOURCE, states
from experiments.ideas_ink import DARK, LIGHT
from experiments.ideas_tree import layers

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("context", "after", "others"),
    [("clamped", LIVE, BLANK), ("free", LIVE, LIVE), ("dropped", BLANK, BLANK), ("frozen", SOURCE, BLANK)],
)
def test_contexts_are_those_of_the_engine(context: str, after: int, others: int) -> None:
    found = states(context)
    assert (found[0] == LIVE).all() and (found[BLOCK, :4] == SOURCE).all() and (found[BLOCK, 4:] == after).all()
    outside = np.delete(found[1:], slice(BLOCK.start - 1, BLOCK.stop - 1), axis=0)
    assert (outside == others).all()


def test_every_context_is_drawn() -> None:
    titles = [ax.get_title() for ax in IDEAS["contexts"](LIGHT).axes]
    assert titles == list(CONTEXTS)


def test_tree_is_that_of_the_import_rule() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = project["tool"]["importlinter"]["contracts"]
    assert [" | ".join(names) for names in layers()] == contract["layers"]
    drawn = [text.get_text() for text in IDEAS["tree"](DARK).axes[0].texts]
    assert {name for names in layers() for name in names} <= set(drawn)


@pytest.mark.parametrize("name", IDEAS)
def test_pictures_are_there_on_white_and_on_dark(name: str) -> None:
    assert isinstance(IDEAS[name](DARK), Figure)
    for ending in (".png", "_dark.png", ".pdf"):
        path = ROOT / "docs" / "images" / "ideas" / f"{name}{ending}"
        assert 0 < path.stat().st_size < 60_000, path


def test_site_shows_the_form_of_its_scheme() -> None:
    spec = importlib.util.spec_from_file_location("site_pictures", ROOT / "docs" / "site_pictures.py")
    assert spec is not None and spec.loader is not None
    site = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(site)
    both = "![A tree](images/ideas/tree.png#only-light) ![A tree](images/ideas/tree_dark.png#only-dark)"
    assert site.with_dark_forms("![A tree](images/ideas/tree.png)", "") == both
    assert site.with_dark_forms("![A](../images/ideas/tree.png)", "guides").count("../images/ideas/tree") == 2
    for other in (
        "![A map](images/widgets/map.png)",
        "![None](images/ideas/none.png)",
        "[A link](images/ideas/tree.png)",
    ):
        assert site.with_dark_forms(other, "") == other
