"""Hashes of the pages of the input: what a run reads twice must be the same twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gmm_dask.engine import Backend, counting, map_items
from gmm_dask.roads.fitting_run import tasks_told
from gmm_dask.stage.identity import note_contents
from gmm_dask.stage.job import Job
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage import (
    ChunkSource,
    PlannedFiles,
    content_of,
    file_contents,
    name_of,
    shard_sources,
)

Contents = Mapping[int, str]  # SHA-256 of the pages of chunks, by chunk


def hash_pages(job: Job[Any], backend: Backend, watcher: Watcher) -> Contents:
    """SHA-256 of the pages of every chunk of a local file, without decoding a row.

    Chunks of objects are left out: each read of an object asks for the planned content, by its
    ETag.

    Raises
    ------
    InputChangedError
        A file is not the planned one.
    """
    plan = job.plan
    shards = zip(plan.shards, shard_sources(plan), strict=True)
    local = [(shard.chunks, sources) for shard, sources in shards if sources[0].etag is None]
    of_shards = map_items(
        "hash",
        _hash_shard,
        [sources for _, sources in local],
        backend,
        common=job.read_columns,
        on_done=counting(tasks_told(watcher.progress), "hash", len(local)),
        names=[name_of(sources, plan.row_bytes) for _, sources in local],
    )
    return {
        chunk.index: sha256
        for (chunks, _), hashes in zip(local, of_shards, strict=True)
        for chunk, sha256 in zip(chunks, hashes, strict=True)
    }


def note_pages(job: Job[Any], contents: Contents) -> None:
    """Keep in the run's folder what every file held, so that a later attempt can be sure of it.

    Raises
    ------
    InputChangedError
        An earlier attempt of this run saw other pages.
    """
    if len(contents) == len(job.plan.chunks):
        in_order = [contents[chunk.index] for chunk in job.plan.chunks]
        note_contents(job.folder, file_contents(job.plan, in_order))


def _hash_shard(columns: Sequence[str], shard: Sequence[ChunkSource]) -> list[str]:
    with PlannedFiles() as files:
        return [content_of(files.open(source), columns) for source in shard]
