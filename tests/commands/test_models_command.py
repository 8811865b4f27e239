"""`caap-lab models`."""

import pytest

from caap_lab import cli


def test_names_that_match_a_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "vit_base_patch16_2*"]) == 0
    assert "vit_base_patch16_224" in capsys.readouterr().out


def test_a_pattern_that_fits_no_model_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "zzz"]) == 2
    assert "No model is called 'zzz'. `caap-lab models` lists them all" in capsys.readouterr().err
    assert cli.main(["models", "vit_bsae_patch16_224"]) == 2
    assert "Nearest: vit_base_patch16_224" in capsys.readouterr().err
