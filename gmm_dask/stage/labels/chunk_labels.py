"""The labels of chunks: what a task reads, scores and writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gmm_dask.engine import tree_sum
from gmm_dask.errors import DataError
from gmm_dask.mixture import Parameters, RowScores
from gmm_dask.mixture.classification import (
    NOT_COMPARED,
    Classification,
    Migration,
    kept_labels,
)
from gmm_dask.mixture.row_arithmetic import RowArithmetic, incomplete_rows
from gmm_dask.stage import text
from gmm_dask.stage.labels.explained import Explained, Further
from gmm_dask.stage.labels.row_checks import check_total
from gmm_dask.storage import (
    Chunk,
    ChunkSource,
    CrossTables,
    FileRows,
    LabelledPart,
    LabelSums,
    OpenChunk,
    PlannedChunk,
    PlannedFiles,
    RunFolder,
    content_of,
    file_changed,
    label_table,
    labelled_before,
    write_part,
)

_Rows = npt.NDArray[np.floating[Any]]


class Item(NamedTuple):
    """One chunk to label, with its rows and the hash of its pages if these are known already."""

    chunk: Chunk
    source: ChunkSource
    rows: _Rows | None
    content: str | None


Part = tuple[Item, ...]  # chunks whose labels go into one part
Task = tuple[Part, ...]  # what one task labels


class _Labels(NamedTuple):
    """The labels of one chunk; no table where none is written."""

    content: str
    sums: LabelSums
    table: pa.Table | None


@dataclass(frozen=True, eq=False)
class Before:
    """The version that rows are compared with.

    Parameters
    ----------
    parameters : Parameters
    partners : (k + 1,) int
        The component that each of its components is now, -1 for none, and at last for no component.
    sticky : float or None
        The least gain for which a row leaves its component; None where that is not asked for.
    """

    parameters: Parameters
    partners: npt.NDArray[np.int32]
    sticky: float | None


@dataclass(frozen=True, eq=False)
class Work:
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
    further: Further = field(default_factory=Further)
    before: Before | None = None


def label_task(work: Work, task: Task) -> list[LabelledPart]:
    """Label chunks, one after the other; what they have of one row group is decoded once."""
    with PlannedFiles() as files:
        return [label_part(work, part, files) for part in task]


def label_part(work: Work, part: Part, files: PlannedFiles) -> LabelledPart:
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
    work: Work, chunk: Chunk, planned: PlannedChunk, content: str | None = None
) -> _Labels:
    """The labels of one chunk; `content` is the hash that its pages must have, if it is known."""
    source, rows = planned.source, planned.open()
    weights = None if work.weight_column is None else rows.weights(work.weight_column)
    scored = _scored(work, planned.blocks(rows, work.features, work.dtype), source.n_rows, weights)
    _check_finite(scored, chunk, source)
    used = None if weights is None else weights[scored.usable]
    k, n_incomplete = work.parameters.n_components, scored.n_incomplete
    sums = replace(
        label_sums(scored.of_usable, used, k, len(scored.usable), n_incomplete),
        n_anomalies=scored.explained.n_flagged,
        classification=scored.classification,
        migration=scored.migration,
    )
    check_total(sums.largest, sums.sum_weight, source.name, work.weight_column)
    if content is None or planned.decoded is None:
        content = _content(work, rows, content)
    if not work.write:
        return _Labels(content, sums, None)
    kept = rows.table(work.kept)
    sums = replace(sums, cross_tables=CrossTables.of(kept, scored.score.labels, k))
    table = label_table(
        chunk.first_row,
        kept,
        scored.score,
        usable=scored.usable,
        responsibilities=scored.responsibilities,
        further=scored.explained.columns(scored.usable),
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
    explained : Explained
        Cluster, severity, flag and reasons.
    classification : Classification
    migration : Migration
    """

    score: RowScores
    usable: npt.NDArray[np.bool_]
    responsibilities: npt.NDArray[np.float64] | None
    n_incomplete: int
    explained: Explained
    classification: Classification
    migration: Migration

    @property
    def of_usable(self) -> RowScores:
        """The scores of the usable rows alone."""
        if self.usable.all():
            return self.score
        labels, density, largest = self.score
        return RowScores(labels[self.usable], density[self.usable], largest[self.usable])


