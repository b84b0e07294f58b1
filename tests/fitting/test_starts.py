"""From a sample to all rows: which starts go on, and from where."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from gmm_dask.errors import SingularCovarianceError
from gmm_dask.fitting import (
    Expectation,
    FitResult,
    Maximisation,
    Method,
    Sample,
    Step,
    fit,
    fit_from_sample,
    initialize,
    refine,
    settling_rows,
    starts,
    telling_rows,
)
from gmm_dask.fitting.initial.initial_values import Given
from gmm_dask.fitting.starts import SHORT
from gmm_dask.mixture import Parameters, SufficientStatistics, e_step
from gmm_dask.sampling import ColumnSpread
from tests.fitting.test_acceleration import overlapping

METHOD = Method(3, "full", "random", 1e-4, 200, sample_em=True, acceleration="auto")
SEEDS = np.random.SeedSequence(5).spawn(4)


class Counted:
    """A pass over rows that remembers what it was asked."""

    def __init__(self, X: np.ndarray) -> None:
        self.X, self.seen = X, []

    def __call__(self, parameters: Parameters) -> SufficientStatistics:
        self.seen.append(parameters)
        return e_step(self.X, parameters)


def fits(
    X: np.ndarray, method: Method, *, part: bool, given: Given | None = None, n_starts: int = 1
) -> tuple[list[FitResult], Counted, Counted]:
    over_all, on_sample = Counted(X), Counted(X[:1500])
    guard = Maximisation(1e-6, spread=ColumnSpread.of(X))
    results = fit_from_sample(
        Sample(X[:1500], None, on_sample if part else None),
        over_all,
        method,
        [replace(guard, start=1 + i) for i in range(n_starts)],
        SEEDS[:n_starts],
        given=given,
    )
    return results, over_all, on_sample


def test_a_sample_saves_passes_over_all_rows(rng: np.random.Generator) -> None:
    X = overlapping(rng, 12_000)
    method = replace(METHOD, init_params="kmeans", tol=1e-6)
    (fast,), over_all, _ = fits(X, method, part=True)
    (plain,), _, _ = fits(X, replace(method, sample_em=False, acceleration="none"), part=True)
    assert len(over_all.seen) == fast.n_passes < plain.n_passes / 3
    assert fast.lower_bounds[-1] > plain.lower_bounds[-1] - 1e-3


def test_of_several_starts_the_best_on_the_sample_goes_on_alone(
    rng: np.random.Generator,
) -> None:
    X = overlapping(rng, 6000)
    results, over_all, _ = fits(X, METHOD, part=True, n_starts=4)
    assert len(results) == 1
    assert len(over_all.seen) == results[0].n_passes
    singles = [
        fit_from_sample(
            Sample(X[:1500], None, None),
            partial(e_step, X[:1500]),
            replace(METHOD, tol=1e-6, max_iter=300, acceleration="anderson"),
            [Maximisation(1e-6, spread=ColumnSpread.of(X))],
            [seed],
        )[0].lower_bounds[-1]
        for seed in SEEDS
    ]
    assert results[0].start == 1 + int(np.argmax(singles))


def from_samples(
    X: np.ndarray, *, on_larger: Expectation | None, n_starts: int = 1, tol: float = 1e-3
) -> tuple[list[FitResult], Counted]:
    """Fits of rows in any order, from EM on the first 1500 of them."""
    over_all, guard = Counted(X), Maximisation(1e-6, spread=ColumnSpread.of(X))
    method = replace(METHOD, init_params="kmeans", tol=tol)
    results = fit_from_sample(
        Sample(X[:1500], None, Counted(X[:1500]), None, on_larger),
        over_all,
        method,
        [replace(guard, start=1 + i) for i in range(n_starts)],
        SEEDS[:n_starts],
    )
    return results, over_all


def test_settled_on_a_larger_sample_the_first_step_over_all_rows_gains_less_than_tol(
    rng: np.random.Generator,
) -> None:
    """Two passes are as few as there can be: the second tells what the first one gained."""
    X = rng.normal(size=(200_000, 2))
    X[::3] += [6.0, 0.0]
    X[1::3] += [0.0, 6.0]
    X = rng.permutation(X)
    m = settling_rows(METHOD, 2) // 10  # METHOD asks for a tenth of tol
    (small,), _ = from_samples(X, on_larger=None)
    (larger,), over_all = from_samples(X, on_larger=Counted(X[:m]))
    assert len(over_all.seen) == larger.n_passes == 2
    assert small.n_passes > 2
    assert 0 < larger.lower_bounds[1] - larger.lower_bounds[0] < 1e-3
    assert larger.lower_bounds[-1] > small.lower_bounds[-1] - 1e-5


def test_only_what_goes_on_settles_on_the_larger_sample(rng: np.random.Generator) -> None:
    X = overlapping(rng, 12_000)
    alone, on_larger = Counted(X[:6000]), Counted(X[:6000])
    results, _ = from_samples(X, on_larger=on_larger, n_starts=4)
    (best,) = results
    fits_alone, _ = from_samples(X, on_larger=alone, n_starts=best.start)
    assert [each.start for each in fits_alone] == [best.start]
    assert len(on_larger.seen) == len(alone.seen) > 0
    np.testing.assert_array_equal(fits_alone[0].parameters.means, best.parameters.means)


def test_trouble_on_the_larger_sample_is_for_all_rows_to_decide(rng: np.random.Generator) -> None:
    def singular(_: Parameters) -> SufficientStatistics:
        raise SingularCovarianceError("a component of the larger sample is a point")

    X = overlapping(rng, 6000)
    (found,), _ = from_samples(X, on_larger=singular)
    (plain,), _ = from_samples(X, on_larger=None)
    assert found.lower_bounds == plain.lower_bounds


@pytest.mark.parametrize(
    ("change", "n_rows"),
    [
        ({}, 127_500),  # 1.5 * 17 / 2e-4
        ({"covariance_type": "diag"}, 105_000),
        ({"tol": 1e-2}, 1275),
        ({"tol": 1e-300}, sys.maxsize),
        ({"tol": 0.0}, 0),
        ({"max_iter": 0}, 0),
        ({"sample_em": False}, 0),
    ],
)
def test_rows_to_settle_on_follow_from_parameters_and_tol(
    change: dict[str, Any], n_rows: int
) -> None:
    assert settling_rows(replace(METHOD, **change), 2) == n_rows


def test_where_the_sample_is_all_rows_every_start_is_plain_em(rng: np.random.Generator) -> None:
    X = overlapping(rng, 600)
    results, _, on_sample = fits(X, METHOD, part=False, n_starts=2)
    assert [result.start for result in results] == [1, 2]
    assert not on_sample.seen
    plain, _, _ = fits(X, replace(METHOD, acceleration="none"), part=False, n_starts=2)
    assert [r.lower_bounds for r in results] == [r.lower_bounds for r in plain]


@pytest.mark.parametrize("what", ["given", "no passes", "switched off"])
def test_nothing_leads_away_from_a_start_that_is_to_be_kept(
    what: str, rng: np.random.Generator
) -> None:
    X = overlapping(rng, 3000)
    given = Given(means=np.array([[0.0, 0], [2, 0], [0, 2]])) if what == "given" else None
    method = {
        "given": METHOD,
        "no passes": replace(METHOD, max_iter=0),
        "switched off": replace(METHOD, sample_em=False),
    }[what]
    _, over_all, on_sample = fits(X, method, part=True, given=given)
    assert not on_sample.seen
    if given is not None:
        np.testing.assert_array_equal(over_all.seen[0].means, given.means)


def pairs(rng: np.random.Generator) -> np.ndarray:
    """Rows of eight components, two in each corner of a square."""
    corners = np.array([[x, y] for x in (0.0, 40.0) for y in (0.0, 40.0)])
    centres = np.concatenate([corners, corners + np.array([3.0, 0.0])])
    return centres[rng.integers(8, size=8000)] + rng.normal(0, 0.5, (8000, 2))


@pytest.mark.parametrize("in_part", [False, True])
def test_a_poor_start_is_left_for_one_that_leads_further(
    in_part: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are tried on a part of the sample, where it has one; the best goes on on all of it."""
    X = pairs(np.random.default_rng(3))
    method = replace(METHOD, n_components=8, init_params="random_from_data")
    guard = Maximisation(1e-6, spread=ColumnSpread.of(X))
    on_sample, on_part = Counted(X[:4000]), Counted(X[:1000])
    part = Sample(X[:1000], None, on_part) if in_part else None
    sample = Sample(X[:4000], None, on_sample, part)

    def ends(tries: int) -> np.ndarray:
        monkeypatch.setattr(starts, "TRIES", tries)
        fits = (fit_from_sample(sample, Counted(X), method, [guard], [seed])[0] for seed in SEEDS)
        return np.array([found.lower_bounds[-1] for found in fits])

    gain = ends(8) - ends(1)
    assert gain.min() > -1e-3
    assert gain.max() > 0.05
    assert len(on_part.seen) == (7 * SHORT * len(SEEDS) if in_part else 0)


def test_a_part_tells_starts_apart_with_rows_for_every_parameter() -> None:
    assert telling_rows(8, 8) == 8 * 2048
    assert telling_rows(3, 64) == 3 * 4 * (64 + 64 * 65 // 2)


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
