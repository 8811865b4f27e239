"""Attention between regions: equal to plain loops over pairs, on every family; masks to patches; the demo world."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from timm.models.mlp_mixer import MlpMixer

import caap_lab as cl
from caap_lab import HookedViT, InputError
from caap_lab.data.image_set import ImageSet, Regions, Sample
from caap_lab.models.regions import patch_regions
from helpers.models import build, random_images, timm_model

WORDS = {"cls": "class", "dist": "distillation", "reg": "registers"}


def patch_mask(model: HookedViT, cells: set[tuple[int, int]]) -> np.ndarray:
    """Pixels of whole patches."""
    height, width = model.patch_size
    mask = np.zeros(model.image_size, dtype=bool)
    for row, col in cells:
        mask[row * height : (row + 1) * height, col * width : (col + 1) * width] = True
    return mask


def two_objects(model: HookedViT) -> list[np.ndarray]:
    """Two objects on a grid of at least 4 x 3."""
    return [patch_mask(model, {(0, 0), (0, 1), (1, 0)}), patch_mask(model, {(2, 1), (2, 2), (3, 1), (3, 2)})]


def by_loops(model: HookedViT, pattern: np.ndarray, regions: np.ndarray) -> dict[str, tuple[float, float]]:
    """Weight and mass of every kind of one head's pattern [query, key], pair by pair."""
    where = [WORDS[role] for role in model.spec.prefix] + [int(r) for r in regions.reshape(-1)]
    total: dict[str, float] = {}
    pairs: dict[str, int] = {}
    queries: dict[str, set[int]] = {}
    for i, at in enumerate(where):
        for j, to in enumerate(where):
            if -2 in (at, to) or at in ("distillation", "registers"):
                continue
            if at not in ("class", -1) and to not in ("class", "distillation", "registers", -1):
                kind = "intra-object" if at == to else "inter-object"
            else:
                names = [{-1: "background"}.get(r, r if isinstance(r, str) else "object") for r in (at, to)]
                kind = "-to-".join(names)
            total[kind] = total.get(kind, 0.0) + float(pattern[i, j])
            pairs[kind] = pairs.get(kind, 0) + 1
            queries.setdefault(kind, set()).add(i)
    return {kind: (total[kind] / pairs[kind], total[kind] / len(queries[kind])) for kind in total}


def distance_and_entropy(model: HookedViT, pattern: np.ndarray) -> tuple[float, float]:
    (rows, cols), (height, width), first = model.grid, model.patch_size, model.spec.n_prefix
    centres = [((r + 0.5) * height, (c + 0.5) * width) for r in range(rows) for c in range(cols)]
    distance = entropy = 0.0
    for i, (y, x) in enumerate(centres):
        weights = pattern[first + i]
        far = [((y - v) ** 2 + (x - u) ** 2) ** 0.5 for v, u in centres]
        distance += sum(w * d for w, d in zip(weights[first:], far, strict=True)) / sum(weights[first:])
        entropy -= sum(w * np.log(w) for w in weights if w > 0)
    return distance / len(centres), entropy / len(centres)


def test_every_kind_equals_a_loop_over_pairs(family: str) -> None:
    model = build(family, torch.float64)
    images = random_images(model, 2)
    ignored = patch_mask(model, {(3, 0)})
    masks = [two_objects(model), {"only": two_objects(model)[1]}]
    found = cl.attention_regions(model, images, masks, ignored=[None, ignored])
    store = model.record(images, "pattern", progress=False)
    assert (found.regions[0] == -2).sum() == 0 and found.regions[1, 3, 0] == -2
    for image in range(2):
        for layer in range(model.n_layers):
            patterns = store["pattern", layer][image].numpy()
            for head, pattern in enumerate(patterns):
                expected = by_loops(model, pattern, found.regions[image])
                for k, kind in enumerate(found.kinds):
                    for values, one in zip((found.weight, found.mass), expected.pop(kind, (np.nan,) * 2), strict=True):
                        np.testing.assert_allclose(values[image, k, layer, head], one, rtol=0, atol=1e-10)
                assert not expected  # every pair has its kind
                distance, entropy = distance_and_entropy(model, pattern)
                assert abs(found.distance[image, layer, head] - distance) < 1e-10
                assert abs(found.entropy[image, layer, head] - entropy) < 1e-10
    assert not model.has_hooks()


