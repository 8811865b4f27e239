"""Benchmarks of other targets than classes: keys, plans, resuming, rows, maps and curves."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import caap_lab as cl
from caap_lab.bench.benchmark import resume
from caap_lab.bench.identity import classes_are_texts
from caap_lab.bench.map_rows import map_to_row, row_to_map
from caap_lab.bench.paper.profiles import _by_own_logit, demo_plan
from caap_lab.bench.plan import BenchmarkPlan, Trial
from caap_lab.bench.result import BenchmarkResult
from caap_lab.bench.run_folder import RunFolder
from caap_lab.bench.tables.table import make_tables
from caap_lab.bench.target_rule import OwnTarget, rule_from_json, rule_to_json, rule_words
from caap_lab.errors import InputError
from caap_lab.metrics.protocol import CurveProtocol
from caap_lab.models.directions import direction
from caap_lab.models.heads import ZeroShotHead
from caap_lab.models.targets import Logit, contrast, logit
from caap_lab.variant import Variant, parse_variant
from helpers.models import build, random_images

QUICK = {"images": 2, "progress": False, "protocol": "xplique"}


def squared(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 1] ** 2


def zero_shot() -> cl.HookedViT:
    model = cl.load_model("demo")
    model.vit.reset_classifier(0)
    texts = torch.randn(10, model.spec.d_model, generator=torch.Generator().manual_seed(0))
    return cl.HookedViT(model.vit, head=ZeroShotHead(texts, 20.0), preprocessing=model.preprocessing)


def test_a_contrast_from_the_run_to_the_curves_of_its_rows(tmp_path: Path) -> None:
    target = contrast("prediction", 3)
    options = {**QUICK, "images": 1, "out": tmp_path}
    result = cl.benchmark("demo", ["caap", "rollout"], "demo:single", target=target, **options)
    model, images = cl.load_model("demo"), cl.open_images("demo:single")
    frame = result.to_dataframe()
    assert len(frame) == 2 and frame["error"].isna().all()
    for row in frame.to_dict("records"):
        sample = images.named(row["image"])
        with torch.no_grad():
            predicted = int(model(sample.image)[0].argmax())
        assert (row["target"], row["target_rule"]) == (predicted, "contrast(prediction, 3)")
        assert row["target_name"] == f"{predicted} rather than 3"
        m = cl.attribute(model, sample.image, row["method"], contrast(predicted, 3))
        back = row_to_map({**row, "method": row["method"]}, model, model.preprocess(sample.image)[0])
        assert torch.equal(back.scores, m.scores) and back.target == m.target == contrast(predicted, 3)
        assert (back.caption, back.target_name) == (m.caption, m.target_name)
        curves = cl.insertion_deletion(model, sample.image, back, protocol="xplique")
        np.testing.assert_array_equal(row["insertion_curve"], curves.insertion_curve)
    # A folder knows what it explains, goes on without computing anything again, and its tables say it.
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["studies"][0]["target"] == {"contrast": ["prediction", 3]}
    parts = sorted(tmp_path.glob("parts/*"))
    again = resume(tmp_path, progress=False)
    assert again.totals == (2, 2, 0) and sorted(tmp_path.glob("parts/*")) == parts
    (table,) = make_tables(BenchmarkResult.open(tmp_path))
    assert "explained: the model's own prediction rather than class 3." in " ".join(table.protocol)


def test_other_targets_lie_side_by_side_in_one_folder(tmp_path: Path) -> None:
    width = cl.load_model("demo").spec.d_model
    probe = direction(torch.randn(width, generator=torch.Generator().manual_seed(1)), "striped")
    options = {**QUICK, "images": 1, "metrics": ["saco", "localisation"], "out": tmp_path}
    counts, frames = [], {}
    for name, target in {
        "prediction": "prediction",
        "its logit": logit("prediction"),
        "all": contrast("prediction"),
        "fixed": logit(4),
        "direction": probe,
        "function": squared,
    }.items():
        frames[name] = cl.benchmark("demo", ["rollout"], "demo:single", target=target, **options).to_dataframe()
        counts.append(len(RunFolder(tmp_path).rows()))
    assert counts == [1, 1, 2, 3, 4, 5]  # an ordinary model explains a class by its own logit anyway
    assert frames["its logit"]["target_object"].isna().all() and frames["fixed"]["target"][0] == 4
    assert frames["all"]["target_name"][0].endswith("against the mean of all classes")
    for name, caption in (("direction", "striped"), ("function", "squared")):
        (row,) = frames[name].to_dict("records")
        assert np.isnan(row["target"]) and row["target_name"] == caption and row["mask"] == "all objects"
    model, image = cl.load_model("demo"), cl.open_images("demo:single").named(frames["direction"]["image"][0]).image
    row = frames["direction"].iloc[0]
    back = row_to_map(row, model, model.preprocess(image)[0])
    assert torch.equal(back.target.vector.float(), probe.vector) and back.target.name == "striped"
    assert cl.saco(model, image, back).value == row["saco"]
    unsaved = row_to_map(frames["function"].iloc[0], model, model.preprocess(image)[0])
    with pytest.raises(InputError, match=r"squared.*pass it again"):
        cl.saco(model, image, unsaved)
    assert cl.saco(model, image, unsaved, target=squared).value == frames["function"]["saco"][0]
    with pytest.raises(InputError, match=r"'squared' was given as an object.*call cl.benchmark with it again"):
        resume(tmp_path, progress=False)
    (table,) = make_tables(BenchmarkResult.open(tmp_path))
    assert "explained: the function 'squared'. It has no probability" in " ".join(table.protocol)


def test_keys_and_plans_of_earlier_runs_stay(tmp_path: Path) -> None:
    protocol, method = CurveProtocol("rise"), parse_variant("caap")
    names = (Variant("demo"), method, "demo:single", "single-00000", ("faithfulness",))
    digests = ("a", "", "b")
    by_rule = {rule: Trial(*names, rule, protocol, *digests).key for rule in ("prediction", "label", "class 3")}
    assert by_rule == {
        "prediction": "fd8ff5c300d061583d7451ed",
        "label": "0a024aceb034332d5907bc15",
        "class 3": "ee0aeb552f9782c8326ab7b9",
    }
    assert Trial(*names, logit("prediction"), protocol, *digests).key == by_rule["prediction"]
    texts = {"by_contrast": True}
    assert Trial(*names, logit("label"), protocol, *digests, **texts).key == by_rule["label"]
    to_all = Trial(*names, contrast("prediction"), protocol, *digests).key
    assert Trial(*names, "prediction", protocol, *digests, **texts).key == to_all != by_rule["prediction"]
    demo_plan(1, [1]).save(tmp_path / "plan.json")
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["studies"][0]["target"] == "prediction" and "by_contrast" not in written["identity"]
    assert BenchmarkPlan.load(tmp_path / "plan.json").studies[0].target == "prediction"


def test_models_with_texts_as_classes_explain_contrasts(tmp_path: Path) -> None:
    options = {**QUICK, "images": 1, "metrics": ["saco"], "out": tmp_path}
    models = [zero_shot()]
    first = cl.benchmark(models, ["grad_cam"], "demo:single", **options)
    (row,) = first.to_dataframe().to_dict("records")
    assert row["target_name"].endswith("against the mean of all classes")
    raw = cl.benchmark(models, ["grad_cam"], "demo:single", target=logit("prediction"), **options).to_dataframe()
    assert json.loads(raw["target_object"][0]) == {"kind": "logit", "of": row["target"]}
    assert not np.array_equal(raw["scores"][0], row["scores"]) and len(RunFolder(tmp_path).rows()) == 2
    cl.benchmark(models, ["grad_cam"], "demo:single", target=contrast("prediction"), **options)
    assert len(RunFolder(tmp_path).rows()) == 2
    assert "whose classes are texts, against the mean of all classes" in " ".join(make_tables(first)[0].protocol)


def test_text_heads_by_name_and_the_paper_profile(tmp_path: Path) -> None:
    head, one = tmp_path / "head.safetensors", tmp_path / "one.safetensors"
    texts = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    cl.save_zero_shot_head(head, texts, ["cat", "dog", "hen"])
    cl.save_zero_shot_head(one, texts[:1], ["cat"])
    assert classes_are_texts(Variant("demo", {"head": str(head)}))
    assert not any(classes_are_texts(Variant("demo", {"head": str(path)})) for path in (one, tmp_path / "none.pth"))
    name = f"Mine=demo:head={head}"
    options = {"images": 1, "progress": False, "metrics": ["saco"], "target": contrast("prediction", "hen")}
    result = cl.benchmark(name, ["rollout"], "demo:single", out=tmp_path / "run", **options)
    assert result.plan.identity.by_contrast == BenchmarkPlan.load(tmp_path / "run" / "plan.json").identity.by_contrast
    assert result.plan.identity.by_contrast == (parse_variant(name).text,)
    study = replace(result.plan.studies[0], target="label")
    assert _by_own_logit(study).target == Logit("label")  # the paper compares class scores, not contrasts
    assert _by_own_logit(replace(study, models=(Variant("demo"),))).target == "label"


def test_rules_as_plans_have_them() -> None:
    for rule in ("prediction", "label", contrast("label", "tiger cat"), contrast(3), Logit("tabby"), logit(2)):
        assert rule_from_json(json.loads(json.dumps(rule_to_json(rule)))) == rule
    assert rule_to_json(contrast(np.int64(3), "x")) == {"contrast": [3, "x"]}
    own = rule_to_json(squared)
    assert rule_from_json(own) == OwnTarget("function", "squared", own["own"][2])
    for damaged in (3, {"contrast": [1]}, {"contrast": [1.5, None]}, {"logit": None}, {"own": ["a"]}, {}):
        with pytest.raises(InputError, match="is none"):
            rule_from_json(damaged)
    assert rule_words(logit("prediction")) == "the model's own prediction by its own logit"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("tabby", "use prediction or label, or a target of these"),
        (3, r"target=3 is not known.*cl\.contrast"),
        (contrast("prediction", "zebra"), "There is no class 'zebra'"),
    ],
)
def test_wrong_targets_are_refused_before_the_folder_is_made(tmp_path: Path, target: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cl.benchmark("demo", ["grad_cam"], "demo:single", out=tmp_path / "run", target=target, **QUICK)
    assert not (tmp_path / "run").exists()


def test_rows_keep_what_is_explained() -> None:
    model = build("vit")
    m = cl.attribute(model, random_images(model, 1), "input_x_gradient", contrast(2))
    row = map_to_row(m)
    assert (row["target"], row["target_object"]) == (2, {"kind": "contrast", "of": 2, "against": None})
    assert map_to_row(cl.attribute(model, random_images(model, 1), "input_x_gradient", 2))["target_object"] is None