def _scored(
    work: Work,
    blocks: Iterator[tuple[int, _Rows]],
    n: int,
    weights: npt.NDArray[np.float64] | None,
) -> _Scored:
    """Score the n rows of a chunk block by block: unless held they are never there together."""
    arithmetic, n_incomplete = work.arithmetic, 0
    score = RowScores(np.full(n, -1, np.int32), np.full(n, np.nan), np.full(n, np.nan))
    usable, resp, explained = np.empty(n, bool), None, Explained(work.further, n)
    surely, migration = Classification.none(work.parameters.n_components), NOT_COMPARED
    if work.write and work.responsibilities:
        resp = np.full((n, work.parameters.n_components), np.nan)
    for first, X in blocks:
        at = slice(first, first + len(X))
        kept = arithmetic.usable(X, None if weights is None else weights[at])
        where = slice(None) if kept.all() else kept  # all are copied three times as fast
        used = X[where]
        of_rows = None if weights is None else weights[at][where]
        found, moved = _compared(work, used, arithmetic.score(used, work.parameters), of_rows)
        migration += moved
        score.labels[at][where] = found.labels
        score.log_density[at][where] = found.log_density
        score.max_responsibility[at][where] = found.max_responsibility
        surely += Classification.of(
            used, work.parameters, found, arithmetic, of_rows, n_beside=n - len(used)
        )
        explained.add(first + np.flatnonzero(kept), used, found, work.parameters, arithmetic)
        if resp is not None:
            resp[at][where] = arithmetic.responsibilities(used, work.parameters)
        if arithmetic.missing == "em":
            n_incomplete += int(incomplete_rows(used).sum())
        usable[at] = kept
    return _Scored(score, usable, resp, n_incomplete, explained, surely, migration)


def _compared(
    work: Work, rows: _Rows, found: RowScores, weights: npt.NDArray[np.float64] | None
) -> tuple[RowScores, Migration]:
    """The scores of rows, with the labels that stay where that is asked for, and who moved."""
    before = work.before
    if before is None:
        return found, NOT_COMPARED
    earlier = work.arithmetic.score(rows, before.parameters)
    if before.sticky is not None:
        wanted = before.partners[earlier.labels]
        labels = kept_labels(rows, work.parameters, found, wanted, before.sticky, work.arithmetic)
        found = RowScores(labels, found.log_density, found.max_responsibility)
    sizes = before.parameters.n_components, work.parameters.n_components
    return found, Migration.of(earlier, found.labels, sizes, weights)


def _content(work: Work, rows: OpenChunk, before: str | None) -> str:
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


def label_sums(
    score: RowScores,
    weight: npt.NDArray[np.float64] | None,
    n_components: int,
    n_rows: int,
    n_incomplete: int,
) -> LabelSums:
    """The sums over n_rows rows, of which those that are usable have these scores and weights."""
    counts = np.bincount(score.labels + 1, minlength=1 + n_components)  # noise has the label -1
    return LabelSums(
        n_rows,
        n_rows - len(score.labels),
        n_incomplete,
        float(len(score.labels) if weight is None else weight.sum()),
        _weighted_sum(score.log_density, weight),
        _weighted_sum(np.log(score.max_responsibility), weight),
        tuple(int(count) for count in counts[1:]),
        n_noise=int(counts[0]),
    )


def _weighted_sum(values: npt.NDArray[np.float64], weight: npt.NDArray[np.float64] | None) -> float:
    with np.errstate(over="ignore"):
        return float(values.sum() if weight is None else weight @ values)
