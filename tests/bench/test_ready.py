"""What a run needs is opened and tried before its first trial, once, and all that is in the way is said at once."""

import os
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import caap_lab as cl
from caap_lab.bench import benchmark as running_module
from caap_lab.bench import ready, trial
from caap_lab.bench.benchmark import run_plan
from caap_lab.bench.paper.profiles import demo_plan, paper_plan
from caap_lab.bench.paper.settings import given_settings
from caap_lab.bench.ready import count_problem, folder_problems
from caap_lab.bench.ready_model import how_many_fit, model_problems
from caap_lab.bench.run_folder import RunFolder
from caap_lab.bench.trial import forget_failures, forget_models, model_of
from caap_lab.models.load import BUNDLED
from caap_lab.variant import Variant, parse_variant
from helpers.paper_models import cnn_folder, vit_folder
from helpers.published_layouts import class_folders

QUICK: dict[str, Any] = {"data": "demo:single", "images": 1, "metrics": ["localisation"], "progress": False}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(ready, "_seen_ready", set())
    forget_failures()
    forget_models()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of models as they are loaded."""
    names: list[str] = []
    load = trial.load_model
    monkeypatch.setattr(trial, "load_model", lambda name, **options: names.append(name) or load(name, **options))
    return names


def changed(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> str:
    """A copy of the demo model's weights with something changed; returns the spec of the model."""
    state = load_file(BUNDLED / "demo.safetensors")
    change(state)
    save_file(state, path)
    return f"demo:checkpoint={path}"


# --- models ---


def test_every_model_that_cannot_run_is_named_before_the_folder_is_written(tmp_path: Path, loads: list[str]) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes((BUNDLED / "demo.safetensors").read_bytes()[:-100])
    save_file({"weight": torch.ones(10, 7), "bias": torch.zeros(10)}, tmp_path / "wide.safetensors")
    huge = torch.full((10, cl.load_model("demo").spec.d_model), 3e38)
    parts = ("weight", "bias")
    models = [
        f"missing=demo:checkpoint={tmp_path / 'none.safetensors'}",
        f"damaged=demo:checkpoint={damaged}",
        f"nan={changed(tmp_path / 'nan.safetensors', lambda s: s['norm.weight'].fill_(torch.nan))}",
        f"huge={changed(tmp_path / 'huge.safetensors', lambda s: s.update({'head.weight': huge}))}",
        f"untrained={changed(tmp_path / 'zero.safetensors', lambda s: [s[f'head.{x}'].zero_() for x in parts])}",
        f"other=resnet18:checkpoint={BUNDLED / 'demo-cnn.safetensors'}",
        f"head=demo:head={tmp_path / 'wide.safetensors'}",
        "demo",
    ]
    with pytest.raises(cl.InputError) as refused:
        cl.benchmark(models, "rollout", out=tmp_path / "run", **QUICK)
    head, *lines = str(refused.value).splitlines()
    assert head == "Nothing was computed, as 7 things stand in the way:"
    told = {name: next(line for line in lines if line.startswith(f"  {name}: ")) for name in
            ("missing", "damaged", "nan", "huge", "untrained", "other", "head")}  # fmt: skip
    assert "none.safetensors cannot be read" in told["missing"]
    assert "damaged" in told["damaged"].partition(":")[2]
    assert "norm.weight in the checkpoint holds NaN or infinity" in told["nan"]
    assert "logits are NaN or infinite for an image of noise, in float32 on cpu" in told["huge"]
    assert "does not fit resnet18" in told["other"] and "reads 7 features" in told["head"]
    assert "All its classes have the same logit" in told["untrained"]
    assert not (tmp_path / "run").exists() and len(loads) == 7  # once each, not once per method and image


def test_one_problem_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(cl.InputError, match=r"^mine: The weights file .*a\.pth cannot be read"):
        cl.benchmark(f"mine=demo:checkpoint={tmp_path / 'a.pth'}", "rollout", out=tmp_path / "run", **QUICK)


