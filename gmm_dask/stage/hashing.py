"""Hashes of the input's pages, taken where a fit reads them: labels must be of the same pages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from gmm_dask.engine import RowChunks, rows_here
from gmm_dask.errors import GmmDaskError
from gmm_dask.stage.identity import note_contents
from gmm_dask.stage.job import Job
from gmm_dask.storage.input.parquet.opened import PlannedFiles
from gmm_dask.storage.input.sources import sources
from gmm_dask.storage.records.contents import chunk_content, content_of, file_contents

Contents = Mapping[int, str]  # SHA-256 of the pages of chunks, by chunk

WORTH = 1 << 20  # rows; fewer are hashed in the time that a thread takes to begin


def on_look(job: Job[Any], chunks: RowChunks) -> dict[int, Callable[[], str]]:
    """What hashes the chunks that labels will read again, for the tasks that look at their rows.

    Objects are left out: each of their reads asks for the planned content, by its ETag.
    """
    here = enumerate(zip(sources(job.plan), rows_here(chunks), strict=True))
    return {
        index: partial(chunk_content, source, job.read_columns)
        for index, (source, rows) in here
        if rows is None and source.etag is None
    }


def note_early(job: Job[Any], contents: Contents) -> None:
    """Note what every file held, if that is known, so that a later attempt can be sure of it."""
    if len(contents) == len(job.plan.chunks):
        in_order = [contents[chunk.index] for chunk in job.plan.chunks]
        note_contents(job.folder, file_contents(job.plan, in_order))


@contextmanager
def hashing(job: Job[Any], chunks: RowChunks) -> Iterator[Contents]:
    """Hash in a thread, until the block ends, what labels will not read again.

    These are the chunks that this process holds decoded. Gives the hashes by chunk; those that are
    missing after the block, and what is wrong with a file, are left to the labels.
    """
    found: dict[int, str] = {}
    if job.plan.n_rows < WORTH:
        yield found
        return
    over = threading.Event()
    thread = threading.Thread(target=_hash, args=(job, chunks, found, over), name="hashing")
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def _hash(job: Job[Any], chunks: RowChunks, found: dict[int, str], over: threading.Event) -> None:
    here = enumerate(zip(sources(job.plan), rows_here(chunks), strict=True))
    with PlannedFiles() as files:
        for index, (source, rows) in here:
            if over.is_set():
                return
            if rows is None:
                continue
            try:
                found[index] = content_of(files.open(source), job.read_columns)
            except GmmDaskError:
                return
