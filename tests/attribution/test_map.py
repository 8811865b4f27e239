"""The attribution map: what it holds, how it is kept, how it shows itself."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import caap_lab as cl
from caap_lab import AttributionMap, InputError
from caap_lab.plots.style import COLOUR_MAP, SIGNED_COLOUR_MAP, save_figure
from helpers.models import build, random_images


@pytest.fixture
def found() -> AttributionMap:
    model = build("odd_grid")
    return cl.caap(model, random_images(model, 1), 3, cutoff=2, blank="noise", seed=5)


def test_it_knows_what_made_it(found: AttributionMap) -> None:
    model = build("odd_grid")
    assert found.grid == model.spec.grid == (5, 3)
    assert (found.target, found.target_name, found.method, found.score) == (3, "class 3", "caap", "logit")
    assert found.settings["cutoff"] == 2 and found.settings["blank"] == "noise" and found.settings["seed"] == 5
    assert found.fingerprint == model.fingerprint
    assert set(found.versions) == {"caap_lab", "torch", "timm"}
    assert "odd" not in repr(found) and "5 x 3 patches" in repr(found)


def test_saved_map_reads_back_equal(found: AttributionMap, tmp_path: Path) -> None:
    path = found.save(tmp_path / "deep" / "map.safetensors")
    again = AttributionMap.load(path)
    for name in ("scores", "all_scores", "image"):
        assert torch.equal(getattr(again, name), getattr(found, name))
    assert repr(again) == repr(found) and again.versions == found.versions
    assert torch.equal(again.for_target("class 1").scores, found.for_target(1).scores)


def test_it_knows_what_its_sign_means(found: AttributionMap, tmp_path: Path) -> None:
    assert found.sign == "level" and "(level)" in repr(found)
    model = build("vit")
    (image,) = random_images(model, 1)
    for method, options, sign in [
        ("ixg_plus", {}, "signed"),
        ("rollout", {}, "positive"),
        ("grad_cam", {}, "positive"),
        ("grad_cam", {"version": "last_input"}, "signed"),
        ("smoothgrad", {"samples": 2}, "positive"),
        ("smoothgrad", {"samples": 2, "kind": "times_input"}, "signed"),
    ]:
        made = cl.attribute(model, image, method, 0, **options)
        assert made.sign == sign and f"({sign})" in repr(made)
        assert AttributionMap.load(made.save(tmp_path / "map.safetensors")).sign == sign


def test_maps_of_another_format_are_refused(found: AttributionMap, tmp_path: Path) -> None:
    about = {"format": 1, "target": 3}
    save_file({"scores": found.scores}, tmp_path / "old.safetensors", {"caap_lab": json.dumps(about)})
    with pytest.raises(InputError, match=r"has map format 1; this version reads 2\. Make the map again"):
        AttributionMap.load(tmp_path / "old.safetensors")


def test_rank_is_from_high_to_low_and_stable(found: AttributionMap) -> None:
    order = found.rank()
    values = [float(found.scores[cell]) for cell in order]
    assert values == sorted(values, reverse=True) and len(set(order)) == 15
    flat = cl.AttributionMap(**{**found.__dict__, "scores": torch.zeros(2, 2), "all_scores": None})
    assert flat.rank() == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_upsampling(found: AttributionMap) -> None:
    assert found.upsample().shape == (40, 24)
    nearest = found.upsample(mode="nearest-exact")
    assert torch.equal(nearest[::8, ::8], found.scores)
    assert torch.equal(found.upsample((5, 3)), found.scores)
    with pytest.raises(InputError, match="mode='cubic'"):
        found.upsample(mode="cubic")


def test_targets_that_are_not_there(found: AttributionMap) -> None:
    with pytest.raises(InputError, match="0 to 6"):
        found.for_target(7)
    single = cl.AttributionMap(**{**found.__dict__, "all_scores": None})
    with pytest.raises(InputError, match="one target at a time"):
        single.for_target(1)


def test_it_shows_itself_in_jupyter(found: AttributionMap) -> None:
    bundle = found._repr_mimebundle_()
    assert bundle["text/plain"] == repr(found)
    picture = np.asarray(Image.open(BytesIO(bundle["image/png"])).convert("RGB")).astype(int)
    colourful = (picture.max(-1) - picture.min(-1)) > 40
    assert colourful.mean() > 0.2, "the overlay is there in colour"


def test_plot_draws_the_scores_over_the_image(found: AttributionMap) -> None:
    figure = found.plot()
    photo, over, bar = figure.axes
    heat = over.images[-1]
    assert np.array_equal(np.asarray(heat.get_array()), found.scores.double().numpy())
    assert heat.get_extent() == [-0.5, 23.5, 39.5, -0.5] and photo.images[0].get_array().shape == (40, 24, 3)
    assert bar.get_ylabel() == "logit of class 3, patch inserted"
    with pytest.raises(InputError, match="opacity"):
        found.plot(opacity=2)


def test_signed_scores_are_coloured_around_zero(found: AttributionMap) -> None:
    signed = {"scores": torch.tensor([[-1.0, 3.0]]), "all_scores": None, "sign": "signed"}
    signed = AttributionMap(**{**found.__dict__, **signed})
    heat = signed.plot(robust=False).axes[1].images[-1]
    assert heat.get_cmap().name == SIGNED_COLOUR_MAP and heat.get_clim() == (-3, 3)
    assert signed.plot(colour_map="PuOr", robust=False).axes[1].images[-1].get_clim() == (-3, 3)
    assert heat.cmap(heat.norm(0.0))[3] == 0, "0 leaves the photo clear"
    nothing = AttributionMap(**{**signed.__dict__, "scores": torch.zeros(1, 2)})
    heat = nothing.plot().axes[1].images[-1]
    assert heat.cmap(heat.norm(0.0))[3] == 0
    for sign in ("positive", "level"):
        other = AttributionMap(**{**signed.__dict__, "sign": sign}).plot(robust=False).axes[1].images[-1]
        assert other.get_cmap().name == COLOUR_MAP and other.get_clim() == (-1, 3)


def test_figures_save_as_png_and_pdf(found: AttributionMap, tmp_path: Path) -> None:
    for path in save_figure(found.plot(), tmp_path / "overlay"):
        assert path.stat().st_size > 1000


def test_files_that_are_no_maps(found: AttributionMap, tmp_path: Path) -> None:
    path = found.save(tmp_path / "map.safetensors")
    path.write_bytes(path.read_bytes()[:200])
    (tmp_path / "text.safetensors").write_text("hello")
    for name, message in [
        ("map.safetensors", "damaged"),
        ("text.safetensors", "damaged"),
        ("none", "no file"),
    ]:
        with pytest.raises(InputError, match=message):
            AttributionMap.load(tmp_path / name)
    with pytest.raises(InputError, match="is a folder"):
        found.save(tmp_path)
