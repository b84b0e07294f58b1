"""The phases of the stage as Prefect tasks: one task per phase, never one per chunk or pass."""

from __future__ import annotations

import errno
import logging
from typing import Any, cast

from httpx import TransportError
from prefect import Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed, Failed

from gmm_dask.command.console import printable
from gmm_dask.errors import (
    ClusterError,
    DataError,
    DeadlyChunkError,
    GmmDaskError,
    InputError,
    OutputError,
    SettingsError,
    shown,
)
from gmm_dask.flows.watching import FlowWatcher
from gmm_dask.redaction import redacted
from gmm_dask.stage.fit import Fitted
from gmm_dask.stage.fit import adopt as stage_adopt
from gmm_dask.stage.fit import fit as stage_fit
from gmm_dask.stage.job import Job
from gmm_dask.stage.job import plan as stage_plan
from gmm_dask.stage.labels.labelling import Labelled
from gmm_dask.stage.labels.labelling import label as stage_label
from gmm_dask.stage.lineage import comparison
from gmm_dask.stage.lineage.comparison import Comparison
from gmm_dask.stage.lineage.registry import promote_if_asked
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.publish import make_latest as stage_make_latest
from gmm_dask.stage.publish import publish as stage_publish
from gmm_dask.stage.publish import write_delta_table
from gmm_dask.stage.refresh.keeping import labelled as stage_label_refreshed
from gmm_dask.stage.refresh.keeping import published as stage_publish_refreshed
from gmm_dask.stage.refresh.known import Refresh
from gmm_dask.stage.refresh.known import begin as stage_begin
from gmm_dask.stage.refresh.refreshing import Refreshed
from gmm_dask.stage.refresh.refreshing import refreshed as stage_refreshed
from gmm_dask.stage.settings import ScoreSettings, Settings
from gmm_dask.stage.text import numbered, table_versions

# What ends a run with one clear message; anything else is a defect and keeps its traceback.
EXPECTED = (GmmDaskError, OSError)

# Waiting does not change these: the storage answered, and the answer was no.
_FINAL = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.ENAMETOOLONG,
        errno.ELOOP,
    }
)


def retry_can_help(error: BaseException) -> bool:
    """Whether the same call may succeed later: a lost cluster, or storage that did not answer."""
    if isinstance(error, (DataError, SettingsError, DeadlyChunkError)):
        return False
    if isinstance(error, ClusterError):
        return True
    cause = error.__cause__ if isinstance(error, (InputError, OutputError)) else error
    return isinstance(cause, OSError) and cause.errno not in _FINAL


def _retry(task: Task[..., Any], task_run: TaskRun, state: State) -> bool:
    return isinstance(state.data, BaseException) and retry_can_help(state.data)


# Retries repeat the whole phase on a new cluster connection; what is already written is kept.
_PHASE: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [5, 30],
    "retry_condition_fn": _retry,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}


@task(task_run_name="plan {settings.data.in_short}", **_PHASE)
def plan(settings: Settings | ScoreSettings) -> Job[Any]:
    """Read the footers, check the schema, name the run."""
    job: Job[Any] = stage_plan(cast(Any, settings))
    _tell_plan(job)
    return job


@task(task_run_name="plan {settings.data.in_short}", **_PHASE)
def plan_refresh(settings: Settings) -> Refresh:
    """Read the footers; find the version to go on from, and which partitions it knows."""
    begun = stage_begin(settings)
    _tell_plan(begun.job)
    return begun


def _tell_plan(job: Job[Any]) -> None:
    get_run_logger().info("%s", job.features)
    if job.caution is not None:
        get_run_logger().warning("%s", shown(job.caution))
    if job.plan.tables:
        get_run_logger().info("Delta table: %s.", shown(table_versions(dict(job.plan.tables))))


@task(
    task_run_name="fit n_components {job.settings.in_short}, to rows {job.plan.n_rows}",
    **_PHASE,
)
def fit(job: Job[Settings]) -> Fitted:
    """Start, run EM, store the model."""
    with FlowWatcher("gmm-fit-progress") as watcher:
        return stage_fit(job, watcher)


@task(task_run_name="refresh {begun.job.plan.n_rows} rows", **_PHASE)
def refresh(begun: Refresh) -> Refreshed:
    """Read what is new or changed, make the M-step, store the model."""
    with FlowWatcher("gmm-refresh-progress") as watcher:
        return stage_refreshed(begun, watcher)


