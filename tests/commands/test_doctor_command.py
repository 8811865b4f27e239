"""`caap-lab doctor`: what it prints, and that the command it prints runs."""

import json
import shlex
from pathlib import Path

import huggingface_hub
import pytest

from caap_lab import cli
from caap_lab.bench.profiles import HEADS
from helpers.imagenet import imagenet_folder

CNNS = [f"{name}=demo-cnn" for name in ("ResNet-18", "ResNet-50", "DenseNet-161", "VGG-16")]


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
    assert "Cost of table 3 in" in printed and printed.count("missing ") == 4


def test_the_printed_command_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imagenet = imagenet_folder(tmp_path)
    given = ["--data", imagenet, "--models", *CNNS, "--images", "1", "--protocol", "chefer", "--device", "cpu"]
    out = ["--out", str(tmp_path / "a run")]
    assert cli.main(["doctor", "--profile", "paper", "--tables", "14", "15", *given, *out]) == 1
    printed = capsys.readouterr().out
    assert "s a pass" in printed and "What is here is enough for this:" in printed
    command = shlex.split(printed.splitlines()[-1])
    assert command[:2] == ["caap-lab", "bench"] and command[command.index("--tables") + 1] == "14"
    assert "15" not in command
    assert cli.main(command[1:]) == 0
    assert cli.main(["doctor", "--tables", "14", "--no-timing", "--json", *given]) == 0
    found = json.loads(capsys.readouterr().out.partition("{")[2].join(["{", ""]))
    assert found["complete"] and found["possible"] == [14] and "runs/paper" in found["command"]
    assert found["data"][0] == {
        "name": "ImageNet-1K",
        "here": True,
        "report": f"3 images without masks in {imagenet.partition(':')[2]}",
        "images": 3,
    }
    assert found["costs"][0]["model"] == "ResNet-18" and found["costs"][0]["seconds"] is None


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--tables", "16"], "The paper has no table 16"),
        (
            ["--data", "imagnet:x"],
            "'imagnet:x' is none of the paper's data sets; those are imagenet:PATH, imagenet-s:PATH",
        ),
        (["--models", "ViT-XL=demo"], "'ViT-XL' is none of the paper's names"),
        (["--head", "x.pth"], "--head x.pth has to be NAME=PATH"),
        (["--methods", "cap"], "methods: 'cap' is none of the paper's names"),
        (["--metrics", "saco"], "--metrics does not go with --profile paper"),
        (["--protocol", "raise"], "no protocol 'raise'"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: list[str], message: str, capsys) -> None:
    assert cli.main(["doctor", "--no-timing", *arguments]) == 2
    assert message in capsys.readouterr().err
