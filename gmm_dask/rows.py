"""Rows in every form a user has them: checked, cut into chunks, predicted in the same form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import _check_feature_names, _check_n_features, validate_data

from gmm_dask.engine import RowChunks, row_chunks
from gmm_dask.engine.passes import Missing
from gmm_dask.errors import DataError
from gmm_dask.mixture import Parameters, steps
from gmm_dask.mixture import missing as incomplete

CHUNK_BYTES = 4 << 20  # arrays in memory are cut this fine, so that every core has work

Rows = npt.NDArray[Any]
RowFunction = Callable[[Rows, Parameters], Rows]


def is_lazy(X: Any) -> bool:
    """Whether X is a Dask collection."""
    return hasattr(X, "__dask_graph__")


def is_path(X: Any) -> bool:
    """Whether X names Parquet files."""
    return isinstance(X, str | Path)


def checked_chunks(
    estimator: Any, X: Any, sample_weight: Any, missing: Missing, *, reset: bool
) -> RowChunks:
    """X as chunks; its features' number and names are set on the estimator, or checked against it.

    Parameters
    ----------
    estimator : GaussianMixture
    X : what `GaussianMixture.fit` takes
    sample_weight : (n,) or None
    missing : {"error", "drop", "em"}
        Whether NaN may occur.
    reset : bool
        True in fit.

    Raises
    ------
    DataError, ValueError
        The rows or weights cannot be used.
    """
    if is_path(X):
        return _planned(estimator, X, sample_weight, missing, reset)
    if is_lazy(X):
        return row_chunks(_checked_lazy(estimator, X, reset), sample_weight)
    X = checked_array(estimator, X, missing, reset=reset)
    if is_lazy(sample_weight):
        sample_weight = sample_weight.compute()
    return row_chunks(X, sample_weight, CHUNK_BYTES)


def checked_array(estimator: Any, X: Any, missing: Missing, *, reset: bool) -> Rows:
    """Rows in memory as a float array; see `checked_chunks`."""
    if isinstance(X, np.ma.MaskedArray):
        X = np.ma.filled(X.astype(np.float64), np.nan)
    elif hasattr(X, "__arrow_c_stream__") and not hasattr(X, "iloc"):
        import pyarrow as pa

        X = pa.table(X).to_pandas()
    array: Rows = validate_data(
        estimator,
        X,
        reset=reset,
        dtype=[np.float64, np.float32],
        ensure_min_samples=1 + reset,
        ensure_all_finite=True if missing == "error" else "allow-nan",
    )
    return array


def map_rows(
    estimator: Any,
    X: Any,
    function: str,
    dtype: npt.DTypeLike,
    parameters: Parameters,
    missing: Missing,
    columns: list[Any] | None = None,
) -> Any:
    """A function of the mixture for every row of X, in the form of X.

    NumPy, pandas, Arrow and lists give NumPy; a Dask array, or a path, gives a Dask array of the
    same chunks; a Dask DataFrame gives a Series or DataFrame of the same partitions and index.

    Parameters
    ----------
    function : {"labels", "log_density", "responsibilities", "impute"}
    dtype : of the result
    columns : list, optional
        Names of the result's columns where it has two axes.
    """
    work = _RowFunction(function, np.dtype(dtype), missing)
    if not is_lazy(X) and not is_path(X):
        return work(checked_array(estimator, X, missing, reset=False), parameters)
    if hasattr(X, "map_partitions") and hasattr(X, "columns"):
        return _map_frame(_checked_lazy(estimator, X, reset=False), work, parameters, columns)
    return _map_array(
        checked_chunks(estimator, X, None, missing, reset=False).X, work, parameters, columns
    )


class _RowFunction:
    """The function on one block of rows; rows that cannot be used are an error or get no label."""

    def __init__(self, function: str, dtype: np.dtype[Any], missing: Missing) -> None:
        self.function, self.dtype, self.missing = function, dtype, missing

    def __call__(self, X: Rows, parameters: Parameters) -> Rows:
        if np.isinf(X).any():
            raise DataError("Input contains infinity. Remove or replace these values first.")
        absent = np.isnan(X).any(axis=1)
        module: Any = incomplete if self.missing == "em" else steps
        whole: RowFunction = getattr(module, self.function)
        if not absent.any() or self.missing == "em":
            return whole(X, parameters).astype(self.dtype, copy=False)
        if self.missing == "error":
            raise DataError(
                "Input contains missing values (NaN). Fill them, or set missing to 'em' or 'drop'."
            )
        found = whole(X[~absent], parameters)
        nothing = -1 if self.dtype.kind == "i" else np.nan
        result = np.full((len(X), *found.shape[1:]), nothing, self.dtype)
        result[~absent] = found
        return result

    def of_frame(self, frame: Any, parameters: Parameters, columns: list[Any] | None) -> Any:
        """As above on a pandas DataFrame, with its index."""
        import pandas as pd

        values = self(frame.to_numpy(np.float64, na_value=np.nan), parameters)
        if columns is None:
            return pd.Series(values, index=frame.index)
        return pd.DataFrame(values, index=frame.index, columns=columns)


def _map_array(
    X: Any, work: _RowFunction, parameters: Parameters, columns: list[Any] | None
) -> Any:
    from dask import delayed

    tail = () if columns is None else (len(columns),)
    return X.map_blocks(
        work,
        delayed(parameters),  # once in the graph, not once a task
        dtype=work.dtype,
        drop_axis=1 if columns is None else None,
        chunks=(X.chunks[0], *((n,) for n in tail)),
        meta=np.empty((0, *(0 for _ in tail)), dtype=work.dtype),
    )


def _map_frame(
    X: Any, work: _RowFunction, parameters: Parameters, columns: list[Any] | None
) -> Any:
    import pandas as pd
    from dask import delayed

    index = X._meta.index
    meta = (
        pd.Series(np.empty(0, work.dtype), index=index)
        if columns is None
        else pd.DataFrame(np.empty((0, len(columns)), work.dtype), index=index, columns=columns)
    )
    return X.map_partitions(work.of_frame, delayed(parameters), columns, meta=meta)


def _planned(
    estimator: Any, X: Any, sample_weight: Any, missing: Missing, reset: bool
) -> RowChunks:
    if sample_weight is not None:
        raise DataError(
            "sample_weight cannot go with a path to Parquet: give the rows as a Dask "
            "DataFrame, or use the stage with data.weight_column."
        )
    from gmm_dask.dataset import planned_rows
    from gmm_dask.storage import plan_dataset

    names = None if reset else tuple(getattr(estimator, "feature_names_in_", ())) or None
    plan = plan_dataset(str(X), features=names, missing=missing)
    if reset:
        estimator.n_features_in_ = len(plan.features)
        estimator.feature_names_in_ = np.array(plan.features, dtype=object)
    elif len(plan.features) != estimator.n_features_in_:
        raise DataError(
            f"{X} has {len(plan.features)} numeric columns, but {type(estimator).__name__} is "
            f"expecting {estimator.n_features_in_} features as input."
        )
    return planned_rows(plan)


def _checked_lazy(estimator: Any, X: Any, reset: bool) -> Any:
    if X.ndim != 2:
        raise DataError(f"X must have two axes, rows and features; it has {X.ndim}.")
    if np.isnan(X.shape[1]):
        raise DataError("The number of X's columns must be known: call compute_chunk_sizes first.")
    frame = getattr(X, "columns", None) is not None
    meta = X._meta if frame else np.empty((1, int(X.shape[1])))
    try:
        _check_n_features(estimator, meta, reset=reset)
        _check_feature_names(estimator, meta, reset=reset)
    except ValueError as error:
        raise DataError(str(error)) from None
    dtypes = X.dtypes if frame else {"X": X.dtype}
    wrong = [f"{name} ({dtype})" for name, dtype in dtypes.items() if not _is_real(dtype)]
    if wrong:
        raise DataError(f"These columns are not real numbers: {', '.join(wrong)}.")
    if frame and any(not isinstance(dtype, np.dtype) for dtype in dtypes):
        return X.astype(np.float64)  # pandas' nullable types: null becomes NaN
    return X


def _is_real(dtype: Any) -> bool:
    return getattr(dtype, "kind", "O") in "biuf"
