"""Noise in a sample: rows that look like it before a fit, and whether a fit found any."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.fitting.outcome import FitResult

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]

SHARE = 0.05  # of the noise that a fit starts with
LEAST_SHARE = 0.01  # of noise that is there
NEIGHBOURS = 10
MOST_ROWS = 8192  # of a sample that are looked at
MOST_NOISE = 0.3  # of these
STEPS = 50


def clustered(X: Rows) -> npt.NDArray[np.intp]:
    """Rows of a sample (m, d) in dense places, by number; at most MOST_ROWS are looked at.

    The volume that holds a row's NEIGHBOURS nearest others has a gamma distribution where rows are
    as dense everywhere; rows of clusters and of noise have two of them (Byers and Raftery 1998,
    J. Amer. Statist. Assoc. 93, "Nearest-neighbor clutter removal"). Missing values are left at
    the mean of their columns, and columns are scaled to unit spread between the quartiles.
    """
    from scipy.spatial import cKDTree

    every = -(-len(X) // MOST_ROWS)
    looked = np.arange(0, len(X), every)
    rows, d = _scaled(np.asarray(X[looked], dtype=np.float64)), X.shape[1]
    if len(rows) <= 4 * NEIGHBOURS:
        return looked
    distances = cKDTree(rows).query(rows, NEIGHBOURS + 1)[0][:, -1]
    with np.errstate(divide="ignore"):
        log_volumes = d * np.log(distances)
    kept = distances <= np.quantile(distances, 1 - MOST_NOISE)
    return np.asarray(looked[kept | ~_is_sparse(log_volumes)])


def finds_noise(one: FitResult | None, plain: FitResult | None) -> bool:
    """Whether a fit is better than the plain one, of data that have noise; others start as ever."""
    if one is None or plain is None:
        return one is not None
    noise = one.parameters.noise
    has_noise = noise is not None and noise.share > LEAST_SHARE
    return has_noise and one.lower_bounds[-1] > plain.lower_bounds[-1]


def _scaled(rows: Array) -> Array:
    low, high = np.nanquantile(rows, [0.25, 0.75], axis=0)
    spread = np.where(high > low, high - low, np.nanstd(rows, axis=0))
    rows = (rows - np.nanmean(rows, axis=0)) / np.where(spread > 0, spread, 1.0)
    return np.nan_to_num(rows, nan=0.0)


def _is_sparse(log_volumes: Array) -> npt.NDArray[np.bool_]:
    """Whether a row is of the sparser of two gamma distributions of shape NEIGHBOURS, by EM."""
    finite = np.isfinite(log_volumes)
    logs = np.where(finite, log_volumes, log_volumes[finite].min(initial=0.0))
    median = np.median(logs)
    volumes = np.exp(np.clip(logs - median, -500, 500))
    sparse = (logs > np.quantile(logs, 0.85)).astype(np.float64)
    for _ in range(STEPS):
        share = float(sparse.mean())
        if not 0 < share < 1:
            break
        rates = [NEIGHBOURS * w.sum() / (w @ volumes) for w in (1 - sparse, sparse)]
        odds = np.log(share / (1 - share)) + NEIGHBOURS * np.log(rates[1] / rates[0])
        odds = odds - (rates[1] - rates[0]) * volumes
        sparse = 1 / (1 + np.exp(-np.clip(odds, -500, 500)))
    return np.asarray(sparse > 0.5)
