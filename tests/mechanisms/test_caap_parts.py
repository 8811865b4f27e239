"""CAAP by heads and by blocks, against torch's hooks on timm's own modules and against patched runs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import caap_lab as cl
from caap_lab.models.tokens import neighbourhood
from helpers.models import build, random_images

CELLS = [(0, 0), (2, 1)]
QUIET: dict[str, Any] = {"patches": CELLS, "progress": False}


def plain_effect(
    model: cl.HookedViT, image: Tensor, blank: Tensor, cell: tuple[int, int], names: list[str], heads: list[int] | None
) -> np.ndarray:
    """Effect on all logits of full hook names at a patch's neighbourhood, in a run of its own with hooks."""
    tokens = neighbourhood(*cell).indices(model.spec)
    with torch.no_grad():
        _, cache = model.run_with_cache(image[None])

        def edit(x: Tensor, hook: Any) -> Tensor:
            x = x.clone()
            for token in tokens:
                for head in [slice(None)] if heads is None else heads:
                    x[:, token, head] = cache[hook.name][:, token, head]
            return x

        patched = model.run_with_hooks(blank[None], fwd_hooks=[(name, edit) for name in names])
        return (patched - model(blank[None]))[0].numpy()


def check(family: str) -> None:
    model = build(family, torch.float64)
    image, blank = random_images(model, 2)
    for what, points in (("writes", "z"), ("reads", "kv")):
        found = cl.caap_by_head(
            model, image, {"a": 0, "b": 4}, what=what, layers=[1, 3], heads=[0, 2], blank=blank, **QUIET
        )
        assert found.axes == {"layer": [1, 3], "head": [0, 2], "patch": CELLS, "target": ["a", "b"]}
        for layer, head, cell in [(1, 2, CELLS[1]), (3, 0, CELLS[0])]:
            names = [f"blocks.{layer}.attn.hook_{point}" for point in points]
            expected = plain_effect(model, image, blank, cell, names, [head])
            effect = found.data["effect"].sel(layer=layer, head=head).values[0, CELLS.index(cell)]
            np.testing.assert_allclose(effect, expected[[0, 4]], atol=1e-10)
    for part in ("attn", "mlp"):
        found = cl.caap_by_block(model, image, 3, part=part, layers=[0, 3], blank=blank, **QUIET)
        assert found.axes == {"layer": [0, 3], "patch": CELLS}
        for place, layer in enumerate((0, 3)):
            expected = plain_effect(model, image, blank, CELLS[1], [f"blocks.{layer}.hook_{part}_out"], None)
            np.testing.assert_allclose(found.per_image[0, place, 1], expected[3], atol=1e-10)


@pytest.mark.parametrize("family", ["siglip", "deit_distilled", "rope_mixed", "dino_head4"])
def test_equal_to_runs_with_hooks(family: str) -> None:
    check(family)


@pytest.mark.slow
def test_equal_to_runs_with_hooks_in_every_family(family: str) -> None:
    check(family)


def with_module_hooks(vit: Any, image: Tensor, hooks: list[tuple[Any, Callable]]) -> Tensor:
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        with torch.no_grad():
            return vit(image[None])[0]
    finally:
        for handle in handles:
            handle.remove()


def test_equal_to_hooks_on_timms_own_modules() -> None:
    model = build("deit3", torch.float64)  # with LayerScale
    image, blank = random_images(model, 2)
    vit, tokens = model.vit, neighbourhood(1, 1).indices(model.spec)
    kept: dict[Any, Tensor] = {}
    block = vit.blocks[2]

    def keep(module: Any, inputs: Any, output: Tensor) -> None:
        kept[module] = output

    with_module_hooks(vit, image, [(part, keep) for part in (block.ls1, block.ls2, block.attn.qkv)])
    on_blank = with_module_hooks(vit, blank, [])

    def put_in(module: Any, inputs: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, tokens] = kept[module][:, tokens]
        return output

    def put_in_keys_and_values(module: Any, inputs: Any, output: Tensor) -> Tensor:
        new = output.clone().unflatten(-1, (3, 3, 8))  # q, k, v by heads
        new[:, tokens, 1:, 1] = kept[module].unflatten(-1, (3, 3, 8))[:, tokens, 1:, 1]
        return new.flatten(-3)

    for module, hook, found in (
        (block.ls1, put_in, cl.caap_by_block(model, image, 5, blank=blank, progress=False)),
        (block.ls2, put_in, cl.caap_by_block(model, image, 5, part="mlp", blank=blank, progress=False)),
        (
            block.attn.qkv,
            put_in_keys_and_values,
            cl.caap_by_head(model, image, 5, what="reads", blank=blank, progress=False),
        ),
    ):
        expected = with_module_hooks(vit, blank, [(module, hook)])[5] - on_blank[5]
        maps = found.maps.sel(layer=2) if "head" not in found.axes else found.maps.sel(layer=2, head=1)
        np.testing.assert_allclose(maps.values[0, 1, 1], float(expected), atol=1e-10)


