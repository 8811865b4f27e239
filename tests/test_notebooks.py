"""The notebooks run from top to bottom, are committed without outputs, and draw what they say."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def _read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_form(path: Path) -> None:
    """Without outputs, so that diffs are readable; with a kernel, so that JupyterLab does not ask for one."""
    notebook = _read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert ids == [f"cell-{number:02d}" for number in range(len(ids))]
    for cell in _code(notebook):
        assert cell.outputs == [] and cell.execution_count is None, cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):  # nobody's settings or history
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    work = tmp_path / "work"
    work.mkdir()
    notebook = _read(path)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(work)}})
    client.execute()  # raises at the first cell with an error
    for cell in _code(notebook):
        printed = [output for output in cell.outputs if output.output_type == "stream" and output.name == "stderr"]
        assert printed == [], f"{cell.source}\n{printed}"
        if _shows_a_picture(cell.source):
            shown = [set(output.data) for output in cell.outputs if "data" in output]
            assert any("image/png" in kinds for kinds in shown), f"{cell.source}\n{shown}"


def _shows_a_picture(source: str) -> bool:
    """A cell that draws a figure, or that ends in a map."""
    return "plt.subplots" in source or source.splitlines()[-1] in ("m", "m.for_target(second)")
