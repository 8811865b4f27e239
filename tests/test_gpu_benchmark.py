"""The benchmark for GPUs runs on a CPU as well, with a small model."""

import sys
from pathlib import Path

import pytest

from benchmarks import gpu


@pytest.mark.slow
def test_every_row_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "gpu.md"
    options = ["--device", "cpu", "--models", "small", "--dtype", "float32", "--batches", "1", "2", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", *options, "--out", str(out)])
    gpu.main()
    lines = [line.split(" | ") for line in out.read_text().splitlines() if line.startswith("| small")]
    found = {line[1]: line for line in lines}
    for what in ("forward pass", "exact map", "exact map of one image", "map, shared tail", "one forward per patch"):
        assert float(found[what][2]) > 0 and float(found[what][3]) > 0
    assert {"changed image of a curve", "Score-CAM, ours", "occlusion, ours", "FeatureAblation, captum"} <= set(found)
    assert float(found["forward pass"][4]) == 1 < float(found["exact map"][4]) < 16  # patches of the image
    assert "Matrix rate" in out.read_text() and found["exact map"][1] in capsys.readouterr().out
