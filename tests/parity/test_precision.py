"""EM loses no digit that float64 rows and a float64 state carry; what no EM can fit has a name.

The reference is textbook EM in 60 digits over the same float64 numbers. Worst errors seen over
20 seeds stand beside the situations, as weights / means / covariances in units of the law.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf
from sklearn.exceptions import ConvergenceWarning

from gmm_dask import GaussianMixture
from gmm_dask.errors import GmmDaskError
from gmm_dask.fitting import Event, FitResult, Maximisation, fit
from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters, e_step
from gmm_dask.sampling import ColumnSpread
from tests.parity.high_precision import DIGITS, Exact, em, posteriors
from tests.strategies import random_mixture, seeds

EPS = np.finfo(np.float64).eps
WITHIN = 1e-8
N_PASSES = 4
FAMILIES = list(COVARIANCE_FAMILIES)
CORRELATED = ("full", "tied")
narrow_or_not = pytest.mark.filterwarnings("ignore::gmm_dask.errors.FeatureWarning")
of_every_family = pytest.mark.parametrize("family", FAMILIES)

Rows = tuple[np.ndarray, np.ndarray]  # X (n, d), and the cluster of each row (n,)


def clusters(rng: np.random.Generator, apart: float = 3.0, d: int = 3, n: int = 40) -> Rows:
    """Two correlated clusters whose means differ by `apart` standard deviations in each column."""
    component = np.arange(n) % 2
    X = rng.normal(size=(n, d)) @ (np.eye(d) + 0.4 * np.triu(np.ones((d, d)), 1))
    return X + apart * component[:, None], component


def collinear(rng: np.random.Generator, noise: float, apart: float = 3.0) -> Rows:
    """The second column is the first and a little noise, in which the clusters differ as well."""
    X, component = clusters(rng, apart)
    X[:, 1] = X[:, 0] + noise * (rng.normal(size=len(X)) + component)
    return X, component


def moved(rows: Rows, scale: object = 1.0, offset: object = 0.0) -> Rows:
    return rows[0] * np.asarray(scale) + np.asarray(offset), rows[1]


def typed(rows: Rows, dtype: type) -> Rows:
    return rows[0].astype(dtype), rows[1]


def begun(rows: Rows, family: str, k: int = 2) -> Parameters:
    """A start inside the clusters: half a standard deviation off, and too wide."""
    X, component = np.asarray(rows[0], dtype=np.float64), rows[1] % k
    groups = [X[component == j] for j in range(k)]
    full = 1.5 * np.stack([np.cov(group.T, bias=True) for group in groups])
    sd = np.sqrt(np.einsum("kdd->kd", full))
    means = np.stack([group.mean(axis=0) for group in groups]) + 0.4 * sd
    return mixture(np.full(k, 1 / k), means, full, family)


def mixture(weights: object, means: object, full: np.ndarray, family: str) -> Parameters:
    covariances = {
        "full": full,
        "tied": full.mean(axis=0),
        "diag": np.einsum("kdd->kd", full),
        "spherical": np.einsum("kdd->k", full) / full.shape[-1],
    }[family]
    return Parameters.from_covariances(weights, means, covariances, family)


def fitted(
    X: np.ndarray,
    start: Parameters,
    n_passes: int = N_PASSES,
    sample_weight: np.ndarray | None = None,
    spread: ColumnSpread | None = None,
) -> FitResult:
    expectation = partial(e_step, X, sample_weight=sample_weight)
    maximise = Maximisation(reg_covar=0, spread=spread)
    return fit(expectation, start, maximise, tol=0, max_iter=n_passes)


def reference(
    X: np.ndarray, start: Parameters, n_passes: int = N_PASSES, *args: object, **how: bool
) -> Exact:
    exact = Exact.of(start.weights, start.means, start.dense_covariances())
    return em(X, exact, start.covariance_type, n_passes, *args, **how)


def errors(found: Parameters, exact: Exact) -> tuple[float, float, float]:
    """Of weights; of means beyond 2 ulp, in standard deviations; of covariances, in both's."""
    with mp.workdps(DIGITS):
        weights = [abs(mpf(w) - e) for w, e in zip(found.weights, exact.weights, strict=True)]
        means, covariances = [], []
        parts = (found.means, found.dense_covariances(), exact.means, exact.covariances)
        for m, S, exact_m, exact_S in zip(*parts, strict=True):
            axes = range(len(m))
            sd = [mp.sqrt(exact_S[a][a]) for a in axes]
            ulp = np.spacing(np.abs(m))
            means += [(abs(mpf(m[a]) - exact_m[a]) - 2 * mpf(ulp[a])) / sd[a] for a in axes]
            covariances += [
                abs(mpf(S[a, b]) - exact_S[a][b]) / sd[a] / sd[b] for a in axes for b in axes
            ]
        return tuple(float(max(values)) for values in (weights, means, covariances))


