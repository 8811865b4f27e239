"""What a careless hand does: refused with a sentence, or right; never silently wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch

import caap_lab as cl
from caap_lab import ActivationStore, HookedViT, InputError, Patch
from helpers.models import build, random_images, timm_model


def test_an_open_store_never_reads_another_that_took_its_place(tmp_path: Path) -> None:
    model = build("vit")
    images = random_images(model, 4)
    first = model.record(images[:2], "resid_pre", out=tmp_path / "store", progress=False)
    model.record(images[2:], "resid_pre", out=tmp_path / "store", progress=False)
    with pytest.raises(InputError, match="it was replaced or damaged"):
        first["resid_pre", 0]


def test_a_folder_with_anything_else_is_never_replaced(tmp_path: Path) -> None:
    model = build("vit")
    store = model.record(random_images(model, 1), "resid_pre", progress=False)
    path = store.save(tmp_path / "store")
    (path / "notes.txt").write_text("kept")
    with pytest.raises(InputError, match=r"it has notes\.txt"):
        store.save(path)
    assert (path / "notes.txt").read_text() == "kept"
    (tmp_path / "empty").mkdir()
    assert len(ActivationStore.open(store.save(tmp_path / "empty"))) == 1
    with pytest.raises(InputError, match="exists and is not just"):
        store.save(path / "notes.txt")


def test_edits_through_data_are_seen() -> None:
    model = build("vit")
    image = random_images(model, 1)
    before = cl.caap(model, image, 0)
    store = model.record(image, "resid_pre", progress=False)
    model.vit.blocks[0].attn.qkv.weight.data.mul_(0.5)
    fresh = HookedViT(model.vit)
    after = cl.caap(model, image, 0)
    assert torch.equal(after.scores, cl.caap(fresh, image, 0).scores)
    assert after.fingerprint != before.fingerprint
    with pytest.raises(InputError, match="cannot be used with"):
        model.run_patched(image, Patch("resid_pre", [1], source=store))


def test_training_mode_is_refused() -> None:
    model = HookedViT(timm_model("vit_base_patch16_224", proj_drop_rate=0.5))
    assert not model.training and not model.vit.training
    model.train()
    with pytest.raises(InputError, match=r"call model\.eval\(\)"):
        cl.caap(model, random_images(model, 1), 0)


@pytest.mark.parametrize("as_what", [list, np.array, torch.tensor])
def test_booleans_are_a_choice_and_not_numbers(as_what) -> None:
    model = build("vit")
    image = random_images(model, 1)
    chosen = [token in (3, 9) for token in range(17)]
    with torch.no_grad():
        found = model.run_patched(image, Patch("resid_pre", 1, as_what(chosen)))
        assert torch.equal(found, model.run_patched(image, Patch("resid_pre", 1, [3, 9])))


@pytest.mark.parametrize("tokens", [[1.7], [[1, 2]], "cls", [cl.tokens.cls()]])
def test_tokens_that_are_none(tokens: object) -> None:
    model = build("vit")
    with pytest.raises(InputError, match="tokens must be"):
        model.run_patched(random_images(model, 1), Patch("resid_pre", 1, tokens))


def test_numpy_numbers_are_numbers(tmp_path: Path) -> None:
    model = build("vit")
    images = random_images(model, 2)
    one, head = np.int64(1), np.int64(2)
    store = model.record(images, "z", layers=one, progress=False)
    assert torch.equal(store[one]["z", 1], store["z", 1][1:])
    found = cl.sweep(
        model,
        images[0],
        lambda layer: Patch("z", layer, heads=head, source=np.zeros((17, 3, 8), dtype=np.float32)),
        over={"layer": np.arange(3)},
        metric=np.int64(4),
        progress=False,
    )
    assert found.values.shape == (1, 3)
    options = {"start": one, "cutoff": np.int64(3), "chunk_size": np.int64(5), "seed": np.int64(7), "blank": "noise"}
    cl.caap(model, images[0], one, **options).save(tmp_path / "map.safetensors")


def test_a_store_can_be_gone_through() -> None:
    model = build("vit")
    store = model.record(random_images(model, 3), "resid_pre", progress=False)
    assert [len(image) for image in store] == [1, 1, 1]
    for wrong in (slice(3, 1), [0, 1], 1.5):
        with pytest.raises(InputError):
            store[wrong]


def test_nan_is_never_mapped() -> None:
    model = build("vit")
    image = random_images(model, 1)
    with torch.no_grad():
        model.vit.blocks[2].mlp.fc1.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="NaN or infinity on a patched run"):
        cl.caap(model, image, 0)
    with pytest.raises(InputError, match="mask holds NaN"):
        cl.tokens.mask(np.full((4, 4), np.nan))


def test_filters_of_every_form_find_their_hook_points() -> None:
    model = build("vit")
    names = ["blocks.0.attn.hook_pattern", "hook_logits"]
    for given in (names, tuple(names), set(names), (name for name in names), dict.fromkeys(names).keys()):
        assert set(model.run_with_cache(random_images(model, 1), names_filter=given)[1]) == set(names)
    with pytest.raises(InputError, match="one function of a name"):
        model.run_with_cache(random_images(model, 1), names_filter=[lambda name: "pattern" in name])


@pytest.mark.parametrize("part", ["", "blocks"])
def test_torch_hooks_on_the_whole_that_would_not_run_are_refused(part: str) -> None:
    model = build("vit")
    handle = model.vit.get_submodule(part).register_forward_hook(lambda module, inputs, output: output * 2)
    with pytest.raises(InputError, match=r"A torch hook on model\.vit(\.blocks)? would not run"):
        model(random_images(model, 1))
    handle.remove()
    assert model(random_images(model, 1)).isfinite().all()


@pytest.mark.parametrize("part", ["", ".attn", ".mlp"])
def test_torch_hooks_that_would_not_run_are_refused(part: str) -> None:
    model = build("vit")
    image = random_images(model, 1)
    module = model.vit.get_submodule(f"blocks.2{part}")
    handle = module.register_forward_hook(lambda *a: None)
    with pytest.raises(InputError, match=rf"blocks\[2\]{part} would not run"):
        model(image)
    with pytest.raises(InputError, match="has hooks"):
        cl.caap(model, image, 0)
    handle.remove()
    seen = []
    handle = model.vit.blocks[2].norm1.register_forward_hook(lambda *a: seen.append(1))
    model(image)
    assert seen == [1], "hooks on the modules inside a block run"


def test_sweep_metric_is_tried_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    image = random_images(model, 1)
    monkeypatch.setattr(type(model), "run_block", lambda *a: pytest.fail("the model ran"))
    with pytest.raises(InputError, match=r"it returned \[\]"):
        cl.sweep(model, image, lambda layer: Patch("z", layer), over={"layer": [0]}, metric=lambda logits: logits.sum())
    with pytest.raises(InputError, match="returned None"):
        cl.sweep(model, image, lambda layer: None, over={"layer": [0]}, metric=0)
    with pytest.raises(InputError, match="named 'image'"):
        cl.sweep(model, image, lambda image: Patch("z", image), over={"image": [0]}, metric=0)


def test_autocast_changes_no_map() -> None:
    model = build("vit")
    image = random_images(model, 1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = cl.caap(model, image, 0)
    assert torch.equal(inside.scores, cl.caap(model, image, 0).scores)


def test_a_bad_photo_late_in_a_list_is_found_before_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = build("vit")
    (tmp_path / "text.png").write_text("no picture")
    monkeypatch.setattr(type(model), "run_block", lambda *a: pytest.fail("the model ran"))
    for name in ("missing.png", "text.png"):
        images = [*random_images(model, 3), tmp_path / name]
        with pytest.raises(InputError, match=name):
            cl.caap(model, images, 0)
        with pytest.raises(InputError, match=name):
            model.record(images, "resid_pre")


def test_models_that_look_alike_but_are_not() -> None:
    with pytest.raises(InputError, match="dynamic_img_pad"):
        HookedViT(timm_model("vit_base_patch16_224", img_size=(50, 40), dynamic_img_pad=True))
    with pytest.raises(InputError, match=r"cl\.wrap\(model\)"):
        cl.caap(timm_model("vit_base_patch16_224"), torch.zeros(3, 32, 32))


def test_arguments_of_other_kinds() -> None:
    model = build("vit")
    image = random_images(model, 1)
    for options in ({"start": "1"}, {"start": 1.0}, {"neighbourhood": ["none"]}, {"seed": "a"}, {"seed": 10**30}):
        with pytest.raises(InputError):
            cl.caap(model, image, 0, **options)
    with pytest.raises(InputError, match="is not available"):
        model.record(image, "resid_pre", device="cuda:7")
    with pytest.raises(InputError, match=r"is not \(height, width\)"):
        cl.caap(model, image, 0).upsample(100)
    assert cl.caap(model, image, 0, cutoff=0.01).settings["cutoff"] == 1
