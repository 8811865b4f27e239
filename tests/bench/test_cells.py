"""Trials that share batches: the same numbers as alone, errors that stay with one trial, bounds, tasks for workers."""

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import caap_lab as cl
from caap_lab.bench import cells
from caap_lab.bench.cells import IMAGES, groups, rows_of
from caap_lab.bench.cluster import Cluster, _task_size
from caap_lab.bench.plan import BenchmarkPlan, Data, Study, Trial
from caap_lab.bench.trial import Row, compute, failure
from caap_lab.data.image_set import ImageSet
from caap_lab.metrics import curve_batches
from caap_lab.metrics.protocol import curve_protocol
from caap_lab.models.base import HookedModel
from caap_lab.variant import parse_variant

QUICK = ["caap", "caap:attention=cached", "grad_cam", "rollout", "ixg_plus"]
ALL_QUICK = [
    *QUICK,
    *("transformer_attribution", "tam", "libra_ixg_plus", "input_x_gradient", "full_grad_plus", "grad_cam_plus_plus"),
    *("attcat", "grad_sam", "gen_att", "legrad", "attn_lrp"),
]


@pytest.fixture(scope="module")
def model() -> HookedModel:
    return cl.load_model("demo")


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return cl.open_images("demo:single").sample(3, 0)


def trials(images: ImageSet, methods: list[str], **changes: object) -> list[Trial]:
    names = tuple(sample.name for sample in images)
    variants = tuple(map(parse_variant, methods))
    study = Study(Data(images.source, names, ""), (parse_variant("demo"),), variants, **changes)
    return list(BenchmarkPlan((study,), curve_protocol("xplique")).trials)


def together(some: list[Trial], model: HookedModel, images: ImageSet, batch_size: int = 64) -> list[Row]:
    """Rows of trials that may share batches; an error if a trial needs to be computed alone."""

    def alone(trial: Trial) -> Row:
        return failure(trial, RuntimeError("alone"))

    return [row for group in groups(some) for row in rows_of(group, lambda: (model, images), batch_size, alone)]


@pytest.mark.parametrize("methods", [QUICK, pytest.param(ALL_QUICK, marks=pytest.mark.slow)], ids=["few", "all"])
def test_trials_together_have_the_numbers_of_trials_alone(
    model: HookedModel, images: ImageSet, methods: list[str]
) -> None:
    some = trials(images.sample(2, 0), methods)
    rows = together(some, model, images)
    assert [row["key"] for row in rows] == [trial.key for trial in some]
    for trial, row in zip(some, rows, strict=True):
        single = compute(trial, model, images, 64)
        assert set(row) == set(single) and row["seconds"] > row["map_seconds"] > 0
        same = row["scores"] == single["scores"]  # maps of one image differ by rounding where a product has one matrix
        for column in set(row) - {"seconds", "map_seconds"}:
            if same or not isinstance(row[column], (float, list)):
                assert row[column] == single[column], (column, trial.method.text)
            else:
                scale = np.abs(single[column]).max()
                np.testing.assert_allclose(row[column], single[column], rtol=0, atol=2e-6 * scale, err_msg=column)
        assert same or trial.method.name not in ("caap", "grad_cam")


def test_the_image_and_its_bases_are_scored_once(model: HookedModel, images: ImageSet, monkeypatch) -> None:
    sizes: list[int] = []
    run = curve_batches.scores_under_way
    monkeypatch.setattr(curve_batches, "scores_under_way", lambda m, x, *rest: sizes.append(len(x)) or run(m, x, *rest))
    some = trials(images, ["grad_cam", "grad_cam_plus_plus", "ixg_plus"], metrics=("faithfulness",))
    rows = together(some, model, images, batch_size=5)
    assert len(rows) == 9 and not [row["error"] for row in rows if "error" in row]
    assert max(sizes) == 5
    assert sum(sizes) == 3 * (22 + 2 * 18)  # curves have 11 points, of which 9 belong to one map


