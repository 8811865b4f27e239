"""The gap between joint and single effects, against runs that are written out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import caap_lab as cl
from caap_lab.mechanisms.trace import trace
from caap_lab.models.tokens import neighbourhood
from helpers.cnns import small_cnn
from helpers.models import build, random_images
from helpers.plain_caap import plain_sets


def joint_and_singles(model: cl.HookedViT, image: torch.Tensor, cells: list, read, kind="none", **settings):
    sets = [neighbourhood(*cell, kind).indices(model.spec) for cell in cells]
    logits = plain_sets(model, image, [[], sorted({t for one in sets for t in one}), *sets], **settings)
    blank, joint, *singles = read(logits).tolist()
    return joint - blank, sum(singles) - len(singles) * blank


@pytest.mark.parametrize("context", ["clamped", "free"])
def test_a_caap_map_is_checked_by_one_run_of_its_top_patches(context: str) -> None:
    model = build("dinov2_registers", torch.float64)
    image = random_images(model, 1)
    settings = {"cutoff": 3, "context": context}
    m = cl.caap(model, image, cl.contrast(1, 2), neighbourhood="none", **settings)
    found = cl.interaction_check(model, m, image, top=4)
    expected = joint_and_singles(model, image, m.rank()[:4], lambda logits: logits[:, 1] - logits[:, 2], **settings)
    np.testing.assert_allclose([found.joint[0], found.singles[0]], expected, atol=1e-6)
    assert found.gap[0] == found.joint[0] - found.singles[0] and found.distance[0] > 0
    assert found.data.attrs["cells"] == str(m.rank()[:4]) and found.data.attrs["compared"] == "its own scores"
    assert found.axes == {"effect": ["joint effect", "sum of single effects", "gap"]}
    assert "4 highest patches of" in repr(found).replace("caap's ", "") and "passes" in repr(found)


def test_neighbourhoods_that_share_patches_are_not_counted_twice() -> None:
    model = build("vit", torch.float64)
    image = random_images(model, 1)
    m = cl.caap(model, image, 0, cutoff=4, score="prob")  # 3 x 3 patches of a grid of 4 x 4
    found = cl.interaction_check(model, m, image)
    cells = [m.rank()[0]]
    cells += [cell for cell in m.rank() if max(abs(cell[0] - cells[0][0]), abs(cell[1] - cells[0][1])) > 2][:1]
    assert str(cells)[:-1] in found.data.attrs["cells"]
    chosen = [tuple(cell) for cell in eval(found.data.attrs["cells"], {"__builtins__": {}})]
    expected = joint_and_singles(model, image, chosen, lambda logits: logits.softmax(-1)[:, 0], kind="box1", cutoff=4)
    np.testing.assert_allclose([found.joint[0], found.singles[0]], expected, atol=1e-6)


def test_a_single_patch_has_no_gap_and_a_cnn_has_one() -> None:
    model = build("siglip")
    image = random_images(model, 1)
    one = cl.interaction_check(model, cl.caap(model, image, 0, tail="shared"), image, top=1)
    assert one.data.attrs["forward_passes"] < 4
    exact = cl.interaction_check(model, cl.caap(model, image, 0), image, top=1)
    assert abs(exact.gap[0]) < 1e-5
    cnn = small_cnn("resnet18")
    image = random_images(cnn, 1)
    found = cl.interaction_check(cnn, cl.caap(cnn, image, 0), image)
    assert np.isfinite(found.per_image).all() and found.distance[0] > 0


def test_maps_of_other_methods_have_their_patches_run_one_by_one() -> None:
    model = build("vit", torch.float64)
    image = random_images(model, 1)
    m = cl.attribute(model, image, "input_x_gradient", 3)
    found = cl.interaction_check(model, m, image, top=2)
    chosen = [tuple(cell) for cell in eval(found.data.attrs["cells"], {"__builtins__": {}})]
    cutoff = int(found.data.attrs["cutoff"])
    expected = joint_and_singles(model, image, chosen, lambda logits: logits[:, 3], kind="box1", cutoff=cutoff)
    np.testing.assert_allclose([found.joint[0], found.singles[0]], expected, atol=1e-10)
    assert found.data.attrs["compared"].startswith("patched runs") and chosen[0] == m.rank()[0]


def test_a_photos_pixels_are_in_the_map(tmp_path: Path) -> None:
    model = build("vit")
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    m = cl.caap(model, photo, 0)
    found = cl.interaction_check(model, m, top=2)
    np.testing.assert_array_equal(found.joint, cl.interaction_check(model, m, photo, top=2).joint)
    loaded = cl.AttributionMap.load(m.save(tmp_path / "map.safetensors"))
    np.testing.assert_array_equal(found.joint, cl.interaction_check(model, loaded, top=2).joint)
    with pytest.raises(cl.InputError, match="not the image of the map"):
        cl.interaction_check(model, m, random_images(model, 1))


def test_a_trace_is_checked_by_one_run_of_its_strongest_cells() -> None:
    model = build("deit_distilled", torch.float64)
    clean, corrupted = random_images(model, 4)[:2], random_images(model, 4)[2:]
    for points, direction in (("z", "denoise"), ("resid_pre", "noise")):
        by = "head" if points == "z" else "token"
        traced = trace(model, clean, corrupted, 0, points=points, by=by, direction=direction, progress=False)
        found = cl.interaction_check(model, traced, top=3)
        cells = eval(found.data.attrs["cells"], {"__builtins__": {}})
        given, receiver = (clean, corrupted) if direction == "denoise" else (corrupted, clean)
        store = model.record(given, points, progress=False)
        patches = [
            cl.Patch(points, cell["layer"], [cell["token"]], source=store)
            if by == "token"
            else cl.Patch(points, cell["layer"], heads=cell["head"], source=store)
            for cell in sorted(cells, key=lambda cell: cell["layer"])
        ]
        value = model.run_patched(receiver, patches)[:, 0].detach().numpy()
        with torch.no_grad():
            scores, others = model(clean)[:, 0].numpy(), model(corrupted)[:, 0].numpy()
        effect = (value - others) / (scores - others) - traced.unpatched
        np.testing.assert_allclose(found.joint, effect, atol=1e-9)
        singles = [traced.data["effect"].sel(cell).values - traced.unpatched for cell in cells]
        np.testing.assert_allclose(found.singles, np.sum(singles, axis=0), atol=1e-9)
        assert len({cell.get("token", number) for number, cell in enumerate(cells)}) == 3
        assert found.n_images == 2 and (found.distance > 0).all()
    same = cl.interaction_check(model, traced, top=1)
    np.testing.assert_allclose(same.gap, 0, atol=1e-9)


def test_refusals() -> None:
    model, other = build("vit"), build("deit3")
    image, blank = random_images(model, 2)
    m = cl.caap(model, image, 0)
    with pytest.raises(cl.InputError, match="from another model"):
        cl.interaction_check(other, m, image)
    with pytest.raises(cl.InputError, match="pass it as well"):
        cl.interaction_check(model, m)
    own = cl.caap(model, image, 0, blank=blank)
    with pytest.raises(cl.InputError, match="computed with your own blank"):
        cl.interaction_check(model, own, image)
    with pytest.raises(cl.InputError, match="not 'black'"):
        cl.interaction_check(model, own, image, blank="black")
    assert cl.interaction_check(model, own, image, blank=blank).n_images == 1
    with pytest.raises(cl.InputError, match="takes an AttributionMap or a Trace"):
        cl.interaction_check(model, m.scores)
    with pytest.raises(cl.InputError, match="top must be a whole number"):
        cl.interaction_check(model, m, image, top=0)
