"""Responsibilities of rows so far from every component that their distances do not tell them apart.

A difference of two squared distances is rounding where the squares are large, and infinity less
infinity where they overflow. With z_j = (x - m_j) U_j it is

    |z_j|^2 - |z_l|^2 = (z_j - z_l) . (z_j + z_l)
          z_j - z_l   = (x - m_j)(U_j - U_l) + (m_l - m_j) U_l

in which nothing large cancels; where components share a covariance, U_j = U_l and what is left is
Fisher's linear discriminant (Bishop, Pattern Recognition and Machine Learning, 4.65).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture.parameters import Parameters

Array = npt.NDArray[np.float64]
Powers = npt.NDArray[np.int64]

# Log of weight times density under which the rounding of its square may show in a share: a
# million standard deviations, where float64 leaves about 1e-3 of a difference of squares.
FAR = -0.5e12
QUARTER = 0.25  # of a row and of a mean: their difference does not overflow
FAR_BELOW = -(1 << 14)  # power of two of a coordinate that is 0
VANISHED = -1100  # powers of two below the row's largest coordinate where nothing is left


class _Scaled(NamedTuple):
    """A product V F, before it is taken: V (n, d) and F (d, d) as mantissas and powers of two."""

    mantissas: Array
    powers: Powers
    factor: Array

    @classmethod
    def of(cls, V: Array, F: Array) -> _Scaled:
        _, exponents = np.frexp(np.abs(F).max(axis=1))
        mantissas, powers = np.frexp(V)
        nothing = (V == 0) | (F == 0).all(axis=1)
        powers = np.where(nothing, FAR_BELOW, powers.astype(np.int64) + exponents)
        return cls(mantissas, powers, np.ldexp(F, -exponents[:, None]))

    def product(self, unit: Powers) -> Array:
        """V F in units of 2^unit of each row, (n, d)."""
        shift = np.maximum(self.powers - unit[:, None], VANISHED)
        return np.asarray(np.ldexp(self.mantissas, shift.astype(np.int32)) @ self.factor)


def far_log_responsibilities(
    X: npt.NDArray[np.floating], parameters: Parameters, log_weights: Array
) -> Array:
    """Log responsibilities of finite rows, however far from every component, (n, k).

    All that is compared for a row is taken in one power of two of its own.

    Parameters
    ----------
    X : (n, d) finite
    parameters : Parameters
    log_weights : (k,)
        Log weight plus log-determinant of each component's factor.
    """
    quarters = np.asarray(X, dtype=np.float64) * QUARTER
    means, k = parameters.means * QUARTER, parameters.n_components
    factors = [parameters.dense_factor(j) for j in range(k)]
    parts = [_Scaled.of(quarters - m, U) for m, U in zip(means, factors, strict=True)]
    unit = _largest(parts)
    Z = np.stack([part.product(unit) for part in parts])
    squares = np.einsum("knd,knd->nk", Z, Z)
    empty = np.isneginf(log_weights)
    squares[:, empty] = np.inf
    nearest, log_resp = squares.argmin(axis=1), np.empty(squares.shape)
    for near in map(int, np.unique(nearest)):
        rows = np.flatnonzero(nearest == near)
        beyond, small = _beyond(quarters[rows], Z[:, rows], means, factors, near)
        beyond[:, empty] = np.inf
        beyond -= beyond.min(axis=1, keepdims=True)
        # Half the difference of squares, of coordinates divided by 4 * 2^unit and 4 * 2^small.
        power = (unit[rows] + small + 3)[:, None]
        with np.errstate(over="ignore"):
            log_resp[rows] = log_weights - np.ldexp(beyond, power.astype(np.int32))
    log_resp -= log_resp.max(axis=1, keepdims=True)
    log_resp -= np.log(np.exp(log_resp).sum(axis=1, keepdims=True))
    return np.asarray(log_resp)


def _beyond(
    X: Array, Z: Array, means: Array, factors: Sequence[Array], near: int
) -> tuple[Array, Powers]:
    """|z_j|^2 - |z_near|^2 of each row and component, (n, k), and the power of two it is in."""
    differences = [
        (
            _Scaled.of(X - m, U - factors[near]),
            _Scaled.of(np.broadcast_to(means[near] - m, X.shape), factors[near]),
        )
        for m, U in zip(means, factors, strict=True)
    ]
    small = _largest(part for pair in differences for part in pair)
    beyond = np.empty((len(X), len(means)))
    for j, (along, between) in enumerate(differences):
        apart = along.product(small) + between.product(small)
        beyond[:, j] = np.einsum("nd,nd->n", apart, Z[j] + Z[near])
    return beyond, small


def _largest(parts: Iterable[_Scaled]) -> Powers:
    """The largest power of two in each row, (n,)."""
    return np.asarray(np.max([part.powers.max(axis=1) for part in parts], axis=0))
