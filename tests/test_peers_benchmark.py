"""The comparison with other tools runs with a small model, and its table gives a reason where caap_lab takes more."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import peers, peers_job
from benchmarks.peers_job import Row
from benchmarks.peers_process import here

TABLE = Path(__file__).parent.parent / "docs/tables/peers.md"
HERE = {"captum", "pytorch_grad_cam", ""}
"""Modules of the tools that are measured here; the others count as not installed."""
LONGER = {"Grad-CAM", "Grad-CAM++", "Score-CAM", "Integrated Gradients", "SmoothGrad"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows with a small model, in this process."""

    monkeypatch.setattr(peers, "in_process", lambda job, what, n: here(replace(job, model="small"), what, n))
    monkeypatch.setattr(peers_job, "find_spec", lambda module: module if module in HERE else None)


def test_every_job(small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    names = {job.name for job in peers.all_jobs()} - LONGER
    out = tmp_path / "peers.md"
    monkeypatch.setattr(sys, "argv", ["benchmarks.peers", "--pairs", "1", "--out", str(out), "--jobs", *sorted(names)])
    peers.main()
    rows = peers.read_csv(out.with_suffix(".csv"))
    assert [row.job for row in rows] == [job.name for job in peers.all_jobs() if job.name in names]
    for row in rows:
        if peers_job.PEERS[row.peer].module in HERE:
            assert row.ours and row.theirs and row.ratio and row.ours_bytes and row.theirs_bytes
            assert row.compared == "largest difference" and row.result is not None and row.result < 1e-4
        else:
            assert row.ratio is None
            assert f"not installed |  |  | `pip install {peers_job.PEERS[row.peer].package}`" in out.read_text()
    assert {row.peer for row in rows if row.ratio} == {"Captum", "plain hooks"}
    assert "pip install quantus" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LONGER))
def test_the_other_methods(small: None, name: str) -> None:
    for job in peers.all_jobs():
        if job.name == name:
            row = peers.run(job, 1)
            same = row.compared == "largest difference"
            assert row.result is not None and (row.result < 1e-4 if same else row.result > 0)


def test_more_than_the_peer_needs_a_reason() -> None:
    row = Row("sweep", "plain hooks", "small", 1.0, 1.0, 1.0, 300, 200, "largest difference", 0.0)
    assert peers.unexplained([row]) == [] and peers.REASONS["sweep", "memory"] in peers.report([row], 5)
    assert peers.unexplained([replace(row, ratio=1.2)]) == ["sweep: time"]
    assert peers.unexplained([replace(row, ratio=peers.NOISE, ours_bytes=200)]) == []


def test_the_table_has_a_reason_for_each_of_its_rows() -> None:
    rows, text = peers.read_csv(TABLE.with_suffix(".csv")), TABLE.read_text(encoding="utf-8")
    assert [(row.job, row.peer, row.model) for row in rows] == [
        (job.name, job.peer.name, job.model) for job in peers.all_jobs()
    ]
    assert peers.unexplained(rows) == []
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    for row, line in zip(rows, lines, strict=True):
        assert line.startswith(f"| {row.job} | {row.model} | {row.peer}")
        assert row.ratio is not None and f"| {row.ratio:.2f} |" in line
