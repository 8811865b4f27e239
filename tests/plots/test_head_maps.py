"""The picture of all heads: which colour is where."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from caap_lab.plots.head_maps import plot_head_maps
from caap_lab.plots.maps import colour_patches, colour_table, plot_image
from caap_lab.plots.style import ACCENT


def picture(ax: Axes, place: int = 0) -> np.ndarray:
    return np.asarray(ax.images[place].get_array())


def test_each_patch_of_each_head_has_its_colour() -> None:
    shares = np.random.default_rng(0).random((3, 2, 4, 8)).astype(np.float32)
    ax = plot_head_maps(shares, colour_map="magma", chosen=(2, 1), title="a$b")
    sheet = picture(ax)
    assert sheet.shape == (3 * 5, 2 * 9, 4)  # a gap of one pixel after each map
    for layer in range(3):
        for head in range(2):
            tile = sheet[5 * layer :, 9 * head :][:4, :8]
            assert np.array_equal(tile, colormaps["magma"](shares[layer, head], bytes=True))
    assert (sheet[4] == 0).all() and (sheet[:, 8] == 0).all()
    assert [text.get_text() for text in ax.get_yticklabels()] == ["0", "1", "2"]
    assert ax.get_title() == r"a\$b"
    (frame,) = ax.patches
    assert (frame.get_x(), frame.get_y(), frame.get_width(), frame.get_height()) == (8.5, 9.5, 8, 4)
    assert frame.get_edgecolor() == to_rgba(ACCENT)


def test_places_of_a_table_and_shares_are_the_same_colours() -> None:
    places = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    sheet = picture(plot_head_maps(places.astype(np.float32) / 255))
    assert np.array_equal(sheet[:16, :16, :3].reshape(256, 3), colour_table())


def test_colours_over_patches_leave_clear_ones_alone() -> None:
    colours = np.zeros((2, 2, 4), dtype=np.uint8)
    colours[0, 1] = 10, 20, 30, 255
    ax = plot_image(np.zeros((8, 6, 3), dtype=np.uint8))
    colour_patches(ax, colours, (8, 6))
    assert np.array_equal(picture(ax, 1), colours)
    assert ax.images[1].get_alpha().tolist() == [[0, 0.5], [0, 0]]
    assert ax.images[1].get_extent() == ax.images[0].get_extent()
