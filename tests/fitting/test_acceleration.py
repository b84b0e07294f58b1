"""Anderson acceleration: the same maximum in fewer passes, and a likelihood that never falls."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings

from gmm_dask.fitting import Maximisation, Pass, fit, initialize
from gmm_dask.fitting.acceleration import DEPTH, History
from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters, SufficientStatistics, e_step, m_step
from tests.mixture.test_laws import assert_same
from tests.strategies import mixtures, random_mixture, seeds

PLAIN = Maximisation(1e-6)


def overlapping(rng: np.random.Generator, n: int = 2000) -> np.ndarray:
    """Rows of three clusters so near to each other that EM takes hundreds of passes."""
    centres = np.array([[0.0, 0.0], [1.5, 0.5], [0.5, 2.0]])
    return centres[rng.integers(0, 3, n)] + rng.normal(size=(n, 2)) * [1.0, 0.6]


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_it_gets_to_the_same_maximum_in_fewer_passes(
    covariance_type: str, rng: np.random.Generator
) -> None:
    X = overlapping(rng)
    seed = np.random.SeedSequence(1)
    start = initialize(X, 3, covariance_type, PLAIN, seed=seed).parameters
    run = partial(fit, partial(e_step, X), start, PLAIN, tol=1e-9, max_iter=5000)
    plain, fast = run(), run(accelerate=True)
    assert plain.converged
    assert fast.converged
    assert fast.n_passes < plain.n_passes / 2
    assert fast.lower_bounds[-1] >= plain.lower_bounds[-1] - 1e-6


@settings(max_examples=40)
@given(mixtures(max_components=3, max_features=3), seeds)
def test_the_log_likelihood_never_falls(start: Parameters, seed: int) -> None:
    X = np.random.default_rng(seed).normal(scale=2.0, size=(150, start.n_features))
    guard = Maximisation(1e-3)
    told: list[Pass] = []
    result = fit(
        partial(e_step, X), start, guard, tol=0, max_iter=25, accelerate=True, watch=told.append
    )
    bounds = np.array(result.lower_bounds)
    # reg_covar pulls EM itself off the likelihood's slope, by its own size.
    assert np.diff(bounds).min() > -1e-3 * np.abs(bounds).max()
    assert result.n_taken_back == sum(p.taken_back for p in told)
    assert result.n_passes == len(told) == len(bounds) + result.n_taken_back
    assert [p.number for p in told] == list(range(1, len(told) + 1))


def test_a_step_that_made_it_worse_is_taken_back() -> None:
    """The third pass is the first that can be extrapolated; its log-likelihood is made to fall."""
    parameters = random_mixture("full", 2, 2, 0)
    X = np.random.default_rng(0).normal(size=(200, 2))
    seen: list[Parameters] = []

    def expectation(current: Parameters) -> SufficientStatistics:
        seen.append(current)
        found = e_step(X, current)
        if len(seen) == 3:
            return SufficientStatistics(
                found.n_rows, found.sum_weight, -1e9, found.sum_resp, found.sum_x, found.sum_xx
            )
        return found

    told: list[Pass] = []
    result = fit(
        expectation, parameters, PLAIN, tol=0, max_iter=5, accelerate=True, watch=told.append
    )
    assert [p.taken_back for p in told] == [False, False, True, False, False]
    expected = m_step(seen[1], e_step(X, seen[1]), 1e-6)
    assert_same(seen[3], expected, rtol=0)
    assert result.n_passes == 5
    assert len(result.lower_bounds) == 4
    assert -1e9 / 200 not in result.lower_bounds


def test_an_extrapolation_that_is_no_density_is_taken_back() -> None:
    parameters = random_mixture("full", 2, 2, 0)
    X = np.random.default_rng(0).normal(size=(200, 2))
    count = 0

    def expectation(current: Parameters) -> SufficientStatistics:
        nonlocal count
        count += 1
        found = e_step(X, current)
        bad = float("nan") if count == 3 else found.log_likelihood
        return SufficientStatistics(
            found.n_rows, found.sum_weight, bad, found.sum_resp, found.sum_x, found.sum_xx
        )

    result = fit(expectation, parameters, PLAIN, tol=0, max_iter=4, accelerate=True)
    assert result.n_taken_back == 1


def test_the_end_is_always_of_an_m_step(rng: np.random.Generator) -> None:
    X = overlapping(rng, 500)
    start = random_mixture("full", 3, 2, 0)
    seen: list[Parameters] = []

    def expectation(current: Parameters) -> SufficientStatistics:
        seen.append(current)
        return e_step(X, current)

    for n_passes in range(1, 8):
        seen.clear()
        result = fit(expectation, start, PLAIN, tol=0, max_iter=n_passes, accelerate=True)
        if not result.n_taken_back:
            expected = m_step(seen[-1], e_step(X, seen[-1]), 1e-6)
            assert_same(result.parameters, expected, rtol=0)


def test_the_history_is_short_and_knows_no_empty_components() -> None:
    X = np.random.default_rng(0).normal(size=(300, 2))
    current, history = random_mixture("full", 3, 2, 0), History()
    for _ in range(2 * DEPTH):
        mapped = m_step(current, e_step(X, current), 1e-6)
        history, current = history.after(current, mapped), mapped
    assert len(history.points) == len(history.images) == DEPTH + 1
    empty = Parameters.from_covariances([0.0, 0.5, 0.5], current.means, current.covariances, "full")
    assert history.after(current, empty).points == ()
    assert History().extrapolated() is None


def test_a_component_less_begins_the_history_anew() -> None:
    X = np.random.default_rng(0).normal(size=(300, 2))
    three, two = random_mixture("full", 3, 2, 0), random_mixture("full", 2, 2, 0)
    history = History().after(three, m_step(three, e_step(X, three), 1e-6))
    history = history.after(two, m_step(two, e_step(X, two), 1e-6))
    assert len(history.points) == 1
