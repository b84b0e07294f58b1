"""Rows in every form as chunks for a pass: in memory, of Dask, or in Parquet files."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
from dask._task_spec import convert_legacy_graph

from gmm_dask.engine import RowChunks, row_chunks
from gmm_dask.engine.cluster.backends import Backend
from gmm_dask.engine.cluster.opening import users_backend
from gmm_dask.engine.passes.chunks import dask_array
from gmm_dask.errors import DataError
from gmm_dask.mixture.row_arithmetic import Missing
from gmm_dask.rows.checks import checked_rows, checked_values, names_of, weight_values
from gmm_dask.rows.forms import features_of
from gmm_dask.rows.lazy import checked_weights, lazy_features

CHUNK_BYTES = 4 << 20  # arrays in memory are cut this fine, so that every core has work
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
        chunks = row_chunks(rows, weights, CHUNK_BYTES)
        if not reset:
            checked_rows(rows, weights, missing, names_of(estimator))
        return chunks
    chunks = lazy_chunks(estimator, X, weights, missing, reset=reset)
    if reset:
        return chunks
    options: dict[str, Any] = {"missing": missing, "names": names_of(estimator)}
    return chunks.through(partial(checked_rows, **options), _checked_blocks(chunks, options))


def lazy_chunks(
    estimator: Any, X: Any, sample_weight: Any, missing: Missing, *, reset: bool
) -> RowChunks:
    """Rows of Dask, or of Parquet, as chunks; raises DataError where they cannot be that."""
    if is_path(X):
        return _planned(estimator, X, sample_weight, missing, reset)
    return row_chunks(lazy_features(estimator, X, reset=reset), sample_weight)


def backend_of(chunks: RowChunks, X: Any) -> AbstractContextManager[Backend]:
    """The client the user has open, for rows that are not in this process; else threads."""
    return users_backend(chunks.X.numblocks[0], is_elsewhere=is_lazy(X) or is_path(X))


def _weights(weights: Any) -> Any:
    """Weights in memory as float64, lazy ones as a Dask array that is checked as it is computed."""
    return checked_weights(weights) if is_lazy(weights) else weight_values(weights)


def _here(weights: da.Array) -> Any:
    """The values of lazy weights."""
    blocks = weights.__dask_keys__()
    with users_backend(len(blocks), is_elsewhere=True) as backend:
        graph = weights.__dask_optimize__(weights.__dask_graph__(), blocks)
        return np.concatenate(backend.compute(convert_legacy_graph(dict(graph)), blocks))


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
    return planned_rows(plan)


def _checked_blocks(chunks: RowChunks, options: dict[str, Any]) -> da.Array:
    """The rows of the chunks, checked as they come."""
    X, weights = dask_array(chunks.X), chunks.weights
    options = options | {"dtype": X.dtype, "meta": X._meta}
    if weights is None:
        return X.map_blocks(checked_values, **options)
    w = dask_array(weights)
    return da.blockwise(checked_rows, "ij", X, "ij", w, "i", align_arrays=False, **options)
