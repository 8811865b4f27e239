"""Published protocols of curves and of mAP, against their formulas written out plainly."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.signal import fftconvolve
from torch.nn import functional as F

import caap_lab as cl
from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.mda_blur import KERNELS, mda_blur
from caap_lab.bench.result import BenchmarkResult
from caap_lab.bench.run_cost import curve_passes
from caap_lab.bench.run_folder import SCHEMA, RunFolder
from caap_lab.bench.tables.table import make_tables
from caap_lab.metrics.protocol import PROTOCOLS, CurveProtocol, curve_protocol
from helpers.models import build, random_images
from helpers.targets import of_classes


@pytest.fixture(scope="module")
def demo() -> cl.HookedViT:
    return cl.load_model("demo")


@pytest.fixture(scope="module")
def model() -> cl.HookedViT:
    """A model whose pixels of value 0 are not those of 0 after normalisation."""
    model = build("vit", torch.float64)
    assert min(model.preprocessing.mean) > 0.1
    return model


@pytest.fixture(scope="module")
def image(model: cl.HookedViT) -> torch.Tensor:
    return random_images(model, 1)


@pytest.fixture(scope="module")
def found(model: cl.HookedViT, image: torch.Tensor) -> cl.AttributionMap:
    return cl.attribute(model, image, "input_x_gradient", 3)


def highest(m: cl.AttributionMap, mode: str) -> list[int]:
    """Pixels from the highest score to the lowest, equal ones in reading order."""
    size = tuple(m.image.shape[:2])
    if mode == "nearest":
        large = F.interpolate(m.scores[None, None].double(), size, mode="nearest")
    else:
        large = F.interpolate(m.scores[None, None].double(), size, mode=mode, align_corners=False)
    values = large.flatten().tolist()
    return sorted(range(len(values)), key=lambda p: (-values[p], p))


def probabilities(model: cl.HookedViT, images: list[torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.stack(images).to(model.dtype)).double().softmax(dim=1)


def test_chefer_deletes_to_black_before_normalisation(
    model: cl.HookedViT, image: torch.Tensor, found: cl.AttributionMap
) -> None:
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in _mean_std(model))
    photo = image[0] * std + mean  # the image of values from 0 to 1
    order = highest(found, "bilinear")
    deleted, kept, counts = [], [], []
    for share in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        counts.append(int(32 * 32 * share))
        changed = photo.flatten(1).clone()
        changed[:, order[: counts[-1]]] = 0
        deleted.append((changed.view_as(photo) - mean) / std)
        changed = photo.flatten(1).clone()
        changed[:, order[counts[-1] :]] = 0
        kept.append((changed.view_as(photo) - mean) / std)
    assert counts[:3] == [102, 204, 307]  # 10 % are 102.4 pixels, 30 % 307.2
    for changed, name in ((deleted, "deletion_curve"), (kept, "insertion_curve")):
        p = probabilities(model, changed)
        top = cl.insertion_deletion(model, image, found, protocol="chefer")
        smooth = cl.insertion_deletion(model, image, found, protocol="chefer", score="prob")
        assert getattr(top, name).tolist() == (p.argmax(dim=1) == 3).double().tolist()
        np.testing.assert_allclose(getattr(smooth, name), p[:, 3], rtol=0, atol=1e-9)
        np.testing.assert_allclose(smooth.shares, np.array(counts) / 1024, rtol=0, atol=1e-12)


def _mean_std(model: cl.HookedViT) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return model.preprocessing.mean, model.preprocessing.std


def test_counts_are_those_of_the_authors() -> None:
    size, grid = (224, 224), (14, 14)
    tenths = [int(224 * 224 * share) for share in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)]
    assert tenths[0] == 5017  # of 5017.6
    assert PROTOCOLS["chefer"].counts(size, grid) == tenths
    percent = (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
    assert PROTOCOLS["mutex"].counts(size, grid) == [int(p / 100 * 224 * 224) for p in percent]
    assert PROTOCOLS["xplique"].counts(size, grid) == np.linspace(0, 224 * 224, 11, dtype=np.int32).tolist()
    assert PROTOCOLS["rise"].counts(size, grid) == [224 * i for i in range(225)]
    assert CurveProtocol("own", step=(0, 0.1, 1)).counts(size, grid) == [0, 5018, 50176]


def test_mutex_at_its_shares(model: cl.HookedViT, image: torch.Tensor, found: cl.AttributionMap) -> None:
    order = highest(replace(found, scores=-_ranks(found.scores)), "nearest")  # whole cells, one after the other
    inside, outside = [], []
    for percent in (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100):
        chosen = torch.zeros(32 * 32, dtype=torch.bool)
        chosen[order[: int(percent / 100 * 32 * 32)]] = True
        inside.append(torch.where(chosen.view(32, 32), image[0], 0))
        outside.append(torch.where(chosen.view(32, 32), 0, image[0]))
    curves = cl.insertion_deletion(model, image, found, protocol="mutex")
    np.testing.assert_allclose(curves.insertion_curve, probabilities(model, inside)[:, 3], rtol=0, atol=1e-9)
    np.testing.assert_allclose(curves.deletion_curve, probabilities(model, outside)[:, 3], rtol=0, atol=1e-9)


def _ranks(scores: torch.Tensor) -> torch.Tensor:
    return scores.flatten().argsort(descending=True, stable=True).argsort().view_as(scores).double()


def wide_blurs(image: torch.Tensor) -> list[torch.Tensor]:
    blurred = []
    for size in range(31, 102, 2):
        impulse = np.zeros(size)
        impulse[size // 2] = 1
        line = gaussian_filter1d(impulse, size)
        channels = [fftconvolve(channel, np.outer(line, line), mode="same") for channel in image.double().numpy()]
        blurred.append(torch.from_numpy(np.stack(channels)))
    return blurred


def test_mda_starts_from_the_first_blur_that_hides_the_target(demo: cl.HookedViT) -> None:
    images = [demo.preprocess(scene.image) for scene in cl.demo_images("single", 4, 0)]
    cases: dict[str, tuple[int, int, torch.Tensor]] = {}
    for place, image in enumerate(images):
        if len(cases) == 3:
            break
        blurs = wide_blurs(image[0])
        p = probabilities(demo, blurs)
        for target in range(demo.n_classes):
            if ((p[:, target] - 0.01).abs() < 2e-4).any():
                continue  # where rounding might decide
            hidden = (p[:, target] <= 0.01).nonzero()
            stop = int(hidden[0]) if len(hidden) else -1
            kind = "never" if stop == -1 else "later" if stop else "at once"
            cases.setdefault(kind, (place, target, blurs[stop]))
    assert set(cases) == {"never", "later", "at once"}
    for place, target, blurred in cases.values():
        found = mda_blur(demo, images[place], of_classes([target], demo.n_classes)[0])
        np.testing.assert_allclose(found[0], blurred, rtol=0, atol=2e-6)
    place, target, blurred = cases["later"]
    image, grid = images[place], torch.arange(64.0).view(8, 8)
    m = replace(cl.attribute(demo, image, "input_x_gradient", target), scores=grid)
    curves = cl.insertion_deletion(demo, image, m, protocol="mda", normalise="none")
    assert curves.insertion_curve[0] == pytest.approx(float(probabilities(demo, [blurred])[0, target]), abs=1e-6)
    ends = probabilities(demo, [image[0], torch.zeros_like(image[0])])[:, target]
    assert (curves.insertion_curve[-1], curves.deletion_curve[-1]) == pytest.approx(tuple(ends.tolist()), abs=1e-6)
    other = replace(m, target=(target + 1) % demo.n_classes)  # another target has another base
    both = cl.insertion_deletion(demo, image, [m, other], protocol="mda", normalise="none", progress=False)
    alone = cl.insertion_deletion(demo, image, other, protocol="mda", normalise="none")
    np.testing.assert_allclose(both[1].insertion_curve, alone.insertion_curve, atol=2e-6)


def test_the_search_for_a_base_is_in_the_cost(demo: cl.HookedViT) -> None:
    size = ModelSize.of(demo)
    assert curve_passes(PROTOCOLS["mda"], size) == 2 * 65 + 36 == 2 * 65 + len(KERNELS)
    assert curve_passes(PROTOCOLS["rise"], size) == 2 * 65


def test_keys_change_where_numbers_do() -> None:
    """What a row's key holds of a protocol: as it was before for those that compute the same numbers."""
    common = {"deletion_base": "zero", "score": "prob", "upsampling": "bilinear", "normalise": "none"}
    rise = {"name": "rise", "step": "row", "insertion_base": "rise_blur", **common}
    assert PROTOCOLS["rise"].to_dict() == rise
    assert PROTOCOLS["rise-28"].to_dict() == {**rise, "name": "rise-28", "step": "8 rows"}
    blur = {"insertion_base": "gaussian_blur", "deletion_base": "gaussian_blur"}
    assert PROTOCOLS["tis"].to_dict() == {**rise, "name": "tis", **blur}
    nearest = {"step": "patch", "upsampling": "nearest-exact"}
    assert PROTOCOLS["patches"].to_dict() == {**rise, "name": "patches", **nearest}
    assert PROTOCOLS["mda"].to_dict()["insertion_base"] == "mda_blur"
    for name in ("chefer", "mutex", "xplique"):
        assert PROTOCOLS[name].to_dict()["rounding"] == "down"
    assert PROTOCOLS["chefer"].to_dict()["step"] == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def test_shares_need_not_begin_at_0_but_normalisation_needs_both_ends() -> None:
    assert curve_protocol("rise", step=[0.2, 0.4]).step == (0.2, 0.4)
    for step in ([-0.1, 0.5], [0.5, 1.1], [0.5], [0.4, 0.4]):
        with pytest.raises(cl.InputError, match="ascending list of fractions from 0 to 1"):
            curve_protocol("rise", step=step)
    with pytest.raises(cl.InputError, match=r"must go from 0 to 1; these go from 0\.1 to 0\.9"):
        curve_protocol("chefer", normalise="monotone")
    with pytest.raises(cl.InputError, match="rounding='up' is not known; use one of nearest, down"):
        curve_protocol("mutex", rounding="up")


