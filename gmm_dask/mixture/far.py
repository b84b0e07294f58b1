"""Responsibilities of rows so far from every component that float64 cannot hold the distance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture.parameters import Parameters

Array = npt.NDArray[np.float64]

QUARTER = 0.25  # of a row and of a mean: their difference does not overflow
FAR_BELOW = -(1 << 14)  # power of two of a coordinate that is 0
VANISHED = -1100  # powers of two below the row's largest coordinate where nothing is left


def far_log_responsibilities(
    X: npt.NDArray[np.floating], parameters: Parameters, log_weights: Array
) -> Array:
    """Log responsibilities of finite rows whose squared distances overflow, (n, k).

    All distances of a row are taken in one power of two of its own, so that they can be compared.

    Parameters
    ----------
    X : (n, d) finite
    parameters : Parameters
    log_weights : (k,)
        Log weight plus log-determinant of each component's factor.
    """
    n, k = len(X), parameters.n_components
    scaled, unit = np.empty((k, *X.shape)), []
    powers = np.empty((k, *X.shape), np.int64)
    for j in range(k):
        factor, exponents = _unit_rows(parameters.dense_factor(j))
        D = np.asarray(X, dtype=np.float64) * QUARTER - parameters.means[j] * QUARTER
        scaled[j], powers[j] = np.frexp(D)
        powers[j] = np.where(D == 0, FAR_BELOW, powers[j] + exponents)
        unit.append(factor)
    common = powers.max(axis=(0, 2))
    squares = np.empty((n, k))
    for j in range(k):
        shift = np.maximum(powers[j] - common[:, None], VANISHED)
        z = np.ldexp(scaled[j], shift.astype(np.int32)) @ unit[j]
        squares[:, j] = np.einsum("nd,nd->n", z, z)
    squares[:, np.isneginf(log_weights)] = np.inf
    beyond = squares - squares.min(axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        # Half the difference of squares, of coordinates divided by 4 * 2^common.
        log_resp = log_weights - np.ldexp(beyond, (2 * common[:, None] + 3).astype(np.int32))
    log_resp -= log_resp.max(axis=1, keepdims=True)
    log_resp -= np.log(np.exp(log_resp).sum(axis=1, keepdims=True))
    return np.asarray(log_resp)


def _unit_rows(factor: Array) -> tuple[Array, npt.NDArray[np.int32]]:
    """The factor with the power of two taken out of each of its rows, and those powers."""
    _, exponents = np.frexp(np.abs(factor).max(axis=1))
    return np.ldexp(factor, -exponents[:, None]), exponents
