"""Hashes of the input's pages, so that equal footers are never taken for equal data.

Name, size and footer of a file can stay the same while values between its least and greatest are
rewritten. So a run notes a SHA-256 of the pages it read, and the state each file was in. While a
file is in that state it is the same; otherwise its pages are hashed again, and they decide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import pyarrow as pa

from gmm_dask.pace import Count, counted
from gmm_dask.storage.input.inputs import readable
from gmm_dask.storage.input.parquet.reader import OpenChunk, open_planned
from gmm_dask.storage.input.parquet.row_groups import n_leaves
from gmm_dask.storage.input.plan import Partition, Plan
from gmm_dask.storage.input.sources import ChunkSource, sources
from gmm_dask.storage.records.codec import (
    COUNT,
    INTEGER,
    PLACE,
    TEXT,
    At,
    Integer,
    Place,
    Sha256,
    list_of,
    optional,
    part,
    record,
    shape,
)
from gmm_dask.storage.records.documents import Document
from gmm_dask.storage.store.runs import CONTENTS, CONTENTS_FORMAT, RunFolder

ABOUT = (
    "The input as the attempt that published this run read it: the state of each file, and SHA-256 "
    "of the pages it read."
)
BLOCK_BYTES = 1 << 20
FILES_AT_ONCE = 4


@dataclass(frozen=True)
class FileContent:
    """The state a file was in, and what its pages were.

    Parameters
    ----------
    name : str
    size, mtime_ns, changed_ns, etag
        As in Partition.
    sha256 : str
        Hash of the pages of the columns that the run reads, in the order of its chunks.
    """

    name: Place
    size: int
    mtime_ns: Integer  # before 1970 it is negative
    changed_ns: Integer
    etag: str | None
    sha256: Sha256

    def is_state_of(self, partition: Partition) -> bool:
        """Whether the file is in this state, so that nobody can have written to it since."""
        if (self.name, self.size) != (partition.name, partition.size):
            return False
        if partition.etag is not None:
            return self.etag == partition.etag
        return (self.mtime_ns, self.changed_ns) == (partition.mtime_ns, partition.changed_ns)


CONTENTS_FILE = Document(
    shape({"about": TEXT, "files": list_of(record(FileContent))}),
    "gmm_dask.contents",
    CONTENTS_FORMAT,
)
_STATE = part(name=PLACE, size=COUNT, mtime_ns=INTEGER, changed_ns=INTEGER, etag=optional(TEXT))
_STATES = part(plan=part(partitions=list_of(_STATE)))


def chunk_content(source: ChunkSource, columns: Sequence[str]) -> str:
    """SHA-256 of the pages of these columns, in the row groups that begin in the chunk.

    Raises
    ------
    InputChangedError
        The file is not the one that was planned.
    """
    with open_planned(source) as chunk:
        return content_of(chunk, columns)


def content_of(chunk: OpenChunk, columns: Sequence[str]) -> str:
    """SHA-256 of the pages of these columns in a chunk whose file is open."""
    source, digest = chunk.source, hashlib.sha256()
    file, edges = chunk.file, [source.start - source.skip, *source.group_stops]
    with readable(source.name):
        for group, first_row in zip(source.row_groups, edges[:-1], strict=True):
            if first_row >= source.start:
                for start, stop in _pages(file.metadata, file.schema, group, columns):
                    _update(digest, file.stream, start, stop)
        file.check_unchanged()
    return digest.hexdigest()


def file_contents(plan: Plan, chunk_contents: Sequence[str]) -> tuple[FileContent, ...]:
    """One record for each file, from what its chunks held."""
    parts: list[list[str]] = [[] for _ in plan.partitions]
    for chunk, content in zip(plan.chunks, chunk_contents, strict=True):
        parts[chunk.partition].append(content)
    return tuple(
        FileContent(
            each.name,
            each.size,
            each.mtime_ns,
            each.changed_ns,
            each.etag,
            hashlib.sha256("".join(part).encode()).hexdigest(),
        )
        for each, part in zip(plan.partitions, parts, strict=True)
    )


def read_contents_of(
    plan: Plan,
    columns: Sequence[str],
    known: Mapping[str, str] | None = None,
    tell: Count | None = None,
) -> tuple[FileContent, ...]:
    """Hash the files now, but for those whose hash is known by name.

    Parameters
    ----------
    tell : callable, optional
        Called with the number of chunks that are hashed, of how many.
    """
    known = known or {}
    chosen = [
        source
        for chunk, source in zip(plan.chunks, sources(plan), strict=True)
        if plan.partitions[chunk.partition].name not in known
    ]
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        each_hashed = pool.map(lambda source: chunk_content(source, columns), chosen)
        hashed = iter(list(counted(each_hashed, len(chosen), tell)))
    found = [
        "" if plan.partitions[chunk.partition].name in known else next(hashed)
        for chunk in plan.chunks
    ]
    contents = file_contents(plan, found)
    return tuple(replace(each, sha256=known.get(each.name, each.sha256)) for each in contents)


def dump_contents(contents: Sequence[FileContent]) -> bytes:
    """The content of contents.json."""
    return CONTENTS_FILE.dump({"about": ABOUT, "files": contents})


def load_contents(folder: RunFolder) -> tuple[FileContent, ...] | None:
    """The hashes that a run noted; None where it noted none yet.

    Raises
    ------
    OutputError
        The note is damaged.
    """
    if not folder.exists(CONTENTS):
        return None
    found = CONTENTS_FILE.load(folder.get(CONTENTS), folder.path(CONTENTS))
    return tuple(found["files"])


def states_of(document: Mapping[str, Any], path: str) -> tuple[FileContent, ...]:
    """The states of the files in a run.json, whose content was not noted.

    Raises
    ------
    OutputError
        It is damaged, or of another version.
    """
    files = _STATES.load(document, At(path))["plan"]["partitions"]
    return tuple(FileContent(**each, sha256="") for each in files)


def _pages(
    metadata: Any, schema: pa.Schema, group: int, columns: Sequence[str]
) -> Iterator[tuple[int, int]]:
    """Where the pages of each leaf of the columns lie in the file."""
    leaf, row_group = 0, metadata.row_group(group)
    for field in schema:
        leaves = n_leaves(field.type)
        for i in range(leaf, leaf + leaves) if field.name in columns else ():
            chunk = row_group.column(i)
            first = chunk.data_page_offset
            if chunk.has_dictionary_page and 0 < (chunk.dictionary_page_offset or 0) < first:
                first = chunk.dictionary_page_offset
            yield first, first + chunk.total_compressed_size
        leaf += leaves


def _update(digest: Any, stream: BinaryIO, start: int, stop: int) -> None:
    stream.seek(start)
    while start < stop:
        block = stream.read(min(BLOCK_BYTES, stop - start))
        if not block:
            return  # the file became shorter, which its state will tell
        digest.update(block)
        start += len(block)
