"""`caap-lab map`, on real files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caap_lab import AttributionMap, cli
from caap_lab.models.targets import contrast
from helpers.checkpoints import save_transformers


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def test_map_of_a_photo(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.main(["map", str(photo), "--out", str(out), "--target", "3", "--cutoff", "0.5", "--blank", "mean"]) == 0
    printed = capsys.readouterr().out
    assert "%" in printed and "caap for 3 (3): cutoff 4" in printed and "row" in printed
    found = AttributionMap.load(out / "photo_caap_cutoff-0.5_blank-mean_target-3.safetensors")
    assert found.target == 3 and found.settings["blank"] == "mean"
    with Image.open(out / "photo_caap_cutoff-0.5_blank-mean_target-3.png") as overlay:
        assert overlay.size[0] > 500


def test_map_as_json(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.png"
    other.write_bytes(photo.read_bytes())
    assert cli.main(["map", str(photo), str(other), "--out", str(tmp_path), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert len(results) == 2
    assert results[0]["target"] == results[0]["predictions"][0]["class"]
    assert len(results[0]["top_patches"]) == 5 and results[0]["seconds"] > 0


@pytest.mark.xdist_group("transformers")
def test_a_model_from_a_folder(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine"
    save_transformers(folder, id2label=dict(enumerate(["cat", "dog", "cow", "hen", "pig"])))
    arguments = ["map", str(photo), "--model", str(folder), "--out", str(tmp_path), "--target", "dog", "--json"]
    assert cli.main([*arguments, "--image-size", "48"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["model"] == "mine" and result["target_name"] == "dog"
    assert re.search(r"_model-mine-\w+_image_size-48_target-dog\.safetensors$", result["scores"])
    assert AttributionMap.load(result["scores"]).scores.shape == (6, 6)


def test_demo_scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["map", "--demo", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    (overlay,) = tmp_path.glob("demo_digit_?_caap.png")
    digit = overlay.name.removeprefix("demo_digit_")[0]
    assert f"caap for {digit} ({digit})" in printed, "the bundled model reads its scene rightly"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["map"], "Pass one or more photos, or --demo"),
        (["map", "x.png", "--demo"], "Pass one or more photos"),
        (["map", "missing.png"], "no file missing.png"),
        (["map", "--demo", "--target", "cat"], "cat"),
        (["map", "--demo", "--cutoff", "99"], "cutoff=99"),
        (["map", "--demo", "--method", "magic"], "no method 'magic'"),
        (["map", "--demo", "--model", "swin_tiny_patch4_window7_224"], "swin"),
        (["map", "--demo", "--model", "google/vit"], "write hf-hub:google/vit"),
        (["map", "--demo", "--checkpoint", "missing.pth"], "missing.pth"),
    ],
)
def test_bad_input_is_a_sentence_and_status_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("caap-lab: ") and message.lower() in error.lower() and "Traceback" not in error


def test_an_output_folder_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("")
    assert cli.main(["map", "--demo", "--out", str(tmp_path / "taken")]) == 2
    assert "taken is a file; expected a folder" in capsys.readouterr().err


def test_text_file_as_a_photo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("not a picture")
    assert cli.main(["map", str(path), "--out", str(tmp_path)]) == 2
    assert "notes.jpg" in capsys.readouterr().err


def test_photos_of_one_name_are_refused_before_any_is_overwritten(photo: Path, capsys) -> None:
    other = photo.with_suffix(".jpg")
    with Image.open(photo) as image:
        image.save(other)
    assert cli.main(["map", str(photo), str(other), "--out", str(photo.parent / "out")]) == 2
    assert "Two photos are called 'photo'" in capsys.readouterr().err
    assert not (photo.parent / "out").exists()


def test_the_map_of_another_photo_of_the_same_name_is_not_overwritten(photo: Path, tmp_path: Path, capsys) -> None:
    other = tmp_path / "other" / photo.name
    other.parent.mkdir()
    with Image.open(photo) as image:
        image.rotate(90).save(other)
    arguments = ["--out", str(tmp_path / "out")]
    assert cli.main(["map", str(photo), *arguments]) == 0
    written = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    capsys.readouterr()
    assert cli.main(["map", str(other), *arguments]) == 2
    assert "holds the map of another image" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == written
    assert cli.main(["map", str(photo), *arguments]) == 0


def test_finished_photos_are_printed_when_a_later_one_fails(photo: Path, tmp_path: Path, capsys) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(photo.read_bytes()[:2000])
    assert cli.main(["map", str(photo), str(broken), "--out", str(tmp_path), "--json"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)[0]["image"] == "photo" and "broken.png" in printed.err


def test_cutoff_may_be_written_in_any_way(photo: Path, tmp_path: Path, capsys) -> None:
    arguments = ["map", str(photo), "--out", str(tmp_path), "--json", "--cutoff"]
    assert cli.main([*arguments, "5e-1"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["cutoff"] == 4
    assert cli.main([*arguments, "nan"]) == 2


def test_a_huge_image_size_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["map", "--demo", "--image-size", "100000000", "--out", str(tmp_path)]) == 2
    assert "is more than 8192 pixels per side" in capsys.readouterr().err


def test_flags_of_caap_reach_the_map(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--tail", "interpolated", "--attention", "cached", "--max-memory", "0.5", "--seed", "3", "--start", "1"]
    assert cli.main(["map", str(photo), "--out", str(tmp_path), "--json", *flags]) == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert (settings["tail"], settings["attention"], settings["start"]) == ("interpolated", "cached", 1)
    assert cli.main(["map", str(photo), "--out", str(tmp_path), "--max-memory", "-1"]) == 2
    assert "max_memory=-1" in capsys.readouterr().err


def test_a_method_takes_options_as_bench_does(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["map", str(photo), "--out", str(tmp_path), "--json", "--target", "3"]
    assert cli.main([*arguments, "--method", "caap:cutoff=3,blank=mean", "--neighbourhood", "none"]) == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert (settings["cutoff"], settings["blank"], settings["neighbourhood"]) == (3, "mean", "none")
    assert cli.main([*arguments, "--method", "my rollout=rollout"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["method"] == "rollout" and Path(printed["overlay"]).name == "photo_my_rollout_target-3.png"
    assert (tmp_path / "photo_my_rollout_target-3.safetensors").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--method", "caap:cutoff=3", "--cutoff", "2"],
            "cutoff is given both in --method caap:cutoff=3 and as --cutoff",
        ),
        (["--method", "caap:target=3"], "The target is not an option of a method; pass it as --target"),
        (["--method", "caap:cutoff"], "'cutoff' in 'caap:cutoff' is not key=value"),
        (["--method", "rollout:cutof=3"], "cutof"),
    ],
)
def test_options_of_a_method_that_cannot_be(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["map", "--demo", "--out", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_targets_against_other_classes(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["map", str(photo), "--method", "input_x_gradient", "--out", str(tmp_path)]
    saved = tmp_path / "photo_input_x_gradient_target-3_against-5.safetensors"
    assert cli.main([*arguments, "--target", "3", "--against", "5"]) == 0
    assert "input_x_gradient for 3 rather than 5:" in capsys.readouterr().out
    assert AttributionMap.load(saved).target == contrast(3, 5)
    assert cli.main([*arguments, "--against-all", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    best = result["predictions"][0]["class"]
    assert result["target"] == best and AttributionMap.load(result["scores"]).target == contrast(best)
    assert Path(result["scores"]).name == "photo_input_x_gradient_against_all.safetensors"
    assert result["explains"] == result["target_name"] == f"{best} against the mean of all classes"
    assert cli.main([*arguments, "--logit", "--against", "3"]) == 2
    assert "--against and --logit exclude each other" in capsys.readouterr().err
    assert cli.main([*arguments, "--against", "zebra"]) == 2
    assert "There is no class 'zebra'" in capsys.readouterr().err


def test_benchmarks_against_other_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["bench", "--models", "demo", "--methods", "grad_cam", "--data", "demo:single", "--images", "1"]
    out = ["--metrics", "saco", "--out", str(tmp_path)]
    assert cli.main([*few, *out, "--target", "label", "--against", "5"]) == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["studies"][0]["target"] == {"contrast": ["label", "5"]}
    assert cli.main(["tables", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "explained: the image's label rather than 5." in told and "SaCo" in told
    assert cli.main([*few, "--profile", "demo", "--out", str(tmp_path), "--against-all"]) == 2
