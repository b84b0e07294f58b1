"""Reasons are the drops of distance and of log-odds that they are said to be."""

from __future__ import annotations

import numpy as np
import pytest

from gmm_dask.mixture import Parameters, log_density
from gmm_dask.mixture.reasons import explain, two_best

FAMILIES = ["full", "tied", "diag", "spherical"]
D, K = 4, 3


def mixture(family: str, seed: int = 0, offset: float = 0.0) -> Parameters:
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(K, D, D)) + 0.3 * np.eye(D)
    full = roots @ roots.swapaxes(1, 2) * rng.uniform(0.5, 2, size=(K, 1, 1))
    covariances = {
        "full": full,
        "tied": full[0],
        "diag": np.einsum("kdd->kd", full),
        "spherical": full[:, 0, 0],
    }[family]
    means = offset + 3 * rng.normal(size=(K, D))
    return Parameters.from_covariances(np.array([0.5, 0.3, 0.2]), means, covariances, family)


def rows(n: int, seed: int, offset: float, missing: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    X = offset + 4 * rng.normal(size=(n, D))
    if missing:
        X[rng.uniform(size=X.shape) < 0.3] = np.nan
        X[0] = np.nan
    return X


def distance(x: np.ndarray, parameters: Parameters, j: int) -> float:
    there = ~np.isnan(x)
    covariance = parameters.dense_covariances()[j][np.ix_(there, there)]
    deviation = (x - parameters.means[j])[there]
    return float(deviation @ np.linalg.solve(covariance, deviation))


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_share_is_what_the_distance_loses_by_the_expected_value(
    family: str, missing: bool
) -> None:
    parameters, X = mixture(family), rows(40, 1, 0.0, missing)
    components = np.arange(40) % K
    found = explain(X, parameters, components, None, D)[0]
    for x, j, columns, scores, expected in zip(X, components, *found, strict=True):
        there = np.flatnonzero(~np.isnan(x))
        assert sorted(columns[columns >= 0]) == list(there)
        assert np.isnan(scores[columns < 0]).all()
        shares = scores[: len(there)] ** 2
        assert (np.diff(shares) <= 0).all()
        before = distance(x, parameters, j)
        for column, score, value in zip(columns[: len(there)], scores, expected, strict=False):
            other = x.copy()
            other[column] = value
            lost = before - distance(other, parameters, j)
            assert lost == pytest.approx(score**2, rel=1e-6, abs=1e-9)
            assert np.sign(score) == np.sign(x[column] - value)
            other[column] = value + 1e-3  # no value is nearer
            assert distance(other, parameters, j) > before - score**2


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_evidence_is_what_the_log_odds_lose_without_the_column(family: str, missing: bool) -> None:
    parameters, X = mixture(family), rows(30, 2, 0.0, missing)[1:]
    components, others = np.arange(29) % K, (np.arange(29) + 1) % K
    found = explain(X, parameters, components, others, D)[1]

    def odds(x: np.ndarray, a: int, b: int) -> float:
        there = np.flatnonzero(~np.isnan(x))
        if not len(there):
            return 0.0
        one, other = (
            Parameters(np.ones(1), part.means, part.family)
            for part in (parameters.take([j]).marginal(there) for j in (a, b))
        )
        return float((log_density(x[None, there], one) - log_density(x[None, there], other))[0])

    for x, a, b, columns, evidence in zip(X, components, others, *found, strict=True):
        for column, value in zip(columns[columns >= 0], evidence, strict=False):
            without = x.copy()
            without[column] = np.nan
            lost = odds(x, a, b) - odds(without, a, b)
            assert lost == pytest.approx(value, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(("scale", "offset"), [(2.0**-10, 2.0**27), (2.0**-300, 0.0)])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_offset_of_1e8_and_tiny_variances_change_no_reason(
    family: str, scale: float, offset: float
) -> None:
    X = np.round(rows(50, 3, 0.0, missing=False) * 64) / 64
    here = mixture(family)
    means = np.round(here.means * 64) / 64
    near = Parameters.from_covariances(here.weights, means, here.covariances, family)
    far = Parameters.from_covariances(
        here.weights, means * scale + offset, here.covariances * scale**2, family
    )
    components = np.arange(50) % K
    expected = explain(X, near, components, None, 2)[0]
    found = explain(X * scale + offset, far, components, None, 2)[0]
    np.testing.assert_array_equal(found.columns, expected.columns)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-9, atol=1e-12)


def test_blocks_of_rows_change_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters, X = mixture("full"), rows(200, 4, 0.0, missing=True)
    components = np.random.default_rng(0).integers(0, K, 200)
    whole = explain(X, parameters, components, None, 3)[0]
    monkeypatch.setattr("gmm_dask.mixture.reasons.BLOCK_BYTES", 8 * D * 7)
    np.testing.assert_allclose(
        explain(X, parameters, components, None, 3)[0].scores, whole.scores, rtol=1e-12
    )


def test_the_two_best_components_differ() -> None:
    resp = np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.1, 0.2, 0.7]])
    best, second = two_best(resp)
    assert list(best) == [0, 1, 2]
    assert list(second) == [1, 0, 1]


@pytest.mark.parametrize("missing", [False, True])
def test_reasons_of_many_rows_are_those_of_few(missing: bool) -> None:
    """Equal values among them, of which the first column counts."""
    X = np.round(rows(600, 3, 0.0, missing))
    parameters = Parameters.from_covariances([1.0], np.zeros((1, D)), np.ones((1, D)), "diag")
    components = np.zeros(600, int)
    many, _ = explain(X, parameters, components, None, 3)
    for first in range(0, 600, 20):
        at = slice(first, first + 20)
        few, _ = explain(X[at], parameters, components[at], None, 3)
        for one, other in zip(many, few, strict=True):
            np.testing.assert_array_equal(one[at], other)
