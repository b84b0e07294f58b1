"""Rows in every form as chunks for a pass, and functions of the mixture in the form of the rows."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from dask._task_spec import convert_legacy_graph

from gmm_dask.engine import RowChunks, row_chunks
from gmm_dask.engine.cluster.backends import Backend
from gmm_dask.engine.cluster.opening import available_cores, blas_on_one_thread, users_backend
from gmm_dask.errors import DataError
from gmm_dask.estimator.rows.forms import (
    Names,
    checked_rows,
    checked_values,
    features_of,
    names_of,
    weight_values,
)
from gmm_dask.estimator.rows.lazy import (
    FramePart,
    checked_weights,
    frame_part,
    is_frame,
    lazy_features,
)
from gmm_dask.estimator.rows.values import Values
from gmm_dask.mixture import Parameters
from gmm_dask.mixture.row_arithmetic import Missing, RowArithmetic, incomplete_rows

if TYPE_CHECKING:
    import dask.array as da

    from gmm_dask.storage import Plan

PART_ROWS = 1 << 14  # rows that a thread has at least

CHUNK_BYTES = 4 << 20  # arrays in memory are cut this fine, so that every core has work
MOST_CHUNK_BYTES = 32 << 20
ROWS_OF_COLUMNS = 3  # rows of a chunk for each column: its sums, k d^2, are then little beside it
IN_THE_CLASS = (
    "What is called data.* is a setting of the stage. Here data.missing is the parameter missing, "
    "and in place of the others the rows are given as dask.dataframe.read_parquet(path)[columns]: "
    "columns of it can be chosen, and made numbers with astype."
)


def is_lazy(X: Any) -> bool:
    """Whether X is a Dask collection."""
    return hasattr(X, "__dask_graph__")


def is_path(X: Any) -> bool:
    """Whether X names Parquet files: a path, or several."""
    if isinstance(X, list | tuple) and X:
        return all(isinstance(each, str | os.PathLike) for each in X)
    return isinstance(X, str | os.PathLike)


def chunk_bytes(d: int) -> int:
    """Size of the chunks that arrays of d columns in memory are cut into."""
    return max(CHUNK_BYTES, min(8 * ROWS_OF_COLUMNS * d * d, MOST_CHUNK_BYTES))


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
    weights = None if sample_weight is None else _weights(sample_weight)
    if not is_lazy(X) and not is_path(X):
        rows = features_of(estimator, X, reset=reset).X
        if weights is not None and is_lazy(weights):
            weights = _here(weights)
        chunks = row_chunks(rows, weights, chunk_bytes(rows.shape[1]))
        if not reset:
            checked_rows(rows, weights, missing, names_of(estimator))
        return chunks
    chunks = lazy_chunks(estimator, X, weights, missing, reset=reset)
    if reset:
        return chunks
    options: dict[str, Any] = {"missing": missing, "names": names_of(estimator)}
    options["word"] = None if is_path(X) else _word(X)
    return chunks.through(partial(_checked_block, **options))


def lazy_chunks(
    estimator: Any, X: Any, sample_weight: Any, missing: Missing, *, reset: bool
) -> RowChunks:
    """Rows of Dask, or of Parquet, as chunks; raises DataError where they cannot be that."""
    if is_path(X):
        if sample_weight is not None:
            raise DataError(
                "sample_weight cannot go with a path to Parquet: give the rows as a Dask "
                "DataFrame, or use the stage with data.weight_column."
            )
        from gmm_dask.roads.dataset import planned_rows

        return planned_rows(_plan(estimator, X, missing, reset))
    chunks = row_chunks(lazy_features(estimator, X, reset=reset), sample_weight)
    names = tuple(f"{_word(X)} {i}" for i in range(chunks.n_chunks))
    return replace(chunks, names=names)


def backend_of(chunks: RowChunks, X: Any) -> AbstractContextManager[Backend]:
    """The client the user has open, for rows that are not in this process; else threads."""
    planned = max(chunks.lengths or (0,)) * chunks.row_bytes if is_path(X) else 0
    return users_backend(
        chunks.n_chunks, is_elsewhere=is_lazy(X) or is_path(X), chunk_bytes=planned
    )


def _weights(weights: Any) -> Any:
    """Weights in memory as float64, lazy ones as a Dask array that is checked as it is computed."""
    return checked_weights(weights) if is_lazy(weights) else weight_values(weights)


def _here(weights: da.Array) -> Any:
    """The values of lazy weights."""
    blocks = weights.__dask_keys__()
    with users_backend(len(blocks), is_elsewhere=True) as backend:
        graph = weights.__dask_optimize__(weights.__dask_graph__(), blocks)
        return np.concatenate(backend.compute(convert_legacy_graph(dict(graph)), blocks))


def _plan(estimator: Any, X: Any, missing: Missing, reset: bool) -> Plan:
    """The plan of Parquet files, whose columns fit the estimator."""
    from gmm_dask.storage import plan_dataset

    names = None if reset else names_of(estimator)
    try:
        plan = plan_dataset(X, features=names, missing=missing, to_fit=reset)
    except DataError as error:
        if any("data." in problem for problem in error.problems):
            raise DataError([*error.problems, IN_THE_CLASS]) from None
        raise
    if reset:
        estimator.n_features_in_ = len(plan.features)
        estimator.feature_names_in_ = np.array(plan.features, dtype=object)
    elif len(plan.features) != estimator.n_features_in_:
        raise DataError(
            f"{X} has {len(plan.features)} numeric columns, but {type(estimator).__name__} is "
            f"expecting {estimator.n_features_in_} features as input."
        )
    return plan


def _checked_block(X: Any, weights: Any, number: int, *, word: str | None, **options: Any) -> Any:
    where = None if word is None else f"{word} {number}"
    return checked_rows(X, weights, where=where, **options)


def _word(X: Any) -> str:
    """What the parts of a Dask collection are called."""
    return "partition" if is_frame(X) else "block"


# What map_rows does with each row, by the name that the dashboard shows.
_FUNCTIONS: dict[str, Callable[[RowArithmetic, Values, Parameters], Values]] = {
    "labels": lambda arithmetic, X, parameters: arithmetic.score(X, parameters).labels,
    "log_density": lambda arithmetic, X, parameters: arithmetic.score(X, parameters).log_density,
    "responsibilities": RowArithmetic.responsibilities,
    "impute": RowArithmetic.impute,
}


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
    Imputed rows have their columns in the order of those of X.

    Parameters
    ----------
    function : {"labels", "log_density", "responsibilities", "impute"}
    dtype : of the result
    columns : list, optional
        Names of the result's columns where it has two axes; imputed frames keep their own.
    """
    arithmetic = RowArithmetic.chosen(missing)
    work = _RowFunction(function, np.dtype(dtype), arithmetic, names_of(estimator))
    if not is_lazy(X) and not is_path(X):
        rows = features_of(estimator, X, reset=False)
        with blas_on_one_thread():  # the matrices are too small for more
            work.n_threads = available_cores()
            found = work(rows.X, parameters)
        return rows.in_own_order(found) if function == "impute" else found
    if is_frame(X):
        part = frame_part(estimator, X, reset=False)
        return _map_frame(X, _FrameFunction(work, part, columns), parameters)
    return _map_array(lazy_array(estimator, X, missing), work, parameters, columns)


