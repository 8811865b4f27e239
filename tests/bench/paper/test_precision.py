"""What a number format does to results, beside float32."""

from pathlib import Path

import pytest
import torch

from caap_lab import InputError, cli
from caap_lab.bench.benchmark import run_plan
from caap_lab.bench.paper.doctor import doctor
from caap_lab.bench.paper.precision import compared, comparison_lines, precision_effect
from caap_lab.bench.paper.profiles import paper_plan
from caap_lab.bench.paper.settings import given_settings
from helpers.imagenet import imagenet_folder
from helpers.paper_models import cnn_folder

CNNS = ("ResNet-18", "ResNet-50", "DenseNet-161", "VGG-16")


def test_doctor_compares_a_number_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imagenet, cnn, out = imagenet_folder(tmp_path), cnn_folder(tmp_path / "cnn"), tmp_path / "run"
    given = {"data": [imagenet], "models": [f"ResNet-18={cnn}"], "tables": [14], "protocol": "chefer"}
    given |= {"without": CNNS[1:], "methods": ["CAAP"]}
    words = ["--data", imagenet, "--models", *given["models"], "--tables", "14", "--protocol", "chefer"]
    words += ["--without", *CNNS[1:], "--methods", "CAAP", "--out", str(out), "--compare", "2"]
    assert cli.main(["doctor", *words]) == 2
    assert "float32 cannot be compared with itself" in capsys.readouterr().err
    assert cli.main(["doctor", "--precision", "bfloat16", *words]) == 0
    printed = capsys.readouterr().out
    assert (
        printed.startswith("bfloat16 and float32: changes of metrics") and "  ImageNet-1K  ResNet-18  CAAP" in printed
    )
    settings = given_settings(**given, precision="bfloat16")
    frame = precision_effect(settings, 2, out, progress=False)
    assert list(frame["metric"]) == ["Del", "Ins", "InsDel"] and set(frame["n"]) == {2}
    assert (frame["difference"] - (frame["mean"] - frame["mean_reference"])).abs().max() < 1e-9
    assert frame["spearman"].between(-1, 1).all() and not (out / "plan.json").exists()
    whole = run_plan(paper_plan(given_settings(**given, images=2, precision="bfloat16")), out, progress=False)
    rows = whole.to_dataframe()
    assert whole.totals == (2, 2, 0) and all(", bfloat16, " in machine for machine in rows["machine"])
    same = compared(whole, whole)
    assert set(same["same_prediction"]) == set(same["spearman_lowest"]) == {1.0} and set(same["difference_se"]) == {0.0}
    assert comparison_lines(same)[1][3:6] == ["2", "100%", "1.0000 (1.0000)"]
    assert "-0.00" not in str(comparison_lines(same.assign(difference=-1e-9)))


def test_products_as_gpus_make_them() -> None:
    from experiments.precision import ProductsOf

    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(8, 8, generator=generator) for _ in range(2))
    x.requires_grad_()

    def rounded(t: torch.Tensor) -> torch.Tensor:  # to 10 bits behind the leading one
        mantissa, exponent = torch.frexp(t.detach().double())
        return torch.ldexp((mantissa * 2**11).round(), exponent - 11).float()

    with ProductsOf("tf32"):
        y = torch.nn.functional.linear(x, w)
        (gradient,) = torch.autograd.grad(y.sum(), x)
    assert (y - rounded(x) @ rounded(w).T).abs().max() < 1e-5 < (y - x @ w.T).abs().max()
    assert (gradient - torch.ones(8, 8) @ rounded(w)).abs().max() < 1e-5
    short = x.bfloat16(), w.bfloat16()
    with ProductsOf("bfloat16"):
        y = short[0] @ short[1]
    assert torch.equal(y, (short[0].float() @ short[1].float()).bfloat16())


def test_tf32_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    settings = given_settings(
        data=[imagenet_folder(tmp_path)],
        models=[f"ResNet-18={cnn_folder(tmp_path / 'cnn')}"],
        tables=[14],
        without=CNNS[1:],
        images=2,
        precision="tf32",
    )
    with pytest.raises(InputError, match="TF32 needs an NVIDIA GPU"):
        run_plan(paper_plan(settings), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "parts").exists()
    with pytest.raises(InputError, match="TF32 needs an NVIDIA GPU"):
        doctor(settings)
