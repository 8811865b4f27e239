"""Scores over images, heat maps, galleries and facets."""

from functools import partial
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import caap_lab as cl
from caap_lab.errors import InputError
from caap_lab.plots.facets import plot_facets
from caap_lab.plots.gallery import GalleryRow, Tile, plot_gallery, plot_tiles
from caap_lab.plots.heat import plot_heat
from caap_lab.plots.lines import plot_lines
from caap_lab.plots.maps import (
    colour_table,
    grey,
    map_range,
    on_white,
    outline_patches,
    overlay_table,
    plot_image,
    plot_image_and_map,
    plot_map,
)
from caap_lab.plots.style import COLOUR_MAP, SIGNED_COLOUR_MAP

SCORES = np.array([[-1.0, 0.0, 2.0], [0.5, 1.0, -3.0]])
IMAGE = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)


def test_scores_are_drawn_over_the_grey_image() -> None:
    ax = plot_map(SCORES, IMAGE, opacity=0.4, robust=False, label="logit of 'cat'", title="a $ b")
    photo, scores = ax.images
    np.testing.assert_array_equal(photo.get_array(), grey(IMAGE))
    np.testing.assert_array_equal(scores.get_array(), SCORES)
    assert scores.get_alpha() == 0.4 and scores.get_extent() == [-0.5, 11.5, 7.5, -0.5]
    assert scores.get_clim() == (-3, 2) and scores.get_cmap().name == COLOUR_MAP
    bar = ax.figure.axes[1]
    assert bar.get_ylabel() == "logit of 'cat'" and ax.get_title() == r"a \$ b"
    below = plot_map(SCORES, IMAGE, label="logit", bar="bottom").figure.axes[1]
    assert below.get_xlabel() == "logit"


def test_signed_scores_are_centred_on_zero() -> None:
    (scores,) = plot_map(SCORES, signed=True, robust=False).images  # no image: the scores alone, without transparency
    assert scores.get_clim() == (-3, 3) and scores.get_cmap().name == SIGNED_COLOUR_MAP and scores.get_alpha() is None
    assert plot_map(SCORES, limits=(0, 1), colour_map="PuOr").images[0].get_clim() == (0, 1)
    assert map_range(np.zeros((1, 2)), signed=True) == (-1, 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"opacity": 1.5}, "opacity must be from 0 to 1"),
        ({"opacity": "half"}, "opacity must be from 0 to 1, not 'half'"),
        ({"smooth": "no"}, "smooth must be True or False, not 'no'"),
        ({"bar": "left"}, "bar='left' is not known"),
        ({"limits": (1, 0)}, "the lower one first"),
        ({"limits": (0.5,)}, "must be the scores at the two ends"),
        ({"limits": (0, float("nan"))}, "must be the scores at the two ends"),
        ({"colour_map": "viridian"}, "no colour map 'viridian'; nearest: viridis"),
        ({"colour_map": "?"}, "list.matplotlib.colormaps. lists all"),
    ],
)
def test_looks_that_cannot_be_drawn(wrong, message) -> None:
    with pytest.raises(InputError, match=message):
        plot_map(SCORES, IMAGE, **wrong)


def test_one_outlier_does_not_paint_all_others_alike() -> None:
    scores = np.linspace(0, 1, 200).reshape(10, 20)
    scores[0, 0], scores[-1, -1] = -50, 1000
    ax = plot_map(scores, label="logit")
    low, high = ax.images[0].get_clim()
    assert 0 < low < 0.03 and 0.97 < high < 1
    (bar,) = (ax.images[0].figure.axes[1]._colorbar,)
    assert bar.extend == "both" and bar.vmin == low and bar.vmax == high
    full = plot_map(scores, robust=False, label="logit")
    assert full.images[0].get_clim() == (-50, 1000) and full.figure.axes[1]._colorbar.extend == "neither"
    assert plot_map(scores, limits=(-60, 10), label="logit").figure.axes[1]._colorbar.extend == "max"
    assert map_range(np.array([0.0] * 99 + [1.0]), robust=True) == (0, 1)  # else no colour tells them apart
    assert map_range(np.array([np.nan, 2.0, 3.0])) == (2, 3) and map_range(np.array([np.nan])) == (0, 1)


