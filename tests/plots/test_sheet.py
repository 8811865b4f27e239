"""Sheets of maps at print size: what stands where, and the key for their colours."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.text import Text

from caap_lab.errors import InputError
from caap_lab.plots.colour_key import key_lines
from caap_lab.plots.gallery import GalleryRow, plot_gallery
from caap_lab.plots.printed import COLUMN, PAGE, SMALL, add_caption
from caap_lab.plots.sheet import plot_sheet, short_number

IMAGE = np.zeros((32, 32, 3), dtype=np.uint8)
SCORES = np.linspace(-0.02, 0.0123, 16).reshape(4, 4)
TITLES = ["IxG+", *(f"method {number}" for number in range(8)), "CAAP"]


def words(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_a_sheet_says_what_each_row_and_column_is_and_what_the_colours_mean() -> None:
    maps = [SCORES, *(10.0**power * SCORES for power in range(-6, 3))]
    row = GalleryRow(IMAGE, ("ViT_L/16", "target 'a$b'"), maps, [True, *[False] * 9])
    figure = plot_sheet([row, row._replace(titles=("other",))], TITLES, title="photo_1.JPEG")
    assert len(figure.axes) == 2 * 11 and figure.get_figwidth() == pytest.approx(PAGE)
    found = words(figure)
    assert {"photo_1.JPEG", "image", *TITLES, "ViT_L/16 \N{MIDDLE DOT} target 'a\\$b'", "other"} <= set(found)
    assert (
        f"lowest to highest score: {', '.join(TITLES[1:])}" in found
        and "against the target, 0, for the target: IxG+" in found
    )
    assert sum(text.startswith("\N{PLUS-MINUS SIGN}") for text in found) == 2  # signed colours end at one number
    assert any("2nd and 98th percentile" in text for text in found)
    figure.draw_without_rendering()
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= SMALL
    for ax in figure.axes:
        boxes = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.x0)
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes)), [text.get_text() for text in ax.texts]


def test_a_caption_moves_nothing_of_a_sheet() -> None:
    row = GalleryRow(IMAGE, ("model",), [SCORES], [False])
    figure = plot_sheet([row], ["Rollout"])
    places = [ax.get_position().bounds[1] * figure.get_figheight() for ax in figure.axes]
    texts = [text.get_position()[1] * figure.get_figheight() for text in figure.texts]
    before = figure.get_figheight()
    add_caption(figure, "one\ntwo")
    assert figure.get_figheight() > before and "one\ntwo" in words(figure)
    np.testing.assert_allclose([ax.get_position().bounds[1] * figure.get_figheight() for ax in figure.axes], places)
    np.testing.assert_allclose(
        [text.get_position()[1] * figure.get_figheight() for text in figure.texts[: len(texts)]], texts
    )


def test_galleries_on_the_screen_have_the_key_where_both_kinds_of_colours_are() -> None:
    row = GalleryRow(IMAGE, ("model",), [SCORES, SCORES], [True, False])
    assert "lowest to highest score: second" in words(plot_gallery([row], ["first", "second"]))
    assert not any("score" in text for text in words(plot_gallery([row._replace(signed=[True, True])], ["a", "b"])))
    assert key_lines(["a", "b"], [[True, False], [False, False]]) == {False: ["a", "b"], True: ["a"]}


def test_few_columns_make_a_narrow_sheet_whose_words_fit() -> None:
    row = GalleryRow(IMAGE, ("model", "target 'x'" * 20), [SCORES], [True])
    figure = plot_sheet([row], ["a method with a long name that does not fit"], title="folder/" * 30)
    assert figure.get_figwidth() == COLUMN
    figure.draw_without_rendering()
    assert all(text.get_window_extent().x1 <= figure.bbox.x1 for text in figure.texts)


def test_ends_that_are_printed_alike_are_said_once() -> None:
    scores = np.linspace(1.0201e-4, 1.0204e-4, SCORES.size).reshape(SCORES.shape)
    row = GalleryRow(IMAGE, ("model",), [scores] * 10, [False] * 10)
    figure = plot_sheet([row], [f"method {number}" for number in range(10)])
    assert [text.get_text() for text in figure.axes[1].texts] == ["≈1e-4"]


def test_rows_that_do_not_fit_the_titles_are_refused() -> None:
    for rows in ([], [GalleryRow(IMAGE, ("m",), [SCORES], [False])]):
        with pytest.raises(InputError, match="one map per title"):
            plot_sheet(rows, ["a", "b"])


@pytest.mark.parametrize(
    "value, digits, text",
    [
        (0, 3, "0"),
        (12.34, 3, "12.3"),
        (-537.4, 2, "-540"),
        (7.44e-5, 3, "7.44e-5"),
        (0.00761, 1, "0.008"),
        (1.2e9, 2, "1.2e9"),
    ],
)
def test_numbers_in_few_letters(value: float, digits: int, text: str) -> None:
    assert short_number(value, digits) == text
