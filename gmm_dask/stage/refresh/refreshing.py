"""A refresh: read what is new or changed, add the sums that are known, make one M-step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask import fitting
from gmm_dask.engine import Backend, Held, hold, survey
from gmm_dask.errors import InputChangedError
from gmm_dask.fitting_run import maximisation, tasks_told
from gmm_dask.mixture import Parameters, SufficientStatistics, core
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.stage import text
from gmm_dask.stage.fit import Fitted, fit, holding, model_of, write_model
from gmm_dask.stage.identity import AGAIN
from gmm_dask.stage.job import Job, plan
from gmm_dask.stage.labels.labelling import Labelled, label
from gmm_dask.stage.labels.row_checks import check_survey
from gmm_dask.stage.lineage.changes import changes_of, order_of, renumbered
from gmm_dask.stage.lineage.following import predecessor
from gmm_dask.stage.refresh.known import Base, Matched, base_of, cut_of, matched
from gmm_dask.stage.refresh.partition_sums import partition_sums, total_of
from gmm_dask.stage.report.data import MAX_ROWS, report_sample
from gmm_dask.stage.settings import Settings
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage import (
    STATISTICS,
    FileContent,
    KeptStatistics,
    PartitionSums,
    RunFolder,
    dump_statistics,
    open_store,
    part_of,
)

Rows = npt.NDArray[Any]


class Known(NamedTuple):
    """What a refresh goes on from.

    Parameters
    ----------
    base : Base
    matched : Matched
    """

    base: Base
    matched: Matched


class Refresh(NamedTuple):
    """A refresh before any row was read.

    Parameters
    ----------
    job : Job
        Of which `published` is the version that a refresh would only repeat, where there is one.
    known : Known or None
        None where nothing was published yet, or where nothing is to be done.
    """

    job: Job[Settings]
    known: Known | None


@dataclass(frozen=True, eq=False)
class Refreshed:
    """A refreshed mixture with the sums that it keeps.

    Parameters
    ----------
    fitted : Fitted
    sums : tuple of PartitionSums
        Of each partition that has rows.
    parameters : Parameters
        The mixture that the sums are of: exact for these, whatever was read.
    of_run, of_model : str
        The run that fitted it, and the checksum of its model.
    of_version : int or None
        None where it is this run.
    training : PartitionSums
        Of the data that it was fitted to.
    order : tuple of int
        The component of that step that each of the refreshed mixture is.
    n_polished : int
        Passes over all rows that followed.
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
        }


def begin(settings: Settings, watcher: Watcher | None = None) -> Refresh:
    """Plan a refresh: footers, the version to go on from, and what of the data it knows.

    Raises
    ------
    As `plan`, and SettingsError where the latest version was fitted with other settings.
    """
    store = open_store(settings.output.path, private=settings.output.private)
    base = base_of(store, settings)
    if base is None:
        return Refresh(plan(settings, watcher), None)
    polish = settings.refresh.polish
    job = plan(settings, watcher, {"refresh": {"of": base.of_model, "polish": polish}})
    if job.published is not None:
        return Refresh(job, None)
    found = matched(job, base)
    ours = base.folder.store.url == store.url
    if ours and _is_up_to_date(base, found) and _labels(base.folder) == _labels(job.folder):
        return Refresh(replace(job, published=base.version, folder=base.folder), None)
    return Refresh(job, Known(base, found))


def _is_up_to_date(base: Base, found: Matched) -> bool:
    kept = () if base.kept is None else base.kept.files
    return not found.to_read and not found.n_gone and len(found.known) == len(kept)


def _labels(folder: RunFolder) -> Any:
    return folder.get_json("run.json")["settings"]["labels"]


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


