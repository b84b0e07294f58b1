"""The whole stage as one call: plan, fit, label, publish."""

from __future__ import annotations

from collections.abc import Callable

from gmm_dask.engine import Backend
from gmm_dask.stage.drawing import drawing
from gmm_dask.stage.fit import Fitted, adopt, fit
from gmm_dask.stage.job import Job, SettingsT, plan
from gmm_dask.stage.label import label
from gmm_dask.stage.outputs import Published, load_finished
from gmm_dask.stage.publish import publish
from gmm_dask.stage.settings import ScoreSettings, Settings
from gmm_dask.stage.watch import Watcher


def run(settings: Settings, watcher: Watcher | None = None) -> Published:
    """Fit a mixture to the input and label every row; a finished run done again writes nothing."""
    return _carry_out(settings, fit, watcher or Watcher())


def score(settings: ScoreSettings, watcher: Watcher | None = None) -> Published:
    """Label other data with a published model; a finished run done again writes nothing."""
    return _carry_out(settings, adopt, watcher or Watcher())


def _carry_out(
    settings: SettingsT,
    model_of: Callable[[Job[SettingsT], Watcher, Backend], Fitted],
    watcher: Watcher,
) -> Published:
    watcher.phase("plan", settings.data.path)
    job = plan(settings)
    if job.published is not None:
        return load_finished(job.folder, job.published)
    if job.caution is not None:
        watcher.warn(job.caution)
    with job.backend() as backend:
        fitted = model_of(job, watcher, backend)
        with drawing(job, fitted) as pictures:
            labelled = label(job, fitted.model, watcher, backend, fitted.held, fitted.contents)
    return publish(job, fitted, labelled, watcher, pictures())
