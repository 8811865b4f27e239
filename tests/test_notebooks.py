"""The notebooks run from top to bottom, draw what they say, and say nothing that a run may contradict."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import SHARED
from nbclient import NotebookClient
from nbformat import NotebookNode
from sklearn.datasets import load_sample_image

import caap_lab as cl
from experiments.notebook_outputs import STORED, WIDGET, sources_digest
from helpers.warm_kernels import warm_kernels

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
LONG = ("04_caap_in_depth", "05_methods_and_metrics", "10_trace_paths_interactions")
"""They run in slow tests; test_notebook_calls.py looks at the calls in them."""
DRAWS = ("plt.subplots(", "cl.gallery(", "show(")
WEIGHTS = SHARED / "weights" / "vit_tiny_patch16_224.augreg_in21k_ft_in1k" / "model.safetensors"
DEFINITIONS = ("CC BY 2.0",)
"""Decimals that are no measurements."""
SHOWN = (
    "m",
    "other",
    "m - other",
    "explorer",
    "sweep",
    "attention",
    "view",
    "parts",
    "heads",
    "correlation",
    "patching",
    "tracing",
)


def _read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_form(path: Path) -> None:
    """Few with outputs, so that diffs are readable; with a kernel, so that JupyterLab does not ask for one."""
    notebook = _read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3" and notebook.metadata.kernelspec.display_name
    ids = [cell.id for cell in notebook.cells]
    assert ids == [f"cell-{number:02d}" for number in range(len(ids))]
    if path.stem not in STORED:
        for cell in _code(notebook):
            assert cell.outputs == [] and cell.execution_count is None, cell.source


@pytest.mark.parametrize("name", STORED)
def test_stored_outputs_belong_to_the_cells(name: str) -> None:
    """Remade by `make notebooks` after a change; small, and of no particular computer."""
    path = next(path for path in NOTEBOOKS if path.stem == name)
    notebook = _read(path)
    assert notebook.metadata.caap_lab.outputs_of == sources_digest(notebook), "make notebooks"
    assert path.stat().st_size < 300_000
    for output in (output for cell in _code(notebook) for output in cell.outputs):
        assert output.output_type != "error" and WIDGET not in output.get("data", {})
        words = output.get("text", "") + "".join(
            text for kind, text in output.get("data", {}).items() if kind.startswith("text/")
        )
        assert not re.search(r"/(root|home|tmp|work|Users)/|it/s|s/it|0x[0-9a-f]{6}", words), words


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_texts_hold_for_any_run(path: Path) -> None:
    """Measured numbers are printed by the cell that measures them; in a text they would outlive their run."""
    for cell in _read(path).cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"`[^`]*`|\]\([^)]*\)", "", cell.source)
            for definition in DEFINITIONS:
                text = text.replace(definition, "")
            assert not re.search(r"\d[.,]\d|\d ?%|±", text), cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_link_to_each_other_in_order(path: Path) -> None:
    texts = [cell.source for cell in _read(path).cells if cell.cell_type == "markdown"]
    place = NOTEBOOKS.index(path)
    if place > 0:
        name = NOTEBOOKS[place - 1].stem
        assert f"Before: [{name}]({name}.ipynb)" in texts[0]
    if place + 1 < len(NOTEBOOKS):
        name = NOTEBOOKS[place + 1].stem
        assert f"Next: [{name}]({name}.ipynb)" in texts[-1]


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if "CAAP_LAB_WEIGHTS" in path.read_text()])
def test_photographs_are_skipped_in_words_without_weights(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CAAP_LAB_WEIGHTS", raising=False)
    source = next(cell.source for cell in _code(_read(path)) if "CAAP_LAB_WEIGHTS" in cell.source)
    names = {"os": os, "np": np, "cl": cl, "load_sample_image": load_sample_image}
    exec(source, {**names, "try_to_load_from_cache": lambda *_: None})
    assert capsys.readouterr().out.startswith("Skipped")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    """Pages of the documentation by relative links, other notebooks by name; each ends with where to go next."""
    texts = [cell.source for cell in _read(path).cells if cell.cell_type == "markdown"]
    assert texts[0].startswith("# ") and "next" in texts[-1].lower()
    for text in texts:
        for link in re.findall(r"\]\(([^)#]+)", text):
            assert link.startswith("http") or (path.parent / link).is_file(), link
        for name in re.findall(r"`(\d\d_\w+)`", text):
            assert (path.parent / f"{name}.ipynb").is_file(), name


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Name of the kernel that runs the notebooks."""
    if sys.platform == "win32":  # no fork
        yield "python3"
        return
    with warm_kernels(tmp_path_factory.mktemp("jupyter")) as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder), prepend=os.pathsep)
        yield "warm"


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in LONG)) for path in NOTEBOOKS]
)
def test_runs_from_top_to_bottom(path: Path, kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):  # nobody's settings or history
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    if WEIGHTS.is_file():
        monkeypatch.setenv("CAAP_LAB_WEIGHTS", str(WEIGHTS))
    else:
        monkeypatch.delenv("CAAP_LAB_WEIGHTS", raising=False)
    notebook = _read(path)
    client = NotebookClient(
        notebook, timeout=300, startup_timeout=300, kernel_name=kernel, resources={"metadata": {"path": str(work)}}
    )
    client.execute()  # raises at the first cell with an error
    assert {left.name for left in work.iterdir()} <= {"runs"}
    for cell in _code(notebook):
        printed = [output for output in cell.outputs if output.output_type == "stream" and output.name == "stderr"]
        assert printed == [], f"{cell.source}\n{printed}"
        if _shows_a_picture(cell.source) and not _says_that_weights_are_missing(cell):
            shown = [set(output.data) for output in cell.outputs if "data" in output]
            assert any("image/png" in kinds for kinds in shown), f"{cell.source}\n{shown}"


def _says_that_weights_are_missing(cell: NotebookNode) -> bool:
    """A cell on photographs, which says what it needs where that is not at hand."""
    texts = [output.text for output in cell.outputs if output.output_type == "stream"]
    return not WEIGHTS.is_file() and any(text.startswith("Skipped, as its weights are not") for text in texts)


def _shows_a_picture(source: str) -> bool:
    """A cell that draws a figure, or that ends in one or in a map."""
    last = source.splitlines()[-1]
    return any(call in source for call in DRAWS) or last in SHOWN or last.endswith(".figure")