def test_masses_of_a_query_add_up_to_one(family: str) -> None:
    model = build(family, torch.float64)
    found = cl.attention_regions(model, random_images(model, 2), [two_objects(model), two_objects(model)[0]])
    queries = [
        kind.split("-to-")[0].replace("intra-object", "object").replace("inter-object", "object")
        for kind in found.kinds
    ]
    assert set(queries) == {"object", "background", *(["class"] if "cls" in model.spec.prefix else [])}
    for query in set(queries):
        own = [k for k, at in enumerate(queries) if at == query]
        np.testing.assert_allclose(np.nansum(found.mass[:, own], axis=1), 1, rtol=0, atol=1e-12)


def test_uniform_attention() -> None:
    model = build("dinov2_registers", torch.float64)
    with torch.no_grad():
        for block in model.vit.blocks:
            block.attn.qkv.weight.zero_()
            block.attn.qkv.bias.zero_()
    found = cl.attention_regions(model, random_images(model, 1), two_objects(model))
    n_tokens = model.spec.n_tokens
    np.testing.assert_allclose(found.weight, 1 / n_tokens, atol=1e-12)
    np.testing.assert_allclose(found.entropy, np.log(n_tokens), atol=1e-12)
    mass = dict(zip(found.kinds, found.mass[0, :, 0, 0], strict=True))
    assert np.isclose(mass["object-to-registers"], 4 / n_tokens)
    assert np.isclose(mass["intra-object"], (3 * 3 + 4 * 4) / 7 / n_tokens)
    assert np.isnan(found.standard_error()).all()  # one image shows no spread


def test_patches_belong_to_the_object_that_covers_most() -> None:
    model = build("vit")  # 4 x 4 patches of 8 x 8 pixels
    half, less, more = (np.zeros((32, 32), dtype=bool) for _ in range(3))
    half[:8, :4] = True  # half of patch (0, 0)
    less[8:16, :3] = True  # less than half of patch (1, 0)
    more[:8, 3:8] = True  # more than half of patch (0, 0)
    assert patch_regions(half, model)[0, 0] == 0 and (patch_regions(half, model) >= 0).sum() == 1
    assert (patch_regions(less, model) == -1).all()
    assert patch_regions(less, model, overlap=0.3)[1, 0] == 0 and (patch_regions(less, model, overlap=0.4) == -1).all()
    assert patch_regions(less, model, overlap=0)[1, 0] == 0 and (patch_regions(less, model, overlap=0) >= 0).sum() == 1
    assert patch_regions([half, more], model)[0, 0] == 1
    assert patch_regions([half, more], model, overlap=1)[0, 0] == -1
    assert patch_regions(torch.from_numpy(half), model)[0, 0] == 0
    assert patch_regions(np.eye(4, dtype=bool), model).tolist() == (np.eye(4, dtype=int) - 1).tolist()  # of the grid


def test_nested_equal_and_tied_objects() -> None:
    model = build("vit")
    laptop, keyboard = patch_mask(model, {(0, 0), (0, 1), (1, 0)}), patch_mask(model, {(0, 1)})
    for masks, place in (([laptop, keyboard], 1), ({620: keyboard, 508: laptop}, 0)):
        regions = patch_regions(masks, model)
        assert regions[0, 1] == place and regions[0, 0] == 1 - place
    same = patch_regions([laptop, laptop, laptop.copy()], model)
    assert set(np.unique(same)) == {-1, 0}
    left, right = np.zeros((2, 32, 32), dtype=bool)
    left[:8, :4], right[:8, 4:8] = True, True
    assert patch_regions([left, right], model)[0, 0] == 0 and patch_regions([right, left], model)[0, 0] == 0


def test_ignored_pixels_count_for_nothing() -> None:
    model = build("vit")
    mask, ignored = np.zeros((2, 32, 32), dtype=bool)
    mask[:8, :3] = True  # 3 of 8 columns, of which 5 are not ignored
    ignored[:8, 5:8] = True
    assert patch_regions(mask, model)[0, 0] == -1
    assert patch_regions(mask, model, ignored=ignored)[0, 0] == 0
    ignored[:8, 3:8] = True
    assert patch_regions(mask, model, ignored=ignored)[0, 0] == -2
    assert patch_regions(ignored, model, ignored=ignored)[0, 0] == -2


