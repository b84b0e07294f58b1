"""Nanoseconds per row and EM pass, one thread, against scikit-learn on the same rows."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from gmm_dask.mixture import Parameters, e_step, m_step

GRID = ((2, 3), (8, 8), (16, 16), (32, 32), (64, 16))
ROUNDS = 5
PASSES = 3


def clusters(n: int, d: int, k: int, seed: int = 0) -> tuple[np.ndarray, Parameters]:
    """Rows of clusters with random covariances, about as far apart as they are wide."""
    rng = np.random.default_rng(seed)
    roots = np.linalg.qr(rng.normal(size=(k, d, d)))[0] * rng.uniform(0.5, 1.5, (k, 1, d))
    means = rng.normal(size=(k, d)) * 2.0
    component = rng.integers(0, k, n)
    X = means[component] + np.einsum("nij,nj->ni", roots[component], rng.normal(size=(n, d)))
    covariances = roots @ roots.swapaxes(1, 2)
    return X, Parameters.from_covariances(np.full(k, 1 / k), means, covariances, "full")


def measure() -> Iterator[dict[str, Any]]:
    """One record for each entry of the grid; rounds of both are interleaved."""
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for d, k in GRID:
            n = min(200_000, 40_000_000 // (d * k))
            X, start = clusters(n, d, k)
            times: dict[str, list[float]] = {"gmm_dask": [], "scikit-learn": []}
            for _ in range(ROUNDS):
                for name, run in (("gmm_dask", _ours), ("scikit-learn", _sklearn)):
                    times[name].append(_seconds(run, X, start) / (n * PASSES) * 1e9)
            yield {"d": d, "k": k, "rows": n} | {name: median(t) for name, t in times.items()}


def _ours(X: np.ndarray, start: Parameters) -> None:
    parameters = start
    for _ in range(PASSES):
        parameters = m_step(parameters, e_step(X, parameters), 1e-6)


def _sklearn(X: np.ndarray, start: Parameters) -> None:
    GaussianMixture(
        start.n_components,
        tol=0,
        max_iter=PASSES - 1,  # it ends with one more E-step for the labels
        weights_init=start.weights,
        means_init=start.means,
        precisions_init=start.precisions,
    ).fit(X)


def _seconds(run: Callable[[np.ndarray, Parameters], None], X: np.ndarray, p: Parameters) -> float:
    begun = time.perf_counter()
    run(X, p)
    return time.perf_counter() - begun
