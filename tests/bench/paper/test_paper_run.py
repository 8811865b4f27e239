"""The paper, reproduced by a stranger: from the settings to the last figure, on made-up copies of its data sets."""

import re
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from caap_lab import cli
from caap_lab.bench import benchmark, cells
from caap_lab.bench.paper.published import tables
from caap_lab.bench.plan import BenchmarkPlan
from helpers.published_layouts import BREEDS, IMAGENET, imagenet_s_zipped, write_photo
from helpers.stranger import PET, Stranger, stranger

FIGURES = tuple(f"fig{number:02d}" for number in range(1, 13))
"""With two photos, there are the first two of the gallery's sheets."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    return stranger(tmp_path_factory.mktemp("stranger"))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of trials as they are computed."""
    keys: list[str] = []
    before_each(lambda trial: keys.append(trial.key), monkeypatch)
    return keys


def before_each(call: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call with each trial before it is measured, alone or together with others."""
    for module, name in ((benchmark, "compute"), (cells, "evaluate")):
        original = getattr(module, name)

        def called(trial: Any, *rest: Any, original: Any = original, **options: Any) -> Any:
            call(trial)
            return original(trial, *rest, **options)

        monkeypatch.setattr(module, name, called)


def train_pet(world: Stranger, out: Path) -> str:
    """The classifier that nobody publishes, from two photos of each breed beside the test split's."""
    folder = Path(world.data["Oxford-IIIT-Pet"].partition(":")[2])
    trimap, lines = (folder / "annotations" / "trimaps" / "Bengal_5.png").read_bytes(), []
    for index, name in BREEDS.items():
        for number in (201, 202):
            stem = f"{name}_{number}"
            write_photo(folder / "images" / f"{stem}.jpg", 1 + index % 4)
            (folder / "annotations" / "trimaps" / f"{stem}.png").write_bytes(trimap)
            lines.append(f"{stem} {index} 1 1\n")
    (folder / "annotations" / "trainval.txt").write_text("".join(lines))
    backbone, data = world.models["ViT-B/16"], world.data["Oxford-IIIT-Pet"]
    assert cli.main(["train", backbone, "--data", data, "--out", str(out)]) == 0
    return str(out)


def typed(command: str) -> int:
    """The exit status of a command."""
    name, *words = shlex.split(command)
    assert name == "caap-lab"
    return cli.main(words)


def stop_at(count: int, keys: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a trial of this number is computed."""
    stopped = []

    def interrupt(trial: Any) -> None:
        if len(keys) == count - 1 and not stopped:
            stopped.append(trial)
            signal.raise_signal(signal.SIGINT)

    before_each(interrupt, monkeypatch)


def run_all(
    world: Stranger, folder: Path, options: list[str], computed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """`doctor`, `bench`, stopped once, and `tables`, in one folder."""
    toml, run = folder / "paper.toml", folder / "run"
    given = [*world.given(models={PET: train_pet(world, folder / "pet")}), *options]
    assert cli.main(["doctor", "--no-timing", *given, "--write", str(toml), "--out", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "missing" not in printed and "left out:" not in printed and "\nEverything is available; run:\n" in printed
    command = printed.splitlines()[-1]
    assert shlex.split(command) == ["caap-lab", "bench", "--profile", str(toml), "--out", str(run)]

    with pytest.MonkeyPatch.context() as patch:
        stop_at(3, computed, patch)
        assert typed(command) == 130
    kept = re.search(r"Stopped\. (\d+) of (\d+) trials", capsys.readouterr().err)
    assert kept and 3 <= int(kept[1]) < int(kept[2])  # those that share a batch are finished
    assert typed(command) == 0 and typed(command) == 0
    trials = {trial.key for trial in BenchmarkPlan.load(run / "plan.json").trials}
    assert len(computed) == len(trials) and set(computed) == trials  # each of them once, though it was stopped
    assert f"{len(trials)} of {len(trials)} trials are computed." in capsys.readouterr().out

    assert typed(f"caap-lab tables {run}") == 0
    for number in tables():
        frame = pd.read_csv(run / "tables" / f"table_{number:02d}.csv")
        assert frame["mean"].notna().all()


def drawn(names: str, folder: Path, computed: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Names of the files that `figures` writes from the run, for which it computes no trial."""
    before = len(computed)
    capsys.readouterr()
    command = f"caap-lab figures {names} --profile {folder}/paper.toml --results {folder}/run --out {folder}/figures"
    assert typed(command) == 0
    assert len(computed) == before
    files = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert all(path.stat().st_size for path in files)
    return [path.name for path in files]


def test_from_the_settings_to_the_figures(
    world: Stranger, tmp_path: Path, computed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--methods", "CAAP", "Rollout", "--protocol", "patches"]
    run_all(world, tmp_path, options, computed, capsys)
    files = drawn("fig03 fig10 tab03", tmp_path, computed, capsys)
    figures = [f"{name}.{ending}" for name in ("fig03", "fig10") for ending in ("png", "pdf", "csv", "txt")]
    assert files == [*figures, "table_03.md", "table_03.tex", "table_03.csv"]


def test_photos_in_another_layout_are_the_same_trials(
    world: Stranger, tmp_path: Path, computed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--tables", "1", "2", "--without", "CLIP-L/14", "DINOv2-L/14", "DeiT3-L/16", "--methods", "Rollout"]
    for name, layout in IMAGENET.items():
        imagenet = layout(tmp_path / name)
        masks = imagenet_s_zipped(tmp_path / f"{name}, masks", imagenet)
        given = [*world.given(data={"ImageNet-1K": imagenet, "ImageNet-S": masks}), *few, "--protocol", "patches"]
        assert cli.main(["bench", "--profile", "paper", *given, "--out", str(tmp_path / "run")]) == 0
        assert "4 of 4 trials are computed" in capsys.readouterr().out
        assert len(computed) == 4, name  # in the first layout


@pytest.mark.slow
def test_the_whole_paper(
    world: Stranger, tmp_path: Path, computed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run_all(world, tmp_path, [], computed, capsys)
    files = drawn("all", tmp_path, computed, capsys)
    assert {name for name in files if name.endswith(".pdf")} == {f"{name}.pdf" for name in FIGURES}
    assert {name for name in files if name.endswith(".tex")} == {f"table_{number:02d}.tex" for number in tables()}
    again = drawn("all", tmp_path, computed, capsys)
    assert again == files