def test_low_scores_leave_the_photo_clear() -> None:
    _, scores = plot_map(SCORES, IMAGE).images
    shown = scores.cmap(np.linspace(0, 1, 256))
    assert (np.diff(shown[:, 3]) >= 0).all() and shown[0, 3] == 0 and shown[-1, 3] == 1
    np.testing.assert_allclose(shown[:, :3], colour_table(COLOUR_MAP) / 255)
    _, even = plot_map(SCORES, IMAGE, fade=False).images
    assert (even.cmap(np.linspace(0, 1, 256))[:, 3] == 1).all()
    masked = np.where(SCORES > 0, SCORES, np.nan)
    _, part = plot_map(masked, IMAGE).images
    assert part.to_rgba(np.ma.masked_invalid(masked))[0, 0, 3] == 0


@pytest.mark.parametrize("name", ["RdBu_r", "PuOr", "coolwarm", "viridis", "gray"])
def test_signed_maps_do_not_whiten_the_photo(name: str) -> None:
    table = overlay_table(name, signed=True) / 255
    opacity, middle = table[:, 3:], table[127:129, :3].mean(axis=0)
    assert opacity[127:129].max() == 0 and opacity[[0, 255]].min() > 0.7 and opacity[[96, 160]].max() < 0.5
    # Taken apart, not changed: on paper of the middle's colour a bar looks as ever.
    paper = table[:, :3] * opacity + middle * (1 - opacity)
    np.testing.assert_allclose(paper, colour_table(name) / 255, atol=0.1 if name == "coolwarm" else 0.04)
    if name != "gray":  # whose own end is white
        assert (table[[64, 192], :3].min(axis=1) < 0.35).all(), "half of the range is a colour, and no white"


def test_a_bar_fades_as_its_map_does() -> None:
    white, full = on_white(COLOUR_MAP)[0], on_white(COLOUR_MAP)[-1]
    assert white.tolist() == [255] * 3 and full.tolist() == colour_table(COLOUR_MAP)[-1].tolist()
    drawn = plot_map(SCORES, IMAGE, label="logit").figure.axes[1]._colorbar
    np.testing.assert_allclose(drawn.cmap(np.arange(256))[:, :3] * 255, on_white(COLOUR_MAP), atol=1e-6)
    plain = plot_map(SCORES, IMAGE, fade=False, label="logit").figure.axes[1]._colorbar
    np.testing.assert_allclose(plain.cmap(np.arange(256))[:, :3] * 255, colour_table(COLOUR_MAP), atol=1)


def test_grey_is_the_luminance_of_a_photo() -> None:
    pure = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [7, 7, 7]]], dtype=np.uint8)
    assert grey(pure)[..., 0].tolist() == [[76, 150, 29, 7]] and (grey(IMAGE) == grey(IMAGE)[..., :1]).all()


def test_outlined_patches() -> None:
    ax = plot_image(IMAGE, title="photo")
    outline_patches(ax, (2, 3), (8, 12), (1, 2))
    outline_patches(ax, (2, 3), (8, 12), (0, 0, 1, 1), label="box")
    one, box = ax.patches
    assert (*one.get_xy(), one.get_width(), one.get_height()) == (7.5, 3.5, 4, 4)
    assert (*box.get_xy(), box.get_width(), box.get_height()) == (-0.5, -0.5, 8, 8) and box.get_label() == "box"


def test_an_image_beside_its_map() -> None:
    figure = plot_image_and_map(SCORES, IMAGE, label="logit", titles=("vit", "caap"), note="cutoff 3", signed=True)
    left, right, _ = figure.axes
    np.testing.assert_array_equal(left.images[0].get_array(), IMAGE)
    assert (left.get_title(), right.get_title(), figure.get_supxlabel()) == ("vit", "caap", "cutoff 3")
    assert right.images[1].get_clim() == map_range(SCORES, signed=True, robust=True)
    long = plot_image_and_map(SCORES, IMAGE, label="logit", titles=("", "caption " * 20)).axes[1].title
    assert "\n" not in long.get_text() and long.get_text().endswith("...") and long.get_fontsize() < 7


