"""Sweeps of CAAP: every trial against the single call, identities, cost, resuming, numbers, plots."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy.stats import spearmanr

import caap_lab as cl
from caap_lab.bench import cells
from caap_lab.bench.run_folder import RunFolder
from caap_lab.engine import blanks, patched_logits
from caap_lab.models.directions import direction
from caap_lab.models.targets import contrast, logit
from caap_lab.models.vit import HookedViT
from caap_lab.statistics import standard_error
from caap_lab.sweeps.dataset import rows_to_dataset
from helpers.models import build, random_images

MAPS: dict[str, Any] = {"metrics": (), "progress": False}
QUICK: dict[str, Any] = {"protocol": "xplique", "progress": False}
FAMILIES = ("dinov2_registers", "deit_distilled", "average_pool", "siglip", "dino_head4")
SWEEPS = (
    cl.sweep_cutoffs,
    cl.sweep_ranges,
    cl.sweep_blanks,
    cl.sweep_neighbourhoods,
    cl.sweep_contexts,
    cl.sweep_scores,
)


def assert_equals_single_calls(sweep: cl.CaapSweep, model: HookedViT, images: torch.Tensor, **fixed: Any) -> None:
    """`sweep` was made of class 1."""
    for index, image in enumerate(images):
        for setting, label in enumerate(sweep.labels):
            place = label if isinstance(label, tuple) else (label,)
            swept = dict(zip(sweep.axes, place, strict=True))
            expected = cl.caap(model, image, 1, **{**swept, **fixed})
            scale = max(1.0, float(expected.scores.abs().max()))
            np.testing.assert_allclose(sweep.maps[index, setting], expected.scores, atol=1e-5 * scale, rtol=0)
            assert sweep.map(index, label).settings == expected.settings
            assert sweep.map(index, label).score == expected.score


@pytest.mark.parametrize(
    "family, sweeps",
    [
        ("dinov2_registers", SWEEPS),
        *((family, (cl.sweep_ranges, cl.sweep_blanks)) for family in FAMILIES[1:]),
        *(pytest.param(family, SWEEPS, marks=pytest.mark.slow) for family in ("vit", *FAMILIES[1:])),
    ],
)
def test_every_cell_equals_the_single_call(family: str, sweeps: tuple[Callable[..., cl.CaapSweep], ...]) -> None:
    model = build(family)
    images = random_images(model, 2)
    for sweep in sweeps:
        assert_equals_single_calls(sweep(model, images, 1, **MAPS), model, images)


@pytest.mark.parametrize(
    "fixed",
    [
        {"tail": "shared"},
        {"attention": "cached", "tail": "shared", "chunk_size": 20},
        {"context": "free", "start": 1},
        {"start": 1, "neighbourhood": "cross1", "chunk_size": 7, "score": "prob"},
    ],
)
@pytest.mark.parametrize("family", ["vit", "dino_head4"])
def test_cutoffs_share_their_way_whatever_is_held_fixed(family: str, fixed: dict[str, Any]) -> None:
    model = build(family)
    images = random_images(model, 1)
    cutoffs = [3, 2, 4] if "start" in fixed else [4, 0, 1, 2]
    sweep = cl.sweep_cutoffs(model, images, 1, cutoffs=cutoffs, **fixed, **MAPS)
    assert list(sweep.labels) == cutoffs
    assert_equals_single_calls(sweep, model, images, **fixed)


@pytest.mark.parametrize("family", ["vit", "dinov2_registers", "dino_head4"])
def test_dropped_cutoffs_and_later_starts(family: str) -> None:
    model = build(family)
    images = random_images(model, 1)
    for sweep in (
        cl.sweep_cutoffs(model, images, 1, context="dropped", **MAPS),
        cl.sweep_ranges(model, images, 1, ranges=[(2, 4), (1, 2), (0, 0), (2, 3)], context="dropped", **MAPS),
    ):
        assert_equals_single_calls(sweep, model, images, context="dropped")


def test_identities() -> None:
    """Method of the contexts: no patched block gives the blank's score, all blocks are the frozen context."""
    model = build("vit", torch.float64)
    image = random_images(model, 1)
    sweep = cl.sweep_cutoffs(model, image, 2, **MAPS)
    with torch.no_grad():
        white = float(model(blanks.blank_image(model, "white"))[0, 2])
    np.testing.assert_allclose(sweep.maps[0, 0], white, rtol=1e-6)
    np.testing.assert_allclose(sweep.maps[0, 4], cl.caap(model, image, 2, context="frozen").scores, rtol=1e-6)
    constant = cl.sweep_cutoffs(model, blanks.blank_image(model, "white"), 2, **MAPS)
    np.testing.assert_allclose(constant.maps, white, rtol=1e-6)