@task(task_run_name="label {begun.job.plan.n_rows} rows", **_PHASE)
def label_refreshed(begun: Refresh, done: Refreshed) -> Labelled:
    """Write one label per row, where labels are asked for."""
    with FlowWatcher("gmm-label-progress") as watcher:
        return stage_label_refreshed(begun.job, done, watcher)


@task(task_run_name="publish run {begun.job.run_id}", **_PHASE)
def publish_refreshed(begun: Refresh, done: Refreshed, labelled: Labelled) -> Published:
    """Keep the sums, read everything back, then append the version."""
    with FlowWatcher("gmm-publish-progress") as watcher:
        published = stage_publish_refreshed(begun.job, done, labelled, watcher)
    return _handed_on(begun.job, published)


@task(task_run_name="check {job.plan.n_rows} rows", **_PHASE)
def check(job: Job[ScoreSettings]) -> Fitted:
    """Check the rows to score; store the published model beside their labels."""
    with FlowWatcher("gmm-check-progress") as watcher:
        return stage_adopt(job, watcher)


@task(task_run_name="label {job.plan.n_rows} rows", **_PHASE)
def label(job: Job[Any], fitted: Fitted) -> Labelled:
    """Write one label per row."""
    with FlowWatcher("gmm-label-progress") as watcher:
        return stage_label(
            job,
            fitted.model,
            watcher,
            held=fitted.held,
            contents=fitted.contents,
            severities=fitted.severities,
        )


@task(task_run_name="publish run {job.run_id}", **_PHASE)
def publish(job: Job[Any], fitted: Fitted, labelled: Labelled) -> Published:
    """Read everything back, then append the version."""
    published = stage_publish(job, fitted, labelled)
    return _handed_on(job, published)


@task(task_run_name="verify run {job.run_id}", **_PHASE)
def make_latest(job: Job[Any]) -> Published:
    """Read a finished run back, and append a version that points to it unless the latest does."""
    assert job.published is not None
    with FlowWatcher("gmm-verify-progress") as watcher:
        published = stage_make_latest(job.folder, job.published, watcher)
    return _handed_on(job, published)


@task(task_run_name="compare {version}", **_PHASE)
def compare(version: str, against: str | None) -> Comparison:
    """Read both versions and match their components."""
    return comparison.compare(against or comparison.one_before(version), version)


def _handed_on(job: Job[Any], published: Published) -> Published:
    if line := write_delta_table(job.settings, published):
        get_run_logger().info("%s", shown(line))
    if line := promote_if_asked(job.settings, published):
        get_run_logger().info("%s", shown(line))
    return published


def without_traceback(record: logging.LogRecord) -> bool:
    """Keep the record, and of an expected error only what it says."""
    if record.exc_info and isinstance(record.exc_info[1], EXPECTED):
        record.exc_info = None
    return True


def in_its_words(record: logging.LogRecord) -> bool:
    """Keep the record; of an expected error, which Prefect calls unexpected, what it says."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, EXPECTED):
        record.msg, record.args, record.exc_info = printable(str(error)), (), None
    elif isinstance(error, TransportError):
        record.exc_info = None  # Prefect's server is away, which it says itself
    return True


def without_secrets(record: logging.LogRecord) -> bool:
    """Keep the record, and of message and traceback what everybody may read."""
    said = record.getMessage()
    if redacted(said) != said:
        record.msg, record.args = redacted(said), ()
    if record.exc_info:
        trace = logging.Formatter().formatException(record.exc_info)
        if redacted(trace) != trace:
            record.exc_info, record.exc_text = None, redacted(trace)
    return True


logging.getLogger("prefect.task_runs").addFilter(without_traceback)
# On a worker Prefect raises what a flow's failed state holds, and logs it twice.
for _name in ("prefect.flow_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(in_its_words)
for _name in ("prefect.task_runs", "prefect.flow_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(without_secrets)


def failed(error: Exception) -> State[Any]:
    """The flow's state after an expected error: its message is the error's own.

    A flow that raised would log a traceback and write the error as a pickle to Prefect's storage.
    """
    return Failed(message=printable(str(error)), data=error)


def compared(found: Comparison) -> State[Comparison]:
    """The flow's state after two versions were compared."""
    first, *others = found.events
    more = f" And {numbered(len(others), 'change')} more." if others else ""
    return Completed(message=shown(f"{found.title}: {first}{more}"), data=found)


def completed(published: Published) -> State[Published]:
    """The flow's state after a run that is the latest version now."""
    return Completed(message=shown(f"{published.news} {published.path('folder')}"), data=published)
