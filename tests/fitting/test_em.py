"""The loop, driven by canned numbers and by one array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given, reject
from sklearn.mixture import GaussianMixture as SklearnMixture

from gmm_dask.errors import NotFiniteError, SingularCovarianceError, StarvedComponentError
from gmm_dask.fitting import (
    Fit,
    FitResult,
    Maximisation,
    Outcome,
    Pass,
    Rule,
    Step,
    advance,
    best_of,
    fit,
    go_on,
    initialize,
)
from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters, SufficientStatistics, e_step
from gmm_dask.sampling import ColumnSpread
from tests.conftest import Blobs
from tests.fitting.results import assert_same_result, rounded
from tests.strategies import mixtures, random_mixture, seeds

EXACT = Maximisation(0)


def canned(lower_bounds: list[float], parameters: Parameters):
    """An expectation that never sees data: these log-likelihoods, unit statistics."""
    k, d = parameters.means.shape
    values = iter(lower_bounds)
    return lambda _: SufficientStatistics(
        16,
        16.0,
        16 * next(values),
        np.full(k, 16.0 / k),
        np.zeros((k, d)),
        np.stack([np.eye(d)] * k) * 16.0,
    )


@pytest.mark.parametrize(
    ("lower_bounds", "outcome", "n_passes"),
    [
        ([-3.0, -2.0, -1.9999], Outcome.CONVERGED, 3),
        ([-3.0, -2.0, -1.0, -0.5], Outcome.OUT_OF_ITERATIONS, 4),
        ([-2.0, -2.0], Outcome.CONVERGED, 2),
        ([-2.0, -3.0, -2.5, -2.0], Outcome.OUT_OF_ITERATIONS, 4),  # a fall is no convergence
    ],
)
def test_each_ending_has_its_name(
    lower_bounds: list[float], outcome: Outcome, n_passes: int
) -> None:
    parameters = random_mixture("full", 2, 2, 0)
    result = fit(canned(lower_bounds, parameters), parameters, EXACT, tol=1e-3, max_iter=4)
    assert result.outcome is outcome
    assert result.lower_bounds == tuple(lower_bounds[:n_passes])
    assert result.n_passes == n_passes
    assert len(result.trajectory) == n_passes + 1
    assert result.outcome.advice.endswith(".")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_log_likelihood_that_is_not_finite_ends_the_fit_by_name(value: float) -> None:
    parameters = random_mixture("full", 2, 2, 0)
    with pytest.raises(NotFiniteError, match="pass 2"):
        fit(canned([-1.0, value], parameters), parameters, EXACT, tol=0, max_iter=5)


def test_every_pass_is_told() -> None:
    parameters, told = random_mixture("full", 2, 2, 0), []
    fit(
        canned([-3.0, -2.0], parameters), parameters, Maximisation(0, start=3), tol=0, max_iter=2,
        watch=told.append,
    )  # fmt: skip
    assert [(p.start, p.number, p.lower_bound, p.n_rows) for p in told] == [
        (3, 1, -3.0, 16),
        (3, 2, -2.0, 16),
    ]
    assert told[0].change == np.inf
    assert told[1].change == 1.0
    assert all(isinstance(p, Pass) and p.seconds >= 0 for p in told)


def test_no_passes_leave_the_start() -> None:
    parameters = random_mixture("full", 2, 2, 0)
    result = fit(canned([], parameters), parameters, EXACT, tol=1e-3, max_iter=0)
    assert result.parameters is parameters
    assert result.outcome is Outcome.OUT_OF_ITERATIONS


@given(mixtures(max_components=3, max_features=3), seeds)
def test_the_log_likelihood_never_falls(start: Parameters, seed: int) -> None:
    X = np.random.default_rng(seed).normal(scale=2.0, size=(120, start.n_features))
    try:
        result = fit(partial(e_step, X), start, EXACT, tol=0, max_iter=8)
    except SingularCovarianceError:
        reject()
    # On as few rows as it takes to span the space the likelihood has no maximum to climb to.
    sizes = min(result.trajectory, key=lambda p: p.weights.min()).weights * len(X)
    assume(sizes.min() > start.n_features + 2)
    rises = np.diff(result.lower_bounds)
    assert rises.min() > -1e-10 * np.abs(result.lower_bounds).max()


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_the_end_is_scikit_learns(covariance_type: str, blobs: Blobs) -> None:
    one_step = SklearnMixture(3, covariance_type=covariance_type, max_iter=1, random_state=0)
    with pytest.warns(UserWarning, match="converge"):
        one_step.fit(blobs.X)
    given_start = {
        "weights_init": one_step.weights_,
        "means_init": one_step.means_,
        "precisions_init": one_step.precisions_,
    }
    reference = SklearnMixture(3, covariance_type=covariance_type, tol=1e-7, max_iter=500)
    reference.set_params(**given_start).fit(blobs.X)
    start = Parameters.from_precisions(*given_start.values(), covariance_type)
    found = fit(partial(e_step, blobs.X), start, Maximisation(1e-6), tol=1e-7, max_iter=500)
    assert found.n_passes == reference.n_iter_
    np.testing.assert_allclose(found.parameters.means, reference.means_, rtol=1e-8)
    np.testing.assert_allclose(found.parameters.covariances, reference.covariances_, rtol=1e-7)


def test_the_best_start_wins_and_the_earliest_of_equals() -> None:
    parameters = random_mixture("full", 1, 1, 0)
    results = [
        FitResult(parameters, (-5.0, bound), Outcome.CONVERGED, (parameters,), 1, 1.0)
        for bound in (-3.0, -1.0, -1.0)
    ]
    assert best_of(results) is results[1]


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-12])
@pytest.mark.parametrize("accelerate", [False, True])
def test_rough_passes_come_first_and_the_others_decide(
    tol: float, accelerate: bool, blobs: Blobs
) -> None:
    """Noise that is larger than tol neither ends the fit nor keeps it from ending."""
    passes: list[str] = []

    def exact(parameters: Parameters) -> SufficientStatistics:
        passes.append("exact")
        return e_step(blobs.X, parameters)

    def rough(parameters: Parameters) -> SufficientStatistics:
        passes.append("rough")
        return rounded(blobs.X, parameters)

    start = random_mixture("full", 3, blobs.X.shape[1], 0)
    maximise = Maximisation(1e-6)
    way = {"tol": tol, "max_iter": 1000, "accelerate": accelerate}
    found = fit(exact, start, maximise, rough=rough, **way)
    assert found.converged
    n_exact = passes.count("exact")
    assert passes == ["rough"] * (len(passes) - n_exact) + ["exact"] * n_exact
    assert n_exact < len(passes)
    expected = fit(exact, start, maximise, **way)
    assert abs(found.lower_bounds[-1] - expected.lower_bounds[-1]) < max(100 * tol, 1e-9)
    assert found.lower_bounds[-1] == exact(found.trajectory[-2]).lower_bound


def test_a_fit_that_ends_among_rough_passes_is_out_of_iterations(blobs: Blobs) -> None:
    start = random_mixture("full", 3, blobs.X.shape[1], 0)
    rough = partial(rounded, blobs.X)
    found = fit(
        partial(e_step, blobs.X), start, Maximisation(1e-6), tol=0.0, max_iter=3, rough=rough
    )
    assert found.outcome is Outcome.OUT_OF_ITERATIONS


def test_fits_that_share_passes_end_as_each_would_alone(rng: np.random.Generator) -> None:
    """The data are passed over as often as the longest fit needs; one in trouble leaves alone."""
    X = np.concatenate([rng.normal(at, 1, (100, 2)) for at in (0, 3, 6)])
    guard = Maximisation(1e-6, "raise", ColumnSpread.of(X))
    starts = [
        initialize(X, 3, "full", guard, init_params="random_from_data", seed=seed)
        for seed in np.random.SeedSequence(1).spawn(4)
    ]
    rules = [Rule(1e-4, max_iter) for max_iter in (0, 5, 200, 200)]
    begun = [Fit.begin(start, guard, rule) for start, rule in zip(starts, rules, strict=True)]
    means = starts[0].parameters.means + np.array([[0.0], [0.0], [1e6]])
    far = replace(starts[0].parameters, means=means)
    in_trouble = Fit.begin(Step(far, ()), guard, rules[2])
    n_asked = []

    def shared(fits: Sequence[Fit]) -> list[SufficientStatistics]:
        n_asked.append(len(fits))
        return [e_step(X, each.parameters) for each in fits]

    ended = advance([*begun, in_trouble], shared, leaving=(StarvedComponentError,))
    assert len(ended) == len(begun)
    alone = [go_on(partial(e_step, X), each) for each in begun]
    for mine, theirs in zip(ended, alone, strict=True):
        assert_same_result(mine.result, theirs)
    assert len(n_asked) == max(result.n_passes for result in alone)
    assert n_asked[0] == 4  # a fit of no passes asks for nothing
    with pytest.raises(StarvedComponentError):
        advance([in_trouble], shared)
