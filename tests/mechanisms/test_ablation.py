"""Ablations of heads, layers and tokens, against hooks on timm's own modules."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import caap_lab as cl
from caap_lab import InputError
from caap_lab.mechanisms import reference as reference_module
from helpers.models import ALL_FAMILIES, HookedViT, build, random_images

COUNT = 4
QUICK = ("siglip",)
OTHERS = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ALL_FAMILIES]


def logits_with(model: HookedViT, images: Tensor, module: torch.nn.Module, edit: Callable[[Tensor], Tensor]) -> Tensor:
    """timm's logits with a module's input changed."""
    handle = module.register_forward_pre_hook(lambda _, inputs: (edit(inputs[0]),))
    with torch.no_grad():
        logits = model.vit(images)
    handle.remove()
    return logits


def inputs_of(model: HookedViT, images: Tensor, module: torch.nn.Module) -> Tensor:
    kept: list[Tensor] = []
    logits_with(model, images, module, lambda x: kept.append(x) or x)
    return kept[0]


REPLACED: dict[str, Callable[[Tensor], Tensor]] = {
    "zero": torch.zeros_like,
    "mean": lambda x: x.mean(0, keepdim=True).expand_as(x),
    "token_mean": lambda x: x.mean((0, 1), keepdim=True).expand_as(x),
}


@pytest.mark.parametrize("family", ["dinov2_registers", pytest.param("deit_distilled", marks=pytest.mark.slow)])
def test_heads_and_layers_equal_hooks_on_timms_modules(family: str) -> None:
    model = build(family, torch.float64)
    images = random_images(model, COUNT)
    target = cl.contrast(2, 5)
    with torch.no_grad():
        plain = model.vit(images)
    for name, replaced in REPLACED.items():
        chosen = {"layers": [1, 3], "replacement": name, "batch_size": 3, "progress": False}
        heads = cl.ablate_heads(model, images, target, heads=[0, 2], **chosen)
        parts = cl.ablate_layers(model, images, {"a": target, "b": 4}, **chosen)
        assert heads.axes == {"layer": [1, 3], "head": [0, 2]}
        assert parts.axes == {"layer": [1, 3], "part": ["attn", "mlp"], "target": ["a", "b"]}
        for row, layer in enumerate([1, 3]):
            block: Any = model.vit.blocks[layer]
            new_z = replaced(inputs_of(model, images, block.attn.proj))
            for column, head in enumerate([0, 2]):

                def edit(z: Tensor, new: Tensor = new_z, head: int = head) -> Tensor:
                    z = z.clone()
                    z[..., 8 * head : 8 * head + 8] = new[..., 8 * head : 8 * head + 8]
                    return z

                effect = logits_with(model, images, block.attn.proj, edit) - plain
                assert np.abs(heads.effect[:, row, column] - (effect[:, 2] - effect[:, 5]).numpy()).max() < 1e-10
            for column, module in enumerate((block.drop_path1, block.drop_path2)):
                added = replaced(inputs_of(model, images, module))
                effect = logits_with(model, images, module, lambda x, added=added: added) - plain
                assert np.abs(parts.effect[:, row, column, 0] - (effect[:, 2] - effect[:, 5]).numpy()).max() < 1e-10
                assert np.abs(parts.effect[:, row, column, 1] - effect[:, 4].numpy()).max() < 1e-10
    assert np.allclose(parts.baseline[:, 1], plain[:, 4].numpy(), atol=1e-10)


@pytest.mark.parametrize("family", OTHERS)
def test_other_images_noise_stores_and_edits_equal_patches(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(family, torch.float64)
    images = random_images(model, COUNT)
    store = model.record(images, ["z", "mlp_out"], layers=[1, 2], progress=False)
    off = cl.directions.project_off(torch.ones(8, dtype=torch.float64))
    sources = {"shuffled": store.shuffled(7), "noise": store.noise(7), "mean": store.mean()}
    given: list[tuple[Any, Any]] = [*sources.items(), (store[1], store[1]), (0.5, 0.5), (off, off)]
    monkeypatch.setattr(reference_module, "SHARD_BYTES", 1)  # other images' activations come from a folder
    for replacement, source in given:
        found = cl.ablate_heads(
            model, images, 3, layers=1, heads=1, replacement=replacement, seed=7, batch_size=3, progress=False
        )
        patched = model.run_patched(images, cl.Patch("z", 1, heads=[1], source=source))
        assert np.abs(found.values[:, 0, 0] - patched[:, 3].detach().numpy()).max() < 1e-10, replacement
        assert (
            found.replacement == getattr(source, "replacement", "0.5") or found.replacement == "activations of 1 image"
        )
        assert found.replacement in repr(found) and found.data.attrs["points"] == "z"


def test_the_replacement_may_come_from_other_images(tmp_path: Path) -> None:
    model = build("vit", torch.float64)
    image, others = random_images(model, 1), random_images(model, 5, seed=1)
    options = {"layers": 2, "progress": False}
    store = model.record(others, ["z", "mlp_out", "resid_pre"], progress=False)
    by_name = {"mean": store.mean(), "token_mean": None, "shuffled": None, "noise": store.noise(0)[:1]}
    for name, source in by_name.items():
        from_images = cl.ablate_heads(model, image, 1, replacement=name, reference=others, **options)
        from_store = cl.ablate_heads(model, image, 1, replacement=name, reference=store, **options)
        assert np.allclose(from_images.effect, from_store.effect, atol=1e-10)
        assert "5" in from_store.replacement and from_store.replacement == from_images.replacement
        if source is not None:
            by_hand = model.run_patched(image, cl.Patch("z", 2, heads=[0], source=source))
            assert abs(from_store.values[0, 0, 0] - by_hand[0, 1].item()) < 1e-10
    tokens = {"first": [1], "box": cl.tokens.box(0, 0, 2, 2), "own": np.eye(17, dtype=bool)[[3]]}
    found = cl.ablate_tokens(model, image, 1, tokens=tokens, reference=store, **options)
    by_hand = model.run_patched(image, cl.Patch("resid_pre", 2, tokens=[3], source=store.mean()))
    assert found.axes["tokens"] == list(tokens) and abs(found.values[0, 0, 2] - by_hand[0, 1].item()) < 1e-10


def test_no_image_is_replaced_by_itself() -> None:
    """Also where the reference holds it: its own activations would change nothing."""
    model = build("vit", torch.float64)
    images = random_images(model, 3)
    options: dict[str, Any] = {"layers": 1, "heads": 1, "replacement": "shuffled", "progress": False}
    for seed in range(6):
        found = cl.ablate_heads(model, images, 0, reference=images, seed=seed, **options)
        alone = cl.ablate_heads(model, images[1], 0, reference=[*images[:2], images[1]], seed=seed, **options)
        swapped = cl.ablate_heads(model, images[1], 0, reference=images[0], **options)
        assert (np.abs(found.effect) > 1e-6).all() and np.allclose(alone.effect, swapped.effect, atol=1e-12)


def test_the_prediction_is_the_default_and_titles_name_the_replacement() -> None:
    model = build("vit")
    images = random_images(model, 3)
    found = cl.ablate_heads(model, images, progress=False)
    predicted = model(images).argmax(1).tolist()
    assert np.array_equal(found.effect, cl.ablate_heads(model, images, predicted, progress=False).effect)
    assert found.metric == "logit of the predicted class" and found.effect.shape == (3, 4, 3)
    assert "replaced by mean over 3 images" in found.plot().get_title()
    assert found.to_dataframe()["effect"].notna().all() and found.difference(found)["p"].min() == 1
    off = cl.ablate_layers(
        model, images, 0, parts="mlp", replacement=cl.directions.project_off(torch.ones(24)), progress=False
    )
    assert off.condition == "one direction projected off" and off.axes["part"] == ["mlp"]
    each: dict[int, Any] = {layer: cl.directions.project_off(torch.ones(24)) for layer in (1, 2)}
    by_layer = cl.ablate_layers(model, images, 0, parts="mlp", layers=[1, 2], replacement=each, progress=False)
    assert by_layer.condition == off.condition and np.allclose(by_layer.effect, off.effect[:, 1:3], atol=1e-5)


def test_what_cannot_be_ablated_is_refused_before_it_runs() -> None:
    model = build("vit")
    image = random_images(model, 1)
    for name in ("mean", "shuffled"):
        with pytest.raises(InputError, match=r"reference=.*'token_mean'"):
            cl.ablate_heads(model, image, 0, replacement=name)
    with pytest.raises(InputError, match="needs several reference images"):
        cl.ablate_heads(model, image, 0, reference=image)
    with pytest.raises(InputError, match="holds only an image that is to be changed"):
        cl.ablate_heads(model, image, 0, replacement="shuffled", reference=[image[0], image[0]])
    with pytest.raises(InputError, match="omit it"):
        cl.ablate_heads(model, image, 0, replacement="zero", reference=image)
    with pytest.raises(InputError, match="does not hold attn_out of layer 0"):
        cl.ablate_layers(model, image, 0, reference=model.record(image, ["z"], progress=False))
    with pytest.raises(InputError, match="heads 0 to 2"):
        cl.ablate_heads(model, image, 0, heads=3, replacement="zero")
    with pytest.raises(InputError, match=r"heads=1\.5 must be a whole number"):
        cl.ablate_heads(model, image, 0, heads=1.5, replacement="zero")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="replacement='median'"):
        cl.ablate_heads(model, image, 0, replacement="median")
    with pytest.raises(InputError, match="parts='head'"):
        cl.ablate_layers(model, image, 0, parts=["head"])
    with pytest.raises(InputError, match="by name"):
        cl.ablate_tokens(model, image, 0, tokens={})
    with pytest.raises(InputError, match="Record the images again"):
        cl.ablate_heads(model, image, 0, reference=build("beit").record(image, ["z"], progress=False))
    images = random_images(model, 2)
    late: list[Callable[[], Any]] = [
        lambda: cl.ablate_heads(model, images, "dog"),
        lambda: cl.ablate_heads(model, images, 0, heads=3),
        lambda: cl.ablate_tokens(model, images, tokens={"one": [17]}),
    ]
    for call in late:
        with pytest.raises(InputError), model.hooks(fwd_hooks=[("hook_embed", lambda a, hook: pytest.fail("it ran"))]):
            call()
    assert not model.has_hooks()