FIXED = [
    {},
    {"tail": "shared"},
    {"tail": "interpolated"},
    {"neighbourhood": "cross1"},
    {"context": "dropped"},
    {"context": "free"},
]
COSTS = [
    pytest.param(family, fixed, marks=() if family == "vit" or not fixed else pytest.mark.slow)
    for family in ("vit", *FAMILIES)
    for fixed in (FIXED if family in ("vit", "average_pool") else FIXED[:1])
    if not (fixed.get("context") == "dropped" and family in ("siglip", "average_pool"))  # refused: no class token
]


@pytest.mark.parametrize("family, fixed", COSTS)
def test_cost_is_what_is_counted(monkeypatch: pytest.MonkeyPatch, family: str, fixed: dict[str, Any]) -> None:
    model = build(family)
    image = random_images(model, 1)
    cl.caap(model, image, 1)  # the blank's run is kept
    steps = 0
    after_heads, run_block = HookedViT.after_heads, HookedViT.run_block

    def counted_rows(self, layer, x, *rest):
        nonlocal steps
        steps += x.shape[0] * x.shape[1]
        return after_heads(self, layer, x, *rest)

    def counted_block(self, layer, x):
        nonlocal steps
        steps += x.shape[0] * x.shape[1]
        return run_block(self, layer, x)

    monkeypatch.setattr(HookedViT, "after_heads", counted_rows)
    monkeypatch.setattr(HookedViT, "run_block", counted_block)
    full = model.spec.n_tokens * model.n_layers
    for target in (None, 1):
        for sweep in (cl.sweep_cutoffs, cl.sweep_ranges):
            steps = 0
            found = sweep(model, image, target, **fixed, **MAPS)
            assert found.passes == pytest.approx(steps / full)
    steps = 0
    single = cl.sweep_cutoffs(model, image, 1, cutoffs=[3], **fixed, **MAPS)
    cl.sweep_cutoffs(model, image, 1, cutoffs=[0], **fixed, **MAPS)
    several = cl.sweep_cutoffs(model, image, 1, cutoffs=[2, 3], **fixed, **MAPS)
    assert single.passes < several.passes


def test_scores_cutoffs_and_ranges_come_from_one_run_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    calls = []
    run_source = patched_logits.run_source
    monkeypatch.setattr(patched_logits, "run_source", lambda *a: calls.append(a) or run_source(*a))
    images = random_images(model, 2)
    cl.sweep_scores(model, images, **MAPS)
    cl.sweep_cutoffs(model, images, **MAPS)
    assert len(calls) == 4
    cl.sweep_ranges(model, images[:1], **MAPS)
    assert len(calls) == 5


