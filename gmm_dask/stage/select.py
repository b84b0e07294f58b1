"""The fit of a run: EM or variational inference, or the best of candidates that share its reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gmm_dask.engine import Backend
from gmm_dask.fitting.choice import Candidate, Selection
from gmm_dask.roads.fitting_run import FitCheckpoint, FitData, FitListener, FittedRows, fit_rows
from gmm_dask.roads.grid_run import Grid, select_rows
from gmm_dask.roads.variational_run import Belief, infer_rows
from gmm_dask.stage.settings import Settings
from gmm_dask.stage.watch import Watcher

ANEW = (
    "The survey of an earlier attempt is used again; the passes of a grid and those of variational "
    "inference keep no checkpoint and begin anew."
)


def fit_or_select(
    data: FitData,
    backend: Backend,
    settings: Settings,
    listener: FitListener,
    checkpoint: FitCheckpoint,
    watcher: Watcher,
    *,
    seeds: Sequence[np.random.SeedSequence],
) -> tuple[FittedRows, Selection | None]:
    """The fit of the settings; among candidates the best, with the table of all.

    Of a grid that was stopped the survey is kept. Its states are those of as many fits as there are
    candidates, each of which starts on the sample and needs but a few passes: to make them again
    costs less than to keep them.
    """
    if settings.fit.weight_concentration_prior_type is not None:
        belief = Belief.of(settings.fit, data.rows.n_features)
        if checkpoint.survey() is not None:
            watcher.detail(ANEW)
        asked = (data, backend, settings.fit, belief, listener, checkpoint)
        return infer_rows(*asked, seeds=seeds).fitted, None
    if not settings.select.is_asked:
        return fit_rows(data, backend, settings.fit, listener, checkpoint, seeds=seeds), None
    select = settings.select
    candidates = [Candidate(*each) for each in settings.candidates]
    watcher.detail(
        f"{len(candidates)} candidates share every read: n_components {settings.in_short}; the "
        f"choice is by {select.criterion.replace('_', ' ')}."
    )
    if checkpoint.survey() is not None:
        watcher.detail(ANEW)
    grid = Grid(candidates, select.criterion, select.n_bootstrap)
    found = select_rows(data, backend, settings.fit, grid, listener, checkpoint, seeds=seeds)
    for line in found.selection.reason:
        watcher.detail(line)
    return found.fitted, found.selection
