"""Mean insertion and deletion curves of a benchmark's methods."""

import numpy as np
import pandas as pd

from caap_lab.plots.curves import Kind
from caap_lab.statistics import standard_error

COLUMNS = ["method", "n", "share", "mean", "se"]


def mean_curves(rows: pd.DataFrame, kind: Kind) -> pd.DataFrame:
    """Mean curve of each method with its standard error (ddof 0): method, n (images), share (0 to 1), mean, se.

    Args:
        rows: Rows of one model from `BenchmarkResult.to_dataframe`; rows without curves are ignored.
        kind: "insertion" or "deletion".
    """
    frames = []
    for method, part in rows[rows[f"{kind}_curve"].notna()].groupby("method", sort=False):
        curves = np.stack(part[f"{kind}_curve"].to_list())
        error = standard_error(curves)
        shares = np.asarray(part["shares"].iloc[0])
        columns = {"method": method, "n": len(curves), "share": shares, "mean": curves.mean(axis=0), "se": error}
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)
