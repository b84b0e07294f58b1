"""EM loses no digit that float64 rows and a float64 state carry; what no EM can fit has a name.

The reference is textbook EM in 60 digits over the same float64 numbers. Worst errors seen over
20 seeds stand beside the situations, as weights / means / covariances in units of the law.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from gmm_dask import GaussianMixture
from gmm_dask.sampling import ColumnSpread
from tests.parity.high_precision import Exact, posteriors
from tests.parity.small_fits import (
    CORRELATED,
    EPS,
    FAR,
    N_PASSES,
    WITHIN,
    Rows,
    assert_agree,
    assert_is_a_mixture,
    begun,
    clusters,
    collinear,
    fitted,
    mixture,
    moved,
    narrow_or_not,
    of_every_family,
    one_component,
    parameters_of,
    reference,
    typed,
)
from tests.strategies import random_mixture, seeds

# Beside each: the worst errors of 20 seeds, of all families, with and without weights.
SITUATIONS: dict[str, Callable[[np.random.Generator], Rows]] = {
    "as drawn": clusters,
    "apart": partial(clusters, apart=20),
    "1e8 apart": partial(clusters, apart=1e8),
    "offset 1e6": lambda rng: moved(clusters(rng), offset=[1e6, -1e6, 1e6]),
    "offset 1e9, apart": lambda rng: moved(clusters(rng, 20), offset=[1e9, -1e9, 0]),
    "scales 1e-100, 1, 1e100": lambda rng: moved(clusters(rng), scale=[1e-100, 1, 1e100]),
    "scale 1e-100": lambda rng: moved(clusters(rng), scale=1e-100),
    "scale 1e100": lambda rng: moved(clusters(rng), scale=1e100),
    "collinear to 1e-5, apart": partial(collinear, noise=1e-5, apart=20),
    "collinear to 1e-6, apart": partial(collinear, noise=1e-6, apart=20),
    "float32 around 1000": lambda rng: typed(moved(clusters(rng), offset=1000), np.float32),
    "integers": lambda rng: typed(moved(clusters(rng), scale=10), np.int64),
}


@pytest.mark.parametrize("weighted", [False, True])
@of_every_family
@pytest.mark.parametrize("situation", list(SITUATIONS))
def test_em_is_exact(situation: str, family: str, weighted: bool, rng: np.random.Generator) -> None:
    X, component = SITUATIONS[situation](rng)
    sample_weight = rng.integers(0, 4, len(X)) * rng.uniform(size=len(X)) if weighted else None
    start = begun((X, component), family)
    found = fitted(X, start, sample_weight=sample_weight).parameters
    assert_agree(found, reference(X, start, N_PASSES, sample_weight))


@of_every_family
def test_an_offset_of_1e9_costs_what_rounding_the_means_costs(
    family: str, rng: np.random.Generator
) -> None:
    rows = moved(clusters(rng), offset=[1e9, -1e9, 1e9])
    start = begun(rows, family)
    found = fitted(rows[0], start).parameters
    assert_agree(found, reference(rows[0], start), WITHIN + np.spacing(1e9))
    assert_agree(found, reference(rows[0], start, rounding=True))  # 2e-15


@pytest.mark.parametrize("noise", [1e-3, 1e-5, 1e-6])
@of_every_family
def test_near_collinear_columns_cost_what_rounding_the_covariance_costs(
    family: str, noise: float, rng: np.random.Generator
) -> None:
    # The variance that the first column leaves of the second is noise^2 of it, so a covariance in
    # float64 knows it to EPS / noise^2, however it was found.
    rows = collinear(rng, noise)
    start = begun(rows, family)
    lost = 10 * EPS / noise**2 if family in CORRELATED else 0.0  # seen: a quarter of it
    found = fitted(rows[0], start).parameters
    assert_agree(found, reference(rows[0], start), max(WITHIN, lost))


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("away", [1e4, 1e8])
@of_every_family
def test_a_start_far_from_the_data_is_forgotten(
    family: str, away: float, k: int, rng: np.random.Generator
) -> None:
    X, _ = clusters(rng, apart=20)
    direction = np.array([1.0, 0.5, 0.5])
    means = X.mean(axis=0) + away * np.stack([-direction, direction])[:k]
    start = mixture(np.full(k, 1 / k), means, np.stack([np.eye(3)] * k), family)
    assert_is_a_mixture(fitted(X, start, 1).parameters)
    assert_agree(fitted(X, start, 6).parameters, reference(X, start, 6))  # 5e-16


@of_every_family
def test_one_outlier_widens_a_component(family: str, rng: np.random.Generator) -> None:
    X, component = clusters(rng)
    X[0, 0] = 1e6
    start = begun((X, component), family, k=1)
    assert_agree(fitted(X, start).parameters, reference(X, start))  # 5e-16
    start = begun((X, component), family)
    assert_agree(fitted(X, start, 1).parameters, reference(X, start, 1))  # 1e-14


@of_every_family
def test_one_outlier_with_a_component_of_its_own_leaves_the_other_alone(
    family: str, rng: np.random.Generator
) -> None:
    X, _ = clusters(rng, apart=2)
    X[0] = 1e6
    means = np.stack([X[1:].mean(axis=0), X[0]])
    start = mixture([0.9, 0.1], means, np.stack([np.cov(X[1:].T)] * 2), family)
    found = fitted(X, start, spread=ColumnSpread.of(X))
    assert found.parameters.weights == pytest.approx([39 / 40, 1 / 40], abs=1e-15)
    np.testing.assert_array_equal(found.parameters.means[1], X[0])
    alone = mixture([1.0], means[:1], np.cov(X[1:].T)[None], family)
    exact = reference(X[1:], alone)
    assert_agree(one_component(found.parameters, 0, family), exact)
    what = [(e.component, e.cause, e.action, e.columns) for e in found.events_]
    columns = (0, 1, 2)
    assert what == [] if family == "tied" else [(1, "collapsed", "floored", columns)]


@pytest.mark.parametrize("weighted", [False, True])
@of_every_family
@settings(max_examples=8)
@given(k=st.integers(1, 4), d=st.integers(1, 4), seed=seeds)
def test_em_is_exact_on_any_mixture(family: str, weighted: bool, k: int, d: int, seed: int) -> None:
    rng, drawn = np.random.default_rng(seed), random_mixture(family, k, d, seed)
    X = rng.normal(scale=2.0, size=(20, d))
    sample_weight = rng.exponential(size=20) if weighted else None
    wide = 4 * (drawn.dense_covariances() + np.eye(d))  # each holds a share of many rows
    start = mixture(drawn.weights, drawn.means / 2, wide, family)
    found = fitted(X, start, 3, sample_weight).parameters
    assert_agree(found, reference(X, start, 3, sample_weight))  # 6e-14


def predicting(means: object, family: str) -> GaussianMixture:
    """A model of components with these means, the second twice as wide where they may differ."""
    X, _ = clusters(np.random.default_rng(0), apart=20, d=2)
    model = GaussianMixture(2, covariance_type=family, random_state=0).fit(X)
    full = np.stack([np.eye(2), 4 * np.eye(2)])
    found = mixture([0.5, 0.5], means, full, family)
    for name in ("weights", "means", "covariances", "precisions_cholesky"):
        setattr(model, f"{name}_", getattr(found, name).copy())
    return model


def exact_posteriors(X: np.ndarray, model: GaussianMixture) -> np.ndarray:
    found = parameters_of(model)
    return posteriors(X, Exact.of(found.weights, found.means, found.dense_covariances()))


@pytest.mark.parametrize("far", FAR)
@of_every_family
def test_a_row_far_away_has_a_component(family: str, far: float) -> None:
    model = predicting([[0.0, 0.0], [3.0, 1.0]], family)
    X = far * np.array([[1, 0], [-1, 0], [0, 1], [1, 1], [-1, 1], [1, -0.5], [0.1, 1e-9]])
    resp = model.predict_proba(X)
    np.testing.assert_allclose(resp.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(model.predict(X), resp.argmax(axis=1))
    assert not np.isnan(model.score_samples(X)).any()
    np.testing.assert_allclose(resp, exact_posteriors(X, model), rtol=0, atol=1e-12)


@pytest.mark.parametrize("apart", [1e154, 1e200, 1e308])
@of_every_family
def test_a_row_between_components_far_apart_has_a_component(family: str, apart: float) -> None:
    model = predicting([[-apart, 0.0], [apart, 0.0]], family)
    steps = np.array([0.0, 1e-8, -1e-8, 0.3, -0.3, 1.0, -1.0, 1.7, -1.7])
    X = apart * np.stack([steps, steps / 2], axis=1)
    np.testing.assert_allclose(
        model.predict_proba(X), exact_posteriors(X, model), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("direction", [np.ones, partial(np.eye, 1)], ids=["all", "one column"])
@pytest.mark.parametrize("d", [10, 25, 50, 100, 200])
@of_every_family
def test_clusters_six_apart_stay_so_in_any_dimension(
    family: str, d: int, direction: Callable[[int], Rows], rng: np.random.Generator
) -> None:
    component = np.arange(1600) % 2
    along = direction(d).ravel()
    apart = 6 * component[:, None] * along / np.linalg.norm(along)
    X = rng.normal(size=(1600, d)) + apart
    model = GaussianMixture(2, covariance_type=family, random_state=0).fit(X)
    of_truth = model.predict_proba(X)[np.arange(1600), component].mean()
    assert max(of_truth, 1 - of_truth) > 0.99  # 0.996 to 1; the mixture itself has 0.997
    assert model.events_ == ()


@narrow_or_not
@pytest.mark.parametrize("form", [np.asarray, partial(da.from_array, chunks=(7, -1))])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int8, np.uint8])
@of_every_family
def test_integers_are_the_numbers_that_they_are(
    family: str, dtype: type, form: Callable[[np.ndarray], object], rng: np.random.Generator
) -> None:
    X = np.rint(20 * np.abs(clusters(rng)[0])).astype(dtype)
    whole, real = form(X), form(X.astype(np.float64))
    model = GaussianMixture(2, covariance_type=family, random_state=0).fit(real)
    np.testing.assert_array_equal(
        GaussianMixture(2, covariance_type=family, random_state=0).fit(whole).means_, model.means_
    )
    assert model.score(whole) == model.score(real)
    assert model.bic(whole) == model.bic(real)
    np.testing.assert_array_equal(model.predict_proba(whole), model.predict_proba(real))


@of_every_family
def test_em_of_integers_is_exact_through_the_estimator(
    family: str, rng: np.random.Generator
) -> None:
    X, component = SITUATIONS["integers"](rng)
    start = begun((X, component), family)
    given_start = {
        "weights_init": start.weights,
        "means_init": start.means,
        "precisions_init": start.precisions,
    }
    model = GaussianMixture(2, covariance_type=family, reg_covar=0, tol=0, max_iter=N_PASSES)
    with pytest.warns(ConvergenceWarning):
        model.set_params(**given_start).fit(X)
    assert_agree(parameters_of(model), reference(X, start))
