"""Rows in every form a user has them: checked, cut into chunks, predicted in the same form."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask._task_spec import convert_legacy_graph
from sklearn.utils.validation import _check_feature_names, _check_n_features, validate_data
from threadpoolctl import ThreadpoolController

from gmm_dask.engine import RowChunks, Survey, row_chunks
from gmm_dask.engine.backends import Backend
from gmm_dask.engine.chunks import dask_array
from gmm_dask.engine.cluster import users_backend
from gmm_dask.errors import DataError
from gmm_dask.mixture import Parameters
from gmm_dask.mixture.row_arithmetic import Missing, RowArithmetic, incomplete_rows

CHUNK_BYTES = 4 << 20  # arrays in memory are cut this fine, so that every core has work

Rows = npt.NDArray[Any]

# What map_rows does with each row, by the name that the dashboard shows.
_FUNCTIONS: dict[str, Callable[[RowArithmetic, Rows, Parameters], Rows]] = {
    "labels": lambda arithmetic, X, parameters: arithmetic.score(X, parameters).labels,
    "log_density": lambda arithmetic, X, parameters: arithmetic.score(X, parameters).log_density,
    "responsibilities": RowArithmetic.responsibilities,
    "impute": RowArithmetic.impute,
}


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
        True in the first fit, where the values are left to the survey to check.

    Raises
    ------
    DataError, ValueError
        The rows or weights cannot be used; of lazy ones the values are checked as they come.
    """
    weights = _checked_weights(sample_weight)
    if not is_lazy(X) and not is_path(X):
        X = _float_array(estimator, X, reset=reset)
        if is_lazy(weights):
            weights = _here(weights)
        chunks = row_chunks(X, weights, CHUNK_BYTES)
        if not reset:
            _checked_rows(X, weights, missing=missing)
        return chunks
    chunks = _lazy_chunks(estimator, X, weights, missing, reset)
    if reset:
        return chunks
    return chunks.through(partial(_checked_rows, missing=missing), _checked_blocks(chunks, missing))


def check_survey(surveyed: Survey, n_components: int, missing: Missing) -> None:
    """Raise DataError where the rows cannot be fitted."""
    any_missing = any(chunk.has_missing for chunk in surveyed.chunks)
    any_infinite = any(chunk.has_infinite for chunk in surveyed.chunks)
    _check_values(any_missing, any_infinite, missing)
    if surveyed.n_usable and surveyed.sum_weight == 0:
        raise DataError("The sample weights sum to zero: there are no rows to fit.")
    empty = np.flatnonzero(surveyed.spread.weight == 0)
    if missing == "em" and surveyed.n_usable and len(empty):
        raise DataError(f"Feature {empty[0]} has no value in any row that counts: leave it out.")
    if surveyed.n_eligible < n_components:
        raise DataError(
            f"Expected n_samples >= n_components but got n_components = {n_components}, "
            f"n_samples = {surveyed.n_eligible} (rows that can be used, of positive weight)"
        )


def backend_of(chunks: RowChunks, X: Any) -> AbstractContextManager[Backend]:
    """The client the user has open, for rows that are not in this process; else threads."""
    return users_backend(chunks.X.numblocks[0], is_elsewhere=is_lazy(X) or is_path(X))