def plain_average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """The sum of (R_n - R_{n-1}) P_n over falling thresholds."""
    found, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        now = labels[chosen].sum() / labels.sum()
        found += (now - recall) * labels[chosen].mean()
        recall = now
    return found


def test_pooled_ap_ranks_object_and_rest_together(found: cl.AttributionMap) -> None:
    mask = np.zeros((32, 32), dtype=bool)
    mask[5:20, 8:30] = True
    ignored = np.zeros((32, 32), dtype=bool)
    ignored[:3] = True
    large = F.interpolate(found.scores[None, None].double(), (32, 32), mode="bilinear", align_corners=False)[0, 0]
    kept = large.numpy()[~ignored]
    s = (kept - kept.min()) / (kept.max() - kept.min())
    labels = mask[~ignored]
    pair, truth = np.concatenate([1 - s, s]), np.concatenate([~labels, labels])
    got = cl.localisation(found, mask, ignored=ignored)
    assert got.pooled_ap == pytest.approx(plain_average_precision(truth, pair), abs=1e-9)
    assert got.aupr1 == pytest.approx(plain_average_precision(labels, s), abs=1e-9)
    flat = cl.localisation(replace(found, scores=torch.full((4, 4), 0.1)), mask)
    assert flat.pooled_ap == 0.5
    perfect = cl.localisation(replace(found, scores=torch.from_numpy(mask).double()), mask)
    assert perfect.pooled_ap == 1


