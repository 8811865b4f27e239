"""The common part of figures 4, 5 and 7: six metrics of CAAP over one setting, one mark or line per model."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from caap_lab.bench.figures.data import FigureData, FigureResult
from caap_lab.bench.figures.published_beside import with_published
from caap_lab.bench.figures.words import count_text, means_text
from caap_lab.bench.paper.published import METRICS
from caap_lab.metrics.catalogue import BUILT_IN
from caap_lab.plots.facets import plot_facets
from caap_lab.plots.points import plot_points, reference_key
from caap_lab.plots.printed import at_print_size
from caap_lab.plots.spans import PERCENT
from caap_lab.plots.style import level_styles, title_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLES = (1, 2)
"""Tables with the models and images of the paper's figures, and the numbers of the default setting."""
PUBLISHED = "published, at the default"
_HEIGHT = 3.9
_ARROWS = {"higher": "\N{UPWARDS ARROW}", "lower": "\N{DOWNWARDS ARROW}"}
_BETTER = {column.name: _ARROWS[column.better] for metric in BUILT_IN for column in metric.columns}


def beside_default(frame: pd.DataFrame, at_default: "pd.Series[bool]") -> pd.DataFrame:
    """The frame of a sweep with the paper's numbers next to ours in the rows of the default setting."""
    frame = with_published(frame, TABLES)
    columns = ["published", "published_se", "minus_published", "z"]
    frame.loc[~at_default, columns] = float("nan")
    return frame


def metric_panels(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of a sweep in the paper's order of metrics; the column panel has a metric's name, unit and images."""
    parts = []
    for name, column in METRICS.items():
        part = frame[frame["metric"] == column]
        if len(part):
            parts.append(part.assign(panel=f"{name} {_BETTER[column]} (%), {count_text(part['n'])}"))
    return pd.concat(parts, ignore_index=True)


def plot_panels(frame: pd.DataFrame, draw: Any, data: FigureData, about: str) -> "Figure":
    """The six panels at print size, with one legend and the varied setting above them."""
    known = [reference_key(PUBLISHED)] if frame["published"].notna().any() else []
    figure = plot_facets(metric_panels(frame), draw, column="panel", wrap=3, legend_more=known)
    title_figure(figure, f"{about}\n{means_text(data.plan.protocol.name, frame['steps'].dropna())}", 12)
    return at_print_size(figure, _HEIGHT)


def figure_over_names(
    data: FigureData, frame: pd.DataFrame, axis: str, names: Mapping[str, str], default: str, about: str
) -> FigureResult:
    """Points over a setting whose values have names.

    Args:
        data: The data of the frame.
        frame: The result of `FigureData.sweep`.
        axis: Column of the setting.
        names: Names of the setting's values in the figure, in its order.
        default: The default value.
        about: The varied setting.
    """
    frame = beside_default(frame, frame[axis] == default)
    shown = frame.assign(**{axis: frame[axis].map(names)})
    styles = level_styles(list(shown["model"].unique()))
    points = partial(
        plot_points, category=axis, hue="model", reference="published", styles=styles, natural=PERCENT, label=""
    )
    about = f"{about} (default: {names[default]})"
    return FigureResult(plot_panels(shown, points, data, about), shown)


def models_of(frame: pd.DataFrame) -> Sequence[str]:
    """The models of the frame without duplicates."""
    return list(frame["model"].unique())
