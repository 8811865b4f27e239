"""`caap-lab figures`, and the scripts run as programs."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from caap_lab import cli
from caap_lab.bench import figure_scripts
from caap_lab.bench.figure_data import FigureData, FigureResult
from caap_lab.commands.figures import run_script
from caap_lab.plots.style import new_axes

FOLDER = figure_scripts.figures_folder()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[FigureData]:
    """What figure 1 is drawn from; the figure itself shows nothing."""
    calls: list[FigureData] = []

    def draw(data: FigureData) -> FigureResult:
        calls.append(data)
        return FigureResult(new_axes(None).figure, pd.DataFrame({"score": [1.0]}))

    monkeypatch.setattr(figure_scripts.load_script("fig01"), "draw", draw)
    return calls


def test_a_figure_of_the_demo_profile(drawn: list[FigureData], tmp_path: Path, capsys) -> None:
    assert cli.main(["figures", "fig01", "--images", "2", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.split()
    assert printed == [str(tmp_path / f"fig01.{ending}") for ending in ("png", "pdf", "csv")]
    (data,) = drawn
    assert data.plan.profile == "demo" and data.folder == tmp_path / "results" and data.sweep_images == 8


def test_a_script_as_a_program(
    drawn: list[FigureData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--images", "3", "--out", str(tmp_path / "out"), "--results", str(tmp_path / "kept")]
    monkeypatch.setattr(sys, "argv", ["fig01.py", *options])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FOLDER / "fig01.py"), run_name="__main__")
    assert ended.value.code == 0 and "fig01.pdf" in capsys.readouterr().out
    assert drawn[0].folder == tmp_path / "kept" and len(drawn[0].study(1).data.names) == 3


OWN_SCRIPT = """
import pandas as pd
from caap_lab.bench.figure_data import FigureResult
from caap_lab.plots.style import new_axes

def draw(data):
    return FigureResult(new_axes(None).figure, pd.DataFrame({"studies": [len(data.plan.studies)]}))
"""


def test_a_script_of_ones_own(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(OWN_SCRIPT)
    assert run_script(script, ["--images", "2", "--tables", "1", "2", "--out", str(tmp_path)]) == 0
    assert pd.read_csv(tmp_path / "mine.csv")["studies"].to_list() == [2]


def test_tables_as_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    script = SimpleNamespace(write=lambda data, numbers, out: seen.append(numbers) or [])
    monkeypatch.setattr(figure_scripts, "load_script", lambda name, folder=None: script)
    monkeypatch.setattr(FigureData, "compute", lambda self, tables: None)
    assert run_script(FOLDER / "tables.py", ["--tables", "1", "14", "--images", "2", "--out", str(tmp_path)]) == 0
    assert seen == [[1, 14]]


def test_what_cannot_be_meant_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["figures", "fig99"]) == 2
    assert "There is no figure or table 'fig99'" in capsys.readouterr().err
    paper = ["--profile", "paper", "--data", "imagenet:nowhere", "--out", str(tmp_path)]
    assert cli.main(["figures", "fig01", *paper]) == 2
    assert "There is no folder nowhere" in capsys.readouterr().err
    assert run_script(FOLDER / "fig01.py", paper) == 2
    assert capsys.readouterr().err.startswith("fig01.py: There is no folder nowhere")