def assert_agree(found: Parameters, exact: Exact, within: float = WITHIN) -> None:
    assert max(errors(found, exact)) <= within, errors(found, exact)


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


def one_component(found: Parameters, j: int, family: str, reg_covar: float = 0.0) -> Parameters:
    """Component j as if there were no other, which holds one row and adds nothing if tied."""
    covariance = found.dense_covariances()[j] - reg_covar * np.eye(found.n_features)
    share = found.weights[j] if family == "tied" else 1.0
    return Parameters.from_covariances([1.0], found.means[[j]], covariance[None] / share, "full")


def correlation(covariance: np.ndarray) -> np.ndarray:
    sd = np.sqrt(np.diagonal(covariance))
    return covariance / sd / sd[:, None]


def assert_is_a_mixture(found: Parameters) -> None:
    """Weights sum to one; all is finite; every covariance is positive definite."""
    assert found.weights.min() >= 0
    assert found.weights.sum() == pytest.approx(1, abs=1e-12)
    for array in (found.means, found.covariances, found.precisions_cholesky, found.precisions):
        assert np.isfinite(array).all()
    for covariance in found.dense_covariances():
        assert np.diagonal(covariance).min() > 0
        assert np.linalg.eigvalsh(correlation(covariance)).min() > 0


COLUMNS = ["height", "width", "depth", "mass"]
# Rows (n, 4) from rows in two clusters, number of components, columns at fault, families in which
# no maximum of the likelihood exists.
DEGENERATE: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int, set[str], set[str]]] = {
    "duplicate columns": (
        lambda X: X[:, [0, 1, 2, 0]], 2, {"height", "mass"}, {"full", "tied"},
    ),
    "a constant column": (
        lambda X: np.where(np.arange(4) == 1, 0.1, X), 2, {"width"}, {"full", "tied", "diag"},
    ),
    "all rows equal": (lambda X: np.full_like(X, 0.1), 2, set(COLUMNS), set(FAMILIES)),
    "one row more than components": (lambda X: X[:5], 4, set(COLUMNS), set(FAMILIES)),
    "a component for each row": (lambda X: X[:4], 4, set(COLUMNS), set(FAMILIES)),
}  # fmt: skip


@narrow_or_not
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e8])
@pytest.mark.parametrize("reg_covar", [1e-6, 0.0])
@pytest.mark.parametrize("what", list(DEGENERATE))
@of_every_family
def test_what_has_no_maximum_ends_in_a_mixture_and_events_or_in_an_error_with_names(
    family: str, what: str, reg_covar: float, scale: float, rng: np.random.Generator
) -> None:
    make, k, guilty, without_maximum = DEGENERATE[what]
    X = pd.DataFrame(scale * make(clusters(rng, d=4)[0]), columns=COLUMNS)
    # EM's own guards are asked for here: a search tells of spurious components beside.
    rule = {"reg_covar": reg_covar, "random_state": 0, "init_params": "kmeans"}
    model = GaussianMixture(k, covariance_type=family, **rule)
    try:
        model.fit(X)
    except GmmDaskError as error:
        assert reg_covar == 0
        assert family in without_maximum
        assert_names(error, guilty)
        return
    assert_is_a_model(model, X)
    if reg_covar == 0:
        assert bool(model.events_) == (family in without_maximum)
    for event in model.events_:
        assert event.cause != "narrow" or reg_covar > 0
    for event in in_trouble(model):
        assert 0 <= event.pass_number <= event.until <= model.n_iter_
        shared = family == "tied" and event.cause != "starved"
        assert event.component is None if shared else event.component in range(k)
        assert event.action in ("floored", "kept as it was")
        assert set(event.columns) <= guilty
        assert event.columns or event.cause == "starved"


def in_trouble(model: GaussianMixture) -> list[Event]:
    """The events of components that were no densities; `reg_covar` may have made others."""
    return [event for event in model.events_ if event.cause != "narrow"]


def assert_names(error: GmmDaskError, columns: set[str]) -> None:
    """The message names these columns, no others, and what to do."""
    assert set(re.findall(r"'(\w+)'", str(error))) == columns
    assert re.search("reg_covar|[Ll]eave|rescale", str(error))


