"""Planned Parquet files as read units, and as a Dask array: where storage and engine meet."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from dask._task_spec import Task

from gmm_dask.engine import RowChunks, Unit
from gmm_dask.storage import ChunkSource, Plan, array_names, read_chunks, shard_sources

if TYPE_CHECKING:
    import dask.array as da


def planned_rows(plan: Plan) -> RowChunks:
    """The rows of a plan and any weights; nothing is read yet.

    Small files are one chunk. The parts of a large row group are a chunk each of one unit, which
    reads them one after the other.
    """
    how = _how(plan) | {"weight_column": plan.weight_column}
    units = []
    for chunks in _chunks(plan):
        pieces = tuple(tuple(source.n_rows for source in chunk) for chunk in chunks)
        lengths = tuple(map(sum, pieces))
        units.append(Unit(partial(read_chunks, chunks, **how), lengths, pieces=pieces))
    return RowChunks(
        tuple(units),
        len(plan.features),
        plan.dtype,
        None if plan.weight_column is None else "float64",
        array_names(plan),
    )


def planned_array(plan: Plan) -> da.Array:
    """The features of a plan (n, d), one block for each chunk; nothing is read yet."""
    import dask.array as da

    name, how = f"features-{uuid4().hex}", _how(plan)
    chunks = [chunk for of_unit in _chunks(plan) for chunk in of_unit]
    graph = {
        (name, i, 0): Task((name, i, 0), partial(_features, **how), chunk)
        for i, chunk in enumerate(chunks)
    }
    lengths = tuple(sum(source.n_rows for source in chunk) for chunk in chunks)
    meta = np.empty((0, 0), plan.dtype)
    return da.Array(graph, name, (lengths, (len(plan.features),)), meta=meta)


def _how(plan: Plan) -> dict[str, Any]:
    return {"columns": plan.features, "dtype": plan.dtype}


def _chunks(plan: Plan) -> list[tuple[tuple[ChunkSource, ...], ...]]:
    """Where the rows of each chunk of each unit are."""
    return [
        tuple((source,) for source in sources) if shard.is_split else (sources,)
        for shard, sources in zip(plan.shards, shard_sources(plan), strict=True)
    ]


def _features(chunk: tuple[ChunkSource, ...], **how: Any) -> Any:
    ((X, _),) = read_chunks((chunk,), **how)
    return X
