"""Planned Parquet files as a Dask array: where storage and engine meet."""

from __future__ import annotations

from functools import partial

from gmm_dask.engine import RowChunks, rows_from_sources
from gmm_dask.storage import Plan
from gmm_dask.storage.reader import chunk_names, read_rows, sources


def planned_rows(plan: Plan) -> RowChunks:
    """The rows of a plan and any weights, one read a chunk; nothing is read yet."""
    return rows_from_sources(
        partial(
            read_rows, columns=plan.features, dtype=plan.dtype, weight_column=plan.weight_column
        ),
        sources(plan),
        [chunk.n_rows for chunk in plan.chunks],
        n_features=len(plan.features),
        dtype=plan.dtype,
        weighted=plan.weight_column is not None,
        names=chunk_names(plan),
    )
