"""Components in trouble: each cause under each policy, the events, and the errors."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from gmm_dask.errors import NotFiniteError, SingularCovarianceError, StarvedComponentError
from gmm_dask.fitting import (
    ComponentPolicy,
    Event,
    FitResult,
    Given,
    Maximisation,
    fit,
    initialize,
)
from gmm_dask.fitting.events import Action
from gmm_dask.fitting.m_step import FLOOR, MAX_RESEEDS
from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters, PriorSettings, e_step, missing
from gmm_dask.mixture.estimate import Cause
from gmm_dask.sampling import ColumnSpread

NAMES = ("height", "width")
POLICIES = [str(policy) for policy in ComponentPolicy]
UNIT = {
    "full": [np.eye(2)] * 2, "tied": np.eye(2), "diag": np.ones((2, 2)), "spherical": [1.0, 1.0],
}  # fmt: skip
FAULTS = [Cause.STARVED, Cause.COLLAPSED, Cause.SINGULAR]
OWN = ["full", "diag", "spherical"]  # families in which each component has its own covariance


def rows(trouble: Cause) -> np.ndarray:
    """Two clouds at (0, 0) and (8, 8), and in place of a third what makes its component fail."""
    rng = np.random.default_rng(11)
    clouds = [rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 8]
    if trouble is Cause.COLLAPSED:
        clouds.append(np.full((20, 2), -20.0))
    if trouble is Cause.SINGULAR:
        clouds.append(np.stack([np.linspace(-25, -20, 40)] * 2, axis=1))
    return np.concatenate(clouds)


def run(trouble: Cause, policy: str, covariance_type: str, **options: object) -> FitResult:
    X = rows(trouble)
    third = [-1e6, -1e6] if trouble is Cause.STARVED else X[400:].mean(axis=0)
    full = np.stack([np.eye(2)] * 3)
    covariances = {
        "full": full, "tied": full[0], "diag": full[:, 0] * 0 + 1, "spherical": np.ones(3),
    }[covariance_type]  # fmt: skip
    start = Parameters.from_covariances(
        [0.4, 0.4, 0.2], [[0.5, 0.0], [8.0, 7.5], third], covariances, covariance_type
    )
    maximise = Maximisation(0, policy, ColumnSpread.of(X), columns=NAMES, sample=X, **options)
    return fit(partial(e_step, X), start, maximise, tol=1e-6, max_iter=200)


def assert_sound(result: FitResult) -> None:
    found = result.parameters
    for name in ("weights", "means", "covariances", "precisions_cholesky"):
        assert np.isfinite(getattr(found, name)).all()
    assert found.weights.sum() == pytest.approx(1.0)
    assert result.converged
    assert np.isfinite(result.lower_bounds).all()


@pytest.mark.parametrize("covariance_type", OWN)
def test_a_collapsed_component_is_floored_and_the_fit_settles(covariance_type: str) -> None:
    result = run(Cause.COLLAPSED, "floor", covariance_type)
    assert_sound(result)
    (event,) = result.events_
    assert (event.component, event.cause, event.action) == (2, Cause.COLLAPSED, Action.FLOORED)
    assert event.columns == NAMES
    assert event.until == result.n_passes >= event.pass_number >= 1
    spread = ColumnSpread.of(rows(Cause.COLLAPSED)).variances
    own = result.parameters.dense_covariances()[2]
    floor = np.full(2, spread.mean()) if covariance_type == "spherical" else spread
    expected = FLOOR * np.diag(floor)
    np.testing.assert_allclose(own, expected, rtol=1e-6)


def test_a_singular_component_is_floored_and_names_the_columns() -> None:
    result = run(Cause.SINGULAR, "floor", "full")
    assert_sound(result)
    (event,) = result.events_
    assert (event.component, event.cause, event.columns) == (2, Cause.SINGULAR, NAMES)
    assert "in its rows these depend on each other: columns 'height', 'width' a" in event.message


@pytest.mark.parametrize("covariance_type", [*OWN, "tied"])
def test_a_starved_component_stays_with_weight_zero(covariance_type: str) -> None:
    result = run(Cause.STARVED, "floor", covariance_type)
    assert_sound(result)
    (event,) = result.events_
    assert (event.component, event.cause, event.action) == (2, Cause.STARVED, Action.EMPTIED)
    assert (event.pass_number, event.until) == (1, result.n_passes)
    assert result.parameters.weights[2] == 0.0
    assert result.parameters.means[2].tolist() == [-1e6, -1e6]


@pytest.mark.parametrize("trouble", FAULTS)
@pytest.mark.parametrize("covariance_type", OWN)
def test_a_dropped_component_is_gone_and_the_others_have_its_weight(
    covariance_type: str, trouble: Cause
) -> None:
    if trouble is Cause.SINGULAR and covariance_type != "full":
        pytest.skip("single variances cannot be singular")
    result = run(trouble, "drop", covariance_type)
    assert_sound(result)
    assert [e.action for e in result.events_] == [Action.DROPPED]
    assert result.parameters.n_components == 2
    assert result.parameters.weights.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("covariance_type", [*OWN, "tied"])
def test_a_starved_component_is_reseeded_where_the_mixture_is_worst(covariance_type: str) -> None:
    rng = np.random.default_rng(3)
    X = np.concatenate([rng.normal(size=(300, 2)), rng.normal([30, 0], size=(100, 2))])
    start = Parameters.from_precisions(
        [0.5, 0.5],
        [[0.0, 0.0], [-1e6, 0.0]],
        UNIT[covariance_type],
        covariance_type,
    )  # fmt: skip
    maximise = Maximisation(0, "reseed", ColumnSpread.of(X), sample=X)
    result = fit(partial(e_step, X), start, maximise, tol=1e-8, max_iter=200)
    assert_sound(result)
    (event,) = result.events_
    assert (event.pass_number, event.component, event.action) == (1, 1, Action.RESEEDED)
    np.testing.assert_allclose(np.sort(result.parameters.weights), [0.25, 0.75], atol=1e-6)
    np.testing.assert_allclose(np.sort(result.parameters.means[:, 0]), [0, 30], atol=0.3)


@pytest.mark.parametrize("covariance_type", OWN)
def test_a_component_is_reseeded_at_the_complete_row_of_least_density(covariance_type: str) -> None:
    rng = np.random.default_rng(4)
    X = rng.normal(size=(50, 2))
    X[7], X[8] = (9.0, -9.0), (np.nan, 1e3)
    start = Parameters.from_precisions(
        [0.5, 0.5], [[0.0, 0.0], [-1e6, 0.0]], UNIT[covariance_type], covariance_type
    )
    maximise = Maximisation(1e-6, "reseed", ColumnSpread.of(X), sample=X)
    seen = e_step(X[~np.isnan(X).any(axis=1)], start)
    found, (event,) = maximise(start, seen, 1)
    assert event.action is Action.RESEEDED
    np.testing.assert_array_equal(found.means[1], [9.0, -9.0])
    without = replace(maximise, sample=None)(start, seen, 1)
    assert [each.action for each in without.events] == [Action.EMPTIED]


def test_a_component_is_not_reseeded_for_ever() -> None:
    # Every row twice: each worst row is a point of its own again and again.
    X = np.repeat(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [50.0, 50.0]]), 2, axis=0)
    start = Parameters.from_covariances(
        [0.5, 0.5], [[0.3, 0.3], [50.0, 50.0]], [1.0, 1e-3], "spherical"
    )
    maximise = Maximisation(0, "reseed", ColumnSpread.of(X), sample=X)
    result = fit(partial(e_step, X), start, maximise, tol=1e-9, max_iter=300)
    assert_sound(result)
    reseeded = [e for e in result.events_ if e.action is Action.RESEEDED]
    for j in (0, 1):
        assert sum(e.component == j for e in reseeded) <= MAX_RESEEDS


@pytest.mark.parametrize(
    ("trouble", "error", "words"),
    [
        (Cause.STARVED, StarvedComponentError, "Component 2 held no rows after pass 1"),
        (Cause.COLLAPSED, SingularCovarianceError, "no spread left in columns 'height', 'width'"),
        (
            Cause.SINGULAR,
            SingularCovarianceError,
            "each other: columns 'height', 'width'",
        ),
    ],
)
def test_raise_stops_with_component_pass_columns_and_remedy(
    trouble: Cause, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        run(trouble, "raise", "full")
    assert "component_policy" in str(caught.value)
    assert caught.value.component == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("policy", sorted({*POLICIES} - {"raise"}))
def test_a_tied_covariance_can_only_be_floored(policy: str) -> None:
    X = np.stack([np.linspace(0, 1, 50)] * 2, axis=1)
    start = Parameters.from_covariances([1.0], [[0.5, 0.5]], np.eye(2), "tied")
    maximise = Maximisation(0, policy, ColumnSpread.of(X), columns=NAMES, sample=X)
    result = fit(partial(e_step, X), start, maximise, tol=1e-9, max_iter=50)
    assert_sound(result)
    (event,) = result.events_
    assert (event.component, event.action) == (None, Action.FLOORED)
    assert event.message.startswith("The tied covariance became singular")


@pytest.mark.parametrize("policy", ["floor", "raise", "reseed"])
@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e-150])
def test_a_column_too_narrow_to_square_is_named_for_what_it_is(scale: float, policy: str) -> None:
    X = np.random.default_rng(1).normal(size=(60, 3)) * [1.0, scale, 1.0]
    X[:, 2] = 4.0
    maximise = Maximisation(0.0, policy, ColumnSpread.of(X), columns=("a", "b", "c"))
    parameters = Parameters.from_covariances([1.0], [X.mean(axis=0)], [[1.0, 1.0, 1.0]], "diag")
    with pytest.raises(SingularCovarianceError) as caught:
        maximise(parameters, e_step(X, parameters), 1)
    assert "Column 'c': all rows have the same value. Leave it out" in str(caught.value)
    assert "Column 'b': the values differ by less than float64 can square" in str(caught.value)
    assert "Rescale it" in str(caught.value)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
def test_a_constant_column_without_regularisation_is_named(
    covariance_type: str, policy: str
) -> None:
    X = np.random.default_rng(1).normal(size=(60, 2))
    X[:, 1] = 7.25
    maximise = Maximisation(0, policy, ColumnSpread.of(X), columns=NAMES)
    with pytest.raises(SingularCovarianceError, match=r"'width'.*reg_covar"):
        fit(
            partial(e_step, X),
            Parameters.from_covariances(
                [1.0], [[0.0, 7.0]],
                {"full": [np.eye(2)], "tied": np.eye(2), "diag": [[1.0, 1.0]]}[covariance_type],
                covariance_type,
            ),
            maximise, tol=1e-9, max_iter=50,
        )  # fmt: skip


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_regularised_points_are_no_trouble(covariance_type: str) -> None:
    X = np.repeat(np.array([[0.0, 0.0], [9.0, 9.0]]), 5, axis=0)
    maximise = Maximisation(1e-6, "raise", ColumnSpread.of(X))
    start = initialize(X, 2, covariance_type, maximise, seed=np.random.SeedSequence(0))
    assert start.events == ()
    result = fit(partial(e_step, X), start.parameters, maximise, tol=1e-6, max_iter=20)
    assert result.events_ == ()
    variances = result.parameters.family.variances
    np.testing.assert_allclose(variances, 1e-6, rtol=1e-9)


@pytest.mark.parametrize("covariance_type", OWN)
def test_a_floor_does_not_flicker_where_values_are_missing(covariance_type: str) -> None:
    X = rows(Cause.COLLAPSED)
    X[np.random.default_rng(4).uniform(size=X.shape) < 0.2] = np.nan
    X[-1], X[-2] = -20.0, np.nan
    start = Parameters.from_covariances(
        [0.4, 0.4, 0.2], [[0.5, 0.0], [8.0, 7.5], [-20.0, -20.0]],
        {"full": [np.eye(2)] * 3, "diag": np.ones((3, 2)), "spherical": [1] * 3}[covariance_type],
        covariance_type,
    )  # fmt: skip
    maximise = Maximisation(0, "floor", ColumnSpread.of(X), columns=NAMES)
    result = fit(partial(missing.e_step, X), start, maximise, tol=1e-6, max_iter=300)
    assert_sound(result)
    assert len(result.events_) <= 1


def test_a_start_without_rows_for_a_component_is_an_event_of_pass_zero() -> None:
    X = np.zeros((10, 2))
    maximise = Maximisation(1e-3, "floor", ColumnSpread.of(X))
    start = initialize(X, 2, "full", maximise, seed=np.random.SeedSequence(0))
    assert [(e.pass_number, e.component, e.action) for e in start.events] == [
        (0, 1, Action.EMPTIED)
    ]
    dropped = initialize(
        X, 2, "full", Maximisation(1e-3, "drop", ColumnSpread.of(X)), seed=np.random.SeedSequence(0)
    )
    assert dropped.parameters.n_components == 1


def test_two_components_are_not_reseeded_by_equal_rows() -> None:
    rng = np.random.default_rng(1)
    X = np.concatenate([rng.normal(size=(100, 2)), np.full((10, 2), 40.0)])
    start = Parameters.from_precisions(
        [0.4, 0.3, 0.3], [[0, 0], [1e6, 1e6], [-1e6, 1e6]], [np.eye(2)] * 3, "full"
    )
    maximise = Maximisation(1e-6, "reseed", ColumnSpread.of(X), sample=X)
    result = fit(partial(e_step, X), start, maximise, tol=1e-8, max_iter=300)
    assert_sound(result)
    means = result.parameters.means[result.parameters.weights > 0]
    assert len(np.unique(means.round(6), axis=0)) == len(means)


PRIOR = PriorSettings(2.0, 0.5, None, 0.1)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_a_prior_carries_a_start_without_rows_or_without_spread(
    covariance_type: str, policy: str
) -> None:
    rng = np.random.default_rng(5)
    for X in (rng.normal(size=(8, 20)), np.repeat(rng.normal(size=(2, 3)), 10, axis=0)):
        spread = ColumnSpread.of(X)
        prior = PRIOR.resolve(spread.mean, spread.variances)
        maximise = Maximisation(0, policy, spread, prior, sample=X)
        start = initialize(X, 3, covariance_type, maximise, seed=np.random.SeedSequence(0))
        assert start.events == ()
        assert start.parameters.weights.min() > 0
        result = fit(partial(e_step, X), start.parameters, maximise, tol=1e-6, max_iter=300)
        assert result.events_ == ()
        assert np.diff(result.lower_bounds).min() > -1e-9 * np.abs(result.lower_bounds).max()
        assert_sound(result)


def test_a_given_start_of_weight_zero_is_one_that_the_prior_allows() -> None:
    X = np.random.default_rng(2).normal(size=(40, 1))
    spread = ColumnSpread.of(X)
    prior = PriorSettings(weight_concentration=2.0).resolve(spread.mean, spread.variances)
    given = Given(np.array([1.0, 0.0]), np.array([[0.0], [1.0]]), np.ones((2, 1, 1)))
    maximise = Maximisation(0, "floor", spread, prior)
    start = initialize(X, 2, "full", maximise, seed=np.random.SeedSequence(0), given=given)
    np.testing.assert_allclose(start.parameters.weights, [41 / 42, 1 / 42])


@pytest.mark.parametrize("covariance_type", OWN)
def test_a_prior_of_means_alone_leaves_an_empty_component_its_spread(covariance_type: str) -> None:
    X = np.repeat([[0.0, 0.0], [1.0, 1.0]], 2, axis=0) + np.array([[0, 0], [1, 2], [3, 0], [2, 1]])
    spread = ColumnSpread.of(X)
    prior = PriorSettings(mean_precision=0.5).resolve(spread.mean, spread.variances)
    start = Parameters.from_precisions(
        [0.5, 0.5, 0.0], [[0, 0], [3, 2], [1e6, 1e6]],
        {"full": [np.eye(2)] * 3, "diag": np.ones((3, 2)), "spherical": [1] * 3}[covariance_type],
        covariance_type,
    )  # fmt: skip
    maximise = Maximisation(0, "floor", spread, prior)
    found = maximise(start, e_step(X, start), 1)
    np.testing.assert_allclose(found.parameters.dense_covariances()[2], np.eye(2))
    np.testing.assert_allclose(found.parameters.means[2], spread.mean)


def test_variances_beyond_float64_are_named() -> None:
    X = np.random.default_rng(2).normal(size=(30, 2))
    X[0, 1] = 1e200
    start = Parameters.from_covariances([1.0], [[0.0, 0.0]], [[1.0, 1e300]], "diag")
    with pytest.raises(NotFiniteError, match="Column 'width'"):
        fit(
            partial(e_step, X), start, Maximisation(0, columns=NAMES, spread=ColumnSpread.of(X)),
            tol=0, max_iter=3,
        )  # fmt: skip


def test_an_event_says_pass_component_cause_action_and_columns() -> None:
    event = Event(3, 1, Cause.COLLAPSED, Action.FLOORED, ("a",), 9)
    assert event.to_dict() == {
        "pass": 3, "component": 1, "cause": "collapsed", "action": "floored", "columns": ["a"],
        "until": 9, "start": 1, "kind": "collapsed",
        "message": "Component 1 had no spread left in column 'a' after pass 3, and on to pass 9; "
        "it was floored.",
    }  # fmt: skip
