"""Incremental EM: an M-step after each block, and a bound that never falls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from gmm_dask.errors import SingularCovarianceError
from gmm_dask.fitting import FitResult, Maximisation, Pass, State, Step, fit, go_on, initialize
from gmm_dask.fitting.em import Expectation
from gmm_dask.mixture import (
    COVARIANCE_FAMILIES,
    ColumnSpread,
    Parameters,
    PriorSettings,
    SufficientStatistics,
    e_step,
    log_density,
    missing,
)
from tests.fitting.results import assert_same_result
from tests.fitting.test_acceleration import PLAIN, overlapping
from tests.mixture.test_laws import assert_same
from tests.strategies import mixtures, random_mixture, seeds

EStep = Callable[..., SufficientStatistics]


def blocks_of(X: np.ndarray, n_blocks: int, step: EStep = e_step) -> list[Expectation]:
    return [partial(step, X[b::n_blocks]) for b in range(n_blocks)]


class ByHand:
    """Incremental EM that remembers every row's responsibilities, with SciPy's densities."""

    def __init__(self, X: np.ndarray, start: Parameters, reg_covar: float) -> None:
        self.X, self.kind, self.reg_covar = X, start.covariance_type, reg_covar
        self.weights, self.means = start.weights, start.means
        self.covariances = start.dense_covariances()
        self.resp = np.zeros((len(X), start.n_components))

    def logs(self) -> np.ndarray:
        each = zip(self.weights, self.means, self.covariances, strict=True)
        found = [np.log(w) + multivariate_normal(m, C).logpdf(self.X) for w, m, C in each]
        return np.stack(found, axis=1)

    def look(self, rows: slice) -> None:
        logs = self.logs()[rows]
        self.resp[rows] = np.exp(logs - np.logaddexp.reduce(logs, axis=1)[:, None])

    def maximise(self) -> None:
        N, eye = self.resp.sum(axis=0), np.eye(self.X.shape[1])
        self.weights, self.means = N / N.sum(), self.resp.T @ self.X / N[:, None]
        D = self.X[:, None, :] - self.means
        scatter = np.einsum("nk,nki,nkj->kij", self.resp, D, D)
        covariances = scatter / N[:, None, None]
        if self.kind == "tied":
            covariances = np.broadcast_to(scatter.sum(axis=0) / N.sum(), scatter.shape)
        elif self.kind == "diag":
            covariances = covariances * eye
        elif self.kind == "spherical":
            mean = np.einsum("kdd->k", covariances) / len(eye)
            covariances = mean[:, None, None] * eye
        self.covariances = covariances + self.reg_covar * eye

    @property
    def bound(self) -> float:
        terms = self.resp * (self.logs() - np.log(np.maximum(self.resp, 1e-300)))
        return float(terms.sum() / len(self.X))


@pytest.mark.parametrize("n_blocks", [2, 5])
@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_it_is_incremental_em(
    covariance_type: str, n_blocks: int, rng: np.random.Generator
) -> None:
    X, start = overlapping(rng, 300), random_mixture(covariance_type, 3, 2, 4)
    expected, bounds = ByHand(X, start, 1e-6), []
    for number in range(6):
        for b in range(n_blocks):
            expected.look(slice(b, None, n_blocks))
            if b == n_blocks - 1:
                bounds.append(expected.bound)
            if number or b == n_blocks - 1:
                expected.maximise()
    found = fit(partial(e_step, X), start, PLAIN, tol=0, max_iter=6, blocks=blocks_of(X, n_blocks))
    np.testing.assert_allclose(found.lower_bounds, bounds, rtol=1e-10)
    np.testing.assert_allclose(found.parameters.weights, expected.weights, rtol=1e-8)
    np.testing.assert_allclose(found.parameters.means, expected.means, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(
        found.parameters.dense_covariances(), expected.covariances, rtol=1e-8, atol=1e-9
    )


@settings(max_examples=40)
@given(
    mixtures(max_components=3, max_features=3),
    seeds,
    st.integers(2, 7),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_the_bound_never_falls_nor_passes_the_log_likelihood(
    start: Parameters, seed: int, n_blocks: int, accelerate: bool, absent: bool, prior: bool
) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(scale=2.0, size=(150, start.n_features))
    spread = ColumnSpread.of(X)
    believed = PriorSettings(1.5, 2.0, None, 0.1) if prior else PriorSettings()
    guard = Maximisation(0.0, spread=spread, prior=believed.resolve(spread.mean, spread.variances))
    step = missing.e_step if absent else e_step
    if absent:
        X[rng.uniform(size=X.shape) < 0.2] = np.nan
    weight = rng.uniform(0.5, 2.0, size=150)
    told: list[Pass] = []
    result = fit(
        partial(step, X, sample_weight=weight),
        start,
        guard,
        tol=0,
        max_iter=12,
        accelerate=accelerate,
        watch=told.append,
        blocks=[
            partial(step, X[b::n_blocks], sample_weight=weight[b::n_blocks])
            for b in range(n_blocks)
        ],
    )
    if result.events_:
        return  # what is done to a component in trouble may cost likelihood
    bounds = np.array(result.lower_bounds)
    slack = 1e-9 * np.abs(bounds).max()
    assert np.diff(bounds).min(initial=0.0) > -slack
    kept = [each for each in told if not each.taken_back]
    for bound, parameters in zip(bounds, (each.parameters for each in kept), strict=True):
        total = step(X, parameters, weight).log_likelihood + guard.penalty(parameters)
        assert bound <= total / weight.sum() + slack
    assert [each.number for each in told] == list(range(1, 13))
    assert result.n_passes == 12 == len(bounds) + result.n_taken_back


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_it_gets_to_the_same_maximum_in_fewer_passes(
    covariance_type: str, rng: np.random.Generator
) -> None:
    """With blocks fewer than without, and extrapolated fewer still."""
    X = overlapping(rng, 800)
    seed = np.random.SeedSequence(1)
    start = initialize(X, 3, covariance_type, PLAIN, seed=seed).parameters
    run = partial(fit, partial(e_step, X), start, PLAIN, tol=1e-6, max_iter=500)
    whole = run()
    blocks = run(blocks=blocks_of(X, 4))
    ahead = run(blocks=blocks_of(X, 4), accelerate=True)
    assert ahead.converged
    assert ahead.n_passes < blocks.n_passes < whole.n_passes
    for found in (blocks, ahead):
        reached = log_density(X, found.parameters).mean()
        assert reached >= whole.lower_bounds[-1] - 1e-5


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_columns_that_nearly_depend_on_each_other_blur_no_bound(
    covariance_type: str, rng: np.random.Generator
) -> None:
    """Precisions of 1e12 in units of the columns, of which sums know four digits."""
    x = rng.normal(size=900) + np.array([0.0, 2.0, 4.5])[np.arange(900) % 3]
    X = np.column_stack([x, x + 1e-6 * rng.normal(size=900)])
    guard, seed = Maximisation(0.0, spread=ColumnSpread.of(X)), np.random.SeedSequence(1)
    start = initialize(X, 3, covariance_type, guard, seed=seed).parameters
    told: list[Pass] = []
    found = fit(
        partial(e_step, X), start, guard, tol=0, max_iter=30, watch=told.append,
        blocks=blocks_of(X, 4),
    )  # fmt: skip
    assert np.diff(found.lower_bounds).min() > -1e-9
    for each in told[5:]:  # where the means still move far, sums have fewer digits yet
        assert each.lower_bound <= log_density(X, each.parameters).mean() + 1e-7


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_an_offset_of_the_data_changes_nothing(
    covariance_type: str, rng: np.random.Generator
) -> None:
    X = np.round(overlapping(rng, 300) * 1024) / 1024
    start, offset = random_mixture(covariance_type, 3, 2, 4), 2.0**27
    means = np.round(start.means * 1024) / 1024

    def bounds(by: float) -> tuple[float, ...]:
        moved = replace(start, means=means + by)
        blocks = blocks_of(X + by, 3)
        return fit(blocks[0], moved, PLAIN, tol=0, max_iter=10, blocks=blocks).lower_bounds

    np.testing.assert_allclose(bounds(offset), bounds(0.0), rtol=1e-9)


@pytest.mark.parametrize("accelerate", [False, True])
def test_one_block_is_em_bit_for_bit(accelerate: bool, rng: np.random.Generator) -> None:
    X, start = overlapping(rng, 400), random_mixture("full", 3, 2, 0)
    run = partial(fit, partial(e_step, X), start, PLAIN, tol=0, max_iter=9, accelerate=accelerate)
    assert_same_result(run(blocks=blocks_of(X, 1)), run())


def test_every_row_is_looked_at_once_in_each_pass(rng: np.random.Generator) -> None:
    X, start = overlapping(rng, 120), random_mixture("diag", 2, 2, 0)
    seen: list[tuple[int, Parameters]] = []

    def block(b: int, parameters: Parameters) -> SufficientStatistics:
        seen.append((b, parameters))
        return e_step(X[b::3], parameters)

    def never(parameters: Parameters) -> SufficientStatistics:
        raise AssertionError("all rows at once")

    blocks = [partial(block, b) for b in range(3)]
    result = fit(never, start, PLAIN, tol=0, max_iter=4, blocks=blocks)
    assert [b for b, _ in seen] == [0, 1, 2] * 4
    first = [parameters for _, parameters in seen[:3]]
    assert all(each is start for each in first)  # nothing is known of later blocks yet
    assert len({id(parameters) for _, parameters in seen[3:]}) == 9
    assert result.n_passes == 4
    assert result.n_rows == 120


@pytest.mark.parametrize("policy", ["floor", "reseed", "drop"])
def test_a_component_in_trouble_is_dealt_with_at_the_end_of_a_pass(policy: str) -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(90, 2)), np.full((30, 2), 9.0)])
    start = Parameters.from_covariances(
        [0.5, 0.5], [[0.0, 0.0], [8.0, 8.0]], np.array([1.0, 1.0]), "spherical"
    )
    guard = Maximisation(0.0, policy, ColumnSpread.of(X), sample=X)
    told: list[Pass] = []
    result = fit(
        partial(e_step, X), start, guard, tol=1e-6, max_iter=8, watch=told.append,
        blocks=[lambda p, b=b: e_step(X[b::4], p) for b in range(4)],
    )  # fmt: skip
    assert result.events_
    assert {event.pass_number for event in result.events_} <= {each.number for each in told}
    assert all(np.isfinite(result.lower_bounds))
    assert result.parameters.n_components == (1 if policy == "drop" else 2)
    bounds = [each.lower_bound for each in told]
    again = fit(partial(e_step, X), start, guard, tol=1e-6, max_iter=8)
    assert again.events_[0] == result.events_[0]
    assert bounds[0] == pytest.approx(again.lower_bounds[0], rel=1e-12)


def test_with_the_policy_to_stop_it_stops_at_the_end_of_a_pass() -> None:
    """In the middle of a pass there are blocks that the fault is not of."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(90, 2)), np.full((30, 2), 9.0)])
    start = random_mixture("full", 2, 2, 3)
    guard = Maximisation(0.0, "raise", ColumnSpread.of(X))
    count = 0

    def block(b: int, parameters: Parameters) -> SufficientStatistics:
        nonlocal count
        count += 1
        return e_step(X[b::4], parameters)

    with pytest.raises(SingularCovarianceError):
        fit(
            partial(e_step, X), start, guard, tol=0, max_iter=99,
            blocks=[partial(block, b) for b in range(4)],
        )  # fmt: skip
    assert count % 4 == 0