def test_groups_of_heads_go_in_together() -> None:
    model = build("vit", torch.float64)
    image, blank = random_images(model, 2)
    pairs = [(0, 1), (2, 0), (2, 2)]
    one = {"own": [(2, 1)], "all": pairs}
    found = cl.caap_by_head(model, image, 1, heads=one, blank=blank, **QUIET)
    assert found.axes == {"heads": ["own", "all"], "patch": CELLS}
    store = model.record(image, "z", progress=False)
    tokens = neighbourhood(*CELLS[1]).indices(model.spec)
    patches = [cl.Patch("z", layer, tokens, heads=head, source=store) for layer, head in pairs]
    expected = (model.run_patched(blank, patches) - model(blank))[0, 1].item()
    assert found.per_image[0, 1, 1] == pytest.approx(expected, abs=1e-10)
    alone = cl.caap_by_head(model, image, 1, layers=2, heads=1, blank=blank, **QUIET)
    np.testing.assert_allclose(found.per_image[:, 0], alone.per_image[:, 0, 0], atol=1e-12)


def test_images_in_small_batches_and_what_cannot_be_heard() -> None:
    model = build("dinov2_registers", torch.float64)
    images = random_images(model, 3)
    found = cl.caap_by_head(model, images, **QUIET)
    small = cl.caap_by_head(model, images, batch_size=2, **QUIET)
    np.testing.assert_allclose(found.per_image, small.per_image, atol=1e-10)
    own = model(images).argmax(dim=1).tolist()
    alone = cl.caap_by_head(model, images[1], own[1], **QUIET)
    np.testing.assert_allclose(found.per_image[1], alone.per_image[0], atol=1e-10)
    assert (found.per_image[:, 3] == 0).all()  # a class token is read, and no patch writes to it behind the last block
    assert (cl.caap_by_head(model, images, what="reads", **QUIET).per_image[:, 3] != 0).any()
    runs = 3 * len(CELLS)  # per layer
    assert found.data.attrs["runs"] == 4 * runs
    # the images to their last block, the blanks once, and the runs from their block on
    assert found.data.attrs["passes"] == pytest.approx(3 * (1 + 1 + runs * (4 + 3 + 2) / 4))


def test_patches_maps_and_pictures() -> None:
    model = build("vit")
    image = random_images(model, 1)
    found = cl.caap_by_head(model, image, 0, patches="top3", layers=[0, 1], neighbourhood="none", progress=False)
    assert found.axes["patch"] == cl.caap(model, image, 0, neighbourhood="none").rank()[:3]
    assert found.maps.dims == ("image", "layer", "head", "row", "col") and np.isnan(found.maps.values).sum() == 6 * 13
    row, col = found.axes["patch"][1]
    assert found.maps.sel(layer=1, head=2).values[0, row, col] == found.per_image[0, 1, 2, 1]
    frame = found.by_layer((row, col))
    np.testing.assert_allclose(frame["mean"], found.per_image[0, :, :, 1].sum(axis=1))
    assert found.plot(patch=(row, col)).get_ylabel() == "layer (block)"
    assert len(found.plot_layers().patches) == 2 and found._repr_mimebundle_()["image/png"].startswith(b"\x89PNG")
    both = cl.caap_by_block(model, image, {"a": 0, "b": 1}, progress=False)  # of all patches
    assert both.maps.dims == ("image", "layer", "target", "row", "col") and both.maps.shape == (1, 4, 2, 4, 4)
    assert both.plot_layers(target="b").get_xlabel() == "effect on the logit of b"
    assert both._repr_mimebundle_()["image/png"] and len(both.to_dataframe()) == 4 * 16 * 2
    with pytest.raises(cl.InputError, match="give one of 'a', 'b'"):
        both.by_layer()
    with pytest.raises(cl.InputError, match=r"Patch \(9, 9\) was not run"):
        found.by_layer((9, 9))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"what": "sees"}, "use one of writes, reads"),
    ({"heads": [3]}, "there are heads 0 to 2"),
    ({"layers": 4}, "Layer 4 does not exist"),
    ({"heads": {"a": [(4, 0)]}}, r"\(4, 0\) is not a \(layer, head\)"),
    ({"heads": {"a": []}}, "names no head"),
    ({"heads": {"a": [(0, 0)]}, "layers": 1}, "omit layers"),
    ({"blank": "zero_activations"}, "consists of activations"),
    ({"patches": "top0"}, "use 'top10', 'all', or a list"),
    ({"neighbourhood": "big"}, "There is no neighbourhood"),
    ({"batch_size": 0}, "batch_size must be"),
]


def test_refusals() -> None:
    model = build("vit")
    image = random_images(model, 1)
    for options, message in REFUSED:
        with pytest.raises(cl.InputError, match=message):
            cl.caap_by_head(model, image, 0, progress=False, **options)