def test_heat_maps_show_numbers_under_their_labels() -> None:
    rows, columns = pd.Index([0, 1], name="layer (block)"), pd.Index(["a$", "b", "c"], name="head")
    cells = pd.DataFrame(np.where(SCORES == 1, np.nan, SCORES), index=rows, columns=columns)
    ax = plot_heat(cells, label="effect (logit)", signed=True, number_format=".1f", highlight=(1, 2), title="t")
    drawn = ax.collections[0]
    np.testing.assert_array_equal(drawn.get_array().filled(np.nan), cells.to_numpy())
    assert drawn.get_clim() == (-3, 3) and drawn.get_cmap().name == SIGNED_COLOUR_MAP
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("head", "layer (block)", "t")
    assert [text.get_text() for text in ax.get_xticklabels()] == [r"a\$", "b", "c"]
    assert [text.get_rotation() for text in ax.get_yticklabels()] == [0, 0]
    assert sorted(text.get_text() for text in ax.texts) == sorted(["-1.0", "0.0", "2.0", "0.5", "-3.0"])
    assert ax.figure.axes[1].get_ylabel() == "effect (logit)"
    (box,) = ax.patches
    assert box.get_xy() == (2, 1)
    plain = plot_heat(cells, label="x", limits=(0, 1), xlabel="h", ylabel="l")
    assert plain.collections[0].get_clim() == (0, 1) and not plain.texts and not plain.patches
    assert (plain.get_xlabel(), plain.get_ylabel()) == ("h", "l")
    nothing = plot_heat(cells * np.nan, label="x", signed=True)
    assert nothing.collections[0].get_clim() == (-1, 1)


def test_galleries() -> None:
    row = GalleryRow(IMAGE, ("a model", "'cat'"), [SCORES, SCORES], [True, False])
    figure = plot_gallery([row, row], ["first", "second"])
    assert len(figure.axes) == 6 and figure.axes[0].get_title() == "a model\n'cat'"
    assert [ax.get_title() for ax in figure.axes[1:3]] == ["first", "second"]
    assert [ax.images[1].get_clim() for ax in figure.axes[1:3]] == [
        map_range(SCORES, signed=signed, robust=True) for signed in (True, False)
    ]
    for rows in ([], [row._replace(maps=[])], [row, row._replace(maps=[SCORES])]):
        with pytest.raises(InputError, match="with the same number of maps"):
            plot_gallery(rows, ["first", "second"])
    with pytest.raises(InputError, match=r"cl\.gallery\(rows\) draws attribution maps"):
        plot_gallery([["a map"]], ["first"])  # as it was once called


def test_facets_have_a_panel_for_each_level_and_one_legend() -> None:
    rows = [(metric, model, x) for metric in ("a", "b", "c") for model in ("A", "B") for x in (0, 1)]
    frame = pd.DataFrame(rows, columns=["metric", "model", "x"]).assign(mean=0.5, se=0.1)
    frame = frame[(frame["metric"] != "a") | (frame["model"] != "B")]  # the first panel lacks a line
    draw = partial(plot_lines, x="x", hue="model", xlabel="share", ylabel="%")
    figure = plot_facets(frame, draw, column="metric", wrap=2)
    panels = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title() for ax in panels] == ["a", "b", "c"] and [len(ax.lines) for ax in panels] == [1, 2, 2]
    assert [ax.get_xlabel() for ax in panels] == ["", "share", "share"]  # b has no panel below it
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["A", "B"]
    assert all(ax.get_legend() is None for ax in panels)
    grid = plot_facets(frame, draw, column="metric", row="model", sharey=True)
    assert len(grid.axes) == 6 and [ax.get_title() for ax in grid.axes] == ["a", "b", "c", "", "", ""]


def test_numbers_of_a_scale_and_its_unit_do_not_overlap() -> None:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    ends = [(-2.68, 6.09), (-17.2, 17.2), (0.000663, 0.025), (6.09e-06, 0.0055)]
    tiles = [Tile(image, "", np.linspace(*pair, 64).reshape(8, 8), False, "attribution to logit of 3") for pair in ends]
    figure = plot_tiles([tiles])
    figure.draw_without_rendering()
    for ax in figure.axes:
        boxes = sorted((text.get_window_extent() for text in ax.texts if text.get_text()), key=lambda box: box.x0)
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes)), [text.get_text() for text in ax.texts]


def test_numbers_of_a_scale_are_light_in_a_dark_style() -> None:
    model = cl.load_model("demo")
    with plt.style.context("dark_background"):
        figure = cl.gallery([[cl.caap(model, cl.demo_images("single", n=1, seed=0)[0].image, progress=False)]])
    texts = [*figure.texts, *(text for ax in figure.axes for text in ax.texts)]
    assert texts and {text.get_color() for text in texts} == {"white"}
