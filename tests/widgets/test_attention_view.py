"""The attention widget without a browser: what it shows is what the model does."""

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models.mlp_mixer import MlpMixer
from timm.models.resnet import resnet18

import caap_lab as cl
from caap_lab import HookedCNN, HookedMixer, HookedViT, InputError
from caap_lab.data.scenes import Scene
from caap_lab.plots.attention import REGION_STYLES
from caap_lab.widgets import attention, query_rows
from caap_lab.widgets.attention_view import AttentionView
from caap_lab.widgets.curve_view import svg_dash
from helpers.models import build, random_images


def ready(view: AttentionView) -> AttentionView:
    view.worker.wait()
    assert view.message == ""
    return view


@pytest.fixture(scope="module")
def demo() -> HookedViT:
    return cl.load_model("demo")


@pytest.fixture(scope="module")
def scene() -> Scene:
    return cl.demo_images("two", 1, seed=3)[0]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("family", ["vit", "dinov2_registers", "deit_distilled", "siglip", "odd_grid"])
def test_weights_are_the_pattern(family: str, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not whole:
        monkeypatch.setattr(query_rows, "LARGEST", 0)
    model = build(family)
    x = random_images(model, 1)
    cache = model.run_with_cache(x)[1]
    wanted = torch.stack([cache[f"blocks.{layer}.attn.hook_pattern"][0] for layer in range(4)])
    view = ready(attention(model, x))
    spec = model.spec
    for query in (0, spec.n_prefix, spec.n_tokens - 1):
        view.look(query)
        ready(view)
        assert view.weights is not None and view.map is not None
        torch.testing.assert_close(view.weights.float(), wanted[:, :, query], atol=1e-7, rtol=1e-3)
        view.grid.chosen = [2, 1]
        torch.testing.assert_close(view.map.flatten(), view.weights[2, 1, spec.n_prefix :].float())
    assert not model.has_hooks()


def test_large_attention_is_read_by_query(demo: HookedViT, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_rows, "LARGEST", 8 * 4 * 65**2 * 2 - 1)
    monkeypatch.setattr(query_rows, "KEPT", 3)
    view = ready(attention(demo, scene.image))
    sizes = []
    for query in range(6):
        view.look(query)
        ready(view)
        sizes.append(sum(rows.numel() for rows in view._rows._kept.values()))
    assert max(sizes) == 3 * 8 * 4 * 65
    monkeypatch.setattr(AttentionView, "_replace_jobs", lambda self, jobs: None)
    view.look(0)  # was dropped, and is not computed again before the next line
    assert "computing" in view.grid.caption and "does not fit in memory" in view.grid.caption
    assert view.grid.tiles == b""


def test_a_click_makes_a_query(demo: HookedViT, scene: Scene) -> None:
    view = ready(attention(demo, scene.image))
    assert (view.query, view.token.label, view.board.chosen) == (0, "class token", [])
    view.board.chosen = [5, 3]
    assert (view.query, view.token.label) == (1 + 5 * 8 + 3, "the chosen patch")
    assert view.grid.query == [5, 3]
    assert view.board.tile("photo")["caption"] == "query: patch at row 5, column 3"
    view.board.chosen = [0, 7]
    assert view.query == 8
    view.token.value = 0
    assert view.query == 0 and view.board.chosen == view.grid.query == []
    view.token.value = -1  # no patch was chosen: the middle one
    assert view.board.chosen == [4, 4]
    view.board.chosen = []  # Escape
    assert view.query == 0 and view.token.label == "class token"
    with pytest.raises(InputError, match="no token 65"):
        view.look(65)


def test_a_model_without_prefix_tokens() -> None:
    model = build("siglip")
    view = ready(attention(model, random_images(model, 1)))
    assert view.token.options == (("the chosen patch", -1), ("pooling head", -2))
    assert view.board.chosen == [2, 2]
    view.board.chosen = []
    assert view.query == 0 and view.board.chosen == [0, 0]


def test_names_of_prefix_tokens() -> None:
    model = build("dinov2_registers")
    view = ready(attention(model, random_images(model, 1)))
    names = ["the chosen patch", "class token", "register 0", "register 1", "register 2", "register 3"]
    assert [name for name, _ in view.token.options] == names
    view.token.value = 2
    assert view.query == 2 and view.board.tile("photo")["caption"] == "query: register 1"


def test_colours(demo: HookedViT, scene: Scene) -> None:
    view = ready(attention(demo, scene.image))
    view.board.chosen = [2, 2]
    maps = view._looked.maps
    tiles = np.frombuffer(view.grid.tiles, dtype="<u2").reshape(maps.shape)
    highs = np.frombuffer(view.grid.highs, dtype="<f4").reshape(9, 5, 1, 1)
    robust = np.frombuffer(view.grid.robust_highs, dtype="<f4").reshape(9, 5)
    assert np.abs(tiles / 65535 * highs - maps).max() <= 1e-5
    np.testing.assert_allclose(robust, np.percentile(maps.reshape(9, 5, 64), 98, axis=2), rtol=1e-6)
    view.grid.chosen = [3, 2]
    shares = {"each head": maps[3, 2], "each layer": maps[3], "all heads": maps}
    for scale, together in shares.items():
        view.grid.scale = scale
        tile = view.board.tile("map")
        assert tile["full"] == pytest.approx([0, together.max()])
        assert 0 == tile["robust"][0] < tile["robust"][1] <= tile["full"][1]
    np.testing.assert_array_equal(np.frombuffer(tile["scores"], dtype="<f4"), maps[3, 2].reshape(-1))


def test_means(demo: HookedViT, scene: Scene) -> None:
    view = ready(attention(demo, scene.image))
    weights = view.weights.float()[..., 1:].reshape(8, 4, 8, 8)
    names = {"cl": cl, "model": demo, "image": scene.image}
    for chosen, words, wanted in (
        ([6, 4], "layer 6, mean over heads", weights[6].mean(0)),
        ([8, 3], "mean over layers, head 3", weights[:, 3].mean(0)),
        ([8, 4], "mean over layers and heads", weights.mean((0, 1))),
    ):
        view.grid.chosen = chosen
        assert view.board.tile("map")["caption"] == words
        torch.testing.assert_close(view.map, wanted)
        exec(view.link, names)
        torch.testing.assert_close(names["shown"], view.map, atol=1e-6, rtol=1e-3)
        assert view.grid.tips[5 * chosen[0] + chosen[1]].startswith(f"{words}: ")


def test_heads_by_their_numbers(demo: HookedViT, scene: Scene) -> None:
    view = ready(attention(demo, scene, overlap=0.3))
    view.board.chosen = [2, 2]
    wanted = cl.attention_regions(demo, scene.image, scene.masks, overlap=0.3)
    table = view.to_dataframe()
    assert len(table) == 32 and list(table["head"][:4]) == [0, 1, 2, 3]
    for column, values in {
        "entropy of all patches (nats)": wanted.entropy[0],
        "distance from all patches (pixels)": wanted.distance[0],
        "intra-object mass": wanted.mean("mass")[0],
    }.items():
        np.testing.assert_allclose(table[column], values.reshape(-1), rtol=1e-5)
    row = view.weights.float()[3, 1]
    of_head = table.iloc[3 * 4 + 1]
    assert of_head["entropy of this query (nats)"] == pytest.approx(float(torch.special.entr(row).sum()), rel=1e-4)
    far = np.hypot(*np.meshgrid(8 * (np.arange(8) - 2), 8 * (np.arange(8) - 2))).reshape(-1)
    looked = float((row[1:].numpy() * far).sum() / row[1:].sum())
    assert of_head["distance from this query (pixels)"] == pytest.approx(looked, rel=1e-4)
    name, mask = next(iter(view.objects.masks.items()))
    assert of_head[f"this query to {name}"] == pytest.approx(float(row[1:][mask.reshape(-1)].sum()), rel=1e-4)
    view.token.value = 0  # the class token has no place
    assert view.to_dataframe()["distance from this query (pixels)"].isna().all()


def test_sorted_heads(demo: HookedViT, scene: Scene) -> None:
    view = ready(attention(demo, scene, overlap=0.3))
    assert view.grid.order[:6] == [0, 1, 2, 3, 4, 5] and view.grid.columns[-1] == view.grid.names[-1] == "mean"
    view.order.by.value = name = "entropy of all patches (nats)"
    values = view._rows.entropy
    assert [place - 5 * 2 for place in view.grid.order[10:14]] == np.argsort(-values[2], kind="stable").tolist()
    assert view.grid.caption == f"all heads by {name}, highest first, within each layer"
    view.order.within.value, view.order.first.value = "all layers", "lowest"
    cells = [divmod(place, 5) for place in view.grid.order if place >= 0]
    assert cells[-1] == (8, 4), "the mean of all"
    sorted_values = [values[cell] for cell in cells[:-1]]
    assert len(sorted_values) == 32 and sorted_values == sorted(sorted_values)
    table = view.to_dataframe()
    assert list(table[name]) == pytest.approx(sorted_values)
    assert f"{name} {sorted_values[0]:.3g}" in view.grid.tips[view.grid.order[0]]
    assert view.grid.marks[view.grid.order[0]] == "{}.{}".format(*cells[0])
    figure = view.to_figure()
    assert figure.axes[1].get_yticklabels()[1].get_text() == "5."
    # Painting takes the regions away for a while; the order by their mass stays.
    view.order.by.value = "intra-object mass"
    view.board.painted = [0, 1, 2]
    ready(view)
    assert view.order.by.value == "intra-object mass"
    assert view.message == ""


def test_what_is_said_of_a_head(demo: HookedViT, scene: Scene) -> None:
    view = ready(attention(demo, scene.image))
    view.board.chosen = [1, 1]
    of_head = view.weights[2, 3].float()
    said = view.grid.tips[2 * 5 + 3]
    patches, cls, own = float(of_head[1:].sum()), float(of_head[0]), float(of_head[10])
    assert said.startswith(f"layer 2, head 3: {patches:.1%} to patches, {cls:.1%} to class; {own:.1%} to itself; ")
    assert f"entropy of all patches (nats) {view._rows.entropy[2, 3]:.3g}" in said


def test_regions_of_masks(demo: HookedViT, scene: Scene) -> None:
    view = ready(attention(demo, scene.image, scene.masks, overlap=0.3))
    wanted = cl.attention_regions(demo, scene.image, scene.masks, overlap=0.3)
    assert view.objects.names == [str(label) for label in scene.masks]
    assert np.array_equal(view.regions.regions, wanted.regions)
    for quantity in ("mass", "weight"):
        view.sums.quantity.value = quantity
        for heads in ("mean", "chosen"):
            view.sums.heads.value = heads
            view.grid.chosen = [6, 2]
            values = wanted.mean(quantity, heads="mean" if heads == "mean" else 2)
            assert [line["name"] for line in view.sums.curve.series] == list(REGION_STYLES)
            for line in view.sums.curve.series:
                np.testing.assert_allclose(line["values"], values[wanted.kinds.index(line["name"])], rtol=1e-6)
    assert view.sums.curve.current == 6
    view.sums.curve.current = 1  # a click on the chart
    assert view.grid.chosen == [1, 2]
    assert "Attention in layer 1, head 2" in view.sums.table.value
    view.grid.chosen = [8, 4]  # means have no place in the chart
    assert "Attention in all layers, mean over heads" in view.sums.table.value and view.sums.curve.current == 1
    mass = wanted.mean("mass", heads="mean")[0].mean()
    assert f">{mass:.1%}<" in view.sums.table.value
    own = ready(attention(demo, scene, overlap=0.3))  # the scene's own masks
    assert np.array_equal(own.regions.mass, view.regions.mass, equal_nan=True)


def test_every_kind_has_a_dash() -> None:
    dashes = [svg_dash(style) for style in REGION_STYLES.values()]
    assert dashes[0] == "" and len(set(dashes)) == len(dashes)
    assert dashes[1] == "8.88 3.84"  # as matplotlib draws "--"


def test_painting(demo: HookedViT, scene: Scene) -> None:
    view = ready(attention(demo, scene.image))
    assert view.regions is None and view.sums.curve.series == []
    assert view.board.modes == ["choose", "paint", "erase"] and view.board.tile("photo")["paint"]
    view.board.painted = [9, 10, 18]
    ready(view)
    assert [line["name"] for line in view.sums.curve.series] == [
        name for name in REGION_STYLES if name != "inter-object"
    ]
    view.object.value = 1
    assert view.board.painted == []
    view.board.painted = [18, 44, 45]  # 18 changes hands
    ready(view)
    masks = {"object 1": grid_mask(9, 10), "object 2": grid_mask(18, 44, 45)}
    assert {name: mask.tolist() for name, mask in view.objects.masks.items()} == {
        name: mask.tolist() for name, mask in masks.items()
    }
    wanted = cl.attention_regions(demo, scene.image, masks)
    np.testing.assert_allclose(view.regions.mass, wanted.mass, rtol=1e-6)
    np.testing.assert_allclose(view.regions.weight, wanted.weight, rtol=1e-6)
    photo = view.board.tile("photo")
    colours = np.frombuffer(photo["rgba"], dtype=np.uint8).reshape(64, 4)
    assert np.flatnonzero(colours[:, 3]).tolist() == [9, 10]  # the other object; this one has the brush
    assert photo["tips"][44] == "object 2"
    view.clear.click()
    ready(view)
    assert list(view.objects.masks) == ["object 1"] and view.board.painted == []
    view.object.value = 0
    view.clear.click()
    assert view.regions is None and "paint an object" in view.sums.table.value


def grid_mask(*cells: int) -> np.ndarray:
    return np.isin(np.arange(64), cells).reshape(8, 8)


def test_painting_over_masks(demo: HookedViT, scene: Scene) -> None:
    mask = grid_mask(0, 1, 8)
    view = ready(attention(demo, scene.image, mask))
    assert view.objects.names == ["object 1", "object 2"] and view.board.painted == [0, 1, 8]
    assert "cl.attention_regions(model, image, masks, overlap=0.5)" in view.link
    view.board.painted = [0, 1]
    ready(view)
    assert "'object 1': [0, 1]" in view.link
    assert np.flatnonzero(view.regions.regions.reshape(-1) == 0).tolist() == [0, 1]


def test_names_of_objects(demo: HookedViT, scene: Scene) -> None:
    masks = [grid_mask(0), grid_mask(1), grid_mask(2)]
    assert attention(demo, scene.image, masks).objects.names == ["object 1", "object 2", "object 3"]
    assert attention(demo, scene.image, {"object 1": masks[0]}).objects.names == ["object 1", "object 2"]
    assert attention(demo, scene.image, {"object 2": masks[0]}).objects.names == ["object 2", "object 1"]


@pytest.mark.parametrize("painted", [False, True])
def test_link(demo: HookedViT, scene: Scene, painted: bool) -> None:
    view = ready(attention(demo, scene.image, scene.masks, overlap=0.3))
    if painted:
        view.board.painted = [3, 4, 11]
        view.sums.heads.value = "chosen"
        view.sums.quantity.value = "weight"
    view.board.chosen = [6, 1]
    view.grid.chosen = [3, 1]
    ready(view)
    names = {"cl": cl, "np": np, "model": demo, "image": scene.image, "masks": scene.masks}
    exec(view.link, names)
    # Blocks before the recorded one run with fused attention: the last digit of float16 may differ.
    torch.testing.assert_close(names["shown"], view.map, atol=1e-6, rtol=1e-3)
    wanted = view.regions.mean(view.sums.quantity.value, heads=1 if painted else "mean")
    np.testing.assert_allclose(names["sums"], wanted, rtol=1e-6)
    assert view._actions.code == view.link


def test_link_of_a_scene(demo: HookedViT, scene: Scene) -> None:
    view = ready(attention(demo, scene, overlap=0.3))
    names = {"cl": cl, "np": np, "model": demo, "image": scene}
    exec(view.link, names)
    torch.testing.assert_close(names["shown"], view.map, atol=1e-6, rtol=1e-3)
    np.testing.assert_allclose(names["sums"], view.regions.mean("mass", heads="mean"), rtol=1e-6)


def test_figure(demo: HookedViT, scene: Scene, tmp_path: Path) -> None:
    view = ready(attention(demo, scene.image))
    view.board.chosen = [2, 2]
    figure = view.to_figure()
    figure.savefig(tmp_path / "plain.png")
    titles = [ax.get_title() for ax in figure.axes]
    assert "demo: patch at row 2, column 2" in titles and "where it looks: layer 7, head 0" in titles
    view.board.painted = [9, 10]
    ready(view)
    figure = view.to_figure()
    figure.savefig(tmp_path / "regions.pdf")
    assert "demo, 1 image, mean over heads" in [ax.get_title() for ax in figure.axes]


def test_figure_while_computing(demo: HookedViT, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AttentionView, "_replace_jobs", lambda self, jobs: None)
    view = attention(demo, scene.image)
    tile = view.board.tile("map")
    assert view.map is None and (tile["caption"], tile["scores"]) == ("layer 7, head 0", b"")
    assert view.to_dataframe().empty
    view.to_figure().savefig(BytesIO(), format="png")


def test_what_is_refused(demo: HookedViT, scene: Scene) -> None:
    mixer = HookedMixer(MlpMixer(img_size=32, patch_size=8, embed_dim=16, num_blocks=2, num_classes=3))
    for model, kind in ((mixer, "Mixer"), (HookedCNN(resnet18(channels=(8, 8, 8, 8))), "CNN")):
        with pytest.raises(InputError, match=f"attention works on Vision Transformers; .* is a {kind}"):
            attention(model, scene.image)
    with pytest.raises(InputError, match="shows one image; 2 were given"):
        attention(demo, [scene.image, scene.image])
    with pytest.raises(InputError, match="shows one image"):
        attention(demo, cl.open_images("demo:two"))
    with pytest.raises(InputError, match=r"The mask is 3 x 3"):
        attention(demo, scene.image, np.ones((3, 3), dtype=bool))
    with pytest.raises(InputError, match="must be bool"):
        attention(demo, scene.image, np.ones((8, 8)))
    with pytest.raises(InputError, match="No object covers"):
        attention(demo, scene.image, np.zeros((8, 8), dtype=bool))
    with pytest.raises(InputError, match="overlap=2 must be"):
        attention(demo, scene.image, overlap=2)
    training = build("vit").train()
    with pytest.raises(InputError, match="training mode"):
        attention(training, random_images(training, 1))


def test_errors_are_shown(demo: HookedViT, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: Any, **options: Any) -> None:
        raise InputError("It does not work.")

    view = ready(attention(demo, scene.image))
    monkeypatch.setattr("caap_lab.widgets.attention_view.attention_regions", fails)
    view.board.painted = [1, 2]
    view.worker.wait()
    assert view.message == "It does not work."


def test_a_pooling_head_is_one_more_layer(tmp_path: Path) -> None:
    model = build("siglip")
    x = random_images(model, 1)
    row = model.run_with_cache(x)[1]["attn_pool.hook_pattern"][0, :, 0]
    view = ready(attention(model, x, np.arange(16).reshape(4, 4) < 5))
    assert (view.grid.layers, view.grid.names[-3:], view.grid.heads) == (6, ["3", "pool", "mean"], 4)
    assert view.weights is not None and view.weights.shape == (4, 3, 16), "of the blocks"
    torch.testing.assert_close(view.pool.float(), row, atol=1e-3, rtol=1e-3)
    view.look(3)
    for choose in (lambda: setattr(view.grid, "chosen", [4, 2]), lambda: setattr(view.token, "value", -2)):
        choose()  # its own query looks, whichever patch was clicked
        assert (view.token.label, view.board.chosen, view.grid.chosen) == ("pooling head", [], [4, 2])
        assert view.board.tile("photo")["caption"] == "query: pooling head" and view.grid.unasked == [4]
        torch.testing.assert_close(view.map.flatten(), row[2], atol=1e-3, rtol=1e-3)
        assert view.board.tile("map")["caption"] == "pool, head 2"
        view.board.chosen = [1, 1]  # a patch asks in the blocks
        assert (view.query, view.grid.chosen, view.token.label) == (5, [3, 2], "the chosen patch")
    view.token.value = -2
    view.token.value = -1  # back to the patch that was chosen
    assert (view.query, view.board.chosen) == (5, [1, 1])
    view.grid.chosen = [4, 3]
    torch.testing.assert_close(view.map.flatten(), row.mean(0), atol=1e-3, rtol=1e-3)
    view.grid.chosen = [4, 2]
    assert view.grid.tips[4 * 4 + 2] == "pool, head 2: 100.0% to patches"
    table = view.regions.other_queries()
    mass = table[(table["head"] == 2) & (table["kind"] == "pool-to-object")]["mass"].item()
    assert re.search(rf"pool-to-object</td><td [^>]*>{mass:.1%}<", view.sums.table.value)
    names = {"cl": cl, "model": model, "image": x, "masks": np.arange(16).reshape(4, 4) < 5, "np": np}
    exec(view.link, names)
    torch.testing.assert_close(names["shown"], view.map, atol=1e-3, rtol=1e-3)
    assert set(names["sums"]["kind"]) == {"pool-to-object", "pool-to-background"}
    figure = view.to_figure()
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == [*"0123", "pool", "mean"]
    view.sums.heads.value = "chosen"  # of the blocks, whose heads are others
    assert "mean over heads" in view.sums.curve.label
    assert any("mean over heads" in ax.get_title() for ax in view.to_figure().axes)
    view.grid.chosen = [0, 0]
    assert "layer 0" in view.sums.table.value


def test_a_pooling_head_with_another_number_of_heads() -> None:
    vit = timm.create_model(
        "vit_pe_core_base_patch16_224",
        **{"img_size": (16, 24), "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5},
        attn_pool_num_heads=2,
    )
    model = HookedViT(vit)
    x = random_images(model, 1)
    view = ready(attention(model, x))
    assert (view.grid.layers, view.grid.heads) == (4, 4) and len(view.grid.tiles) == 2 * 4 * 4 * 6
    assert view.grid.order[8:12] == [8, 9, -1, 11]
    assert view.pool.shape == (2, 1 + 6) and torch.all((view.pool.float().sum(1) - 1).abs() < 5e-3)
    view.grid.chosen = [2, 2]
    assert view.grid.chosen == [2, 1] and "to class" in view.grid.tips[4 * 2 + 1]
    view.order.by.value = "this query to patches"
    assert len(view.to_dataframe()) == 2 * 3 + 2
