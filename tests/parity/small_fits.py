"""Small fits on rows of two clusters, and the same in high precision."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from mpmath import mp, mpf

from gmm_dask import GaussianMixture
from gmm_dask.fitting import FitResult, Maximisation, fit
from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters, e_step
from gmm_dask.sampling import ColumnSpread
from tests.parity.high_precision import DIGITS, Exact, em

EPS = np.finfo(np.float64).eps
WITHIN = 1e-8
N_PASSES = 4
FAMILIES = list(COVARIANCE_FAMILIES)
CORRELATED = ("full", "tied")
narrow_or_not = pytest.mark.filterwarnings("ignore::gmm_dask.errors.FeatureWarning")
of_every_family = pytest.mark.parametrize("family", FAMILIES)
FAR = [1e10, 1e100, 1e154, 1e200, 1e300, 1.7e308]

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
    """Largest errors of weights, of means (beyond 2 ulp) and of covariances.

    Errors of means are in standard deviations, those of covariances in both columns' product.
    """
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


def parameters_of(model: GaussianMixture) -> Parameters:
    arrays = (model.weights_, model.means_, model.covariances_, model.precisions_cholesky_)
    return Parameters.from_arrays(*arrays, model.covariance_type)
