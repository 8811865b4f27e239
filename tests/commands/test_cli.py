"""The command line, on real files."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caap_lab import AttributionMap, cli

WEIGHTS = Path(cli.__file__).parent / "models" / "weights" / "demo.safetensors"


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
    found = AttributionMap.load(out / "photo_caap.safetensors")
    assert found.target == 3 and found.settings["blank"] == "mean"
    with Image.open(out / "photo_caap.png") as overlay:
        assert overlay.size[0] > 500


def test_map_as_json(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.png"
    other.write_bytes(photo.read_bytes())
    assert cli.main(["map", str(photo), str(other), "--out", str(tmp_path), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert len(results) == 2
    assert results[0]["target"] == results[0]["predictions"][0]["class"]
    assert len(results[0]["top_patches"]) == 5 and results[0]["seconds"] > 0


def test_demo_scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["map", "--demo", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    (overlay,) = tmp_path.glob("demo_digit_?_caap.png")
    digit = overlay.name.removeprefix("demo_digit_")[0]
    assert f"caap for {digit} ({digit})" in printed, "the bundled model reads its scene rightly"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["map"], "Give one or more photos, or --demo"),
        (["map", "x.png", "--demo"], "Give one or more photos"),
        (["map", "missing.png"], "no file missing.png"),
        (["map", "--demo", "--target", "cat"], "cat"),
        (["map", "--demo", "--cutoff", "99"], "cutoff=99"),
        (["map", "--demo", "--method", "magic"], "no method 'magic'"),
        (["map", "--demo", "--model", "swin_tiny_patch4_window7_224"], "swin"),
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


def test_finished_photos_are_told_when_a_later_one_fails(photo: Path, tmp_path: Path, capsys) -> None:
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


def test_a_reader_that_stops_early_is_no_error() -> None:
    command = f"{sys.executable} -m caap_lab.cli models | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "demo\n" and done.stderr == ""


def test_interruption_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(parsed: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_methods", stop)
    assert cli.main(["methods"]) == 130
    assert capsys.readouterr().err == "caap-lab: stopped\n"


def test_models_and_methods(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "vit_base_patch16_2*"]) == 0
    assert "vit_base_patch16_224" in capsys.readouterr().out
    assert cli.main(["methods"]) == 0
    assert "grad_cam\n  Selvaraju et al. 2017, arXiv 1610.02391; gradient;" in capsys.readouterr().out
    assert cli.main(["methods", "--json"]) == 0
    (row, *_) = json.loads(capsys.readouterr().out)
    assert row["name"] == "caap" and "2603.13652" in row["source"]


def test_a_pattern_that_fits_no_model_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "zzz"]) == 2
    assert "No model is called 'zzz'. `caap-lab models` lists them all" in capsys.readouterr().err
    assert cli.main(["models", "vit_bsae_patch16_224"]) == 2
    assert "Nearest: vit_base_patch16_224" in capsys.readouterr().err


def test_sizes_and_seeds_that_cannot_be_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["map", "--demo", "--image-size", "100000000", "--out", str(tmp_path)]) == 2
    assert "is more than 8192 pixels a side" in capsys.readouterr().err
    run = ["--models", "demo", "--methods", "grad_cam", "--data", "demo:single", "--out", str(tmp_path / "run")]
    assert cli.main(["bench", *run, "--images", "1", "--seed", "-1"]) == 2
    assert "seed=-1 is not a whole number from 0 on" in capsys.readouterr().err


def test_help_does_not_load_what_is_heavy() -> None:
    code = (
        "import sys; from caap_lab import cli\n"
        "try: cli.main(['map', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'timm', 'transformers', 'transformer_lens', 'wandb', 'pandas', 'matplotlib', 'numpy'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--neighbourhood" in done.stdout and done.stdout.endswith("loaded: []\n")


def test_import_of_the_package_loads_nothing_heavy() -> None:
    code = "import sys, caap_lab; dir(caap_lab); print(sorted({'torch', 'timm', 'wandb'} & set(sys.modules)))"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n" and time.perf_counter() - began < 30


def test_every_public_name_is_there() -> None:
    import caap_lab as cl

    for name in cl.__all__:
        assert getattr(cl, name) is not None
    assert callable(cl.caap), "the function, whatever modules have been imported"
    with pytest.raises(AttributeError, match="attribute capp"):
        _ = cl.capp


def test_demo_weights_are_bundled() -> None:
    assert WEIGHTS.exists()
