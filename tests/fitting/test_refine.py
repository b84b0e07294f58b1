"""EM on the sample: what it settles there, no pass over all rows has to."""

from __future__ import annotations

from functools import partial

import numpy as np

from gmm_dask.fitting import Maximisation, Step, fit, initialize, refine
from gmm_dask.mixture import e_step
from gmm_dask.sampling import ColumnSpread
from tests.fitting.test_acceleration import overlapping


def test_a_start_from_the_sample_takes_fewer_passes(rng: np.random.Generator) -> None:
    X = overlapping(rng, 20_000)
    sample, guard = X[:2000], Maximisation(1e-6, spread=ColumnSpread.of(X))
    start = initialize(sample, 3, "full", guard, seed=np.random.SeedSequence(0))
    run = partial(fit, partial(e_step, X), maximise=guard, tol=1e-5, max_iter=500)
    refined = refine(partial(e_step, sample), start, guard, tol=1e-5)
    plain, fewer = run(start.parameters), run(refined.parameters)
    assert fewer.n_passes < plain.n_passes
    assert fewer.lower_bounds[-1] >= plain.lower_bounds[-1] - 1e-3


def test_what_was_done_on_the_sample_is_told_as_of_the_start(rng: np.random.Generator) -> None:
    """Three equal rows far away are no component; each of its events is told once, as pass 0."""
    X = np.concatenate([rng.normal(size=(300, 2)), np.full((3, 2), 50.0)])
    guard = Maximisation(0, spread=ColumnSpread.of(X))
    start = initialize(X, 2, "full", guard, seed=np.random.SeedSequence(0))
    found = refine(partial(e_step, X), Step(start.parameters, start.events), guard, tol=1e-3)
    assert found.n_passes > 1
    assert len(found.events_) == 1
    assert found.events_[0].pass_number == found.events_[0].until == 0
    assert "at the start" in found.events_[0].message
