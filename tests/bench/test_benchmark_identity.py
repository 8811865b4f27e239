"""A number belongs to the weights, photo, mask, label, options and code that made it: each row of the docs' table."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import caap_lab as cl
from caap_lab.bench.identity import weights_digest
from caap_lab.bench.plan import BenchmarkPlan, Trial
from caap_lab.bench.run_folder import RunFolder
from caap_lab.bench.trial import ChangedError, compute_by_name
from caap_lab.metrics.protocol import CurveProtocol
from caap_lab.models.load import BUNDLED
from caap_lab.variant import Variant

QUICK: dict[str, Any] = {"progress": False, "protocol": "xplique", "images": 1}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of one scene with its mask and label."""
    folder = tmp_path / "data"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    put_photo(folder, 0)
    put_mask(folder, 0)
    return folder


def put_photo(folder: Path, number: int) -> None:
    cl.demo_images("single", n=number + 1, seed=0)[number].image.save(folder / "images" / "a.png")


def put_mask(folder: Path, number: int) -> None:
    scene = cl.demo_images("single", n=number + 1, seed=0)[number]
    Image.fromarray(scene.masks[scene.label]).save(folder / "masks" / "a.png")


def put_label(folder: Path, label: str) -> None:
    (folder / "labels.json").write_text(json.dumps({"a.png": label}))


def put_weights(path: Path, name: str) -> None:
    path.write_bytes((BUNDLED / f"{name}.safetensors").read_bytes())


def numbers(result: cl.BenchmarkResult) -> list[Any]:
    """All that a run says, but the time it took."""
    assert result.failed.empty
    frame = result.to_dataframe()
    return frame[["target", "label", "scores", "insdel", "aupr1", "fingerprint"]].map(str).to_numpy().tolist()


def check(run: Callable[[str], cl.BenchmarkResult], change: Callable[[], None]) -> None:
    """After the change the folder gives what a fresh folder gives, which is something else than before."""
    before = numbers(run("run"))
    change()
    again, fresh = numbers(run("run")), numbers(run("fresh"))
    assert again == fresh != before


@pytest.mark.parametrize("change", [put_photo, put_mask])
def test_a_photo_or_mask_that_was_replaced_gets_new_numbers(
    photos: Path, tmp_path: Path, change: Callable[[Path, int], None]
) -> None:
    def run(out: str) -> cl.BenchmarkResult:
        return cl.benchmark("demo", "rollout", f"masks:{photos}", out=tmp_path / out, **QUICK)

    check(run, lambda: change(photos, 1))


def test_a_photo_that_was_added_in_the_same_process_is_seen(photos: Path, tmp_path: Path) -> None:
    source = f"folder:{photos / 'images'}"
    options = {**QUICK, "images": None}
    assert len(cl.benchmark("demo", "rollout", source, out=tmp_path / "run", **options).to_dataframe()) == 1
    Image.new("RGB", (64, 64)).save(photos / "images" / "b.png")
    assert len(cl.benchmark("demo", "rollout", source, out=tmp_path / "run", **options).to_dataframe()) == 2


def test_a_relative_folder_of_another_directory_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for number in (0, 1):
        (tmp_path / str(number) / "photos").mkdir(parents=True)
        cl.demo_images("single", n=2, seed=0)[number].image.save(tmp_path / str(number) / "photos" / "a.png")
        monkeypatch.chdir(tmp_path / str(number))
        result = cl.benchmark("demo", "rollout", "folder:photos", out=tmp_path / "run", **QUICK)
        found.append(result.to_dataframe()["scores"][0].tolist())
    assert found[0] != found[1]


