"""A mixture as the compiled loops take it, in float64 or in float32 where that is safe."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import steps
from gmm_dask.mixture.kernels.screen import screen_of
from gmm_dask.mixture.kernels.tiles import SHIFT_ROWS
from gmm_dask.mixture.parameters import Parameters

Array = npt.NDArray[np.float64]

SINGLE = np.dtype(np.float32)
UNIT = float(np.finfo(SINGLE).eps) / 2  # what one rounding to float32 changes at most
SAFE = 1e-4  # standard deviations that rounding may move a row by, as a component sees it
WIDE = 3.0  # standard deviations from its mean, where most rows of a component are
MOST_COLUMNS = 128  # with more, the log-densities themselves are too large for float32
LOG_WEIGHTS = 64.0  # that log weights times densities may be apart at the means
FARTHEST = 100.0  # log-density below that of the best mean, and half a unit a column, of a far row
SIZES = (1e-9, 1e9)  # of standard deviations and of distances between means; 1e18 has a square
WEIGHTS = (2.0**-30, 2.0**30)  # of rows
NOTHING = 1e-8  # part of the smallest component that responsibilities may sum up to unseen
LEAST = -42.0  # log of a responsibility that is nothing even in float64


class Arguments(NamedTuple):
    """What the loops are told of a mixture.

    Parameters
    ----------
    mixture : means, factors (k or 1, d or 1, d), log weights, whether matrices, out of reach, rests
        What the means lack of their digits comes last, (k, d).
    screen : tuple
        As `Screen`.
    frame : far limit, top of the log weights, shift of the rows
    """

    mixture: tuple[Any, ...]
    screen: tuple[Any, ...]
    frame: tuple[Any, ...]

    @property
    def itemsize(self) -> int:
        """Bytes of a number in the loops."""
        return int(self.mixture[0].itemsize)


def in_double(parameters: Parameters) -> Arguments:
    """The mixture in float64."""
    means, log_weights = parameters.means, steps.log_densities_at_means(parameters)
    mixture = (
        means, _factors(parameters), log_weights, parameters.family.correlated, LEAST,
        np.zeros_like(means),
    )  # fmt: skip
    frame = (steps.far_limit(parameters), 0.0, np.empty(0))
    return Arguments(mixture, tuple(screen_of(parameters)), frame)


@lru_cache(maxsize=4)
@steps.ignoring_overflow
def in_single(parameters: Parameters) -> Arguments | None:
    """The mixture in float32 about a point in its middle; None where rounding would tell.

    Rows are rounded to float32 about that point, which moves none by more than SAFE in the
    standard deviations of any component: a log-density then is right to SAFE times the row's
    distance, and a covariance stays far from what would be none.
    """
    shift = (parameters.weights @ parameters.means).astype(SINGLE)
    means = (parameters.means - shift).astype(SINGLE)
    log_weights = steps.log_densities_at_means(parameters)
    if not _is_safe(parameters, means, log_weights):
        return None
    top, least = float(log_weights.max()), parameters.weights[parameters.weights > 0].min()
    narrow = [each.astype(SINGLE, order="C") for each in (_factors(parameters), log_weights - top)]
    out_of_reach = max(LEAST, float(np.log(least * NOTHING)))
    rests = (parameters.means - shift - means).astype(SINGLE)
    mixture = (means, *narrow, parameters.family.correlated, out_of_reach, rests)
    screen = screen_of(parameters, SINGLE.name)
    *arrays, worth = screen._replace(centre=screen.centre - shift)
    narrow_screen = (*(each.astype(SINGLE, order="C") for each in arrays), worth)
    frame = (-FARTHEST - parameters.n_features / 2, top, np.tile(shift, SHIFT_ROWS))
    return Arguments(mixture, narrow_screen, frame)


def takes(weights: Array) -> bool:
    """Whether weights of rows (n,), or none, are such that float32 loses nothing of them."""
    some = weights[weights > 0]
    return not len(some) or bool(some.min() >= WEIGHTS[0] and some.max() <= WEIGHTS[1])


def _factors(parameters: Parameters) -> Array:
    factors, (k, d) = parameters.precisions_cholesky, parameters.means.shape
    if parameters.family.correlated:
        return factors.reshape(-1, d, d)
    rows = np.broadcast_to(factors.reshape(k, 1, -1), (k, 1, d)).copy()
    rows.flags.writeable = False  # as those of matrices: numba would compile for either kind
    return rows


def _is_safe(parameters: Parameters, means: npt.NDArray[Any], log_weights: Array) -> bool:
    used = parameters.weights > 0
    if parameters.n_features > MOST_COLUMNS or not np.ptp(log_weights[used]) <= LOG_WEIGHTS:
        return False
    deviations = np.sqrt(np.diagonal(parameters.dense_covariances(), axis1=1, axis2=2))
    sizes = np.abs(means) + WIDE * deviations
    if not (deviations.min() >= SIZES[0] and sizes.max() <= SIZES[1]):
        return False
    moved = 2 * UNIT * sizes[:, None]  # by rounding rows, means, their difference and the factor
    factors = _factors(parameters)
    correlated = parameters.family.correlated
    seen = np.sqrt(moved**2 @ factors**2) if correlated else moved * factors
    return bool(seen.max() <= SAFE)