def keep(job: Job[Settings], done: Refreshed, files: Sequence[FileContent]) -> str | None:
    """Write the sums beside the model; a sentence where they are too many to be kept.

    Raises
    ------
    InputChangedError
        A file changed after its partition was matched.
    """
    known = {} if done.matched is None else {each.name: each.sha256 for each in done.matched.files}
    others = [each.name for each in files if known.get(each.name, each.sha256) != each.sha256]
    if others:
        raise InputChangedError(f"{others[0]}: changed while the refresh went on. {AGAIN}")
    rows = {each.name: each.n_rows for each in job.plan.partitions}
    data = dump_statistics(
        KeptStatistics(
            done.fitted.model.sha256,
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
    job.folder.put_of_model(STATISTICS, data, done.fitted.model.sha256)
    return None


def _first(job: Job[Settings], watcher: Watcher, backend: Backend) -> Refreshed:
    """A fit, and the sums under what it came to."""
    fitted = fit(job, watcher, backend)
    watcher.phase("sums", text.numbered(len(job.plan.partitions), "partition"))
    parameters, arithmetic = fitted.model.parameters, _arithmetic(job)
    tell = tasks_told(watcher.progress)
    sums = partition_sums(job.plan, job.row_chunks(), backend, parameters, arithmetic, tell)
    fitted = replace(fitted, n_reads=fitted.n_reads + 1)
    return Refreshed(
        fitted, sums, parameters, job.run_id, fitted.model.sha256, None, total_of(sums)
    )


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
    fresh = _read(job, base, found, watcher, backend)
    sums = found.joined(fresh.sums)
    total, bounds = total_of(sums), base.model.lower_bounds
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
        total if base.kept is None else base.kept.training,
        matched=found,
    )
    if settings.refresh.polish:
        parts = _polished(job, base, parts, guard, fresh, watcher, backend, begun)
    return _written(job, parts, watcher)


class _Fresh(NamedTuple):
    """What was read of new and changed partitions."""

    sums: tuple[PartitionSums, ...]
    sample: Rows
    held: Held


def _read(
    job: Job[Settings], base: Base, found: Matched, watcher: Watcher, backend: Backend
) -> _Fresh:
    """Check the rows of the partitions to be read as strictly as those of a fit, and sum them."""
    unread = hold(job.row_chunks(), backend, 0)
    if not found.to_read:
        return _Fresh((), np.empty((0, len(job.plan.features))), unread)
    new, missing = replace(job, plan=part_of(job.plan, found.to_read)), job.settings.data.missing
    tell, seed = tasks_told(watcher.progress), np.random.SeedSequence(0)
    with holding(new, watcher, backend, in_use=True) as held:
        surveyed, chunks = survey(
            held.chunks,
            backend,
            sample_rows=MAX_ROWS,
            seed=seed,
            missing=missing,
            by_value=False,
            tell=tell,
        )
        check_survey(surveyed, new.plan, missing=missing, at_least=0)
        sums = partition_sums(new.plan, chunks, backend, base.parameters, _arithmetic(job), tell)
    decoded = held.bytes_once + (surveyed.n_reads + 1) * held.bytes_read
    sample = report_sample(surveyed, seed)
    return _Fresh(sums, sample, replace(unread, bytes_once=decoded))


def _polished(
    job: Job[Settings],
    base: Base,
    parts: Refreshed,
    guard: fitting.Maximisation,
    fresh: _Fresh,
    watcher: Watcher,
    backend: Backend,
    begun: float,
) -> Refreshed:
    """Passes over all rows, and one more for the sums under what they came to."""
    arithmetic, tell = _arithmetic(job), tasks_told(watcher.progress)
    first = parts.fitted.result
    with holding(job, watcher, backend, in_use=True) as held:

        def sums_under(parameters: Parameters) -> tuple[PartitionSums, ...]:
            return partition_sums(job.plan, held.chunks, backend, parameters, arithmetic, tell)

        def expectation(parameters: Parameters) -> SufficientStatistics:
            return total_of(sums_under(parameters)).in_unit(guard.unit).statistics

        result = fitting.fit(
            expectation,
            first.parameters,
            guard,
            tol=job.settings.fit.tol,
            max_iter=job.settings.refresh.polish,
            watch=lambda record: watcher.passed(record, job.settings.fit),
            previous=first.lower_bounds[-1],
            events=first.events_,
        )
        sums = sums_under(result.parameters)
    n_passes = len(result.lower_bounds)
    result = replace(
        result,
        lower_bounds=(*first.lower_bounds, *result.lower_bounds),
        trajectory=(*first.trajectory[:-1], *result.trajectory),
        outcome=result.outcome if result.converged else fitting.Outcome.POLISHED,
    )
    held = replace(held, bytes_once=held.bytes_once + fresh.held.bytes_once)
    return replace(
        parts,
        fitted=_fitted(job, base, result, fresh, held, begun, n_passes + 1),
        sums=sums,
        parameters=result.parameters,
        training=total_of(sums),
        n_polished=n_passes,
    )


def _written(job: Job[Settings], parts: Refreshed, watcher: Watcher) -> Refreshed:
    """Number the components as those of the version that is followed, and write the model."""
    before = predecessor(job.folder.store, job.follows, job.plan.features)
    found = parts.fitted.result
    order = order_of(found.parameters, None if before is None else before.parameters)
    result = renumbered(found, order)
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
    fresh: _Fresh,
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
