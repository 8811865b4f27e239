"""`caap-lab doctor`: what it prints, and that the command it prints runs."""

import json
import shlex
from pathlib import Path

import huggingface_hub
import pytest

from caap_lab import cli
from caap_lab.bench.paper.profiles import HEADS
from caap_lab.data.imagenet import HOME as IMAGENET_HOME
from helpers.imagenet import imagenet_folder
from helpers.paper_models import cnn_folder

CNNS = ("ResNet-18", "ResNet-50", "DenseNet-161", "VGG-16")


def test_nothing_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: None)
    assert cli.main(["doctor", "--no-timing"]) == 1
    printed = capsys.readouterr().out
    assert "missing ViT-S/16         timm/vit_small_patch16_224.augreg_in21k_ft_in1k is not" in printed
    for name, file in HEADS.items():
        assert f"--head {name}=PATH, the file {file}" in printed
    assert "--data imagenet-s:PATH, from github.com/LUSSeg/ImageNet-S" in printed
    assert "HF_HUB_OFFLINE" in printed and '--models "ViT-S/16=NAME:checkpoint=PATH"' in printed
    assert "Cost of 15 tables" in printed and printed.endswith("Nothing can run yet: no table has all that it needs.\n")
    assert "HF_HUB_OFFLINE=1 forbids it. It is set here" not in printed
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert cli.main(["doctor", "--no-timing", "--tables", "3"]) == 1
    printed = capsys.readouterr().out
    assert "HF_HUB_OFFLINE=1 forbids it. It is set here" in printed and "Heads" not in printed
    assert "Cost of table 3 in" in printed and printed.count("missing ") == 6


def test_the_printed_command_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imagenet, cnn = imagenet_folder(tmp_path), cnn_folder(tmp_path / "cnn")
    given = ["--data", imagenet, "--models", *(f"{name}={cnn}" for name in CNNS)]
    given += ["--images", "1", "--protocol", "chefer", "--device", "cpu"]
    out = ["--out", str(tmp_path / "a run")]
    assert cli.main(["doctor", "--profile", "paper", "--tables", "14", "15", *given, *out]) == 1
    printed = capsys.readouterr().out
    assert "s per pass" in printed and "Tables that can run now:" in printed
    assert "Settings\n  images of each data set: 1; seed 0\n  protocol chefer, precision" in printed
    assert "\n  Table 15 is left out: there is no copy of ImageNet-S.\n" in printed
    command = shlex.split(printed.splitlines()[-1])
    assert command[:2] == ["caap-lab", "bench"] and command[command.index("--tables") + 1] == "14"
    assert "15" not in command
    assert cli.main(command[1:]) == 0
    capsys.readouterr()
    assert cli.main(["doctor", "--tables", "14", "--no-timing", "--json", *given]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["complete"] and found["possible"] == [14] and "runs/paper" in found["command"]
    assert found["data"][0] == {
        "name": "ImageNet-1K",
        "here": True,
        "report": f"3 images without masks in {imagenet.partition(':')[2]}",
        "images": 3,
        "unfit": False,
    }
    assert found["costs"][0]["model"] == "ResNet-18" and found["costs"][0]["seconds"] is None
    assert found["settings"]["protocol"] == "chefer" and found["classifiers"] == [] == found["left_out"]


def test_a_file_of_settings_is_written_filled_in_and_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out, cnn = tmp_path / "a b" / "paper.toml", tmp_path / "run", cnn_folder(tmp_path / "cnn")
    file.parent.mkdir()
    given = ["--tables", "14", "--images", "1", "--protocol", "chefer", "--no-timing"]
    given += ["--models", *(f"{name}={cnn}" for name in CNNS[1:]), "ResNet-18=resnet18:checkpoint=gone.pth"]
    assert cli.main(["doctor", *given, "--write", str(file)]) == 1
    assert f"{file} has these settings." in capsys.readouterr().out
    text = file.read_text()
    assert f'# missing: it comes from {IMAGENET_HOME}\n# "ImageNet-1K" = "imagenet:PATH"\n' in text
    gone = f'"ResNet-18" = "resnet18:checkpoint={Path.cwd() / "gone.pth"}"\n'
    assert f"# missing: resnet18: There is no checkpoint file gone.pth.\n{gone}" in text
    imagenet = imagenet_folder(tmp_path)
    text = text.replace('# "ImageNet-1K" = "imagenet:PATH"', f'"ImageNet-1K" = "{imagenet}"')
    file.write_text(text.replace(f'"resnet18:checkpoint={Path.cwd() / "gone.pth"}"', f'"{cnn}"'))
    assert cli.main(["doctor", "--write", str(file)]) == 2
    assert "already exists. Choose another name, or start from it: --profile" in capsys.readouterr().err
    assert cli.main(["doctor", "--profile", str(file), "--write", str(file), "--no-timing", "--out", str(out)]) == 0
    assert "# missing" not in file.read_text()
    printed = capsys.readouterr().out
    command = shlex.split(printed.splitlines()[-1])
    assert command == ["caap-lab", "bench", "--profile", str(file), "--out", str(out), "--tables", "14"]
    assert cli.main(command[1:]) == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--tables", "16"], "The paper has no table 16"),
        (
            ["--data", "imagnet:x"],
            "'imagnet:x' is not one of the paper's data sets; they are imagenet:PATH, imagenet-s:PATH",
        ),
        (["--models", "ViT-XL=demo"], "'ViT-XL' is not one of the paper's names"),
        (["--head", "x.pth"], "--head x.pth has to be NAME=PATH"),
        (["--methods", "cap"], "methods: 'cap' is not one of the paper's names"),
        (["--metrics", "saco"], "--metrics cannot be used with --profile paper"),
        (["--protocol", "raise"], "no protocol 'raise'"),
        (["--profile", "demo"], "The demo profile needs only this package. Use --profile paper, or a file"),
        (["--tables", "1", "--methods", "CAAP", "--without", "CAAP"], "Nothing is left to compute"),
        (["--tables", "1", "--without", "ImageNet-1K"], "Nothing is left to compute"),
        (["--compare", "2", "--precision", "bfloat16"], "--no-timing cannot be used with --compare"),
        (["--images", "2", "--images", "table8=3"], "--images 2 is for all tables and cannot be combined"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: list[str], message: str, capsys) -> None:
    assert cli.main(["doctor", "--no-timing", *arguments]) == 2
    assert message in capsys.readouterr().err
