"""`caap-lab figures`, and the scripts run as programs."""

import runpy
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from caap_lab import cli
from caap_lab.bench.figures import scripts as figure_scripts
from caap_lab.bench.figures.data import FigureData, FigureResult
from caap_lab.bench.paper.profiles import demo_plan
from caap_lab.commands.figures import run_script
from caap_lab.errors import InputError
from caap_lab.metrics.protocol import curve_protocol
from caap_lab.plots.style import new_axes
from helpers.paper_models import vit_folder
from helpers.published_layouts import class_folders

FOLDER = figure_scripts.figures_folder()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[FigureData]:
    """What figure 1 is drawn from; the figure itself shows nothing, and is not written."""
    calls: list[FigureData] = []

    def draw(data: FigureData) -> FigureResult:
        calls.append(data)
        return FigureResult(new_axes(None).figure, pd.DataFrame({"score": [1.0]}))

    monkeypatch.setattr(figure_scripts.load_script("fig01"), "draw", draw)
    monkeypatch.setattr(
        figure_scripts, "save_figure", lambda figure, path: [path.with_suffix(".png"), path.with_suffix(".pdf")]
    )
    return calls


def test_a_figure_of_the_demo_profile(drawn: list[FigureData], tmp_path: Path, capsys) -> None:
    assert cli.main(["figures", "fig01", "--images", "2", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.split()
    assert printed == [str(tmp_path / f"fig01.{ending}") for ending in ("png", "pdf", "csv", "txt")]
    (data,) = drawn
    assert data.plan.profile == "demo" and data.folder == tmp_path / "results" and data.sweep_images == 8
    assert [[model.label for model in study.models] for study in data.plan.studies] == [["demo"]]
    about = (tmp_path / "fig01.txt").read_text(encoding="utf-8")
    assert about.startswith("fig01: Figure 1: CAAP in one picture") and "\n  Methods: CAAP = caap\n" in about
    assert "\n  Models: demo\n" in about and "Curves" not in about and f"Results: {tmp_path / 'results'}" in about


def test_photos_target_and_images_of_sweeps(drawn: list[FigureData], tmp_path: Path, capsys) -> None:
    options = ["--photos", "single-000206", "--target", "label", "--sweep-images", "3", "--out", str(tmp_path)]
    assert cli.main(["figures", "fig01", *options]) == 0
    (data,) = drawn
    assert data.photos(data.study(1), 1) == ["single-000206"] and data.target("prediction") == "label"
    assert data.sweep_images == 3
    about = (tmp_path / "fig01.txt").read_text(encoding="utf-8")
    assert "Images: single-000206\n  Explained: the image's label\n" in about
    assert cli.main(["figures", "fig01", "--photos", "single-0206", "--out", str(tmp_path)]) == 2
    assert "there is no single-0206 in demo:single. Nearest: " in capsys.readouterr().err
    assert cli.main(["figures", "fig12", "--photos", "single-000206", "--out", str(tmp_path)]) == 2
    assert "fig12 shows photo 2; photos available: 1." in capsys.readouterr().err
    assert cli.main(["figures", "fig01", "--sweep-images", "0", "--out", str(tmp_path)]) == 2
    assert "sweep_images" in capsys.readouterr().err
    assert cli.main(["figures", "fig04", "--sweep-images", "3", "--images", "2", "--out", str(tmp_path)]) == 2
    assert "--sweep-images 3 is too large: sweeps use the tables' images, 2 here" in capsys.readouterr().err


def test_the_run_in_the_folder_decides_what_the_options_leave_open(
    drawn: list[FigureData], tmp_path: Path, capsys
) -> None:
    replace(demo_plan(3, [1]), protocol=curve_protocol("rise-28")).save(tmp_path / "plan.json")
    common = ["--results", str(tmp_path), "--out", str(tmp_path / "out")]
    assert cli.main(["figures", "fig01", *common]) == 0
    assert len(drawn[0].study(1).data.names) == 3 and drawn[0].plan.protocol.name == "rise-28"
    assert cli.main(["figures", "fig01", "--images", "2", *common]) == 0
    assert len(drawn[1].study(1).data.names) == 2 and drawn[1].plan.protocol.name == "rise"
    replace(demo_plan(3, [1]), profile="paper").save(tmp_path / "plan.json")
    assert cli.main(["figures", "fig06", *common]) == 2
    assert "fig06 reads table 2, which the run does not have" in capsys.readouterr().err
    replace(demo_plan(3, [1]), profile="").save(tmp_path / "plan.json")
    assert cli.main(["figures", "fig01", *common]) == 2
    assert "contains your own run" in capsys.readouterr().err


def test_a_figure_of_the_paper_profile_needs_nothing_else(drawn: list[FigureData], tmp_path: Path, capsys) -> None:
    source = class_folders(tmp_path / "imagenet")
    model = f"ViT-L/16={vit_folder(tmp_path / 'vit')}"
    options = ["--profile", "paper", "--data", source, "--images", "2", "--models", model, "--out", str(tmp_path)]
    assert cli.main(["figures", "fig01", *options]) == 0
    assert [model.label for model in drawn[0].study(1).models] == ["ViT-L/16"] and drawn[0].sweep_images is None
    assert cli.main(["figures", "fig02", *options]) == 2
    assert "DINOv2-L/14" in capsys.readouterr().err


def test_a_script_as_a_program(
    drawn: list[FigureData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--profile",
        "demo",
        "--images",
        "3",
        "--out",
        str(tmp_path / "out"),
        "--results",
        str(tmp_path / "kept"),
    ]
    monkeypatch.setattr(sys, "argv", ["fig01.py", *options])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FOLDER / "fig01.py"), run_name="__main__")
    assert ended.value.code == 0 and "fig01.pdf" in capsys.readouterr().out
    assert drawn[0].folder == tmp_path / "kept" and len(drawn[0].study(1).data.names) == 3


OWN_SCRIPT = """
import pandas as pd
from caap_lab.bench.figures.data import FigureResult
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
    assert cli.main(["figures", "Fig7"]) == 2
    assert "There is no figure or table 'Fig7'. Nearest: fig07" in capsys.readouterr().err
    assert cli.main(["figures", "tab01", "--results", str(tmp_path / "misspelt"), "--out", str(tmp_path)]) == 2
    assert "There is no run in" in capsys.readouterr().err and not (tmp_path / "misspelt").exists()
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        kept = ["--images", "1", "--results", str(tmp_path / "kept"), "--profile", "demo"]
        assert cli.main(["figures", "tab01", "--out", str(out), *kept]) == 2
        assert "file is a file; expected a folder" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()
    paper = ["--profile", "paper", "--data", "imagenet:nowhere", "--out", str(tmp_path)]
    assert cli.main(["figures", "fig01", *paper]) == 2
    assert "There is no folder nowhere" in capsys.readouterr().err
    assert run_script(FOLDER / "fig01.py", paper) == 2
    error = capsys.readouterr().err
    assert error.startswith("fig01.py: ") and "There is no folder nowhere" in error


def test_one_figure_that_fails_does_not_stop_the_others(
    drawn: list[FigureData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def fail(data: FigureData, sheets: object) -> FigureResult:
        raise InputError("No label.")

    monkeypatch.setattr(figure_scripts.load_script("gallery"), "draw", fail)
    assert cli.main(["figures", "fig12", "fig01", "--images", "2", "--out", str(tmp_path)]) == 2
    assert f"gallery: No label.\nAll others are in {tmp_path}." in capsys.readouterr().err
    assert (tmp_path / "fig01.csv").exists()