def test_runs_without_the_newest_column_stay_readable(tmp_path: Path) -> None:
    options = {"images": 2, "out": tmp_path, "progress": False, "metrics": ["localisation"]}
    result = cl.benchmark("demo", ["rollout"], "demo:single", **options)
    rows = result.to_dataframe()
    assert rows["pooled_ap"].between(0.01, 1).all()
    assert "mAP" in make_tables(result)[0].markdown()
    for number, part in enumerate(sorted((tmp_path / "parts").glob("*.parquet"))):
        table = pq.read_table(part).drop_columns(["pooled_ap"])
        part.unlink()
        pq.write_table(table, tmp_path / "parts" / f"old{number}.parquet")
    older = BenchmarkResult.open(tmp_path)
    assert RunFolder(tmp_path).read()[0].schema == SCHEMA and not older.damaged
    assert older.to_dataframe()["pooled_ap"].isna().all()
    summary = older.summary().set_index("metric")
    assert summary.loc["pooled_ap", "n"] == 0 and summary.loc["aupr1", "n"] == 2
    again = cl.benchmark("demo", ["rollout"], "demo:single", **options)
    assert again.to_dataframe()["aupr1"].tolist() == rows["aupr1"].tolist()


def test_defaults_of_torch_change_no_metric(model: cl.HookedViT, image: torch.Tensor, found: cl.AttributionMap) -> None:
    mask = np.zeros((32, 32), dtype=bool)
    mask[5:20, 8:30] = True

    def numbers() -> list[float]:
        values = []
        for name in PROTOCOLS:
            curves = cl.insertion_deletion(model, image, found, protocol=name)
            values += [*curves.shares, *curves.insertion_curve, *curves.deletion_curve]
        for upsampling in ("bilinear", "nearest-exact", "bicubic"):
            place = cl.localisation(found, mask, upsampling=upsampling)
            values += [place.aupr1, place.aupr0, place.pooled_ap, place.pointing_expected, place.mass_inside]
        return values

    expected = numbers()
    for dtype in (torch.float64, torch.bfloat16):
        torch.set_default_dtype(dtype)
        try:
            assert numbers() == expected
        finally:
            torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert numbers() == expected
