"""Hashes of the input's pages, taken while a fit goes on: a start leaves cores idle."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gmm_dask.engine import RowChunks, rows_here
from gmm_dask.errors import GmmDaskError
from gmm_dask.stage.job import Job
from gmm_dask.storage.contents import content_of
from gmm_dask.storage.opened import PlannedFiles
from gmm_dask.storage.sources import sources

WORTH = 1 << 20  # rows; fewer are hashed in the time that a thread takes to begin


@contextmanager
def hashing(job: Job[Any], chunks: RowChunks) -> Iterator[Mapping[int, str]]:
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
