"""`caap-lab methods`."""

import json

import pytest

from caap_lab import cli


def test_facts_of_all_methods(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["methods"]) == 0
    assert "grad_cam\n  Selvaraju et al. 2017, arXiv 1610.02391; gradient;" in capsys.readouterr().out
    assert cli.main(["methods", "--json"]) == 0
    (row, *_) = json.loads(capsys.readouterr().out)
    assert row["name"] == "caap" and "2603.13652" in row["source"]
