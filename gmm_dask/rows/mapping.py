"""A function of the mixture for every row, in the form of the rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.engine.cluster.opening import blas_on_one_thread
from gmm_dask.engine.passes.chunks import dask_array
from gmm_dask.mixture import Parameters
from gmm_dask.mixture.row_arithmetic import Missing, RowArithmetic, incomplete_rows
from gmm_dask.rows.checks import Names, checked_values, names_of
from gmm_dask.rows.chunks import is_lazy, is_path, lazy_chunks
from gmm_dask.rows.forms import features_of
from gmm_dask.rows.lazy import FramePart, frame_part, is_frame
from gmm_dask.rows.values import Values

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
            found = work(rows.X, parameters)
        return rows.in_own_order(found) if function == "impute" else found
    if is_frame(X):
        part = frame_part(estimator, X, reset=False)
        return _map_frame(X, _FrameFunction(work, part, columns), parameters)
    chunks = lazy_chunks(estimator, X, None, missing, reset=False)
    return _map_array(dask_array(chunks.X), work, parameters, columns)


class _RowFunction:
    """The function on one block of rows; rows that cannot be used are an error or get no label."""

    def __init__(
        self, function: str, dtype: np.dtype[Any], arithmetic: RowArithmetic, names: Names
    ) -> None:
        self.function, self.dtype, self.arithmetic = function, dtype, arithmetic
        self.names = names
        self.__name__ = function  # as the dashboard shows it

    def __call__(self, X: Values, parameters: Parameters) -> Values:
        function, missing = _FUNCTIONS[self.function], self.arithmetic.missing
        absent = incomplete_rows(checked_values(X, missing, self.names))
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


class _FrameFunction:
    """The function on one partition of a Dask DataFrame, with its index."""

    def __init__(self, work: _RowFunction, part: FramePart, columns: list[Any] | None) -> None:
        self.work, self.part = work, part
        self.columns = list(part.own) if work.function == "impute" else columns
        self.__name__ = work.function

    def __call__(
        self, frame: Any, parameters: Parameters, partition_info: dict[str, Any] | None = None
    ) -> Any:
        values = self.work(self.part(frame, partition_info), parameters)
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
        work,
        delayed(parameters),  # once in the graph, not once a task
        dtype=work.dtype,
        drop_axis=1 if columns is None else None,
        chunks=(X.chunks[0], *((n,) for n in tail)),
        meta=np.empty((0, *(0 for _ in tail)), dtype=work.dtype),
    )


def _map_frame(X: Any, work: _FrameFunction, parameters: Parameters) -> Any:
    from dask import delayed

    return X.map_partitions(work, delayed(parameters), meta=work.meta(X._meta.index))
