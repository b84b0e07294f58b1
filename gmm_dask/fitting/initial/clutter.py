"""Noise in a sample: rows that look like it before a fit, whether a fit found or lacks any."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.fitting.em import Fit, Rule, advance
from gmm_dask.fitting.initial.initialize import initialize
from gmm_dask.fitting.m_step import IN_TROUBLE, Maximisation, Step
from gmm_dask.fitting.outcome import FitResult
from gmm_dask.mixture import Parameters, SufficientStatistics
from gmm_dask.mixture.parameters import Noise
from gmm_dask.mixture.row_arithmetic import RowArithmetic

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]

SHARE = 0.05  # of the noise that a fit starts with
LEAST_SHARE = 0.01  # of noise that is there
NEIGHBOURS = 10
MOST_ROWS = 8192  # of a sample that are looked at
MOST_NOISE = 0.3  # of these
STEPS = 50
TOGETHER = 256  # rows that are compared with all others at once
TOLD_ROWS = 4096  # of a sample, which tell whether a fit lacks noise
MOST_FEATURES = 32  # in more of them a box is empty nearly everywhere, and noise is told by nobody
PASSES = 30


def clustered(X: Rows) -> npt.NDArray[np.intp]:
    """Rows of a sample (m, d) in dense places, by number; at most MOST_ROWS are looked at.

    The volume that holds a row's NEIGHBOURS nearest others has a gamma distribution where rows are
    as dense everywhere; rows of clusters and of noise have two of them (Byers and Raftery 1998,
    J. Amer. Statist. Assoc. 93, "Nearest-neighbor clutter removal"). Missing values are left at
    the mean of their columns, and columns are scaled to unit spread between the quartiles.
    """
    every = -(-len(X) // MOST_ROWS)
    looked = np.arange(0, len(X), every)
    rows, d = _scaled(np.asarray(X[looked], dtype=np.float64)), X.shape[1]
    if len(rows) <= 4 * NEIGHBOURS:
        return looked
    distances = farthest_of_nearest(rows)
    with np.errstate(divide="ignore"):
        log_volumes = d * np.log(distances)
    kept = distances <= np.quantile(distances, 1 - MOST_NOISE)
    return np.asarray(looked[kept | ~_is_sparse(log_volumes)])


def farthest_of_nearest(rows: Array) -> Array:
    """How far each row (m, d) is from the last of its NEIGHBOURS nearest others, (m,).

    Every pair is looked at: for as many rows as are looked at here that takes less time than the
    import of scipy.spatial, which has a tree for it. Squares, which lose digits as a difference of
    products, choose the rows alone.
    """
    rows = rows - np.median(rows, axis=0)
    squares = np.einsum("ij,ij->i", rows, rows)
    found = np.empty(len(rows))
    for first in range(0, len(rows), TOGETHER):
        some = slice(first, first + TOGETHER)
        away = rows[some] @ rows.T
        away *= -2
        away += squares
        near = np.argpartition(away, NEIGHBOURS, axis=1)[:, : NEIGHBOURS + 1]
        difference = rows[near] - rows[some, None]
        found[some] = np.einsum("ijk,ijk->ij", difference, difference).max(axis=1)
    return np.sqrt(found)


def finds_noise(one: FitResult | None, plain: FitResult | None) -> bool:
    """Whether a fit is better than the plain one, of data that have noise; others start as ever."""
    if one is None or plain is None:
        return one is not None
    noise = one.parameters.noise
    has_noise = noise is not None and noise.share > LEAST_SHARE
    return has_noise and one.lower_bounds[-1] > plain.lower_bounds[-1]


def price(n_rows: int, n_features: int) -> float:
    """What noise has to add to the log-likelihood for its share and its box (Schwarz 1978)."""
    return (1 + 2 * n_features) / 2 * float(np.log(n_rows))


def lacking_noise(
    X: Rows, weight: Rows | None, fitted: Parameters, reg_covar: float, seed: np.random.SeedSequence
) -> float:
    """The share of noise that makes a fit without it better by far; 0 where none does.

    Noise is uniform over the box of all rows, a density like any other, and is worth its share and
    the edges of the box by Schwarz's criterion. Fits with it go on from the mixture and from
    K-means on the rows in dense places; the mixture goes on as well.

    Parameters
    ----------
    X : (m, d)
        The sample; NaN is a missing value.
    weight : (m,), optional
    fitted : Parameters
    reg_covar : float
    seed : numpy.random.SeedSequence
    """
    every, d = -(-len(X) // TOLD_ROWS), X.shape[1]
    X, weight = X[::every], None if weight is None else weight[::every]
    if d > MOST_FEATURES or fitted.noise is not None or len(X) <= 4 * NEIGHBOURS:
        return 0.0
    weight = None if weight is None else weight * (len(X) / weight.sum())
    plain, rule = Maximisation(reg_covar), Rule(0.0, PASSES)
    lower, upper = np.nanmin(X, axis=0), np.nanmax(X, axis=0)
    if not (upper > lower).all():
        return 0.0
    noisy = replace(plain, noise=Noise(SHARE, lower, upper))
    begun, arithmetic = [Fit.begin(Step(fitted, ()), plain, rule)], RowArithmetic.chosen("em")
    begun.append(Fit.begin(Step(fitted, ()), noisy, rule))
    with suppress(*IN_TROUBLE):
        dense, k = clustered(X), fitted.n_components
        how: dict[str, Any] = {"init_params": "kmeans", "seed": seed}
        how["sample_weight"] = None if weight is None else weight[dense]
        start = initialize(X[dense], k, fitted.covariance_type, plain, **how)
        begun.append(Fit.begin(start, noisy, rule))

    def shared_pass(fits: Sequence[Fit]) -> list[SufficientStatistics]:
        return [arithmetic.e_step(X, fit.parameters, weight, unit=1.0) for fit in fits]

    ended = advance(begun, shared_pass, leaving=IN_TROUBLE)
    least, found = np.inf, 0.0
    for fit in ended:
        noise, total = fit.parameters.noise, fit.state.last_bound * len(X)
        if noise is None:
            least = total + price(len(X), d)
        elif total > least and noise.share > LEAST_SHARE:
            least, found = total, noise.share
    return found


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
