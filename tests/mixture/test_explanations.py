"""Reasons by the compiled core against NumPy's: the same columns and numbers, whatever the rows."""

from __future__ import annotations

import numpy as np
import pytest

from gmm_dask.mixture import Parameters, reasons
from gmm_dask.mixture.core import explanations
from tests.strategies import random_mixture

KINDS = ["full", "tied", "diag", "spherical", "low rank"]


def mixture(kind: str, k: int, d: int) -> Parameters:
    if kind != "low rank":
        return random_mixture(kind, k, d, 0)
    rng, q = np.random.default_rng(0), min(d - 1, 5)
    packed = np.concatenate([rng.normal(size=(k, d, q)), rng.uniform(0.2, 1, (k, d, 1))], axis=2)
    means, weights = rng.normal(scale=2.0, size=(k, d)), np.full(k, 1 / k)
    return Parameters.from_covariances(weights, means, packed, f"low_rank:{q}")


def drawn(parameters: Parameters, n: int, missing: bool) -> tuple[np.ndarray, ...]:
    """Rows, a component of each and another one."""
    k, d = parameters.means.shape
    rng = np.random.default_rng(n)
    components = rng.integers(0, k, n)
    X = parameters.means[components] + 2.0 * rng.normal(size=(n, d))
    if missing and n:
        X[rng.uniform(size=X.shape) < 0.3] = np.nan
        X[0] = np.nan
    return X, components, (components + 1) % k


def by_column(columns: np.ndarray, values: np.ndarray, d: int) -> np.ndarray:
    """Values at their columns, (n, d): equal ones have no order that rounding keeps."""
    found = np.full((len(columns), d + 1), np.nan)
    np.put_along_axis(found, columns.astype(np.intp), values, axis=1)  # -1 is the last
    return found[:, :d]


def assert_same(
    X: np.ndarray, parameters: Parameters, components: np.ndarray, others: np.ndarray
) -> None:
    d = parameters.n_features
    asked = (X, parameters, components, others, d)
    found, expected = explanations.explain(*asked), reasons.explain(*asked)
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        assert other is not None
        np.testing.assert_array_equal(one.columns < 0, other.columns < 0)
        assert (np.sort(one.columns, axis=1) == np.sort(other.columns, axis=1)).all()
        for values, reference in zip(one[1:], other[1:], strict=True):
            scale = np.nanmax(np.abs(reference), axis=1, keepdims=True, initial=1.0)
            if reference is not expected[0].scores:  # differences of squares, or of values
                subtracted = np.abs(X) if other is expected[0] else expected[0].scores ** 2
                largest = np.nanmax(subtracted, axis=1, keepdims=True, initial=1.0)
                scale = np.maximum(scale, largest)
            np.testing.assert_allclose(
                by_column(one.columns, values, d) / scale,
                by_column(other.columns, reference, d) / scale,
                rtol=1e-9,
                atol=1e-9,
            )
    scores = np.abs(found[0].scores)
    assert not (np.diff(scores, axis=1) > 0).any()  # the largest first
    assert found[1] is not None
    assert not (np.diff(found[1].evidence, axis=1) > 0).any()


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), [(2, 3), (4, 8), (5, 9), (3, 33), (40, 4)])
@pytest.mark.parametrize("n", [0, 1, 33, 2500])
def test_the_reasons_are_those_of_numpy(kind: str, k: int, d: int, n: int, missing: bool) -> None:
    parameters = mixture(kind, k, d)
    n = min(n, 300) if missing else n
    X, components, others = drawn(parameters, n, missing)
    assert_same(X, parameters, components, others)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("scale", "offset", "away"),
    [(1.0, 0.0, 1e9), (2.0**-150, 0.0, 1.0), (2.0**-10, 2.0**27, 1.0), (2.0**200, 0.0, 1.0)],
)
def test_far_rows_tiny_variances_and_an_offset_change_nothing(
    kind: str, scale: float, offset: float, away: float, missing: bool
) -> None:
    here = mixture(kind, 3, 6)
    X, components, others = drawn(here, 200, missing)
    X, means = np.round(away * X * 64) / 64, np.round(here.means * 64) / 64
    powers = here.covariances * scale**2
    if kind == "low rank":
        powers = here.covariances * np.array([*[scale] * (powers.shape[2] - 1), scale**2])
    there = Parameters.from_covariances(
        here.weights, means * scale + offset, powers, here.covariance_type
    )
    assert_same(X * scale + offset, there, components, others)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_has_the_same_bits_whatever_is_beside_it(kind: str) -> None:
    parameters = mixture(kind, 3, 7)
    X, components, others = drawn(parameters, 400, missing=True)
    X[::2] = np.nan_to_num(X[::2])
    X = X.astype(np.float32)
    whole = explanations.explain(X, parameters, components, others, 3)
    for i in range(0, 400, 7):
        alone = explanations.explain(
            X[i : i + 1], parameters, components[i : i + 1], others[i : i + 1], 3
        )
        for one, all_rows in zip(alone, whole, strict=True):
            assert one is not None
            assert all_rows is not None
            for values, of_all in zip(one, all_rows, strict=True):
                assert values[0].tobytes() == of_all[i].tobytes()


def test_equal_values_have_the_order_of_the_columns() -> None:
    X = np.round(np.random.default_rng(0).normal(size=(500, 6)))
    X[3:9] = np.nan
    parameters = Parameters.from_covariances([1.0], np.zeros((1, 6)), np.ones((1, 6)), "diag")
    asked = (X, parameters, np.zeros(500, int), None, 4)
    for one, other in zip(explanations.explain(*asked)[0], reasons.explain(*asked)[0], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_component_that_is_none_of_the_mixture_is_refused() -> None:
    parameters = random_mixture("full", 3, 2, 0)
    with pytest.raises(ValueError, match="components are 0 to 2"):
        explanations.explain(np.zeros((2, 2)), parameters, np.array([0, 3]), None, 1)
    with pytest.raises(ValueError, match="2 columns are known"):
        explanations.explain(np.zeros((2, 3)), parameters, np.array([0, 1]), None, 1)


@pytest.mark.parametrize("k", [2, 3, 17])
def test_the_two_best_are_those_of_numpy(k: int) -> None:
    shares = np.round(np.random.default_rng(0).dirichlet(np.full(k, 0.2), 3000), 1)
    for one, other in zip(explanations.two_best(shares), reasons.two_best(shares), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("n_points", [2, 5, 127, 128, 129])
def test_values_on_a_curve_are_those_of_numpy(n_points: int) -> None:
    rng = np.random.default_rng(n_points)
    x, y = np.sort(np.round(rng.normal(size=n_points), 1)), rng.normal(size=n_points)
    values = np.concatenate([x, rng.normal(size=2000) * 2, [np.nan, np.inf, -np.inf]])
    np.testing.assert_allclose(
        explanations.interpolated(values, x, y), np.interp(values, x, y), rtol=1e-14
    )