def test_images_without_a_kind_do_not_count() -> None:
    model = build("vit", torch.float64)
    first, second = two_objects(model)
    images = random_images(model, 3)
    found = cl.attention_regions(model, images, [[first, second], [first], [first, second]])
    inter = found.kinds.index("inter-object")
    assert np.isnan(found.weight[1, inter]).all() and np.isfinite(found.weight[[0, 2]]).all()
    both = found.mass[[0, 2], inter]
    np.testing.assert_allclose(found.mean("mass")[inter], both.mean(axis=0))
    np.testing.assert_allclose(found.standard_error("mass")[inter], both.std(axis=0) / 2**0.5)
    heads = found.entropy.mean(axis=2)
    np.testing.assert_allclose(found.mean("entropy", heads="mean"), heads.mean(axis=0))
    np.testing.assert_allclose(found.standard_error("entropy", heads="mean"), heads.std(axis=0) / 3**0.5)
    np.testing.assert_allclose(found.mean(heads=2), found.mean()[..., 2])
    alone = cl.attention_regions(model, images[1], first)
    np.testing.assert_allclose(alone.weight[0], found.weight[1], atol=1e-12)
    assert np.isnan(alone.mean()[inter]).all() and np.isnan(alone.standard_error()[inter]).all()
    for wrong in (3, -1, True, "all"):
        with pytest.raises(InputError, match="heads="):
            found.mean(heads=wrong)
    with pytest.raises(InputError, match="quantity="):
        found.mean("size")


def test_batches_and_data_sets_change_nothing() -> None:
    model = build("vit", torch.float64)
    scenes = cl.demo_images("two", 5, seed=3)
    # The image is smaller in this model, so that masks go through its preprocessing.
    masks = [{key: model.preprocessing.mask(mask) for key, mask in scene.masks.items()} for scene in scenes]
    images = [scene.image for scene in scenes]
    whole = cl.attention_regions(model, images, masks, overlap=0.2, progress=False)
    parts = cl.attention_regions(model, images, masks, overlap=0.2, batch_size=2, progress=False)

    def regions(scene):
        shared = {**scene.masks, "also": scene.masks[scene.label]}  # a class that is not told apart
        return lambda: Regions(shared, np.zeros((64, 64), dtype=bool))

    samples = [Sample(f"scene {i}", lambda s=scene: s.image, None, regions(scene)) for i, scene in enumerate(scenes)]
    data_set = cl.attention_regions(model, ImageSet("test", "test:scenes", tuple(samples)), overlap=0.2)
    for other in (parts, data_set):
        assert np.array_equal(other.regions, whole.regions)
        for name in ("weight", "mass", "distance", "entropy"):
            np.testing.assert_allclose(getattr(other, name), getattr(whole, name), atol=1e-12)
    assert whole.images == (0, 1, 2, 3, 4) and data_set.images[4] == "scene 4"


def test_half_precision() -> None:
    image, model = random_images(build("vit"), 1), build("vit", torch.float64)
    exact = cl.attention_regions(model, image, two_objects(model))
    rough = cl.attention_regions(build("vit", torch.bfloat16), image, two_objects(model))
    np.testing.assert_allclose(rough.mass, exact.mass, atol=0.05)
    np.testing.assert_allclose(rough.mass[:, 2:4].sum(axis=1), 1 - rough.mass[:, :2].sum(axis=1), atol=0.02)


def test_table_and_repr() -> None:
    model = build("vit")
    found = cl.attention_regions(model, random_images(model, 2), [two_objects(model)] * 2)
    frame = found.to_dataframe()
    assert list(frame.columns) == ["model", "image", "layer", "head", "kind", "weight", "mass"]
    assert len(frame) == found.weight.size == 2 * len(found.kinds) * 4 * 3
    row = frame[(frame.image == 1) & (frame.layer == 2) & (frame["head"] == 1) & (frame.kind == "background-to-object")]
    place = (1, found.kinds.index("background-to-object"), 2, 1)
    assert row.weight.item() == found.weight[place] and row.mass.item() == found.mass[place]
    assert "2 images (2 with several objects)" in repr(found)


