"""The layer sweep's state as a figure, with the display settings of the browser."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from caap_lab.attribution.map import AttributionMap
from caap_lab.plots.lines import mark_number, plot_lines
from caap_lab.plots.maps import plot_image
from caap_lab.plots.style import new_figure
from caap_lab.widgets.board import Board, Ends
from caap_lab.widgets.board_figure import plot_as_shown
from caap_lab.widgets.photos import Photo


def sweep_figure(
    photo: Photo,
    m: AttributionMap | None,
    title: str,
    board: Board,
    locked: Ends | None,
    values: Mapping[int, float],
    *,
    cutoff: int,
    last: int,
    labels: tuple[str, str],
    settings: str,
    natural: Ends | None,
) -> Figure:
    """The map with its scale next to the metric over cutoffs.

    Args:
        photo: The image.
        m: Its map; None until it is computed.
        title: Title of the map.
        board: The board, for its display settings.
        locked: Ends of the colours if the scale is locked.
        values: The metric by cutoff.
        cutoff: The current cutoff.
        last: The last cutoff.
        labels: Labels of the chart's axes.
        settings: Title of the chart.
        natural: Bounds of the metric.
    """
    height, width = photo.pixels.shape[:2]
    figure = new_figure(8.2, max(3.2, 3.6 * height / width))
    left, right = figure.subplots(1, 2)
    if m is None:
        plot_image(photo.pixels, left)
    else:
        look: dict[str, Any] = {"signed": m.sign == "signed", "limits": locked if board.lock else None}
        plot_as_shown(left, m.scores.double().numpy(), photo.pixels, board, label=m.unit, title=title, **look)
    plot_lines(
        pd.DataFrame({"cutoff": values.keys(), "value": values.values()}, dtype=float),
        *("cutoff", "value"),
        error=None,
        ax=right,
        markers=True,
        whole_numbers=True,
        xlabel=labels[0],
        ylabel=labels[1],
        title=settings,
        natural=natural,
    )
    mark_number(right, cutoff)
    right.set_xlim(-0.4, last + 0.4)
    return figure
