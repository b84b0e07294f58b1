"""Variances of several covariances within a ratio of each other, by the exact solution."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def units_of(variances: Array) -> Array:
    """Standard deviations (d,) to scale columns by; 1 for a constant column."""
    return np.sqrt(np.where(variances > 0, variances, 1.0))


def within_ratio(values: Array, rows: Array, ratio: float) -> Array:
    """The variances in [m, ratio m] of greatest likelihood, given those without the bounds.

    Clipping to the bounds is best for a given m (Fritz, Garcia-Escudero, Mayo-Iscar 2013, "A fast
    algorithm for robust constrained clustering", section 3). The loss, sum n (log e + v / e) over
    clipped variances e, is convex in log m, so m lies between the two places of its derivative's
    change of sign, among the v and the v / ratio, where it has a closed form.

    Parameters
    ----------
    values : (c, r)
        Variances along the axes of c covariances, non-negative up to rounding.
    rows : (c,)
        Rows behind each covariance.
    ratio : float
        At least 1.

    Returns
    -------
    values : (c, r)
        The very array that was given where it is within the ratio already, or no row is behind it.
    """
    counted = values[rows > 0]
    if not counted.size or not counted.max() > 0:
        return values
    least = counted.min()
    if least > 0 and counted.max() <= ratio * least:
        return values if len(counted) == len(values) else _clipped(values, least, ratio)
    v = np.maximum(counted, 0.0).ravel()
    n = np.repeat(rows[rows > 0], values.shape[1])
    order = np.argsort(v, kind="stable")
    v, n = v[order], n[order]
    places = np.unique(np.concatenate([v, v / ratio]))
    places = places[places > 0]
    counts, sums = (np.concatenate([[0.0], np.cumsum(each)]) for each in (n, n * v))
    # Up to `below` variances are raised to m, from `above` on they are lowered to ratio m.
    below = np.searchsorted(v, places, side="left")
    above = np.searchsorted(v, ratio * places, side="right")
    slope = counts[below] - sums[below] / places
    slope += counts[-1] - counts[above] - (sums[-1] - sums[above]) / (ratio * places)
    rising = np.flatnonzero(slope >= 0)
    after = places[rising[0] if len(rising) else -1]
    raised, lowered = v < after, v / ratio >= after
    both = n[raised].sum() + n[lowered].sum()
    m = (n[raised] @ v[raised] + n[lowered] @ v[lowered] / ratio) / both
    return _clipped(values, m, ratio)


def _clipped(values: Array, least: float, ratio: float) -> Array:
    return np.clip(values, least, ratio * least)