def _float_array(estimator: Any, X: Any, *, reset: bool) -> Rows:
    """Rows in memory as a float array, whose values are still to be checked."""
    if isinstance(X, np.ma.MaskedArray):
        X = _unmasked(X)
    elif hasattr(X, "__arrow_c_stream__") and not hasattr(X, "iloc"):
        import pyarrow as pa

        X = pa.table(X).to_pandas()
    array: Rows = validate_data(
        estimator,
        X,
        reset=reset,
        dtype=[np.float64, np.float32],
        ensure_min_samples=1 + reset,
        ensure_all_finite=False,
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
        Names of the result's columns where it has two axes; imputed frames keep their own.
    """
    work = _RowFunction(function, np.dtype(dtype), RowArithmetic.chosen(missing))
    if not is_lazy(X) and not is_path(X):
        X = _float_array(estimator, X, reset=False)
        with _thread_pools().limit(limits=1):  # the matrices are too small for more
            return work(X, parameters)
    if hasattr(X, "map_partitions") and hasattr(X, "columns"):
        X = _checked_lazy(estimator, X, reset=False)
        own = list(X.columns) if function == "impute" else columns
        return _map_frame(X, work, parameters, own)
    chunks = _lazy_chunks(estimator, X, None, missing, reset=False)
    return _map_array(dask_array(chunks.X), work, parameters, columns)


class _RowFunction:
    """The function on one block of rows; rows that cannot be used are an error or get no label."""

    def __init__(self, function: str, dtype: np.dtype[Any], arithmetic: RowArithmetic) -> None:
        self.function, self.dtype, self.arithmetic = function, dtype, arithmetic
        self.__name__ = function  # as the dashboard shows it

    def __call__(self, X: Rows, parameters: Parameters) -> Rows:
        function, missing = _FUNCTIONS[self.function], self.arithmetic.missing
        absent = incomplete_rows(_checked_values(X, missing))
        if missing == "em" and absent.any():
            return function(RowArithmetic("em"), X, parameters).astype(self.dtype, copy=False)
        complete = replace(self.arithmetic, missing="error")
        if not absent.any():
            return function(complete, X, parameters).astype(self.dtype, copy=False)
        found = function(complete, X[~absent], parameters)
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


@cache
def _thread_pools() -> Any:
    """Of BLAS and OpenMP; finding them takes longer than to label a thousand rows."""
    return ThreadpoolController()


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


def _lazy_chunks(
    estimator: Any, X: Any, sample_weight: Any, missing: Missing, reset: bool
) -> RowChunks:
    if is_path(X):
        return _planned(estimator, X, sample_weight, missing, reset)
    return row_chunks(_checked_lazy(estimator, X, reset), sample_weight)


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
    _check_kind(X, "X")
    if X.ndim != 2:
        raise DataError(f"X must have two axes, rows and features; it has {X.ndim}.")
    if np.isnan(X.shape[1]):
        raise DataError("The number of X's columns must be known: call compute_chunk_sizes first.")
    frame = not isinstance(X, da.Array)
    meta = X._meta if frame else np.empty((1, int(X.shape[1])))
    try:
        _check_n_features(estimator, meta, reset=reset)
        _check_feature_names(estimator, meta, reset=reset)
    except (TypeError, ValueError) as error:
        raise DataError(str(error)) from None
    dtypes = list(X.dtypes.items()) if frame else [("X", X.dtype)]
    wrong = [f"{name} ({dtype})" for name, dtype in dtypes if not _is_real(dtype)]
    if wrong:
        raise DataError(
            f"These columns are not real numbers: {', '.join(wrong)}. Leave them out, or convert "
            "them with astype."
        )
    if frame and any(not isinstance(dtype, np.dtype) for _, dtype in dtypes):
        return X.astype(np.float64)  # pandas' nullable types: null becomes NaN
    return X if frame else _plain(X)


def _checked_weights(weights: Any) -> Any:
    """Weights in memory as float64, lazy ones as a Dask array that is checked as it is computed."""
    if weights is None:
        return None
    if not is_lazy(weights):
        return _weight_values(weights)
    _check_kind(weights, "sample_weight")
    if weights.ndim != 1:
        raise DataError(
            f"sample_weight must have one axis, one value a row; it has {weights.ndim}."
        )
    if not _is_real(weights.dtype):
        raise DataError(f"The sample weights are not real numbers but {weights.dtype}.")
    if not isinstance(weights, da.Array):
        weights = weights.astype(np.float64).to_dask_array()
    return _plain(weights).map_blocks(_weight_values, dtype=np.float64, meta=np.empty(0))


def _weight_values(weights: Any) -> Rows:
    try:
        if not _is_real(getattr(weights, "dtype", np.dtype(float))):
            weights = np.asarray(weights, dtype=object)  # of which each must be a number
        values = np.asarray(_unmasked(weights), dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError("sample_weight must be real numbers, one for each row.") from None
    if not ((values >= 0) & np.isfinite(values)).all():
        raise DataError("Some of the sample weights are negative, NaN or infinite.")
    return values


def _here(weights: Any) -> Rows:
    """The values of lazy weights."""
    blocks = weights.__dask_keys__()
    with users_backend(len(blocks), is_elsewhere=True) as backend:
        graph = weights.__dask_optimize__(weights.__dask_graph__(), blocks)
        graph = convert_legacy_graph(dict(graph))
        return np.concatenate(backend.compute(graph, blocks))


def _checked_blocks(chunks: RowChunks, missing: Missing) -> da.Array:
    """The rows of the chunks, checked as they come."""
    X, weights = dask_array(chunks.X), chunks.weights
    options = {"missing": missing, "dtype": X.dtype, "meta": X._meta}
    if weights is None:
        return X.map_blocks(_checked_values, **options)
    w = dask_array(weights)
    return da.blockwise(_checked_rows, "ij", X, "ij", w, "i", align_arrays=False, **options)


def _checked_rows(X: Rows, weights: Rows | None, missing: Missing) -> Rows:
    """The rows, if all values can be used of those that are not of weight 0."""
    if weights is None or len(weights) != len(X):  # the pass says which lengths these are
        return _checked_values(X, missing)
    if not np.isfinite(X).all():
        _checked_values(X[weights != 0], missing)
    return X


def _checked_values(X: Rows, missing: Missing) -> Rows:
    """The rows, if all values can be used."""
    if not np.isfinite(X).all():
        _check_values(bool(np.isnan(X).any()), bool(np.isinf(X).any()), missing)
    return X


def _check_values(any_missing: bool, any_infinite: bool, missing: Missing) -> None:
    bad = ["missing values (NaN)"] if any_missing and missing == "error" else []
    hint = " Or set missing to 'em' or 'drop'." if bad else ""
    if any_infinite:
        bad.append("infinity")
    if bad:
        raise DataError(f"Input contains {' and '.join(bad)}. Remove or replace them first.{hint}")


def _check_kind(lazy: Any, name: str) -> None:
    if not isinstance(lazy, da.Array) and not hasattr(type(lazy), "to_dask_array"):
        raise DataError(
            f"{name} is a Dask {type(lazy).__name__}: make it a Dask array or DataFrame, or "
            "compute it first."
        )


def _plain(array: da.Array) -> da.Array:
    """A Dask array of NumPy blocks; where these are masked, with NaN for what is not there."""
    if isinstance(array._meta, np.ma.MaskedArray):
        meta = np.empty((0,) * array.ndim)
        return array.map_blocks(_unmasked, dtype=np.float64, meta=meta)
    if not isinstance(array._meta, np.ndarray):
        raise DataError(
            f"The blocks of the Dask array are {type(array._meta).__name__}, not NumPy arrays: "
            "convert them with map_blocks."
        )
    return array


def _unmasked(values: Any) -> Any:
    if isinstance(values, np.ma.MaskedArray):
        return np.ma.filled(values.astype(np.float64), np.nan)
    return values


def _is_real(dtype: Any) -> bool:
    return getattr(dtype, "kind", "O") in "biuf"
