"""Average precision of a ranking, as scikit-learn defines it, without its checks, which take longer than the sums."""

import numpy as np
from jaxtyping import Bool, Float


def average_precision(labels: Bool[np.ndarray, " item"], values: Float[np.ndarray, " item"]) -> float:
    """The sum over all ranks n of (R_n - R_{n-1}) P_n, with the precision P and the recall R down to rank n.

    Items of equal value have one rank. The numbers are scikit-learn's `average_precision_score`, to the last bit.

    Args:
        labels: Which items are to be found; at least one.
        values: The higher, the earlier in the ranking; finite.
    """
    order = np.argsort(values, kind="stable")[::-1]
    ranked = values[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each group of equal values
    found = np.cumsum(labels[order], dtype=np.float64)[last]
    precision, recall = found / (1.0 + last), found / found[-1]
    # From the last rank to the first: rounding depends on the order of a sum.
    recall = np.append(recall[::-1], 0.0)
    return max(0.0, float(-np.sum(np.diff(recall) * precision[::-1])))
