"""The paper's numbers next to ours, for its figures."""

from collections.abc import Sequence

import pandas as pd

from caap_lab.bench.paper.published import METRICS, published
from caap_lab.bench.tables.comparison import beside


def with_published(frame: pd.DataFrame, tables: Sequence[int]) -> pd.DataFrame:
    """The frame with published, published_se, minus_published and z, as in `bench.tables.comparison`.

    Args:
        frame: One row per mean: model, metric, mean, se, n, and method, or CAAP for all; models by the paper's names.
        tables: Tables of the paper that may contain its number; only one of them for the same model and metric.
    """
    known = {(p.model, p.method, METRICS[p.metric]): p for p in published() if p.table in tables}
    methods = frame["method"] if "method" in frame else ["CAAP"] * len(frame)
    return beside(frame, [known.get(key) for key in zip(frame["model"], methods, frame["metric"], strict=True)])