def lazy_array(estimator: Any, X: Any, missing: Missing) -> da.Array:
    """Rows of Dask, or of Parquet, as a Dask array of features (n, d)."""
    if not is_path(X):
        return lazy_features(estimator, X, reset=False)
    from gmm_dask.roads.dataset import planned_array

    return planned_array(_plan(estimator, X, missing, reset=False))


class _RowFunction:
    """The function on one block of rows; rows that cannot be used are an error or get no label."""

    def __init__(
        self, function: str, dtype: np.dtype[Any], arithmetic: RowArithmetic, names: Names
    ) -> None:
        self.function, self.dtype, self.arithmetic = function, dtype, arithmetic
        self.names = names
        self.n_threads = 1  # a task of Dask has one
        self.__name__ = function  # as the dashboard shows it

    def __call__(self, X: Values, parameters: Parameters, where: str | None = None) -> Values:
        function, missing = _FUNCTIONS[self.function], self.arithmetic.missing
        absent = incomplete_rows(checked_values(X, missing, self.names, where))
        if missing == "em" and absent.any():
            return function(RowArithmetic("em"), X, parameters).astype(self.dtype, copy=False)
        complete = replace(self.arithmetic, missing="error")
        if not absent.any():
            return self._in_parts(complete, X, parameters).astype(self.dtype, copy=False)
        found = self._in_parts(complete, X[~absent], parameters)
        nothing = -1 if self.dtype.kind == "i" else np.nan
        result = np.full((len(X), *found.shape[1:]), nothing, self.dtype)
        result[~absent] = found
        return result

    def _in_parts(self, arithmetic: RowArithmetic, X: Values, parameters: Parameters) -> Values:
        """The function on every row, on all threads: in the core no row looks at others."""
        function = _FUNCTIONS[self.function]
        n_parts = min(self.n_threads, len(X) // PART_ROWS)
        if n_parts < 2 or arithmetic.kernel != "compiled":
            return function(arithmetic, X, parameters)
        parts = np.array_split(X, n_parts)
        with ThreadPoolExecutor(n_parts) as pool:
            found = pool.map(lambda part: function(arithmetic, part, parameters), parts)
            return np.concatenate(list(found))


class _FrameFunction:
    """The function on one partition of a Dask DataFrame, with its index."""

    def __init__(self, work: _RowFunction, part: FramePart, columns: list[Any] | None) -> None:
        self.work, self.part = work, part
        self.columns = list(part.own) if work.function == "impute" else columns
        self.__name__ = work.function

    def __call__(
        self, frame: Any, parameters: Parameters, partition_info: dict[str, Any] | None = None
    ) -> Any:
        where = None if partition_info is None else f"partition {partition_info['number']}"
        values = self.work(self.part(frame, partition_info), parameters, where)
        if self.work.function == "impute":
            values = self.part.in_own_order(values)
        return self.framed(values, frame.index)

    def framed(self, values: Values, index: Any) -> Any:
        """Values as a Series, or as a DataFrame where they have two axes."""
        import pandas as pd

        if self.columns is None:
            return pd.Series(values, index=index)
        return pd.DataFrame(values, index=index, columns=self.columns)

    def meta(self, index: Any) -> Any:
        """The result of no rows."""
        shape = (0,) if self.columns is None else (0, len(self.columns))
        return self.framed(np.empty(shape, self.work.dtype), index)


def _map_array(
    X: Any, work: _RowFunction, parameters: Parameters, columns: list[Any] | None
) -> Any:
    from dask import delayed

    tail = () if columns is None else (len(columns),)
    return X.map_blocks(
        partial(_of_block, work),
        delayed(parameters),  # once in the graph, not once a task
        token=work.function,  # as the dashboard shows it
        dtype=work.dtype,
        drop_axis=1 if columns is None else None,
        chunks=(X.chunks[0], *((n,) for n in tail)),
        meta=np.empty((0, *(0 for _ in tail)), dtype=work.dtype),
    )


def _of_block(
    work: _RowFunction,
    X: Values,
    parameters: Parameters,
    block_id: tuple[int, ...] | None = None,
) -> Values:
    return work(X, parameters, None if block_id is None else f"block {block_id[0]}")


def _map_frame(X: Any, work: _FrameFunction, parameters: Parameters) -> Any:
    from dask import delayed

    return X.map_partitions(work, delayed(parameters), meta=work.meta(X._meta.index))