def test_result_carries_labels() -> None:
    model = build("vit")
    found = cl.attention_regions(model, random_images(model, 2), [two_objects(model)] * 2)
    data = found.data
    assert data["weight"].dims == data["mass"].dims == ("image", "kind", "layer", "head")
    assert data["distance"].dims == data["entropy"].dims == ("image", "layer", "head")
    assert data["regions"].dims == ("image", "row", "col")
    assert data.attrs == {"overlap": 0.5, "model": model.model_name} and found.overlap == 0.5
    for name in ("weight", "mass", "distance", "entropy", "regions"):
        np.testing.assert_array_equal(getattr(found, name), data[name].values)
    frame = found.to_dataframe().set_index(["image", "kind", "layer", "head"]).sort_index()
    for name in ("weight", "mass"):
        labelled = data[name].sel(kind="object-to-background", layer=3).isel(image=1)
        np.testing.assert_array_equal(frame[name].loc[1, "object-to-background", 3].to_numpy(), labelled.values)
    over_layers = found.over_layers("mass").set_index(["kind", "layer"]).sort_index()
    means, errors = found.mean("mass", heads="mean"), found.standard_error("mass", heads="mean")
    for place, kind in enumerate(found.kinds):
        np.testing.assert_array_equal(over_layers["mean"].loc[kind], means[place])
        np.testing.assert_array_equal(over_layers["se"].loc[kind], errors[place])
    assert (over_layers["n"] == 2).all() and len(repr(found)) < 300


def test_plots() -> None:
    model = build("vit")
    found = cl.attention_regions(model, random_images(model, 2), [two_objects(model), two_objects(model)[0]])
    shown = found._repr_mimebundle_()
    assert shown["image/png"].startswith(b"\x89PNG") and shown["text/plain"] == repr(found)
    ax = found.plot(quantity="mass", heads=1)
    by_label = {line.get_label(): line for line in ax.get_lines()}
    np.testing.assert_array_equal(by_label["intra-object"].get_ydata(), found.mean("mass", heads=1)[0])
    assert len(by_label) == 5 and len({line.get_linestyle() for line in by_label.values()}) >= 4
    assert len(ax.collections) == 5 and ax.get_xlabel() == "layer (block)"
    own = Figure().subplots(1, 2)
    assert found.plot_distance(own[0]) is own[0] and "pixels" in own[0].get_ylabel()
    assert found.plot_entropy(own[1]) is own[1] and "nats" in own[1].get_ylabel()
    one = cl.attention_regions(model, random_images(model, 1), two_objects(model)[0])
    assert len(one.plot().get_lines()) == 4  # no pairs between objects
    with pytest.raises(InputError, match="quantity='distance'"):
        found.plot(quantity="distance")


def test_misuse_is_refused_in_words() -> None:
    model = build("vit")
    image, masks = random_images(model, 1), two_objects(model)
    with pytest.raises(InputError, match="works on Vision Transformers; demo-cnn is a CNN"):
        cl.attention_regions(cl.load_model("demo-cnn"), image, masks)
    mixer = MlpMixer(num_classes=7, img_size=32, patch_size=8, embed_dim=24, num_blocks=2)
    with pytest.raises(InputError, match="is a Mixer"):
        cl.attention_regions(cl.HookedMixer(mixer), image, masks)
    with pytest.raises(InputError, match="Masks of the objects are needed"):
        cl.attention_regions(model, image)
    with pytest.raises(InputError, match="no object masks"):
        cl.attention_regions(model, image, [])
    with pytest.raises(InputError, match="uint8"):
        cl.attention_regions(model, image, masks[0].astype(np.uint8))
    with pytest.raises(InputError, match=r"The mask is 20 x 20"):
        cl.attention_regions(model, image, np.zeros((20, 20), dtype=bool))
    with pytest.raises(InputError, match="differ in size"):
        cl.attention_regions(model, image, [masks[0], np.zeros((4, 4), dtype=bool)])
    with pytest.raises(InputError, match="one entry for each of the 2 images, not 3"):
        cl.attention_regions(model, random_images(model, 2), [masks] * 3)
    with pytest.raises(InputError, match="one entry for each of the 2 images, not a dict"):
        cl.attention_regions(model, random_images(model, 2), dict(enumerate(masks)))
    with pytest.raises(InputError, match=r"covers a fraction of 0\.5 of any patch"):
        cl.attention_regions(model, image, np.zeros((32, 32), dtype=bool))
    with pytest.raises(InputError, match="overlap="):
        cl.attention_regions(model, image, masks, overlap=50)
    with pytest.raises(InputError, match="has its own masks"):
        cl.attention_regions(model, cl.open_images("demo:two")[:1], masks)
    bare = ImageSet("test", "test:bare", (Sample("one", lambda: None),))  # type: ignore[arg-type,return-value]
    with pytest.raises(InputError, match="images without masks"):
        cl.attention_regions(model, bare)
    training = HookedViT(timm_model("vit_base_patch16_224", proj_drop_rate=0.5))
    training.train()
    with pytest.raises(InputError, match=r"call model\.eval\(\)"):
        cl.attention_regions(training, image, masks)
    assert not model.has_hooks()


