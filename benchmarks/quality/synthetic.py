"""Data drawn from known mixtures, of the kinds that starts are known to miss."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.quality.plain_em import Mixtures, restricted

CONDITION = 1000.0  # of the affine map

_Make = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]


class Sample(NamedTuple):
    """Rows (n, d), the family to fit, and the mixture that their clusters have by moments."""

    X: np.ndarray
    family: str
    truth: Mixtures


def draws(kind: str, seed: int) -> Sample:
    """Rows of one kind; the same bits for the same seed."""
    family, make = KINDS[kind]
    X, labels = make(np.random.default_rng(np.random.SeedSequence([seed, *kind.encode()])))
    return Sample(X, family, _moments(X, labels, family))


def mapped(X: np.ndarray, seed: int) -> np.ndarray:
    """The rows after an affine map of condition 1,000."""
    rng, d = np.random.default_rng(seed), X.shape[1]
    left, right = (_rotation(d, rng) for _ in range(2))
    scales = np.logspace(-0.5, 0.5, d) ** np.log10(CONDITION)
    return (X - X.mean(axis=0)) @ (left * scales) @ right + 10 * rng.normal(size=d)


def _pancakes(weights: tuple[float, ...], d: int, n: int = 2000, apart: float = 6.0) -> _Make:
    """Clusters in parallel, thin along one direction, rotated, of unit covariance as a whole."""

    def make(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.choice(len(weights), n, p=weights)
        X = rng.normal(size=(n, d))
        X[:, 0] += apart * labels
        X[:, 0] /= X[:, 0].std()
        return X @ _rotation(d, rng), labels

    return make


def _clusters(
    weights: np.ndarray,
    d: int,
    n: int,
    spread: float,
    scales: tuple[float, ...] = (1.0,),
    shape: str = "full",
    noise: int = 0,
) -> _Make:
    """Clusters of centres N(0, spread^2), standard deviations in turn, and columns of noise."""

    def make(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        k = len(weights)
        labels = rng.choice(k, n, p=weights / weights.sum())
        centres, X = spread * rng.normal(size=(k, d)), rng.normal(size=(n, d))
        root = _root(d, shape, rng)
        for j in range(k):
            of = labels == j
            root = root if shape == "tied" else _root(d, shape, rng)
            X[of] = centres[j] + scales[j % len(scales)] * X[of] @ root
        return np.hstack([X, rng.normal(size=(n, noise))]), labels

    return make


def _nested(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A tight cluster inside a wide one, and another of each beside them."""
    labels = rng.choice(4, 2000, p=[0.4, 0.2, 0.3, 0.1])
    scale = np.array([3.0, 0.3, 2.0, 0.2])[labels, None]
    centres = np.array([[0.0] * 3, [0.5] * 3, [9.0] * 3, [9.5] * 3])
    return centres[labels] + scale * rng.normal(size=(2000, 3)), labels


def _heavy_tails(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Clusters of Student's t with five degrees of freedom."""
    labels = rng.choice(3, 2000, p=[0.5, 0.3, 0.2])
    X = rng.normal(size=(2000, 4)) / np.sqrt(rng.chisquare(5, size=(2000, 1)) / 5)
    return 6 * rng.normal(size=(3, 4))[labels] + X, labels


EVEN, FALLING = np.ones, np.array([0.45, 0.28, 0.15, 0.08, 0.04])
KINDS: dict[str, tuple[str, _Make]] = {
    "pancakes 0.5": ("full", _pancakes((0.5, 0.5), 30)),
    "pancakes 0.2": ("full", _pancakes((0.8, 0.2), 30)),
    "pancakes 0.1": ("full", _pancakes((0.9, 0.1), 30)),
    "three pancakes": ("full", _pancakes((0.5, 0.3, 0.2), 15)),
    "unequal sizes": ("full", _clusters(FALLING, 4, 2000, 3.0)),
    "unequal sizes, diag": ("diag", _clusters(FALLING, 6, 2000, 2.0, shape="diag")),
    "unequal scales": ("full", _clusters(EVEN(4), 4, 2000, 4.0, (0.1, 0.5, 1.0, 4.0))),
    "unequal scales, spherical": (
        "spherical",
        _clusters(EVEN(6), 4, 2000, 4.0, (0.1, 1.0, 3.0), "spherical"),
    ),
    "noise columns": ("full", _clusters(EVEN(4), 3, 2000, 3.0, noise=9)),
    "noise columns, diag": ("diag", _clusters(EVEN(5), 3, 2000, 3.0, shape="diag", noise=15)),
    "K = 20": ("full", _clusters(EVEN(20), 3, 4000, 6.0)),
    "K = 20, tied": ("tied", _clusters(EVEN(20), 4, 4000, 4.0, shape="tied")),
    "nested": ("full", _nested),
    "overlap": ("full", _clusters(EVEN(4), 5, 4000, 1.2)),
    "heavy tails": ("full", _heavy_tails),
    "tied": ("tied", _clusters(FALLING, 6, 2000, 2.0, shape="tied")),
}


def _root(d: int, shape: str, rng: np.random.Generator) -> np.ndarray:
    """What standard normal rows are multiplied by."""
    if shape == "spherical":
        return np.eye(d)
    scales = rng.uniform(0.4, 1.6, size=d)
    return np.diag(scales) if shape == "diag" else _rotation(d, rng) * scales @ _rotation(d, rng)


def _rotation(d: int, rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def _moments(X: np.ndarray, labels: np.ndarray, family: str) -> Mixtures:
    k, d = labels.max() + 1, X.shape[1]
    weights = np.bincount(labels, minlength=k) / len(X)
    means = np.stack([X[labels == j].mean(axis=0) for j in range(k)])
    covariances = np.stack([np.cov(X[labels == j].T, bias=True).reshape(d, d) for j in range(k)])
    shaped = restricted(covariances[None], weights[None], family)
    return Mixtures(family, weights[None], means[None], shaped)
