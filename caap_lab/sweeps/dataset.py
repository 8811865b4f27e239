"""The rows of a sweep, as benchmarks store them, labelled by images and settings."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from caap_lab.labels import label_array
from caap_lab.sweeps.sweep_settings import Label

PAIRS = "setting"
"""The axis of settings if the label of a setting is a pair, such as a range's start and cutoff."""
_ALIKE = ("model", "data")
"""Columns that are the same in all rows of a sweep."""


def rows_to_dataset(
    rows: pd.DataFrame,
    axes: Sequence[str],
    labels: Sequence[Label],
    images: Sequence[str],
    grid: tuple[int, int],
) -> xr.Dataset:
    """Rows as arrays with the axes image and setting, maps as `scores` with row and col, curves with step.

    Args:
        rows: For each image, one row per setting.
        axes: Names of a setting's label: one name, which becomes the axis, or two, whose pairs become "setting".
        labels: Labels of the settings.
        images: Names of the images.
        grid: Rows and columns of a map.
    """
    dim = axes[0] if len(axes) == 1 else PAIRS
    dims, shape = ("image", dim), (len(images), len(labels))
    variables: dict[str, Any] = {}
    steps: int | None = None
    for name in rows.columns.drop(["image", "grid", *_ALIKE]):
        column = rows[name]
        curves = _arrays(column)
        if name == "scores":
            assert curves is not None
            variables[name] = ((*dims, "row", "col"), curves.reshape(*shape, *grid))
        elif curves is not None and steps in (None, curves.shape[1]):
            steps = curves.shape[1]
            variables[name] = ((*dims, "step"), curves.reshape(*shape, steps))
        else:
            values = column.to_numpy() if column.dtype.kind in "biuf" else column.to_numpy(object)
            variables[name] = (dims, values.reshape(shape))
    attributes = {name: rows[name].iloc[0] for name in _ALIKE}
    data = xr.Dataset(variables, coords={"image": label_array(images)}, attrs=attributes)
    if len(axes) == 1:
        return data.assign_coords({dim: label_array(labels)})
    pairs = pd.MultiIndex.from_tuples(labels, names=axes)
    return data.assign_coords(xr.Coordinates.from_pandas_multiindex(pairs, dim))


def dataset_to_rows(data: xr.Dataset) -> pd.DataFrame:
    """The rows from the arrays: for each image, one row per setting."""
    dims = data["scores"].dims[:2]
    count = data.sizes[dims[0]] * data.sizes[dims[1]]
    failed = data["error"].notnull().values.reshape(count)
    columns: dict[str, Any] = {
        "model": [data.attrs["model"]] * count,
        "method": data["method"].values.reshape(count),
        "data": [data.attrs["data"]] * count,
        "image": np.repeat(data["image"].values, data.sizes[dims[1]]),
    }
    for name, variable in data.data_vars.items():
        values = variable.values.reshape(count, -1)
        if name == "scores":
            columns["grid"] = _cells([np.array(variable.shape[2:])] * count, failed)
        columns[str(name)] = _cells(values, failed) if variable.ndim > 2 else values[:, 0]
    return pd.DataFrame(columns)


def _arrays(column: pd.Series) -> np.ndarray | None:
    """A column of arrays of one length as an array, NaN where there is none; None for any other column."""
    arrays = [value for value in column if isinstance(value, list | np.ndarray)]
    if not arrays or len({len(array) for array in arrays}) > 1:
        return None
    first = np.asarray(arrays[0])
    empty = np.full(first.shape, np.nan, first.dtype)
    return np.stack([np.asarray(value) if isinstance(value, list | np.ndarray) else empty for value in column])


def _cells(arrays: Iterable[np.ndarray], failed: np.ndarray) -> np.ndarray:
    """Arrays as the cells of a column, None where a trial failed."""
    cells = np.empty(len(failed), dtype=object)
    for place, array in enumerate(arrays):
        cells[place] = None if failed[place] else array
    return cells
