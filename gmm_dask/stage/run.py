"""The whole stage as one call: plan, fit, label, publish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gmm_dask.engine import Backend
from gmm_dask.stage import text
from gmm_dask.stage.fit import Fitted, adopt, fit
from gmm_dask.stage.job import Job, SettingsT, plan
from gmm_dask.stage.labels.labelling import label
from gmm_dask.stage.lineage.registry import promote_if_asked
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.publish import make_latest, publish, write_delta_table
from gmm_dask.stage.refresh import keeping, known, refreshing
from gmm_dask.stage.settings import ScoreSettings, Settings
from gmm_dask.stage.watch import Watcher, traced


def run(settings: Settings, watcher: Watcher | None = None) -> Published:
    """Fit a mixture to the input, label every row, and publish both as the latest version.

    A run that is finished is not done again: it is verified, and published again unless it is the
    latest version already.
    """
    with traced("run", watcher) as told:
        return _carry_out(settings, fit, told)


def score(settings: ScoreSettings, watcher: Watcher | None = None) -> Published:
    """Label other data with a published model, and publish the labels as the latest version.

    A run that is finished is not done again, as in `run`.
    """
    with traced("score", watcher) as told:
        return _carry_out(settings, adopt, told)


def refresh(settings: Settings, watcher: Watcher | None = None) -> Published:
    """Go on from the latest version with what is new, changed or gone, and publish what it gives.

    Only partitions without known sums are read, unless labels or passes over all rows are asked
    for. Where nothing was published yet it is a fit that keeps the sums of each partition; where
    nothing changed, the version that is there is the latest, and nothing is written.
    """
    with traced("refresh", watcher) as told:
        return _refresh(settings, told)


def _refresh(settings: Settings, watcher: Watcher) -> Published:
    watcher.phase("plan", settings.data.in_short)
    begun = known.begin(settings, watcher)
    job = begun.job
    watcher.detail(job.features)
    if job.published is not None:
        published = make_latest(job.folder, job.published, watcher)
    else:
        _warn_of(job, watcher)
        with job.backend(watcher) as backend:
            done = refreshing.refreshed(begun, watcher, backend)
            labels = keeping.labelled(job, done, watcher, backend)
        published = keeping.published(job, done, labels, watcher)
    return _handed_on(settings, published, watcher)


def _carry_out(
    settings: SettingsT,
    model_of: Callable[[Job[SettingsT], Watcher, Backend], Fitted],
    watcher: Watcher,
) -> Published:
    watcher.phase("plan", settings.data.in_short)
    job = plan(settings, watcher)
    watcher.detail(job.features)
    if job.published is not None:
        published = make_latest(job.folder, job.published, watcher)
    else:
        published = _made(job, model_of, watcher)
    return _handed_on(settings, published, watcher)


def _handed_on(
    settings: Settings | ScoreSettings, published: Published, watcher: Watcher
) -> Published:
    """Write the Delta table and move the alias, where the settings ask for them."""
    if settings.labels.delta_table is not None:
        watcher.progress("writing the Delta table", 0)
    if line := write_delta_table(settings, published):
        watcher.detail(line)
    if line := promote_if_asked(settings, published):
        watcher.detail(line)
    return published


def _made(
    job: Job[SettingsT],
    model_of: Callable[[Job[SettingsT], Watcher, Backend], Fitted],
    watcher: Watcher,
) -> Published:
    """Fit or adopt a model, label and publish."""
    _warn_of(job, watcher)
    with job.backend(watcher) as backend:
        fitted = model_of(job, watcher, backend)
        labelled = label(
            job, fitted.model, watcher, backend, fitted.held, fitted.contents, fitted.severities
        )
    return publish(job, fitted, labelled, watcher)


def _warn_of(job: Job[Any], watcher: Watcher) -> None:
    if job.caution is not None:
        watcher.warn(job.caution)
    if job.plan.tables:
        watcher.detail(f"Delta table: {text.table_versions(dict(job.plan.tables))}.")
