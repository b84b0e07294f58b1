"""What a refresh leaves: labels if they are asked for, sums and drift beside the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gmm_dask.engine import Backend
from gmm_dask.errors import InputChangedError
from gmm_dask.stage import text
from gmm_dask.stage.identity import AGAIN
from gmm_dask.stage.job import Job
from gmm_dask.stage.labels.labelling import Labelled, label
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.publish import publish
from gmm_dask.stage.refresh.drift import table_of
from gmm_dask.stage.refresh.known import cut_of
from gmm_dask.stage.refresh.partition_sums import total_of
from gmm_dask.stage.refresh.refreshing import Refreshed
from gmm_dask.stage.settings import Settings
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage import (
    DRIFT,
    MODEL_KEY,
    STATISTICS,
    FileContent,
    KeptStatistics,
    dump_statistics,
    parquet_bytes,
)


def labelled(
    job: Job[Settings], done: Refreshed, watcher: Watcher | None, backend: Backend | None = None
) -> Labelled:
    """Label all rows, where labels are asked for.

    Without them nothing is read; what is known of the rows is exact for the mixture that the sums
    are of.
    """
    fitted, same = done.fitted, len(done.order) == done.parameters.n_components
    if job.settings.labels.enabled or done.matched is None or done.n_polished or not same:
        return label(
            job, fitted.model, watcher, backend, fitted.held, fitted.contents, fitted.severities
        )
    sums = total_of(done.sums).labels
    sums = replace(sums, n_labelled=tuple(sums.n_labelled[j] for j in done.order))
    return Labelled((), done.matched.files, sums, 0, 0.0, n_reads=0)


def published(
    job: Job[Settings], done: Refreshed, labels: Labelled, watcher: Watcher | None = None
) -> Published:
    """Keep sums and drift beside the model, and publish all as a version.

    Raises
    ------
    As `keep` and `publish`; nothing was published.
    """
    watcher = watcher or Watcher()
    watcher.progress("keeping the sums", 0)
    if line := keep(job, done, labels.contents):
        watcher.warn(line)
    return publish(job, done.fitted, labels, watcher, more={"refresh": done.about})


def keep(job: Job[Settings], done: Refreshed, files: Sequence[FileContent]) -> str | None:
    """Write drift and sums beside the model; a sentence where the sums are too many to be kept.

    Raises
    ------
    InputChangedError
        A file changed after its partition was matched.
    """
    known = {} if done.matched is None else {each.name: each.sha256 for each in done.matched.files}
    others = [each.name for each in files if known.get(each.name, each.sha256) != each.sha256]
    if others:
        raise InputChangedError(f"{others[0]}: changed while the refresh went on. {AGAIN}")
    sha256 = done.fitted.model.sha256
    table = parquet_bytes(table_of(done.drift), {f"gmm_dask.{MODEL_KEY}": sha256})
    job.folder.put_of_model(DRIFT, table, sha256)
    rows = {each.name: each.n_rows for each in job.plan.partitions}
    data = dump_statistics(
        KeptStatistics(
            sha256,
            done.of_run,
            done.of_model,
            done.of_version,
            done.parameters,
            cut_of(job),
            tuple(each for each in files if rows[each.name]),
            done.sums,
            done.training,
        )
    )
    if data is None:
        n = text.numbered(len(done.sums), "partition")
        return f"The sums of {n} are too large to be kept: the next refresh reads all rows."
    job.folder.put_of_model(STATISTICS, data, sha256)
    return None