def test_every_name_and_option_that_is_none_is_said_before_anything_is_read(tmp_path: Path, loads: list[str]) -> None:
    with pytest.raises(cl.InputError) as refused:
        cl.benchmark(["a=vit_tinny", "b=demo:checkpiont=x", "demo"], "rollout", out=tmp_path / "run", **QUICK)
    head, first, second = str(refused.value).splitlines()
    assert first.startswith("  a: There is no model named 'vit_tinny'") and "no option 'checkpiont'" in second
    assert head == "Nothing was computed, as 2 things stand in the way:" and not loads


def test_models_are_loaded_one_at_a_time_and_the_first_one_last(
    tmp_path: Path, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load, alive = trial.load_model, []

    def watched(name: str, **options: Any) -> cl.HookedViT:
        assert not any(reference() for reference in alive), "the last model is still in memory"
        model = load(name, **options)
        alive.append(weakref.ref(model.body))
        return model

    monkeypatch.setattr(trial, "load_model", watched)
    models = ["demo", "demo-deit3", "demo-cnn"]
    cl.benchmark(models, "grad_cam", out=tmp_path / "run", **QUICK)
    assert loads == ["demo-deit3", "demo-cnn", "demo", "demo-deit3", "demo-cnn"]
    loads.clear()
    cl.benchmark(models, "grad_cam", out=tmp_path / "run", **QUICK)
    assert not loads  # a finished run needs no model
    cl.benchmark(models, "grad_cam", out=tmp_path / "again", **QUICK)
    assert loads == models  # this process has tried them
    loads.clear()
    cl.benchmark([*models, "demo-clip"], "grad_cam", out=tmp_path / "run", **QUICK)
    assert loads == ["demo-clip"]


def test_models_as_objects_and_those_at_hand_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = cl.load_model("demo")
    monkeypatch.setattr(trial, "load_model", lambda *a, **o: pytest.fail("loaded"))
    monkeypatch.setattr(ready, "model_problems", _with_no_run(ready.model_problems))
    assert cl.benchmark(model, "grad_cam", out=tmp_path / "run", **QUICK).failed.empty


def _with_no_run(check: Callable[..., Any]) -> Callable[..., Any]:
    def checked(spec: Variant, uses: Any, device: str, batch_size: int, model: cl.HookedViT) -> Any:
        with model.hooks([("hook_logits", lambda logits, hook: pytest.fail("run"))]):
            return check(spec, uses, device, batch_size, model)

    return checked


def test_a_model_that_cannot_be_loaded_is_not_tried_for_every_trial(tmp_path: Path, loads: list[str]) -> None:
    text = changed(tmp_path / "a.safetensors", lambda state: state.pop("norm.weight"))
    for _ in range(3):
        with pytest.raises(cl.InputError, match=r"norm\.weight") as error:
            model_of(text, "cpu")
    assert loads == ["demo"] and error.value.__context__ is None and len(error.traceback) < 4  # nothing is held by it
    forget_failures()  # as at the beginning of a run
    changed(tmp_path / "a.safetensors", lambda state: None)
    assert model_of(text, "cpu").n_classes == 10 and len(loads) == 2
    changed(tmp_path / "a.safetensors", lambda state: state.pop("norm.weight"))
    with pytest.raises(cl.InputError, match=r"norm\.weight"):
        model_of(text, "cpu")


def test_memory_that_does_not_suffice_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Variant("demo")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100_000))
    (problem,) = model_problems(spec)
    assert "GB, and 0.0 GB of memory are free" in problem.text and problem.stops
    monkeypatch.undo()

    def full(*given: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4.23 GiB.")

    monkeypatch.setattr(trial, "load_model", full)
    (problem,) = model_problems(spec)
    assert problem.text.startswith("It cannot run even one image: it needs more memory than cpu has.")


def test_fewer_images_at_once_are_proposed_where_a_gpu_has_no_memory_for_more() -> None:
    def run(count: int) -> None:
        tried.append(count)
        if count > 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    tried: list[int] = []
    assert how_many_fit(64, run) == 8 and tried == [64, 32, 16, 8]
    assert how_many_fit(1, lambda count: pytest.fail("one is known to fit")) == 1
    with pytest.raises(RuntimeError, match="another fault"):
        how_many_fit(4, lambda count: (_ for _ in ()).throw(RuntimeError("another fault")))


def test_workers_get_models_that_were_tried_on_this_machines_cpu(loads: list[str], tmp_path: Path) -> None:
    images, plan = {"demo:single": cl.open_images("demo:single")}, demo_plan(1, [1])
    text = changed(tmp_path / "a.safetensors", lambda state: state.pop("norm.weight"))
    study = plan.studies[0]
    spec = parse_variant(f"mine={text},device=cuda:7,dtype=float16")
    plan = type(plan)((type(study)(study.data, (spec,), study.methods, study.metrics),), plan.protocol)
    running = ready.Running({}, images, "cuda:7", 64, here=False, progress=False)
    with pytest.raises(cl.InputError, match=r"^mine: (.|\n)*norm\.weight"):
        ready.check_ready(_identified(plan, images), plan.trials, tmp_path, ready.Unreadable(), running)
    assert loads == ["demo"] and not trial._held


def _identified(plan: Any, images: Any) -> Any:
    return running_module.identified(plan, {}, images, progress=False)


# --- methods and classes ---


def test_methods_that_do_not_run_on_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(cl.InputError) as refused:
        cl.benchmark(["demo", "demo-cnn"], ["E=caap:cutoff=99", "rollout", "rise"], out=tmp_path / "run", **QUICK)
    lines = str(refused.value).splitlines()[1:]
    assert len(lines) == 3 and not (tmp_path / "run").exists()
    assert lines[0].startswith("  demo-cnn: E: ") and "rollout" in lines[1] and "demo-cnn is a CNN" in lines[1]
    assert lines[2].startswith("  demo: E: ") and "cutoff=99" in lines[2]


def test_classes_of_targets_are_looked_up_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(cl.InputError, match=r"^demo: .*zebra"):
        cl.benchmark("demo", "rise", target=cl.contrast("prediction", "zebra"), out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def test_the_papers_data_sets_need_models_with_their_classes(tmp_path: Path) -> None:
    options = {"data": [class_folders(tmp_path / "photos")], "images": 2, "tables": [14], "methods": ["caap"]}
    models = [f"ResNet-18={cnn_folder(tmp_path / 'few', 37)}", f"ResNet-50={cnn_folder(tmp_path / 'all')}"]
    settings = given_settings(models=models, without=["DenseNet-161", "VGG-16"], **options)
    with pytest.raises(cl.InputError) as refused:
        run_plan(paper_plan(settings), tmp_path / "run", progress=False)
    head, line, way_out = str(refused.value).splitlines()
    assert head == "Nothing was computed, as one thing stands in the way:"
    assert line.startswith("  ResNet-18: It has 37 classes, and ImageNet has 1,000.")
    assert way_out == "--without NAME leaves a model, method or data set of the profile out."


def test_models_of_one_name_are_told_apart_by_their_data_set() -> None:
    plan = demo_plan(1, [1, 2])
    first, second = plan.studies[0], plan.studies[-1]
    specs = [Variant("demo", {}, "ViT"), Variant("demo-clip", {}, "ViT")]
    studies = (
        type(first)(first.data, (specs[0],), first.methods),
        type(second)(second.data, (specs[1],), second.methods),
    )
    named = ready._named(type(plan)(studies), {spec.text: spec for spec in specs})
    assert [spec.label for spec in named.values()] == ["demo:single/ViT", "demo:two/ViT"]


# --- images ---


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos, of which one cannot be read, and masks, of which one has its object where no model looks."""
    for index, name in enumerate("abc"):
        for part in ("images", "masks"):
            (tmp_path / "data" / part).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (192, 64), (80 * index, 0, 0)).save(tmp_path / "data" / "images" / f"{name}.png")
        mask = np.zeros((64, 192), bool)
        mask[10:30, slice(0, 20) if name == "b" else slice(90, 110)] = True
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{name}.png")
    (tmp_path / "data" / "images" / "a.png").write_bytes(b"no picture")
    return tmp_path / "data"


def test_images_that_fail_are_told_at_the_start_and_the_rest_goes_on(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {**QUICK, "images": None, "data": f"masks:{photos}"}
    result = cl.benchmark("demo", "rise:samples=2", out=tmp_path / "run", **options)
    assert result.failed["image"].tolist() == ["a.png", "b.png"] and result.totals == (3, 1, 2)
    told = capsys.readouterr().err
    assert f"masks:{photos}: 1 of 3 images cannot be used:\n    " in told and "a.png" in told
    assert "demo: 1 of 2 images cannot be used:\n    b.png: The mask contains no pixel of the model's input" in told
    assert told.count("Their trials will fail, and the rest goes on.") == 2
    cl.benchmark("demo", "rise:samples=2", out=tmp_path / "run", **options)
    assert not capsys.readouterr().err  # nothing is left to compute


def test_a_profile_does_not_run_without_some_of_its_images(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "photos")
    (path, *_) = sorted((tmp_path / "photos").rglob("*.JPEG"))
    path.write_bytes(path.read_bytes()[:300])
    models = [f"{name}={vit_folder(tmp_path / name[:3])}" for name in ("ViT-L/16", "CLIP-L/14", "DeiT3-L/16")]
    chosen = {"models": models, "without": ["DINOv2-L/14"], "tables": [1], "methods": ["caap"], "images": 4}
    with pytest.raises(cl.InputError) as refused:
        run_plan(paper_plan(given_settings(data=[source], **chosen)), tmp_path / "run", progress=False)
    text = str(refused.value)
    assert "ImageNet-1K: 1 of 4 images cannot be used:" in text and path.name in text
    assert '--image-list "ImageNet-1K=FILE"' in text and not (tmp_path / "run").exists()


def test_photos_are_decoded_once_for_the_check_and_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = cl.open_images("demo:single")[0]
    reads: list[str] = []
    counted = replace(sample, read_image=lambda: reads.append("") or sample.read_image())
    images = replace(cl.open_images("demo:single"), samples=(counted,))
    plan = cl.benchmark("demo", "rise:samples=2", out=tmp_path / "run", **{**QUICK, "data": images}).plan
    reads.clear()
    unreadable = ready.Unreadable()
    again = running_module.identified(plan, {}, {images.source: images}, False, unreadable)
    assert len(reads) == 1 and again.identity == plan.identity and not unreadable.images


def test_fewer_images_than_are_due_are_said() -> None:
    assert count_problem("ImageNet-1K", 500, [500, 128]) == ""
    text = "ImageNet-1K has 10 images, and 500 and 128 are due: --images 10 if that is meant."
    assert count_problem("ImageNet-1K", 10, [500, 128, 500, 3]) == text


# --- the folder ---


def test_a_folder_that_cannot_be_written_or_is_full_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not folder_problems(tmp_path / "deep" / "run", 1000)
    (problem,) = folder_problems(tmp_path / "deep" / "run", 10**15)
    assert "1,000,000,000,000,000 trials need about" in problem.text and "GB are free. Make room" in problem.text
    monkeypatch.setattr(os, "access", lambda *given: False)
    with pytest.raises(cl.InputError, match=r"is not writable\. Choose another place with out="):
        cl.benchmark("demo", "rise", out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists() and shutil.disk_usage(tmp_path).free


def test_a_folder_below_a_file_or_a_broken_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for above, said in (("file", "is a file; expected a folder"), ("link", "is a link to nothing")):
        for out in (tmp_path / above, tmp_path / above / "run"):
            (problem,) = folder_problems(out, 10)
            assert problem.text.startswith(f"{tmp_path / above} {said}")


def test_keys_of_finished_trials_are_read_without_their_maps(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.finished() == set()
    with folder.locked():
        folder.append([{"key": "good"}, {"key": "bad", "error": "no"}, {"key": "both", "error": "no"}])
        folder.append([{"key": "both"}])
    (folder.parts / "torn.parquet").write_bytes(b"PAR1")
    assert folder.finished() == {"good", "bad", "both"} and folder.finished(retry_failed=True) == {"good", "both"}
