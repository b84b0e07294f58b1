"""A refresh: read what is new or changed, add the sums that are known, make one M-step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask import fitting
from gmm_dask.engine import Backend, Held
from gmm_dask.mixture import Parameters, SufficientStatistics, core
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.roads.cautions import narrow_events
from gmm_dask.roads.fitting_run import maximisation, tasks_told
from gmm_dask.stage import text
from gmm_dask.stage.checkpoints import Keeper
from gmm_dask.stage.fit import Fitted, fit, holding, model_of, tell_narrow, write_model
from gmm_dask.stage.job import Job
from gmm_dask.stage.lineage.changes import changes_of, order_of, renumbered
from gmm_dask.stage.lineage.following import predecessor
from gmm_dask.stage.refresh.drift import Measure, Moved, curves_of, judged
from gmm_dask.stage.refresh.first_read import Fresh, read_new
from gmm_dask.stage.refresh.known import Base, Matched, Refresh, check_enough
from gmm_dask.stage.refresh.partition_sums import Under, partition_sums, total_of
from gmm_dask.stage.settings import Settings
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage import (
    PartitionSums,
)

Rows = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Refreshed:
    """A refreshed mixture with the sums that it keeps.

    Parameters
    ----------
    fitted : Fitted
    sums : tuple of PartitionSums
        Sums of each partition that has rows.
    parameters : Parameters
        The mixture that the sums are of: exact for these, whatever was read.
    of_run, of_model : str
        The run that fitted it, and the checksum of its model.
    of_version : int or None
        None where it is this run.
    training : PartitionSums
        Sums of the data that the mixture was fitted to.
    order : tuple of int
        The component of that step that each of the refreshed mixture is.
    n_polished : int
        Passes over all rows that followed.
    drift : tuple of Measure
        How the partitions differ from the data of the fit, and from each other.
    exceeded : tuple of dict
        The limits that the new partitions exceed.
    matched : Matched or None
        None where nothing was known.
    """

    fitted: Fitted
    sums: tuple[PartitionSums, ...]
    parameters: Parameters
    of_run: str
    of_model: str
    of_version: int | None
    training: PartitionSums
    order: tuple[int, ...] = ()
    n_polished: int = 0
    drift: tuple[Measure, ...] = ()
    exceeded: tuple[dict[str, Any], ...] = ()
    matched: Matched | None = None

    @property
    def about(self) -> dict[str, Any]:
        """What metrics.json says: what was read, and for which mixture the sums are exact."""
        found = self.matched
        read = len(self.sums) if found is None else len(found.to_read)
        return {
            "exact_for_version": self.of_version,
            "exact_for_model": self.of_model,
            "polished": self.n_polished,
            "partitions": len(self.sums),
            "partitions_read": read,
            "partitions_changed": 0 if found is None else found.n_changed,
            "partitions_gone": 0 if found is None else found.n_gone,
            "drift": {
                each.metric: each.value
                for each in self.drift
                if (each.window, each.baseline) == ("new", "training")
            },
            "exceeded": list(self.exceeded),
            "curves": curves_of(self.drift),
        }


def refreshed(
    refresh: Refresh, watcher: Watcher | None = None, backend: Backend | None = None
) -> Refreshed:
    """Write the model: one M-step from known and new sums, and passes over all rows if asked.

    Where nothing was published yet it is a fit, and one more pass for the sums.

    Raises
    ------
    As `fit`; nothing was published.
    """
    job, watcher = refresh.job, watcher or Watcher()
    with job.backend(watcher, backend) as opened:
        if refresh.known is None:
            return _first(job, watcher, opened)
        return _next(job, *refresh.known, watcher, opened)


def _first(job: Job[Settings], watcher: Watcher, backend: Backend) -> Refreshed:
    """A fit, and the sums under what it came to."""
    fitted = fit(job, watcher, backend)
    watcher.phase("sums", text.numbered(len(job.plan.partitions), "partition"))
    parameters, tell = fitted.model.parameters, tasks_told(watcher.progress)
    under = Under(parameters, _arithmetic(job), fitted.severities)
    sums = partition_sums(job.plan, job.row_chunks(), backend, under, tell)
    fitted = replace(fitted, n_reads=fitted.n_reads + 1)
    of_run, sha256, training = job.run_id, fitted.model.sha256, total_of(sums)
    moved = _moved(job, parameters, sums, training, ())
    drift = tuple(moved.measures())
    return Refreshed(fitted, sums, parameters, of_run, sha256, None, training, drift=drift)


def _next(
    job: Job[Settings], base: Base, found: Matched, watcher: Watcher, backend: Backend
) -> Refreshed:
    begun, settings = time.perf_counter(), job.settings
    n_new, n_all = len(found.to_read), text.numbered(len(found.files), "partition")
    watcher.phase(
        "refresh",
        f"{n_new} of {n_all} to read, {found.n_changed} of them changed, {found.n_gone} gone; on "
        f"from version {base.version.number}, whose sums are of version {base.of_version}",
    )
    fresh = read_new(job, base, found, watcher, backend)
    sums = found.joined(fresh.sums)
    total, bounds = total_of(sums), base.model.lower_bounds
    check_enough(job, total.labels, base.parameters.n_components)
    training = total if base.kept is None else base.kept.training
    moved = _moved(job, base.parameters, sums, training, found.to_read)
    exceeded = judged(moved, settings.refresh, watcher.warn)
    guard = maximisation(settings.fit, total.spread, fresh.sample, job.plan.features)
    statistics = total.in_unit(guard.unit).statistics
    result = fitting.fit(
        lambda _: statistics,
        base.parameters,
        guard,
        tol=settings.fit.tol,
        max_iter=1,
        previous=bounds[-1] if bounds else -np.inf,
    )
    result = replace(result, outcome=fitting.Outcome.REFRESHED)
    parts = Refreshed(
        _fitted(job, base, result, fresh, fresh.held, begun, 0),
        sums,
        base.parameters,
        base.of_run,
        base.of_model,
        base.of_version,
        training,
        drift=tuple(moved.measures()),
        exceeded=tuple(exceeded),
        matched=found,
    )
    if settings.refresh.polish:
        parts = _polished(job, base, parts, guard, fresh, watcher, backend, begun)
    return _written(job, parts, guard, watcher)


def _moved(
    job: Job[Settings],
    parameters: Parameters,
    sums: tuple[PartitionSums, ...],
    training: PartitionSums,
    to_read: Sequence[int],
) -> Moved:
    with_rows = [each for each in job.plan.partitions if each.n_rows]
    new = tuple(i for i, each in enumerate(with_rows) if each.index in set(to_read))
    names = tuple(each.name for each in with_rows)
    return Moved(parameters, job.plan.features, names, sums, training, new)


def _polished(
    job: Job[Settings],
    base: Base,
    parts: Refreshed,
    guard: fitting.Maximisation,
    fresh: Fresh,
    watcher: Watcher,
    backend: Backend,
    begun: float,
) -> Refreshed:
    """Passes over all rows, and one more for the sums under what they came to."""
    arithmetic, tell = _arithmetic(job), tasks_told(watcher.progress)
    first = parts.fitted.result
    with holding(job, watcher, backend, in_use=True) as held:

        def sums_under(parameters: Parameters) -> tuple[PartitionSums, ...]:
            under = Under(parameters, arithmetic, base.severities)
            return partition_sums(job.plan, held.chunks, backend, under, tell)

        def expectation(parameters: Parameters) -> SufficientStatistics:
            return total_of(sums_under(parameters)).in_unit(guard.unit).statistics

        result, n_resumed = _polishing(job, guard, first, expectation, held, watcher)
        sums = sums_under(result.parameters)
    n_passes = len(result.lower_bounds)
    result = replace(
        result,
        lower_bounds=(*first.lower_bounds, *result.lower_bounds),
        trajectory=(*first.trajectory[:-1], *result.trajectory),
        outcome=result.outcome if result.converged else fitting.Outcome.POLISHED,
    )
    held = replace(held, bytes_once=held.bytes_once + fresh.held.bytes_once)
    fitted = _fitted(job, base, result, fresh, held, begun, n_passes - n_resumed + 1)
    return replace(
        parts,
        fitted=replace(fitted, n_resumed=n_resumed),
        sums=sums,
        parameters=result.parameters,
        training=total_of(sums),
        n_polished=n_passes,
    )


def _polishing(
    job: Job[Settings],
    guard: fitting.Maximisation,
    first: fitting.FitResult,
    expectation: fitting.Expectation,
    held: Held,
    watcher: Watcher,
) -> tuple[fitting.FitResult, int]:
    """EM from the first step on, or from where an earlier attempt was; and how many passes it made.

    After a choice among a grid the mixture is not of the shapes that checkpoints have.
    """
    settings = job.settings
    rule = fitting.Rule(settings.fit.tol, settings.refresh.polish)
    step = fitting.Step(first.parameters, first.events_)
    fit = fitting.Fit.begin(step, guard, rule, first.lower_bounds[-1])
    if settings.select.is_asked:
        return fitting.go_on(expectation, fit, watch=partial(_heard, job, watcher)), 0
    keeper = Keeper(job, watcher)
    keeper.begin(held, core.level_name())
    if keeper.progress is not None:
        fit = replace(fit, state=keeper.progress.state)

    def heard(record: fitting.Pass) -> None:
        keeper.passed(record)
        _heard(job, watcher, record)

    def keep(state: fitting.State) -> None:
        if state.n_passes:
            keeper.keep(fitting.Progress(guard.start, state))

    return fitting.go_on(expectation, fit, watch=heard, keep=keep), keeper.n_resumed


def _heard(job: Job[Settings], watcher: Watcher, record: fitting.Pass) -> None:
    watcher.passed(record, job.settings.fit)


def _written(
    job: Job[Settings], parts: Refreshed, guard: fitting.Maximisation, watcher: Watcher
) -> Refreshed:
    """Number the components as those of the version that is followed, and write the model."""
    before = predecessor(job.folder.store, job.follows, job.plan.features)
    found = parts.fitted.result
    found = replace(found, events_=(*found.events_, *narrow_events(found, guard)))
    order = order_of(found.parameters, None if before is None else before.parameters)
    result = renumbered(found, order)
    tell_narrow(result, watcher)
    model = write_model(job, model_of(job, result))
    changes = changes_of(model, before)
    for change in changes.changes:
        watcher.detail(change.message)
    fitted = replace(parts.fitted, model=model, result=result, changes=changes)
    parts = replace(parts, fitted=fitted, order=tuple(order))
    if not parts.n_polished:
        return parts
    return replace(parts, of_run=job.run_id, of_model=model.sha256, of_version=None)


def _fitted(
    job: Job[Settings],
    base: Base,
    result: fitting.FitResult,
    fresh: Fresh,
    held: Held,
    begun: float,
    n_reads: int,
) -> Fitted:
    """The fit as it stands, before its components are numbered and its model is written."""
    model = model_of(job, result)
    return Fitted(
        model,
        result,
        fresh.sample,
        job.plan.n_rows,
        result.n_rows,
        (),
        n_reads,
        held,
        core.level_name(),
        time.perf_counter() - begun,
        0,
        {},
        changes_of(model, None),
        severities=base.severities,
    )


def _arithmetic(job: Job[Settings]) -> RowArithmetic:
    return RowArithmetic.chosen(job.settings.data.missing)
