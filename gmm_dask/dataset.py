"""Planned Parquet files as a Dask array: where storage and engine meet."""

from __future__ import annotations

from functools import partial

from gmm_dask.engine import RowChunks, array_from_sources
from gmm_dask.storage import Plan
from gmm_dask.storage.reader import read_features, read_weights, sources


def planned_rows(plan: Plan) -> RowChunks:
    """The rows of a plan, one task per chunk; nothing is read yet."""
    lengths = [chunk.n_rows for chunk in plan.chunks]
    X = array_from_sources(
        partial(read_features, columns=plan.features, dtype=plan.dtype),
        sources(plan),
        lengths,
        n_features=len(plan.features),
        dtype=plan.dtype,
        name="read_features",
    )
    if plan.weight_column is None:
        return RowChunks(X)
    weights = array_from_sources(
        partial(read_weights, column=plan.weight_column),
        sources(plan),
        lengths,
        n_features=None,
        dtype="float64",
        name="read_weights",
    )
    return RowChunks(X, weights)