def test_an_error_stays_with_its_trial(model: HookedModel, images: ImageSet, monkeypatch) -> None:
    bad = model.preprocess(next(iter(images)).image)
    attribute = cells.attribute

    def picky(model: HookedModel, x, name: str, *rest, **options):
        if name == "grad_cam" and any((one == bad).all() for one in (x if isinstance(x, list) else [x])):
            raise RuntimeError("this image")
        return attribute(model, x, name, *rest, **options)

    def odd(given) -> dict[str, float]:
        if given.map.method == "rollout" and (given.image == bad).all():
            raise RuntimeError("this map")
        return {"odd": given.map.scores.max().item()}

    monkeypatch.setattr(cells, "attribute", picky)
    cl.register_metric("odd", odd, [cl.MetricColumn("odd", unit="")])
    rows = together(trials(images, ["grad_cam", "rollout"], metrics=("faithfulness", "odd")), model, images)
    first = next(iter(images)).name
    errors = {(row["method"], row["image"]): row["error"] for row in rows if "error" in row}
    assert errors == {("grad_cam", first): "RuntimeError: alone", ("rollout", first): "RuntimeError: this map"}
    assert len(rows) == 6 and len({row["key"] for row in rows}) == 6


def test_what_breaks_a_batch_leaves_the_others(model: HookedModel, images: ImageSet, monkeypatch) -> None:
    def broken(inputs) -> Iterator[tuple[dict, float]]:
        yield from ()
        raise RuntimeError("out of memory")

    some = trials(images, ["grad_cam"])
    metric = cells.parse_metric("faithfulness")[0]
    monkeypatch.setattr(cells, "parse_metric", lambda text: (replace(metric, compute_all=broken), parse_variant(text)))
    assert [row["error"] for row in together(some, model, images)] == ["RuntimeError: alone"] * 3


def test_groups_follow_the_order_and_are_bounded(images: ImageSet) -> None:
    many = cl.open_images("demo:single").sample(IMAGES + 1, 0)
    some = trials(many, ["caap", "rollout"])
    assert [len(group) for group in groups(some)] == [2 * IMAGES, 2]
    assert [trial for group in groups(some) for trial in group] == some
    by_value = trials(images, ["caap"], target=lambda logits: logits[:, 0], metrics=("faithfulness",))
    assert [len(group) for group in groups(by_value)] == [1, 1, 1]


def test_a_users_own_method_gets_one_image_at_a_time(model: HookedModel, images: ImageSet) -> None:
    seen: list[int] = []

    def own(model: HookedModel, images, targets):
        seen.append(len(images))
        return images.mean(1).unfold(1, 8, 8).unfold(2, 8, 8).mean((-1, -2))

    cl.register("own", own)
    some = [replace(trial, method_digest="code") for trial in trials(images, ["own"])]
    assert len(together(some, model, images)) == 3 and seen == [1, 1, 1]


@pytest.mark.parametrize(
    ("seconds", "share", "size"), [(200.0, 1000, 1), (2.0, 1000, 5), (0.01, 1000, 64), (0.01, 7, 7), (0.01, 0, 1)]
)
def test_tasks_of_workers_hold_some_seconds_of_trials(seconds: float, share: int, size: int) -> None:
    assert _task_size(seconds, share) == size


def test_a_task_that_kills_its_workers_is_split(monkeypatch) -> None:
    sent: list[list[str]] = []

    class Future:
        def __init__(self, some: list) -> None:
            self.keys = [one.key for one in some]
            self.status = "error" if "7" in self.keys else "finished"

        def exception(self) -> Exception | None:
            return RuntimeError("killed") if self.status == "error" else None

        def result(self) -> list[Row]:
            return [{"key": key, "seconds": 2.0} for key in self.keys]

    class Client:
        def ncores(self) -> dict[str, int]:
            return {"one": 1}

        def submit(self, function, some, *rest, **options) -> Future:
            sent.append([one.key for one in some])
            return Future(some)

    class Done(list):
        add = list.append

        def __iter__(self):
            while self:
                yield self.pop(0)

    monkeypatch.setattr("dask.distributed.as_completed", Done)
    monkeypatch.setattr("caap_lab.bench.cluster.failure", lambda trial, error: {"key": trial.key, "error": str(error)})
    some = [SimpleNamespace(key=str(n), method=SimpleNamespace(name="caap"), metric_names=()) for n in range(30)]
    rows = list(Cluster(Client(), None, {}).rows(some, "cpu", 1, lambda: False))
    assert sorted(int(row["key"]) for row in rows) == list(range(30))
    assert [row["key"] for row in rows if "error" in row] == ["7"]
    assert any(len(keys) > 1 and "7" in keys for keys in sent) and ["7"] in sent
