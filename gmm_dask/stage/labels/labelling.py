"""Label every planned row with a model: parts of whole chunks, written by tasks of a few."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gmm_dask.engine import (
    Backend,
    Held,
    counting,
    map_items,
    rows_here,
    tree_sum,
)
from gmm_dask.errors import DataError
from gmm_dask.fitting_run import tasks_told
from gmm_dask.mixture import Parameters, RowScores
from gmm_dask.mixture.row_arithmetic import RowArithmetic, incomplete_rows
from gmm_dask.stage import text
from gmm_dask.stage.identity import note_contents
from gmm_dask.stage.job import Job
from gmm_dask.stage.labels.row_checks import check_total
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage import (
    Chunk,
    ChunkSource,
    FileRows,
    LabelledPart,
    LabelSums,
    Model,
    OpenChunk,
    PartReceipt,
    Plan,
    PlannedChunk,
    PlannedFiles,
    RunFolder,
    content_of,
    file_changed,
    file_contents,
    label_table,
    labelled_before,
    name_of,
    shard_sources,
    write_part,
)

Contents = Mapping[int, str]  # SHA-256 of the pages of chunks, by chunk
MAX_PARTS = 64  # of chunks that a pass reads at once; small files share them when they are more

_Rows = npt.NDArray[np.floating[Any]]


class _Item(NamedTuple):
    """One chunk to label, with its rows and the hash of its pages if these are known already."""

    chunk: Chunk
    source: ChunkSource
    rows: _Rows | None
    content: str | None


_Part = tuple[_Item, ...]  # chunks whose labels go into one part
_Task = tuple[_Part, ...]  # what one task labels


class _Labels(NamedTuple):
    """The labels of one chunk; no table where none is written."""

    content: str
    sums: LabelSums
    table: pa.Table | None


@dataclass(frozen=True, eq=False)
class Labelled:
    """All rows labelled.

    Parameters
    ----------
    receipts : tuple of PartReceipt
        In row order; empty where the settings ask for no labels.
    contents : tuple of str
        SHA-256 of the input's pages, chunk by chunk.
    sums : LabelSums
    n_decoded : int
        Rows that were decoded for it; the others were held.
    seconds : float
    """

    receipts: tuple[PartReceipt, ...]
    contents: tuple[str, ...]
    sums: LabelSums
    n_decoded: int
    seconds: float


@dataclass(frozen=True, eq=False)
class _Work:
    """What every label task needs beside its chunks: folder, model and columns."""

    folder: RunFolder
    parameters: Parameters
    features: tuple[str, ...]
    dtype: str
    arithmetic: RowArithmetic
    weight_column: str | None
    kept: tuple[str, ...]
    columns: tuple[str, ...]
    write: bool
    responsibilities: bool
    model_sha256: str


def label(
    job: Job[Any],
    model: Model,
    watcher: Watcher | None = None,
    backend: Backend | None = None,
    held: Held | None = None,
    contents: Contents | None = None,
) -> Labelled:
    """Score every row once; write content-addressed parts, each with its receipt.

    A part has the rows of a chunk, or of several small files that follow each other.

    A part that an earlier attempt of this run made with the same model is verified and kept.

    Parameters
    ----------
    held : Held, optional
        As the fit left it: what this process has decoded is not decoded again.
    contents : mapping of int to str, optional
        SHA-256 of the input's pages as they were read before, by chunk. What is read again must
        have the same pages.

    Raises
    ------
    InputChangedError
        A file is not the planned one, or has other pages than before.
    """
    watcher = watcher or Watcher()
    begun, plan = time.perf_counter(), job.plan
    rows = [None] * len(plan.chunks) if held is None else rows_here(held.chunks)
    tasks = list(_tasks(plan, rows, contents or {}))
    n_rows, n_parts = plan.n_rows, sum(map(len, tasks))
    watcher.phase("label", f"{text.numbered(n_rows, 'row')} in {text.numbered(n_parts, 'part')}")
    # A backend tells that a task is done, and not which: at least so many parts are written.
    written = accumulate(sorted(map(len, tasks)))
    with job.backend(watcher, backend) as backend:
        of_tasks = map_items(
            "label",
            label_task,
            tasks,
            backend,
            common=_work(job, model),
            on_done=lambda: watcher.labelled(next(written), n_parts),
            names=[_name(task, plan) for task in tasks],
        )
    parts = [part for of_task in of_tasks for part in of_task]
    sums = tree_sum(part.sums for part in parts)
    check_total(sums.largest, sums.sum_weight, plan.root, plan.weight_column)
    chunks = (each for task in tasks for part in task for each in part)
    return Labelled(
        tuple(part.receipt for part in parts if part.receipt is not None),
        tuple(content for part in parts for content in part.contents),
        sums,
        sum(each.source.n_rows for each in chunks if each.rows is None),
        time.perf_counter() - begun,
    )


def _work(job: Job[Any], model: Model) -> _Work:
    settings, plan = job.settings, job.plan
    return _Work(
        job.folder,
        model.parameters,
        plan.features,
        plan.dtype,
        RowArithmetic.chosen(settings.data.missing),
        plan.weight_column,
        job.kept_columns,
        job.read_columns,
        settings.labels.enabled,
        settings.labels.responsibilities,
        model.sha256,
    )


def _tasks(plan: Plan, decoded: Sequence[_Rows | None], contents: Contents) -> Iterator[_Task]:
    """The parts of each task: their chunks, with what is there of them already.

    It is decided by the plan alone which chunks share a part.
    """
    rows = iter(decoded)
    for shard, sources in zip(plan.shards, shard_sources(plan), strict=True):
        here = islice(rows, len(sources))
        items = tuple(
            _Item(chunk, source, found, contents.get(chunk.index))
            for chunk, source, found in zip(shard.chunks, sources, here, strict=True)
        )
        if shard.is_split or len(items) <= MAX_PARTS:
            yield tuple((item,) for item in items)
        else:
            step = -(-len(items) // MAX_PARTS)
            yield from ((items[i : i + step],) for i in range(0, len(items), step))


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


def _name(task: _Task, plan: Plan) -> str:
    return name_of([each.source for part in task for each in part], plan.row_bytes)


def label_task(work: _Work, task: _Task) -> list[LabelledPart]:
    """Label chunks, one after the other; what they have of one row group is decoded once."""
    with PlannedFiles() as files:
        return [label_part(work, part, files) for part in task]


def label_part(work: _Work, part: _Part, files: PlannedFiles) -> LabelledPart:
    """Label the chunks of a part, write the part and its receipt."""
    first, *others = part
    origin: dict[str, Any] = {
        "first_row": first.chunk.first_row,
        "file": first.source.name,
        "start": first.chunk.start,
        "stop": first.chunk.stop,
        "model_sha256": work.model_sha256,
        "others": tuple(
            FileRows(each.source.name, each.chunk.start, each.chunk.stop) for each in others
        ),
    }
    earlier = labelled_before(work.folder, first.chunk.index, **origin) if work.write else None
    if earlier is not None and len(earlier.contents) == len(part):
        pairs = zip(part, earlier.contents, strict=True)
        if all(each.content in (None, content) for each, content in pairs):
            return earlier
    found = [
        label_chunk(work, each.chunk, PlannedChunk(each.source, files, each.rows), each.content)
        for each in part
    ]
    contents, sums = tuple(each.content for each in found), tree_sum(each.sums for each in found)
    tables = [each.table for each in found if each.table is not None]
    if not tables:
        return LabelledPart(None, contents, sums)
    receipt = write_part(work.folder, first.chunk.index, pa.concat_tables(tables), **origin)
    labelled = LabelledPart(receipt, contents, sums)
    labelled.note(work.folder)
    return labelled


def label_chunk(
    work: _Work, chunk: Chunk, planned: PlannedChunk, content: str | None = None
) -> _Labels:
    """The labels of one chunk; `content` is the hash that its pages must have, if it is known."""
    source, rows = planned.source, planned.open()
    weights = None if work.weight_column is None else rows.weights(work.weight_column)
    scored = _scored(work, planned.blocks(rows, work.features, work.dtype), source.n_rows, weights)
    _check_finite(scored, chunk, source)
    sums = _sums(scored, weights, work.parameters.n_components)
    check_total(sums.largest, sums.sum_weight, source.name, work.weight_column)
    if content is None or planned.decoded is None:
        content = _content(work, rows, content)
    if not work.write:
        return _Labels(content, sums, None)
    table = label_table(
        chunk.first_row,
        rows.table(work.kept),
        scored.score,
        usable=scored.usable,
        responsibilities=scored.responsibilities,
    )
    return _Labels(content, sums, table)


@dataclass(frozen=True, eq=False)
class _Scored:
    """All rows of a chunk, n of them; those that are not usable are labelled -1 and have no score.

    Parameters
    ----------
    score : RowScores
    usable : (n,)
    responsibilities : (n, k), optional
    n_incomplete : int
        Usable rows with a missing value.
    """

    score: RowScores
    usable: npt.NDArray[np.bool_]
    responsibilities: npt.NDArray[np.float64] | None
    n_incomplete: int

    @property
    def of_usable(self) -> RowScores:
        """The scores of the usable rows alone."""
        if self.usable.all():
            return self.score
        labels, density, largest = self.score
        return RowScores(labels[self.usable], density[self.usable], largest[self.usable])


def _scored(
    work: _Work,
    blocks: Iterator[tuple[int, _Rows]],
    n: int,
    weights: npt.NDArray[np.float64] | None,
) -> _Scored:
    """Score the n rows of a chunk block by block: unless held they are never there together."""
    arithmetic, n_incomplete = work.arithmetic, 0
    score = RowScores(np.full(n, -1, np.int32), np.full(n, np.nan), np.full(n, np.nan))
    usable, resp = np.empty(n, bool), None
    if work.write and work.responsibilities:
        resp = np.full((n, work.parameters.n_components), np.nan)
    for first, X in blocks:
        at = slice(first, first + len(X))
        kept = arithmetic.usable(X, None if weights is None else weights[at])
        where = slice(None) if kept.all() else kept  # all are copied three times as fast
        used = X[where]
        found = arithmetic.score(used, work.parameters)
        score.labels[at][where] = found.labels
        score.log_density[at][where] = found.log_density
        score.max_responsibility[at][where] = found.max_responsibility
        if resp is not None:
            resp[at][where] = arithmetic.responsibilities(used, work.parameters)
        if arithmetic.missing == "em":
            n_incomplete += int(incomplete_rows(used).sum())
        usable[at] = kept
    return _Scored(score, usable, resp, n_incomplete)


def _content(work: _Work, rows: OpenChunk, before: str | None) -> str:
    """SHA-256 of the pages of rows that were just read; raises if it was another one before."""
    content = content_of(rows, work.columns)
    if before not in (None, content):
        raise file_changed(
            rows.source, "its pages hold other values than those that were read before"
        )
    return content


def _check_finite(scored: _Scored, chunk: Chunk, source: ChunkSource) -> None:
    beyond = np.flatnonzero(scored.usable & ~np.isfinite(scored.score.log_density))
    if len(beyond):
        more = text.numbered(len(beyond) - 1, "more row")
        also = f" and {more} of the same chunk" if len(beyond) > 1 else ""
        raise DataError(
            f"{source.name}, row {chunk.start + int(beyond[0])}{also}: farther than 1e154 standard "
            "deviations from every component, where float64 has no density. Remove such rows, or "
            "correct their units."
        )


def _sums(scored: _Scored, weights: npt.NDArray[np.float64] | None, n_components: int) -> LabelSums:
    n, usable, score = len(scored.usable), scored.usable, scored.of_usable
    weight = None if weights is None else weights[usable]
    counts = np.bincount(score.labels, minlength=n_components)
    return LabelSums(
        n,
        int(n - usable.sum()),
        scored.n_incomplete,
        float(len(score.labels) if weight is None else weight.sum()),
        _weighted_sum(score.log_density, weight),
        _weighted_sum(np.log(score.max_responsibility), weight),
        tuple(int(count) for count in counts),
    )


def _weighted_sum(values: npt.NDArray[np.float64], weight: npt.NDArray[np.float64] | None) -> float:
    with np.errstate(over="ignore"):
        return float(values.sum() if weight is None else weight @ values)