def parameters_of(model: GaussianMixture) -> Parameters:
    arrays = (model.weights_, model.means_, model.covariances_, model.precisions_cholesky_)
    return Parameters.from_arrays(*arrays, model.covariance_type)


def assert_is_a_model(model: GaussianMixture, X: object) -> None:
    assert_is_a_mixture(parameters_of(model))
    assert np.isfinite(model.lower_bounds_).all()
    resp = model.predict_proba(X)
    assert np.isfinite(resp).all()
    np.testing.assert_allclose(resp.sum(axis=1), 1, rtol=1e-12)
    assert not np.isnan(model.score_samples(X)).any()


FAR = [1e10, 1e100, 1e154, 1e200, 1e300, 1.7e308]


@narrow_or_not
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("reg_covar", [1e-6, 0.0])
@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("place", ["one row", "one value", "two rows opposite", "two halves"])
@of_every_family
def test_rows_far_away_end_in_a_mixture_or_in_an_error_with_names(
    family: str, place: str, far: float, reg_covar: float, rng: np.random.Generator
) -> None:
    X = clusters(rng)[0]
    where: dict[str, tuple[object, object]] = {
        "one row": (0, far),
        "one value": ((0, 0), far),
        "two rows opposite": (slice(2), [[far], [-far]]),
        "two halves": ((slice(None), 0), far * (-1.0) ** np.arange(len(X))),
    }
    X[where[place][0]] = where[place][1]
    frame = pd.DataFrame(X, columns=COLUMNS[:3])
    model = GaussianMixture(2, covariance_type=family, reg_covar=reg_covar, random_state=0)
    try:
        model.fit(frame)
    except GmmDaskError as error:
        assert far > 1e150
        shared = family == "spherical" or "row" in place
        assert_names(error, set(COLUMNS[:3]) if shared else {"height"})
        return
    assert_is_a_model(model, frame)


@pytest.mark.parametrize("value", [0.1, 1e10, 1e20, 1e200, 1.7e308])
@of_every_family
def test_a_constant_column_of_any_size_is_named_where_it_matters(
    family: str, value: float, rng: np.random.Generator
) -> None:
    frame = pd.DataFrame(clusters(rng)[0], columns=COLUMNS[:3])
    frame["height"] = value
    model = GaussianMixture(2, covariance_type=family, reg_covar=0, random_state=0)
    if family == "spherical":  # the other columns spread
        assert_is_a_model(model.fit(frame), frame)
        assert model.events_ == ()
    else:
        with pytest.raises(GmmDaskError) as caught:
            model.fit(frame)
        assert_names(caught.value, {"height"})


@narrow_or_not
@pytest.mark.parametrize("reg_covar", [1e-6, 0.0])
@pytest.mark.parametrize("far", [1e6, 1e10, 1e20, 1e100])
@of_every_family
def test_an_outlier_however_far_leaves_the_fit_of_the_other_rows_alone(
    family: str, far: float, reg_covar: float, rng: np.random.Generator
) -> None:
    X = clusters(rng, apart=0)[0]
    X[0] = far
    model = GaussianMixture(2, covariance_type=family, reg_covar=reg_covar, random_state=0).fit(X)
    assert_is_a_model(model, X)
    others = int(model.weights_.argmax())
    np.testing.assert_array_equal(model.means_[1 - others], X[0])
    alone = mixture([1.0], np.zeros((1, 3)), np.eye(3)[None], family)
    assert_agree(
        one_component(parameters_of(model), others, family, reg_covar), reference(X[1:], alone)
    )


@narrow_or_not
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("reg_covar", [1e-6, 0.0])
@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e-155, 1e-149, 1e-140, 1e152, 1e154, 1e200])
@pytest.mark.parametrize("make", [clusters, partial(collinear, noise=1e-6)], ids=["", "collinear"])
@of_every_family
def test_columns_whose_squares_leave_float64_end_in_a_mixture_or_in_an_error_with_names(
    family: str,
    make: Callable[[np.random.Generator], Rows],
    scale: float,
    reg_covar: float,
    rng: np.random.Generator,
) -> None:
    frame = pd.DataFrame(make(rng)[0] * [scale, scale, 1], columns=COLUMNS[:3])
    model = GaussianMixture(2, covariance_type=family, reg_covar=reg_covar, random_state=0)
    try:
        model.fit(frame)
    except GmmDaskError as error:
        assert scale < 1e-140 or scale > 1e152
        names = set(COLUMNS[:3]) if family == "spherical" else {"height", "width"}
        assert_names(error, names)
        return
    assert_is_a_model(model, frame)


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
