"""Scores over images, heat maps, galleries and facets."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from caap_lab.errors import InputError
from caap_lab.plots.facets import plot_facets
from caap_lab.plots.gallery import GalleryRow, plot_gallery
from caap_lab.plots.heat import plot_heat
from caap_lab.plots.lines import plot_lines
from caap_lab.plots.maps import (
    grey,
    map_colours,
    map_range,
    outline_patches,
    plot_image,
    plot_image_and_map,
    plot_map,
)
from caap_lab.plots.style import COLOUR_MAP, SIGNED_COLOUR_MAP

SCORES = np.array([[-1.0, 0.0, 2.0], [0.5, 1.0, -3.0]])
IMAGE = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)


def test_scores_are_drawn_over_the_grey_image() -> None:
    ax = plot_map(SCORES, IMAGE, opacity=0.4, label="logit of 'cat'", title="a $ b")
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
    (scores,) = plot_map(SCORES, signed=True).images  # no image: the scores alone, without transparency
    assert scores.get_clim() == (-3, 3) and scores.get_cmap().name == SIGNED_COLOUR_MAP and scores.get_alpha() is None
    assert plot_map(SCORES, limits=(0, 1), colour_map="PuOr").images[0].get_clim() == (0, 1)
    assert map_range(np.zeros((1, 2)), signed=True) == (-1, 1)
    with pytest.raises(InputError, match="opacity must lie from 0 to 1"):
        plot_map(SCORES, IMAGE, opacity=1.5)


@pytest.mark.parametrize("signed", [True, False])
def test_colours_as_pixels_are_those_drawn(signed: bool) -> None:
    (drawn,) = plot_map(SCORES, signed=signed).images
    np.testing.assert_array_equal(map_colours(SCORES, signed), drawn.to_rgba(SCORES, bytes=True))


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
    assert right.images[1].get_clim() == (-3, 3)


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
    assert [ax.images[1].get_clim() for ax in figure.axes[1:3]] == [(-3, 3), (-3, 2)]
    for rows in ([], [row._replace(maps=[])], [row, row._replace(maps=[SCORES])]):
        with pytest.raises(InputError, match="as many in every row"):
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
