"""The first read of a refresh: new and changed partitions, batch after batch, each kept as it ends.

A batch depends on the contents of the partitions to be read alone, so a refresh that is done again
after a stop has the same batches, and takes the sums of those that are kept.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.engine import Backend, Held, hold, survey
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.roads.fitting_run import tasks_told
from gmm_dask.stage import text
from gmm_dask.stage.checkpoints import origin_of
from gmm_dask.stage.fit import holding
from gmm_dask.stage.job import Job
from gmm_dask.stage.labels.row_checks import check_survey
from gmm_dask.stage.refresh.known import Base, Matched
from gmm_dask.stage.refresh.partition_sums import Under, partition_sums
from gmm_dask.stage.report.data import MAX_ROWS
from gmm_dask.stage.settings import Settings
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage import (
    COUNT,
    FLAG,
    At,
    Kind,
    PartitionSums,
    canonical_json,
    kind_of_sums,
    packed,
    part_of,
    read_if_there,
    shape,
    write_checkpoint,
)

Rows = npt.NDArray[Any]

BATCH_BYTES = 4 << 30  # of decoded rows, at least: less is read again in a moment
MOST_BATCHES = 16  # workers wait for each other at the end of each


class Fresh(NamedTuple):
    """What was read of new and changed partitions.

    Parameters
    ----------
    sums : tuple of PartitionSums
    sample : (m, d)
        Rows drawn from all of them.
    held : Held
        All chunks of the plan, none of them held, and the bytes that were decoded.
    """

    sums: tuple[PartitionSums, ...]
    sample: Rows
    held: Held


class Batch(NamedTuple):
    """Partitions that are read together.

    Parameters
    ----------
    partitions : tuple of int
    name : str
        Of the checkpoint that keeps what they come to.
    sample_rows : int
        Rows that are drawn from them.
    """

    partitions: tuple[int, ...]
    name: str
    sample_rows: int


@dataclass(frozen=True, eq=False)
class Read:
    """What the partitions of a batch come to.

    Parameters
    ----------
    sums : tuple of PartitionSums
    sample : (m, d)
    """

    sums: tuple[PartitionSums, ...]
    sample: Rows


def read_new(
    job: Job[Settings], base: Base, found: Matched, watcher: Watcher, backend: Backend
) -> Fresh:
    """Check the rows of the partitions to be read as strictly as those of a fit, and sum them.

    Raises
    ------
    DataError
        Rows that cannot be used.
    CheckpointError
        What an earlier attempt kept is damaged, or of another run.
    """
    sums: list[PartitionSums] = []
    samples: list[Rows] = [np.empty((0, len(job.plan.features)))]
    kept, decoded, n_kept = _Kept(job, base, watcher), 0, 0
    for batch in batches(job, found):
        read = kept.of(batch)
        n_kept += 0 if read is None else len(batch.partitions)
        if read is None:
            read, n_bytes = _read(job, base, batch, watcher, backend)
            decoded += n_bytes
            kept.add(batch, read)
        sums += read.sums
        samples.append(read.sample)
    if job.again:
        watcher.detail(
            "An earlier attempt of this refresh did not end: of "
            f"{text.numbered(len(found.to_read), 'new or changed partition')} it kept the sums of "
            f"{n_kept}; the others are read again, with the same bits."
        )
    sample = np.concatenate(samples[1:] or samples)
    unread = hold(job.row_chunks(), backend, 0)
    return Fresh(tuple(sums), sample, replace(unread, bytes_once=decoded))


def batches(job: Job[Settings], found: Matched) -> Iterator[Batch]:
    """The partitions to be read in their order, of about as many bytes each time."""
    partitions, n_rows = job.plan.partitions, 0
    n_all = sum(partitions[i].n_rows for i in found.to_read)
    least = max(BATCH_BYTES / job.plan.row_bytes, n_all / MOST_BATCHES)
    batch: list[int] = []
    for i in found.to_read:
        batch.append(i)
        n_rows += partitions[i].n_rows
        if n_rows >= least or i == found.to_read[-1]:
            contents = [found.files[each].sha256 for each in batch]
            about = canonical_json([n_all, *contents])
            name = f"checkpoints/sums-{hashlib.sha256(about).hexdigest()}.json"
            yield Batch(tuple(batch), name, max(1, MAX_ROWS * n_rows // n_all))
            batch, n_rows = [], 0


def _read(
    job: Job[Settings], base: Base, batch: Batch, watcher: Watcher, backend: Backend
) -> tuple[Read, int]:
    """What the partitions come to, and the bytes that were decoded."""
    new, missing = replace(job, plan=part_of(job.plan, batch.partitions)), job.settings.data.missing
    tell = tasks_told(watcher.progress)
    with holding(new, watcher, backend, in_use=True) as held:
        surveyed, chunks = survey(
            held.chunks,
            backend,
            sample_rows=batch.sample_rows,
            seed=np.random.SeedSequence(0),
            missing=missing,
            by_value=False,
            tell=tell,
        )
        check_survey(surveyed, new.plan, missing=missing, at_least=0)
        under = Under(base.parameters, RowArithmetic.chosen(missing), base.severities)
        sums = partition_sums(new.plan, chunks, backend, under, tell)
    decoded = held.bytes_once + (surveyed.n_reads + 1) * held.bytes_read
    return Read(sums, surveyed.sample), decoded


class _Kept:
    """Checkpoints of batches, each in a file that is named by the contents of its partitions."""

    def __init__(self, job: Job[Settings], base: Base, watcher: Watcher) -> None:
        self._folder, self._origin, self._watcher = job.folder, origin_of(job), watcher
        self._kind = partial(_kind_of_read, base, len(job.plan.features))
        self._seconds = job.settings.output.checkpoint_seconds
        self._last = time.perf_counter()
        self._to_write: list[tuple[Batch, Read]] = []

    def of(self, batch: Batch) -> Read | None:
        """What an earlier attempt kept."""
        if self._seconds is None:
            return None
        kind = self._kind(len(batch.partitions))
        return read_if_there(self._folder, batch.name, self._origin, kind)

    def add(self, batch: Batch, read: Read) -> None:
        """Write it with those before, if it is time."""
        self._to_write.append((batch, read))
        if self._seconds is None or time.perf_counter() - self._last < self._seconds:
            return
        for each, its in self._to_write:
            kind = self._kind(len(each.partitions))
            if not write_checkpoint(self._folder, each.name, self._origin, kind, its):
                n = text.numbered(len(each.partitions), "partition")
                self._watcher.warn(f"The sums of {n} are too large for a checkpoint: none is kept.")
        self._to_write, self._last = [], time.perf_counter()


def _kind_of_read(base: Base, n_features: int, n_partitions: int) -> Kind[Read]:
    parameters = base.parameters
    k, family = parameters.n_components, parameters.covariance_type

    def kinds(n: int, dtype: str) -> Kind[dict[str, Any]]:
        return shape(
            {
                "sums": kind_of_sums(family, k, n_features, n_partitions),
                "is_single": FLAG,
                "n_sampled": COUNT,
                "sample": packed(n, n_features, dtype=dtype, nan=True),
            }
        )

    def dump(read: Read) -> Any:
        sample = read.sample
        about = {"is_single": sample.dtype == np.float32, "n_sampled": len(sample)}
        return kinds(len(sample), str(sample.dtype)).dump({**vars(read), **about})

    def load(value: Any, at: At) -> Read:
        dtype = "float32" if FLAG.of(value, "is_single", at) else "float64"
        found = kinds(COUNT.of(value, "n_sampled", at), dtype).load(value, at)
        return Read(tuple(found["sums"]), found["sample"])

    return Kind(load, dump)
