"""Calls in the notebooks fit the package: every name exists, and every option is one of the function's."""

from pathlib import Path

import nbformat
import pytest

from tests.helpers.calls import check_calls

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def code_of(path: Path) -> str:
    """All code cells, without the lines that are IPython's alone."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    lines = "\n".join(cells).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


def test_calls_fit_the_package() -> None:
    assert sum(check_calls(code_of(path)) for path in NOTEBOOKS) > 100


def test_what_does_not_fit_is_found() -> None:
    with pytest.raises(AttributeError, match="capp"):
        check_calls("m = cl.capp(model, image)")
    with pytest.raises(TypeError, match="unexpected keyword argument 'cutof'"):
        check_calls("cl.caap(model, image, cutof=3)")
    with pytest.raises(AttributeError, match="explor"):
        check_calls("cl.widgets.explor(model)")
