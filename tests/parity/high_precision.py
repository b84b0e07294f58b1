"""EM as textbooks write it, in 60 digits: slow, and written apart from the package.

Bishop, Pattern Recognition and Machine Learning, 9.23 to 9.26; a tied, diagonal or spherical
covariance is what those of the full family average to. Nothing is shifted, scaled or guarded:
60 digits forgive what 16 do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from mpmath import mp, mpf

DIGITS = 60
DIGITS_FAR = 1300  # squares of the largest float64 numbers, and logs of weights beside them
NOTHING = -(10**6)  # log of a share that no digit of any sum can show
Vector = list[mpf]
Matrix = list[Vector]


@dataclass(frozen=True)
class Exact:
    """A mixture in 60 digits: weights (k,), means (k, d), covariances (k, d, d) of any family."""

    weights: Vector
    means: Matrix
    covariances: list[Matrix]

    @classmethod
    def of(cls, weights: Any, means: Any, covariances: Any) -> Exact:
        """These float64 numbers, to the last bit."""
        vectors, matrices = _exact([weights, *means]), [_exact(c) for c in covariances]
        return cls(vectors[0], vectors[1:], matrices)

    def rounded(self) -> Exact:
        """The nearest mixture that float64 can hold."""
        return Exact.of(self.weights, self.means, self.covariances)


def em(
    X: Any,
    start: Exact,
    family: str,
    n_passes: int,
    sample_weight: Any = None,
    *,
    rounding: bool = False,
) -> Exact:
    """The mixture after so many passes over X (n, d), rounded to float64 after each if asked."""
    with mp.workdps(DIGITS):
        rows, state = _exact(X), start
        row_weights = _exact([np.ones(len(rows)) if sample_weight is None else sample_weight])[0]
        for _ in range(n_passes):
            resp = [
                [weight * share for share in shares]
                for weight, shares in zip(row_weights, _e_step(rows, state), strict=True)
            ]
            state = _m_step(rows, resp, family)
            state = state.rounded() if rounding else state
        return state


def posteriors(X: Any, mixture: Exact) -> np.ndarray:
    """Posterior probability of each component for each row, however far, (n, k)."""
    with mp.workdps(DIGITS_FAR):
        return np.array(_e_step(_exact(X), mixture), dtype=np.float64)


def _e_step(rows: Matrix, mixture: Exact) -> Matrix:
    """w_j N(x | m_j, S_j) for each row and component, divided by its sum over components."""
    factors = [_ldl(S) for S in mixture.covariances]
    parts = list(zip(mixture.weights, mixture.means, factors, strict=True))
    joint = [[mp.log(w) + _log_normal(x, m, factor) for w, m, factor in parts] for x in rows]
    shares = [[_exp(value - max(values)) for value in values] for values in joint]
    return [[share / mp.fsum(row) for share in row] for row in shares]


def _m_step(rows: Matrix, resp: Matrix, family: str) -> Exact:
    """Counts, means and covariances of weighted responsibilities (n, k)."""
    columns = list(zip(*rows, strict=True))
    of_component = list(zip(*resp, strict=True))
    counts = [mp.fsum(r) for r in of_component]
    means = [
        [_dot(r, column) / count for column in columns]
        for r, count in zip(of_component, counts, strict=True)
    ]
    full = [
        _covariance(columns, r, mean, count)
        for r, mean, count in zip(of_component, means, counts, strict=True)
    ]
    weights = [count / mp.fsum(counts) for count in counts]
    return Exact(weights, means, _of_family(family, weights, full))


def _covariance(columns: list[Any], resp: Any, mean: Vector, count: mpf) -> Matrix:
    centred = [[x - m for x in column] for column, m in zip(columns, mean, strict=True)]
    weighted = [[r * v for r, v in zip(resp, column, strict=True)] for column in centred]
    return [[_dot(a, b) / count for b in centred] for a in weighted]


def _of_family(family: str, weights: Vector, full: list[Matrix]) -> list[Matrix]:
    axes = range(len(full[0]))
    if family == "full":
        return full
    if family == "tied":
        pooled = [[_dot(weights, [S[a][b] for S in full]) for b in axes] for a in axes]
        return [pooled] * len(full)
    variances = [[S[a][a] for a in axes] for S in full]
    if family == "spherical":
        variances = [[mp.fsum(v) / len(axes)] * len(axes) for v in variances]
    return [[[v[a] if a == b else mpf(0) for b in axes] for a in axes] for v in variances]


def _log_normal(x: Vector, mean: Vector, factor: tuple[Matrix, Vector]) -> mpf:
    """-(d log 2 pi + log |S| + (x - m)^T S^-1 (x - m)) / 2."""
    lower, pivots = factor
    z: Vector = []
    for value, m, row in zip(x, mean, lower, strict=True):
        z.append(value - m - _dot(row[: len(z)], z))
    distance = mp.fsum(v * v / p for v, p in zip(z, pivots, strict=True))
    return -(len(x) * mp.log(2 * mp.pi) + mp.fsum(map(mp.log, pivots)) + distance) / 2


def _ldl(S: Matrix) -> tuple[Matrix, Vector]:
    """Unit lower triangular L and pivots p, S = L diag(p) L^T."""
    lower: Matrix = []
    pivots: Vector = []
    for a, values in enumerate(S):
        row: Vector = []
        for b, other in enumerate([*lower, row]):
            rest = values[b] - mp.fsum(row[c] * other[c] * pivots[c] for c in range(b))
            if b < a:
                row.append(rest / pivots[b])
            elif rest <= 0:
                raise ArithmeticError(f"The rows of a component have no spread in column {a}.")
            else:
                pivots.append(rest)
        lower.append([*row, mpf(1)])
    return lower, pivots


def _dot(a: Iterable[mpf], b: Iterable[mpf]) -> mpf:
    return mp.fsum(x * y for x, y in zip(a, b, strict=True))


def _exp(value: mpf) -> mpf:
    return mp.exp(value) if value > NOTHING else mpf(0)


def _exact(values: Any) -> Matrix:
    return [[mpf(float(v)) for v in row] for row in values]