def test_metrics_equal_the_single_calls_on_a_data_set() -> None:
    model, images = cl.load_model("demo"), cl.open_images("demo:two").sample(2, 0)
    sweep = cl.sweep_cutoffs(model, images, "label", cutoffs=[0, 0.5], **QUICK)
    assert sweep.labels == (0, 4) and sweep.default is None
    frame = sweep.to_dataframe()
    assert list(frame.columns[:2]) == ["image", "cutoff"] and len(frame) == 4
    for row in frame.to_dict("records"):
        sample = images.named(row["image"])
        m = cl.caap(model, sample.image, sample.label, cutoff=row["cutoff"])
        curves = cl.insertion_deletion(model, sample.image, m, protocol="xplique")
        found = cl.localisation(m, model.preprocessing.mask(sample.regions.masks[sample.label]))
        assert row["target"] == sample.label
        assert (row["insdel"], row["aupr1"]) == (pytest.approx(curves.insdel), pytest.approx(found.aupr1))


def test_images_of_ones_own_with_masks(tmp_path: Path) -> None:
    model = cl.load_model("demo")
    samples = cl.open_images("demo:single").sample(2, 3)
    samples[0].image.save(tmp_path / "digit.png")
    photos = [tmp_path / "digit.png", samples[1].image]
    masks = [model.preprocessing.mask(np.logical_or.reduce([*s.regions.masks.values()])) for s in samples]
    sweep = cl.sweep_blanks(model, photos, 3, blanks=["white", "black"], masks=masks, out=tmp_path / "run", **QUICK)
    assert sweep.images[0].startswith("digit.png ") and sweep.images[1].startswith("image ")
    assert set(sweep.to_dataframe()["target"]) == {3} and set(sweep.to_dataframe()["mask"]) == {"given"}
    found = cl.localisation(cl.caap(model, photos[1], 3, blank="black"), masks[1])
    assert sweep.values("aupr1")[1, 1] == pytest.approx(found.aupr1)
    other = cl.sweep_blanks(
        model, photos, 3, blanks="white", masks=[~mask for mask in masks], out=tmp_path / "run", **QUICK
    )
    assert not np.allclose(other.values("aupr1")[:, 0], sweep.values("aupr1")[:, 0])  # other masks, other trials


