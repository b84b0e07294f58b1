"""The first parameters, from a sample of rows that fits in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import DataError, SettingsError
from gmm_dask.fitting.given import Given
from gmm_dask.mixture import Parameters, parameters_from_responsibilities

Array = npt.NDArray[np.float64]
InitParams = Literal["kmeans", "k-means++", "random", "random_from_data"]


def initialize(
    sample: npt.NDArray[Any],
    n_components: int,
    covariance_type: str,
    *,
    init_params: str = "kmeans",
    reg_covar: float = 1e-6,
    seed: np.random.SeedSequence,
    sample_weight: npt.NDArray[Any] | None = None,
    given: Given | None = None,
) -> Parameters:
    """Parameters to start from; the same sample and seed give the same bits.

    Parameters
    ----------
    sample : (m, d)
        Rows drawn at random from all rows.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}
        kmeans, k-means++ and random_from_data place centres, assign each row to the nearest on
        standardised columns and take the parameters of those groups; random draws
        responsibilities.
    seed : numpy.random.SeedSequence
    sample_weight : (m,), optional
    given : Given, optional

    Raises
    ------
    DataError
        Fewer rows than components.
    """
    given = given or Given()
    if given.weights is not None and given.means is not None and given.precisions is not None:
        return Parameters.from_precisions(
            given.weights, given.means, given.precisions, covariance_type
        )
    try:
        method = INIT_METHODS[init_params]
    except KeyError:
        raise SettingsError(
            f"init_params is {init_params!r}; it must be one of {', '.join(INIT_METHODS)}"
        ) from None
    if sample.shape[0] < n_components:
        raise DataError(
            f"{sample.shape[0]} rows cannot start {n_components} components: "
            "give more rows or set n_components lower."
        )
    standard = _standardised(sample, sample_weight)
    resp = method(standard, n_components, np.random.default_rng(seed), sample_weight)
    found = parameters_from_responsibilities(
        sample, resp, covariance_type, reg_covar, sample_weight
    )
    return _with_given(found, given)


def _with_given(found: Parameters, given: Given) -> Parameters:
    weights = found.weights if given.weights is None else given.weights
    means = found.means if given.means is None else given.means
    if given.precisions is None:
        return Parameters(
            weights, means, found.covariances, found.precisions_cholesky, found.covariance_type
        )
    return Parameters.from_precisions(weights, means, given.precisions, found.covariance_type)


def _standardised(sample: npt.NDArray[Any], sample_weight: npt.NDArray[Any] | None) -> Array:
    # On raw columns the one of largest scale would decide the distances alone.
    centred = np.asarray(sample, dtype=np.float64)
    centred = centred - np.average(centred, axis=0, weights=sample_weight)
    largest = np.abs(centred).max(axis=0)
    centred /= np.where(largest > 0, largest, 1.0)  # no square overflows or vanishes
    spread = np.sqrt(np.average(centred**2, axis=0, weights=sample_weight))
    return np.asarray(centred / np.where(spread > 0, spread, 1.0))


def _kmeans(X: Array, k: int, rng: np.random.Generator, weight: Array | None) -> Array:
    from sklearn.cluster import KMeans

    labels = (
        KMeans(n_clusters=k, n_init=1, random_state=_legacy_seed(rng))
        .fit(X, sample_weight=weight)
        .labels_
    )
    return _one_hot(labels, k)


def _kmeans_plusplus(X: Array, k: int, rng: np.random.Generator, weight: Array | None) -> Array:
    from sklearn.cluster import kmeans_plusplus

    centres, _ = kmeans_plusplus(X, k, sample_weight=weight, random_state=_legacy_seed(rng))
    return _nearest(X, centres)


def _random_from_data(X: Array, k: int, rng: np.random.Generator, weight: Array | None) -> Array:
    share = None if weight is None else weight / weight.sum()
    return _nearest(X, X[rng.choice(X.shape[0], k, replace=False, p=share)])


def _random(X: Array, k: int, rng: np.random.Generator, weight: Array | None) -> Array:
    resp = rng.uniform(size=(X.shape[0], k))
    return np.asarray(resp / resp.sum(axis=1, keepdims=True))


INIT_METHODS: dict[str, Callable[[Array, int, np.random.Generator, Array | None], Array]] = {
    "kmeans": _kmeans,
    "k-means++": _kmeans_plusplus,
    "random": _random,
    "random_from_data": _random_from_data,
}


def _nearest(X: Array, centres: Array) -> Array:
    from sklearn.metrics import pairwise_distances_argmin

    return _one_hot(pairwise_distances_argmin(X, centres), centres.shape[0])


def _one_hot(labels: npt.NDArray[Any], k: int) -> Array:
    resp = np.zeros((labels.shape[0], k))
    resp[np.arange(labels.shape[0]), labels] = 1.0
    return resp


def _legacy_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31 - 1))
