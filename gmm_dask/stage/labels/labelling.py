"""Label every planned row with a model: parts of whole chunks, written by tasks of a few."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.engine import Backend, Held, map_items, rows_here, tree_sum
from gmm_dask.mixture.matching import match
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.stage import text
from gmm_dask.stage.job import Job
from gmm_dask.stage.labels.chunk_labels import Before, Item, Task, Work, label_task
from gmm_dask.stage.labels.explained import Further
from gmm_dask.stage.labels.pages import Contents
from gmm_dask.stage.labels.row_checks import check_total
from gmm_dask.stage.labels.severity import Severities, needed
from gmm_dask.stage.lineage.changes import LIMIT
from gmm_dask.stage.lineage.following import predecessor
from gmm_dask.stage.settings import LabelSettings
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage import (
    FileContent,
    LabelSums,
    Model,
    PartReceipt,
    Plan,
    file_contents,
    name_of,
    shard_sources,
)

MAX_PARTS = 64  # of chunks that a pass reads at once; small files share them when they are more

_Rows = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Labelled:
    """All rows labelled.

    Parameters
    ----------
    receipts : tuple of PartReceipt
        In row order; empty where the settings ask for no labels.
    contents : tuple of FileContent
        What each file held.
    sums : LabelSums
    n_decoded : int
        Rows that were decoded for it; the others were held.
    seconds : float
    n_reads : int
        Times that all rows were looked at for it.
    """

    receipts: tuple[PartReceipt, ...]
    contents: tuple[FileContent, ...]
    sums: LabelSums
    n_decoded: int
    seconds: float
    n_reads: int = 1


def label(
    job: Job[Any],
    model: Model,
    watcher: Watcher | None = None,
    backend: Backend | None = None,
    held: Held | None = None,
    contents: Contents | None = None,
    severities: Severities | None = None,
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
    severities : Severities, optional
        Severities of the training data; they must be known where the settings ask for severities.

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
    watcher.labelled(0, n_parts)
    # A backend tells that a task is done, and not which: at least so many parts are written.
    written = accumulate(sorted(map(len, tasks)))
    with job.backend(watcher, backend) as backend:
        of_tasks = map_items(
            "label",
            label_task,
            tasks,
            backend,
            common=_work(job, model, severities),
            on_done=lambda: watcher.labelled(next(written), n_parts),
            names=[_name(task, plan) for task in tasks],
        )
    parts = [part for of_task in of_tasks for part in of_task]
    sums = tree_sum(part.sums for part in parts)
    check_total(sums.largest, sums.sum_weight, plan.root, plan.weight_column)
    chunks = (each for task in tasks for part in task for each in part)
    return Labelled(
        tuple(part.receipt for part in parts if part.receipt is not None),
        file_contents(plan, [content for part in parts for content in part.contents]),
        sums,
        sum(each.source.n_rows for each in chunks if each.rows is None),
        time.perf_counter() - begun,
    )


def _work(job: Job[Any], model: Model, severities: Severities | None) -> Work:
    settings, plan = job.settings, job.plan
    return Work(
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
        _further(settings.labels, model, severities),
        _before(job, model),
    )


def _before(job: Job[Any], model: Model) -> Before | None:
    """The version that the run follows, where rows are to be compared with it."""
    labels = job.settings.labels
    if not labels.compare and labels.sticky is None:
        return None
    found = predecessor(job.folder.store, job.follows, job.plan.features)
    if found is None:
        return None
    partners = np.full(found.parameters.n_components + 1, -1, dtype=np.int32)
    for i, j in match(found.parameters, model.parameters, LIMIT).pairs:
        partners[i] = j
    return Before(found.parameters, partners, labels.sticky)


def _further(labels: LabelSettings, model: Model, severities: Severities | None) -> Further:
    """What stands beside the labels that are written."""
    if not labels.enabled:
        return Further()
    severities = needed(severities) if "severity" in labels.further else None
    limit = None if labels.anomaly is None else 100 * labels.anomaly
    clusters = model.known_clusters if labels.clusters else None
    return Further(labels.further, model.feature_names, severities, limit, clusters, labels.reasons)


def _tasks(plan: Plan, decoded: Sequence[_Rows | None], contents: Contents) -> Iterator[Task]:
    """The parts of each task: their chunks, with what is there of them already.

    It is decided by the plan alone which chunks share a part.
    """
    rows = iter(decoded)
    for shard, sources in zip(plan.shards, shard_sources(plan), strict=True):
        here = islice(rows, len(sources))
        items = tuple(
            Item(chunk, source, found, contents.get(chunk.index))
            for chunk, source, found in zip(shard.chunks, sources, here, strict=True)
        )
        if shard.is_split or len(items) <= MAX_PARTS:
            yield tuple((item,) for item in items)
        else:
            step = -(-len(items) // MAX_PARTS)
            yield from ((items[i : i + step],) for i in range(0, len(items), step))


def _name(task: Task, plan: Plan) -> str:
    return name_of([each.source for part in task for each in part], plan.row_bytes)
