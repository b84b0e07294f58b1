"""Planned Parquet files as a Dask array: where storage and engine meet."""

from __future__ import annotations

from functools import partial
from typing import Any

from gmm_dask.engine import RowChunks, Stream, rows_from_sources
from gmm_dask.storage import ChunkSource, Plan, array_names, read_parts, read_rows, shard_sources


def planned_rows(plan: Plan) -> RowChunks:
    """The rows of a plan and any weights; nothing is read yet.

    Small chunks are one array and one read. The parts of a row group are an array each, and are
    read one after the other where all are wanted.
    """
    how: dict[str, Any] = {
        "columns": plan.features,
        "dtype": plan.dtype,
        "weight_column": plan.weight_column,
    }
    loads: list[tuple[ChunkSource, ...]] = []
    streams = []
    for shard, sources in zip(plan.shards, shard_sources(plan), strict=True):
        first = len(loads)
        if not shard.is_split:
            loads.append(sources)
            continue
        loads.extend((source,) for source in sources)
        streams.append(Stream(first, len(loads), partial(read_parts, sources, **how)))
    pieces = tuple(tuple(source.n_rows for source in load) for load in loads)
    return rows_from_sources(
        partial(read_rows, **how),
        loads,
        [sum(lengths) for lengths in pieces],
        n_features=len(plan.features),
        dtype=plan.dtype,
        weighted=plan.weight_column is not None,
        names=array_names(plan),
        streams=tuple(streams),
        pieces=pieces,
    )