def test_weights_that_were_replaced_get_new_numbers_in_the_same_process(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    put_weights(path, "demo")

    def run(out: str) -> cl.BenchmarkResult:
        return cl.benchmark(f"mine=demo:checkpoint={path}", "rollout", "demo:single", out=tmp_path / out, **QUICK)

    check(run, lambda: put_weights(path, "demo-spurious"))
    assert run("run").to_dataframe()["fingerprint"][0] == cl.load_model("demo", checkpoint=path).fingerprint
    assert len(RunFolder(tmp_path / "run").rows()) == 2
    path.unlink()
    with pytest.raises(cl.InputError, match=r"The weights file .*model\.safetensors cannot be read \(No such file"):
        run("run")


def test_the_same_weights_and_photos_elsewhere_are_the_same_cells(photos: Path, tmp_path: Path) -> None:
    results = []
    for name in ("here", "there"):
        put_weights(tmp_path / f"{name}.safetensors", "demo")
        moved = photos.rename(photos.with_name(f"data {name}"))
        spec = f"mine=demo:checkpoint={tmp_path / f'{name}.safetensors'}"
        results.append(cl.benchmark(spec, "rollout", f"masks:{moved}", out=tmp_path / "run", **QUICK))
        photos = moved
    assert len(RunFolder(tmp_path / "run").rows()) == 1 and numbers(results[0]) == numbers(results[1])


@pytest.mark.parametrize("what", ["mean", "class_names", "weights", "eps"])
def test_a_model_object_that_was_changed_gets_new_cells(tmp_path: Path, what: str) -> None:
    model = cl.load_model("demo")
    run = {"data": "demo:single", "out": tmp_path / "run", **QUICK}
    before = numbers(cl.benchmark(model, "rollout", **run))
    if what == "mean":
        model = cl.load_model("demo", mean=(0.1, 0.2, 0.3))
    elif what == "class_names":
        model = cl.load_model("demo", class_names=[f"other {i}" for i in range(model.n_classes)])
    elif what == "weights":
        model.vit.head.weight.data.neg_()
    else:
        model.vit.blocks[0].norm1.eps = 0.1
    after = cl.benchmark(model, "rollout", **run)
    assert len(RunFolder(tmp_path / "run").rows()) == 2
    assert (numbers(after) == before) == (what == "class_names")
    frame = after.to_dataframe()
    assert frame["target_name"][0].startswith("other") == (what == "class_names")


def test_a_method_registered_again_with_other_code_gets_new_numbers(tmp_path: Path) -> None:

    def register(sign: int) -> None:
        cl.register(
            "brightness",
            lambda model, images, targets: sign * images.mean(1).unfold(1, 8, 8).unfold(2, 8, 8).mean((-1, -2)),
        )

    register(1)
    check(
        lambda out: cl.benchmark("demo", "brightness", "demo:single", out=tmp_path / out, **QUICK), lambda: register(-1)
    )
    register(1)
    cl.benchmark("demo", "brightness", "demo:single", out=tmp_path / "run", **QUICK)
    assert len(RunFolder(tmp_path / "run").rows()) == 2  # the first one's trial is there still


def test_a_file_that_a_methods_option_names_counts(tmp_path: Path) -> None:
    path = tmp_path / "blank.png"
    Image.new("RGB", (64, 64), "white").save(path)
    check(
        lambda out: cl.benchmark("demo", f"caap:blank={path}", "demo:single", out=tmp_path / out, **QUICK),
        lambda: Image.new("RGB", (64, 64), "red").save(path),
    )


def test_a_worker_that_lives_long_reads_what_is_there_now(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    found = []
    for number, name in enumerate(("demo", "demo-spurious")):
        put_weights(path, name)
        put_photo(photos, number)
        spec = f"mine=demo:checkpoint={path}"
        plan = cl.benchmark(spec, "rollout", f"masks:{photos}", out=tmp_path / str(number), **QUICK).plan
        (trial,) = plan.trials
        row = compute_by_name(trial, "cpu", 8)
        found.append((row["fingerprint"], row["scores"]))
        again = cl.load_model("demo", checkpoint=path)
        assert row["fingerprint"] == again.fingerprint
        assert row["scores"] == pytest.approx(
            cl.attribute(again, photos / "images" / "a.png", "rollout").scores.flatten().tolist(), abs=1e-7
        )
    assert found[0] != found[1]


def test_what_changed_since_the_plan_was_made_is_refused(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    put_weights(path, "demo")
    spec = f"mine=demo:checkpoint={path}"
    (trial,) = cl.benchmark(spec, "rollout", f"masks:{photos}", out=tmp_path / "run", **QUICK).plan.trials
    put_photo(photos, 1)
    with pytest.raises(ChangedError, match=r"a\.png of masks:.* is not what it was when this run began"):
        compute_by_name(trial, "cpu", 8)
    put_photo(photos, 0)
    assert compute_by_name(trial, "cpu", 8)["key"] == trial.key
    put_weights(path, "demo-spurious")
    with pytest.raises(ChangedError, match=r"weights of .* are not those that this run began with"):
        compute_by_name(trial, "cpu", 8)


def test_a_photo_that_cannot_be_read_fails_alone_and_is_computed_once_it_can(photos: Path, tmp_path: Path) -> None:
    (photos / "images" / "a.png").write_bytes(b"no picture")
    (photos / "images" / "b.png").write_bytes(b"")
    Image.new("RGB", (64, 64)).save(photos / "images" / "b.png")
    options = {**QUICK, "images": None, "data": f"folder:{photos / 'images'}", "out": tmp_path / "run"}
    assert cl.benchmark("demo", "rollout", **options).failed["image"].tolist() == ["a.png"]
    put_photo(photos, 0)
    assert cl.benchmark("demo", "rollout", **options).failed.empty


def test_two_sets_under_one_name_are_refused(tmp_path: Path) -> None:
    images = cl.open_images("demo:single")
    with pytest.raises(cl.InputError, match="demo:single is given twice"):
        cl.benchmark("demo", "rollout", [images[:1], images[1:2]], out=tmp_path, progress=False)


def test_folders_of_format_1_can_be_read(tmp_path: Path) -> None:
    result = cl.benchmark("demo", "rollout", "demo:single", out=tmp_path, **{**QUICK, "protocol": "rise-28"})
    content = json.loads((tmp_path / "plan.json").read_text())
    del content["identity"]
    content["format"] = 1
    (tmp_path / "plan.json").write_text(json.dumps(content))
    (trial,) = BenchmarkPlan.load(tmp_path / "plan.json").trials
    row = result.to_dataframe().iloc[0]
    RunFolder(tmp_path).append([{"key": trial.key, "model": "demo", "insdel": row["insdel"]}])
    old = cl.BenchmarkResult.open(tmp_path).to_dataframe()
    assert old["insdel"].tolist() == [row["insdel"]]
    assert trial.key == "772a79ab9623c78af52782a4"  # as version 0.1.0 made it


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"format": 2}', '{"format": 2, "studies": [{}]}', "{" * 100_000])
def test_a_plan_that_is_none_is_refused_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(cl.InputError, match=r"plan\.json"):
        cl.BenchmarkResult.open(tmp_path)


def test_every_missing_or_odd_field_of_a_plan_is_refused_in_words(tmp_path: Path) -> None:
    cl.benchmark("demo", "rollout", "demo:single", out=tmp_path, **QUICK)
    content = json.loads((tmp_path / "plan.json").read_text())
    for name in content:
        for odd in (None, 3, "text", [1], {"a": 1}):
            (tmp_path / "plan.json").write_text(json.dumps({**content, name: odd}))
            try:
                cl.BenchmarkResult.open(tmp_path).to_dataframe()
            except cl.InputError:
                continue
            assert name == "profile" and odd == "text"


@pytest.mark.parametrize(
    "name, digest",
    [
        ("demo", "1b2c09569b66fdbb023b6cfb"),
        ("demo-clip", "6099149b1a9c6be69c57f836"),
        ("demo-dinov2", "8c70a8f01e2b2364d7f6edc4"),
        ("demo-deit3", "eca42e42a7bf0b10c22d0f4e"),
        ("demo-cnn", "d71ff2e25fcfbdaa078883c8"),
    ],
)
def test_results_of_bundled_models_are_found_again_after_their_files_moved(name: str, digest: str) -> None:
    assert weights_digest(Variant(name)) == digest


def test_compiled_and_eager_models_have_the_same_trials() -> None:
    given: Any = {
        **{"method": Variant("caap"), "source": "demo", "image": "a", "metrics": ("faithfulness",)},
        **{"target": "prediction", "protocol": CurveProtocol("rise"), "image_digest": "1", "model_digest": "2"},
    }
    keys = [Trial(Variant("demo", options), **given).key for options in ({}, {"compile": True}, {"dtype": "float16"})]
    assert keys[0] == keys[1] != keys[2]
