"""Maps as rows of a run's folder, and back."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

import caap_lab as cl
from caap_lab.bench.map_rows import map_to_row, row_to_map
from caap_lab.bench.run_folder import RunFolder

METHODS = (
    *("caap", "caap:score=prob,cutoff=2", "caap:score=logprob", "grad_cam", "rollout", "input_x_gradient"),
    "smoothgrad:samples=2",
)
ABOUT = ("target", "target_name", "method", "score", "sign", "settings", "model_name", "fingerprint", "seconds")


@pytest.fixture(scope="module")
def model() -> cl.HookedViT:
    return cl.load_model("demo")


@pytest.mark.parametrize("text", METHODS)
def test_a_map_comes_back_as_its_method_returned_it(model: cl.HookedViT, tmp_path: Path, text: str) -> None:
    x = model.preprocess(cl.demo_images("single", 1, 0)[0].image)
    m = cl.attribute(model, x, text)
    RunFolder(tmp_path).parts.mkdir()
    RunFolder(tmp_path).append([{"key": "a", "method": text, **map_to_row(m)}])
    back = row_to_map(RunFolder(tmp_path).rows().iloc[0], model, x[0])
    assert torch.equal(back.scores, m.scores) and torch.equal(back.image, m.image)
    assert {name: getattr(back, name) for name in ABOUT} == {name: getattr(m, name) for name in ABOUT}
    assert (back.versions, back.image_digest) == (m.versions, m.image_digest)


@pytest.mark.parametrize("text", METHODS[:4])
@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA], ids=["none", "nan", "na"])
def test_rows_of_earlier_versions_know_score_and_sign_by_their_method(
    model: cl.HookedViT, text: str, missing: object
) -> None:
    x = model.preprocess(cl.demo_images("single", 1, 0)[0].image)
    m = cl.attribute(model, x, text)
    row = {"method": text, **map_to_row(m)}
    row |= {name: json.dumps(row[name]) for name in ("settings", "versions")}
    back = row_to_map({**row, "map_score": missing, "map_sign": missing}, model, x[0])
    assert (back.score, back.sign) == (m.score, m.sign)
    assert (
        row_to_map({k: v for k, v in row.items() if k not in ("map_score", "map_sign")}, model, x[0]).score == m.score
    )