class TestResuming:
    """A folder keeps every image as it finishes."""

    def count(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Images and settings that are evaluated from here on."""
        seen: list[str] = []
        evaluate = cells.evaluate

        def counted(trial, *rest):
            seen.append(f"{trial.image} {trial.method.text}")
            return evaluate(trial, *rest)

        monkeypatch.setattr(cells, "evaluate", counted)
        return seen

    def test_after_an_interrupt_only_what_is_missing_runs(self, tmp_path: Path, monkeypatch) -> None:
        model, images = cl.load_model("demo"), cl.open_images("demo:single")[:3]
        whole = cl.sweep_cutoffs(model, images, cutoffs=[0, 3, 5], **QUICK)
        evaluate = cells.evaluate

        def interrupted(trial, *rest):
            if trial.image == images[1].name:
                raise KeyboardInterrupt
            return evaluate(trial, *rest)

        monkeypatch.setattr(cells, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cl.sweep_cutoffs(model, images, cutoffs=[0, 3, 5], out=tmp_path, **QUICK)
        assert set(RunFolder(tmp_path).rows()["image"]) == {images[0].name}
        monkeypatch.undo()
        seen = self.count(monkeypatch)
        again = cl.sweep_cutoffs(model, images, cutoffs=[0, 3, 5], out=tmp_path, **QUICK)
        assert len(seen) == 6 and not any(images[0].name in trial for trial in seen)
        np.testing.assert_array_equal(again.maps, whole.maps)
        np.testing.assert_array_equal(again.values("insdel"), whole.values("insdel"))
        seen.clear()
        wider = cl.sweep_cutoffs(model, images, cutoffs=[3, 4], out=tmp_path, **QUICK)
        assert len(seen) == 3 and all("cutoff=4" in trial for trial in seen)
        np.testing.assert_array_equal(wider.maps[:, 0], whole.maps[:, 1])

    def test_cells_are_shared_with_other_sweeps_and_benchmarks(self, tmp_path: Path, monkeypatch) -> None:
        model, images = cl.load_model("demo"), cl.open_images("demo:single")[:1]
        cl.benchmark(model, ["caap", "caap:cutoff=3"], images, out=tmp_path, **QUICK)
        seen = self.count(monkeypatch)
        cl.sweep_cutoffs(model, images, cutoffs=[3, 5], out=tmp_path, **QUICK)
        cl.sweep_blanks(model, images, blanks=["white"], out=tmp_path, **QUICK)
        cl.sweep_contexts(model, images, contexts=["clamped"], neighbourhood="box1", out=tmp_path, **QUICK)
        assert seen == []
        cl.sweep_cutoffs(model, images, 1, cutoffs=[3], out=tmp_path, **QUICK)  # another class is another trial
        cl.sweep_cutoffs(model, images, cutoffs=[3], out=tmp_path, **{**QUICK, "protocol": "patches"})
        assert len(seen) == 2

    def test_what_fails_is_kept_and_tried_again(self, tmp_path: Path, monkeypatch) -> None:
        model, images = cl.load_model("demo"), cl.open_images("demo:single")[:2]
        evaluate = cells.evaluate

        def failing(trial, *rest):
            if trial.image == images[1].name and trial.method.text == "caap":
                raise RuntimeError("out of memory, say")
            return evaluate(trial, *rest)

        monkeypatch.setattr(cells, "evaluate", failing)
        sweep = cl.sweep_cutoffs(model, images, cutoffs=[3, 5], out=tmp_path, **QUICK)
        assert "1 failed" in repr(sweep) and np.isnan(sweep.maps[1, 1]).all()
        assert sweep.failed.to_dict("records") == [
            {"image": images[1].name, "cutoff": 5, "error": "RuntimeError: out of memory, say"}
        ]
        assert sweep.summary().set_index(["metric", "cutoff"]).loc[("insdel", 5), "n"] == 1
        with pytest.raises(cl.InputError, match="This map failed: RuntimeError"):
            sweep.map(1, 5)
        monkeypatch.undo()
        again = cl.sweep_cutoffs(model, images, cutoffs=[3, 5], out=tmp_path, **QUICK)
        assert again.failed.empty and not np.isnan(again.maps).any()
        monkeypatch.setattr(cells, "evaluate", lambda *a: 1 / 0)
        with pytest.raises(cl.InputError, match="No map could be computed: ZeroDivisionError"):
            cl.sweep_cutoffs(model, images, cutoffs=[3], **QUICK)


def test_blanks_of_ones_own_are_told_apart_by_content(tmp_path: Path, monkeypatch) -> None:
    model = build("vit")
    images, others = random_images(model, 2), random_images(model, 5, seed=1)
    batches, made = blanks.batches, []
    monkeypatch.setattr(blanks, "batches", lambda *a: made.append(a) or batches(*a))
    given = {"mean of 4": cl.blanks.mean_activations(others[:4]), "fifth": others[4], "plain": "white"}
    sweep = cl.sweep_blanks(model, images, 1, blanks=given, out=tmp_path, **MAPS)
    assert sweep.labels == tuple(given) and sweep.default == "plain"
    for setting, blank in enumerate(given.values()):
        expected = cl.caap(model, images[0], 1, blank=blank).scores
        np.testing.assert_allclose(sweep.maps[0, setting], expected, atol=1e-5)
    assert len(made) == 1  # the mean was taken once, whatever is swept beside it
    monkeypatch.setattr(cells, "evaluate", lambda *a: pytest.fail("computed again"))
    again = cl.sweep_blanks(model, images, 1, blanks={"other label": others[4].clone()}, out=tmp_path, **MAPS)
    np.testing.assert_array_equal(again.maps[:, 0], sweep.maps[:, 1])


@pytest.fixture(scope="module")
def swept() -> cl.CaapSweep:
    return cl.sweep_cutoffs(
        cl.load_model("demo"), cl.open_images("demo:single")[:4], cutoffs=[0, 3, 5], **{**QUICK, "protocol": "patches"}
    )


def test_means_errors_and_paired_differences(swept: cl.CaapSweep) -> None:
    assert swept.default == 5
    assert repr(swept).startswith("CaapSweep: 4 images x 3 settings of cutoff")
    frame, summary = swept.to_dataframe(), swept.summary()
    assert len(summary) == 3 * len(swept.metric_names) == 3 * 9
    for metric in ("insdel", "aupr1"):
        values = {cutoff: 100 * part[metric].to_numpy() for cutoff, part in frame.groupby("cutoff")}
        for cutoff, found in values.items():
            line = summary[(summary["cutoff"] == cutoff) & (summary["metric"] == metric)].iloc[0]
            assert (line["n"], line["mean"], line["se"]) == (
                4,
                pytest.approx(found.mean()),
                pytest.approx(found.std(ddof=0) / 2),
            )
            if cutoff == 5:
                assert np.isnan(line["difference"])
            else:
                gaps = found - values[5]
                assert line["difference"] == pytest.approx(gaps.mean())
                assert line["difference_se"] == pytest.approx(standard_error(gaps)) and line["difference_n"] == 4


def test_result_carries_labels(swept: cl.CaapSweep) -> None:
    data, frame = swept.data, swept.to_dataframe()
    assert data["scores"].dims == ("image", "cutoff", "row", "col") and data["insdel"].dims == ("image", "cutoff")
    assert data["cutoff"].values.tolist() == [0, 3, 5] and tuple(data["image"].values) == swept.images
    assert data["insertion_curve"].sizes["step"] == 65 and (data["shares"].isel(step=-1) == 1).all()
    np.testing.assert_array_equal(swept.maps, data["scores"].values)
    np.testing.assert_array_equal(swept.values("insdel"), data["insdel"].values)
    for row in frame.itertuples():
        cell = data.sel(image=row.image, cutoff=row.cutoff)
        for name in ("insdel", "aupr1", "target", "settings", "fingerprint"):
            assert getattr(row, name) == cell[name].item()
        np.testing.assert_array_equal(row.scores, cell["scores"].values.reshape(-1))
        np.testing.assert_array_equal(row.insertion_curve, cell["insertion_curve"].values)
        assert list(row.grid) == [8, 8]
    assert len(repr(swept)) < 200
    model = build("vit")
    pairs = [(0, 3), (1, 4)]
    ranges = cl.sweep_ranges(model, random_images(model, 2), ranges=pairs, **MAPS)
    assert ranges.axes == ("start", "cutoff") and ranges.labels == tuple(pairs) and ranges.data.sizes["setting"] == 2
    np.testing.assert_array_equal(ranges.data["scores"].sel(start=1, cutoff=4).values, ranges.maps[:, 1])


def test_failed_trials_have_no_numbers_in_the_labelled_result() -> None:
    model = build("vit")
    sweep = cl.sweep_scores(model, random_images(model, 2), scores=("logit", "prob"), **QUICK)
    rows = sweep.rows
    rows["error"] = pd.Series([None, "InputError: no", None, None], dtype=object)
    for name in rows.columns.drop(["model", "method", "data", "image", "error"]):
        rows[name] = [None if place == 1 else value for place, value in enumerate(rows[name])]
    failed = replace(sweep, data=rows_to_dataset(rows, sweep.axes, sweep.labels, sweep.images, model.grid))
    assert np.isnan(failed.maps[0, 1]).all() and np.isnan(failed.values("insdel")[0, 1])
    np.testing.assert_array_equal(failed.maps[1], sweep.maps[1])
    assert failed.failed.values.tolist() == [[sweep.images[0], "prob", "InputError: no"]]
    again = failed.to_dataframe()
    assert again["scores"][1] is None and again["grid"][1] is None and again["insertion_curve"][1] is None
    assert "1 failed" in repr(failed)
    with pytest.raises(cl.InputError, match="This map failed: InputError: no"):
        failed.map(0, "prob")


def test_rank_correlation(swept: cl.CaapSweep) -> None:
    table = swept.rank_correlation()
    assert list(table.index) == list(table.columns) == [0, 3, 5] and table.index.name == "cutoff"
    expected = np.mean([spearmanr(maps[1].ravel(), maps[2].ravel()).statistic for maps in swept.maps])
    assert table.loc[3, 5] == table.loc[5, 3] == pytest.approx(expected)
    assert table.loc[5, 5] == pytest.approx(1)
    assert table.loc[0].isna().all()  # nothing is patched: maps are constant and have no ranks


def test_plots(swept: cl.CaapSweep) -> None:
    model, images = build("vit"), random_images(build("vit"), 2)
    ax = Figure().subplots()
    assert swept.plot(ax, metric="aupr1") is ax and "AUPR" in ax.get_ylabel()
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 100 * swept.values("aupr1").mean(axis=0))
    categories = cl.sweep_neighbourhoods(model, images, neighbourhoods=["none", "box1"], **QUICK)
    assert [t.get_text() for t in categories.plot().get_xticklabels()] == ["none", "box1"]
    ranges = cl.sweep_ranges(model, images, ranges=[(0, 3), (1, 3), (1, 4)], **QUICK)
    shown = ranges.plot().collections[0].get_array()
    assert shown.shape == (2, 2) and np.isnan(np.asarray(shown.filled(np.nan))).sum() == 1
    assert ranges.rank_correlation().loc[(0, 3), (1, 4)] <= 1
    for sweep in (swept, categories, ranges):
        bundle = sweep._repr_mimebundle_()
        assert bundle["image/png"].startswith(b"\x89PNG") and "forward passes" in bundle["text/plain"]
    assert set(cl.sweep_scores(model, images, **MAPS)._repr_mimebundle_()) == {"text/plain"}
    assert swept.map(1, 3)._repr_mimebundle_()["image/png"].startswith(b"\x89PNG")


def test_bad_input_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    images = random_images(model, 2)
    monkeypatch.setattr(HookedViT, "run_block", lambda *a: pytest.fail("the model ran"))
    half = torch.zeros(32, 32, dtype=torch.bool)
    for sweep, options, message in [
        (cl.sweep_cutoffs, {"cutoffs": [9]}, "from 0 .patch nothing. to 4"),
        (cl.sweep_cutoffs, {"cutoffs": []}, "at least one value"),
        (cl.sweep_cutoffs, {"cutoff": 2}, "This sweep varies cutoff"),
        (cl.sweep_cutoffs, {"neighborhood": "none"}, "no option 'neighborhood'.* Nearest: neighbourhood"),
        (cl.sweep_cutoffs, {"context": "frozen"}, "a cutoff has no effect"),
        (cl.sweep_cutoffs, {"start": 3}, "leaves no block"),
        (cl.sweep_ranges, {"ranges": [3]}, "pairs"),
        (cl.sweep_ranges, {"ranges": [(3, 2)]}, "leaves no block"),
        (cl.sweep_blanks, {"blanks": ["purple"]}, "no blank 'purple'"),
        (cl.sweep_blanks, {"blanks": [images[0]]}, "mapping from labels to blanks"),
        (cl.sweep_neighbourhoods, {"neighbourhoods": ["box9"]}, "no neighbourhood 'box9'"),
        (cl.sweep_contexts, {"contexts": ["open"]}, "clamped, free, dropped, frozen"),
        (cl.sweep_scores, {"scores": ["loss"]}, "score='loss'"),
        (cl.sweep_scores, {"metrics": ["speed"]}, "metrics='speed'"),
        (cl.sweep_scores, {"metrics": ["localisation"]}, "needs a mask of every image"),
        (cl.sweep_scores, {"masks": [half]}, "2 images need one mask each; 1 were given"),
        (cl.sweep_scores, {"masks": [half, half.float()]}, "Mask 1 must be bool"),
        (cl.sweep_scores, {"target": 7}, "0 to 6"),
        (cl.sweep_scores, {"target": "label"}, "needs a data set"),
        (cl.sweep_scores, {"protocol": "rices"}, "no protocol 'rices'"),
        (cl.sweep_scores, {"batch_size": 0}, "batch_size"),
    ]:
        with pytest.raises(cl.InputError, match=message):
            sweep(model, images, **{**MAPS, **options})
    with pytest.raises(cl.InputError, match="works on Vision Transformers"):
        cl.sweep_blanks(cl.load_model("demo-cnn"), images)
    sets = cl.open_images("demo:single")[:1]
    with pytest.raises(cl.InputError, match="a data set has its own masks"):
        cl.sweep_scores(cl.load_model("demo"), sets, masks=[half])
    model.add_hook("blocks.0.hook_mlp_out", lambda activation, hook: activation)
    with pytest.raises(cl.InputError, match="has hooks"):
        cl.sweep_scores(model, images)


def test_a_sweep_tells_what_it_has(swept: cl.CaapSweep) -> None:
    with pytest.raises(cl.InputError, match="no metric 'speed'; it has deletion, insertion"):
        swept.plot(metric="speed")
    with pytest.raises(cl.InputError, match="No map of image 9 at 3: images 0 to 3, at 0, 3, 5"):
        swept.map(9, 3)


def test_targets_are_those_of_caap_and_lie_side_by_side(tmp_path: Path) -> None:
    model = build("vit")
    images = random_images(model, 1)
    predicted = int(model(images).argmax())
    probe = direction(torch.randn(24, generator=torch.Generator().manual_seed(0)), "striped")
    options: dict[str, Any] = {"cutoffs": [3], "out": tmp_path, **MAPS}
    sweeps = {}
    for name, target, of in (
        ("class", 1, 1),
        ("its logit", logit(1), 1),
        ("two", contrast(1, 2), contrast(1, 2)),
        ("prediction", contrast("prediction"), contrast(predicted)),
        ("direction", probe, probe),
        ("function", logit_squared, logit_squared),
    ):
        sweep = sweeps[name] = cl.sweep_cutoffs(model, images, target, **options)
        m, expected = sweep.map(0, 3), cl.caap(model, images, of, cutoff=3)
        torch.testing.assert_close(m.scores, expected.scores, atol=1e-5, rtol=1e-5)
        assert (m.target_name, m.target_class) == (expected.target_name, expected.target_class)
        assert name in ("direction", "function") or m.target == expected.target
    assert len(RunFolder(tmp_path).rows()) == 5  # a class is explained by its own logit anyway
    assert set(sweeps["two"].rows["target_rule"]) == {"contrast(class 1, class 2)"}
    assert sweeps["function"].rows["target"].isna().all() and (sweeps["two"].rows["target"] == 1).all()
    assert sweeps["prediction"].passes == pytest.approx(sweeps["class"].passes + 1)
    for wrong, message in (
        (contrast(1, 9), "Class 9 does not exist"),
        (contrast(1, 1), "with itself"),
        (contrast("label"), "needs a data set with labels"),
        (direction(torch.ones(5), "short"), "has 5 values"),
    ):
        with pytest.raises(cl.InputError, match=message):
            cl.sweep_cutoffs(model, images, wrong, **MAPS)


def logit_squared(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 0] ** 2


def test_labels_against_another_class() -> None:
    images = cl.open_images("demo:single").sample(1, 0)
    label = images[0].label
    other = (label + 1) % 10
    sweep = cl.sweep_cutoffs(cl.load_model("demo"), images, contrast("label", other), cutoffs=[2], **MAPS)
    assert sweep.map(0, 2).target == contrast(label, other)
    assert sweep.data["target_name"].item() == f"{label} rather than {other}"