def test_no_hook_stays_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr("caap_lab.diagnostics.attention_regions.attention_entropy", fail)
    model = build("vit")
    with pytest.raises(RuntimeError, match="in the middle"):
        cl.attention_regions(model, random_images(model, 1), two_objects(model))
    assert not model.has_hooks()


def test_the_demo_model_groups_objects_early() -> None:
    found = cl.attention_regions(cl.load_model("demo"), cl.open_images("demo:two")[:40], progress=False)
    intra, inter = (
        found.mean("weight", heads="mean")[found.kinds.index(f"{kind}-object")] for kind in ("intra", "inter")
    )
    assert intra.argmax() == 2 and intra[2] > 4 * intra[0] and intra[5] < 0.8 * intra[2]
    assert (intra > inter).all()


@pytest.mark.parametrize("family", ["dinov2_registers", "deit_distilled", "siglip"])
def test_other_queries_equal_loops(family: str) -> None:
    model = build(family, torch.float64)
    images = random_images(model, 2)
    found = cl.attention_regions(model, images, [two_objects(model), two_objects(model)[0]])
    table = found.other_queries().set_index(["image", "layer", "head", "kind"])
    assert list(found.other_queries()) == list(found.to_dataframe())
    cache = model.run_with_cache(images)[1]
    query = {"dinov2_registers": "registers", "deit_distilled": "distillation", "siglip": "pool"}[family]
    layers = ["pool"] if query == "pool" else range(4)
    keys = ["object", "background", *dict.fromkeys(WORDS[role] for role in model.spec.prefix)]
    assert len(table) == 2 * len(layers) * 3 * len(keys)
    for image in range(2):
        patches = ["object" if patch >= 0 else "background" for patch in found.regions[image].reshape(-1)]
        where = np.array([WORDS[role] for role in model.spec.prefix] + patches)
        for layer in layers:
            hook = "attn_pool.hook_pattern" if layer == "pool" else f"blocks.{layer}.attn.hook_pattern"
            pattern = cache[hook][image].numpy()
            rows = pattern if query == "pool" else pattern[:, where == query]
            for head in range(3):
                for key in keys:
                    weight, mass = table.loc[(image, layer, head, f"{query}-to-{key}")][["weight", "mass"]]
                    chosen = rows[head][:, where == key]
                    np.testing.assert_allclose([weight, mass], [chosen.mean(), chosen.sum(1).mean()], atol=1e-12)
    assert not model.has_hooks()


def test_a_class_token_and_patches_have_no_other_queries() -> None:
    model = build("vit")
    found = cl.attention_regions(model, random_images(model, 1), two_objects(model))
    assert len(found.other_queries()) == 0 and "prefix_mass" not in found.data and "pool_mass" not in found.data


def test_registers_and_a_pooling_head_stand_in_one_table() -> None:
    model = HookedViT(timm_model("vit_base_patch16_siglip_224", reg_tokens=2))
    found = cl.attention_regions(model, random_images(model, 3), [two_objects(model)] * 3, batch_size=2, progress=False)
    table = found.other_queries()
    assert table["kind"].str.partition("-to-")[0].value_counts().to_dict() == {
        "registers": 3 * 4 * 3 * 3,  # images, layers, heads, and keys: object, background, registers
        "pool": 3 * 3 * 2,  # it reads no registers
    }
    of_pool = table[table["layer"] == "pool"]
    np.testing.assert_allclose(of_pool.groupby(["image", "head"])["mass"].sum(), 1, atol=1e-5)
    assert set(found.kinds) == {kind for kind in found.kinds if not kind.startswith(("pool", "registers"))}
