"""The paper's numbers beside ours, for its figures."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from caap_lab.bench.published import METRICS, published


def with_published(frame: pd.DataFrame, tables: Sequence[int]) -> pd.DataFrame:
    """The frame with the columns published, published_se and z; NaN where the paper prints no number.

    z is the difference in standard errors: (ours - published) / sqrt(se^2 + published_se^2). Where ours says that it is
    of other images than the paper's, as it always does, |z| up to 2 is what two draws of images differ by.

    Args:
        frame: One row per mean: model, metric, mean, se, and method, or CAAP for all; models by the paper's names.
        tables: Of the paper, where its number may stand; no two of them have one for the same model and metric.
    """
    known = {(p.model, p.method, METRICS[p.metric]): p for p in published() if p.table in tables}
    methods = frame["method"] if "method" in frame else ["CAAP"] * len(frame)
    rows = [known.get(key) for key in zip(frame["model"], methods, frame["metric"], strict=True)]
    value = np.array([np.nan if row is None else row.value for row in rows])
    error = np.array([np.nan if row is None else row.standard_error for row in rows])
    spread = np.hypot(frame["se"].to_numpy(dtype=float), error)
    z = (frame["mean"].to_numpy(dtype=float) - value) / np.where(spread > 0, spread, np.nan)
    return frame.assign(published=value, published_se=error, z=z)


def count_text(counts: Sequence[int] | pd.Series) -> str:
    """How many images there are: "n = 500", or "n = 125 to 500" where it is not the same everywhere."""
    low, high = min(counts), max(counts)
    return f"n = {low}" if low == high else f"n = {low} to {high}"
