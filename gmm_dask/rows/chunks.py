"""Rows in every form as chunks for a pass: in memory, of Dask, or in Parquet files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import dask.array as da
import numpy as np
from threadpoolctl import ThreadpoolController

from gmm_dask.engine import ClusterBackend, Given, LocalBackend, RowChunks, row_chunks
from gmm_dask.engine.backends import Backend
from gmm_dask.engine.chunks import dask_array
from gmm_dask.engine.cluster import available_cores
from gmm_dask.errors import ClusterError, DataError
from gmm_dask.mixture.row_arithmetic import Missing
from gmm_dask.rows.checks import checked_rows, checked_values, names_of, weight_values
from gmm_dask.rows.forms import features_of
from gmm_dask.rows.lazy import checked_weights, lazy_features

CHUNK_BYTES = 4 << 20  # arrays in memory are cut this fine, so that every core has work
IN_THE_CLASS = (
    "What is called data.* is a setting of the stage. In its place give the rows as "
    "dask.dataframe.read_parquet(path)[columns]: columns of it can be chosen, and made numbers "
    "with astype."
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
            _open_client()  # or an error, where it cannot compute them here
            weights = weights.compute()
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


def blas_on_one_thread() -> Any:
    """A context in which BLAS and OpenMP run on one thread."""
    return _thread_pools().limit(limits=1)


@cache
def _thread_pools() -> Any:
    """The libraries that have thread pools; finding them takes longer than a fit of 1,000 rows."""
    return ThreadpoolController()


@contextmanager
def backend_of(chunks: RowChunks, X: Any) -> Iterator[Backend]:
    """The client the user has open, for rows that are not in this process; else threads.

    BLAS runs on one thread meanwhile: chunks are the parallelism.
    """
    client = _open_client() if is_lazy(X) or is_path(X) else None
    local = LocalBackend(min(available_cores(), max(1, chunks.X.numblocks[0])))
    with blas_on_one_thread():
        yield local if client is None else ClusterBackend(Given(client))


def _open_client() -> Any:
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        client = distributed.default_client()
    except ValueError:
        return None
    if client.asynchronous:
        raise ClusterError("The open Dask client is asynchronous; open it with asynchronous=False.")
    return client


def _weights(weights: Any) -> Any:
    """Weights in memory as float64, lazy ones as a Dask array that is checked as it is computed."""
    return checked_weights(weights) if is_lazy(weights) else weight_values(weights)


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
        plan = plan_dataset(X, features=names, missing=missing)
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