def test_after_an_event_the_blocks_are_remembered_anew() -> None:
    X = np.random.default_rng(0).normal(size=(60, 2))
    start = random_mixture("full", 2, 2, 0)
    kept: list[State] = []
    run = partial(go_on, partial(e_step, X), State.begin(Step(start, ())), tol=0, keep=kept.append)
    run(PLAIN, max_iter=2, blocks=blocks_of(X, 3))
    assert [len(state.parts) for state in kept] == [0, 3, 3]
    kept.clear()
    tight = Parameters.from_covariances(
        [0.5, 0.5], [X[0], X[1]], np.full((2, 2, 2), np.eye(2) * 1e-12), "full"
    )
    spread = ColumnSpread.of(X)
    begin = State.begin(Step(tight, ()))
    go_on(
        partial(e_step, X), begin, Maximisation(0.0, "floor", spread), tol=0, max_iter=2,
        keep=kept.append, blocks=blocks_of(X, 3),
    )  # fmt: skip
    for state in kept:
        assert not (state.parts and state.events and state.events[-1].pass_number == state.n_passes)


def test_an_extrapolation_that_made_it_worse_is_taken_back(rng: np.random.Generator) -> None:
    """The third pass is the first that starts from one; its bound is made to fall."""
    X, start = overlapping(rng, 300), random_mixture("full", 3, 2, 0)
    count = 0

    def block(b: int, parameters: Parameters) -> SufficientStatistics:
        nonlocal count
        count += 1
        found = e_step(X[b::3], parameters)
        return replace(found, log_likelihood=-1e9) if 6 < count <= 9 else found

    def run(blocks: list[Expectation], max_iter: int, told: list[Pass]) -> FitResult:
        return fit(
            partial(e_step, X), start, PLAIN, tol=0, max_iter=max_iter, accelerate=True,
            watch=told.append, blocks=blocks,
        )  # fmt: skip

    told: list[Pass] = []
    result = run([partial(block, b) for b in range(3)], 4, told)
    assert [each.taken_back for each in told] == [False, False, True, False]
    plain = fit(partial(e_step, X), start, PLAIN, tol=0, max_iter=3, blocks=blocks_of(X, 3))
    assert_same(result.parameters, plain.parameters, rtol=0)
    assert result.lower_bounds == plain.lower_bounds
