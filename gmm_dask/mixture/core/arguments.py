"""A mixture as the core takes it, in float64 or in float32 where that is safe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import steps
from gmm_dask.mixture.core.library import Task, address
from gmm_dask.mixture.core.screen import Screen, narrow, no_screen, screen_of
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
VARIANCES, MATRICES, ONE_VARIANCE, WHITE = range(4)  # Form of mixture.hpp
NEAR = 64.0  # standard deviations of a feature that means may be apart, where rows are whitened
SHIFT_ROWS = 16  # rows that the shift is written down for, so that they fill whole registers


@dataclass(frozen=True, eq=False)
class Arguments:
    """A mixture in the kind of float that the core is to compute in.

    Parameters
    ----------
    means : (k, d)
    factors : (k or 1, d, d), or (k, d) reciprocal standard deviations
    log_weights : (k,)
        Log weight plus log of the density at the mean, less `top`.
    rests : (k, d)
        What the means lack of their digits.
    screen : Screen
    form : {VARIANCES, MATRICES, ONE_VARIANCE, WHITE}
    top, far_limit : float
        See core.h.
    least : float
        Log of a responsibility that is nothing.
    shift : (d,), optional
        What rows are lessened by, in single precision.
    """

    means: npt.NDArray[Any]
    factors: npt.NDArray[Any]
    log_weights: npt.NDArray[Any]
    rests: npt.NDArray[Any]
    screen: Screen
    form: int
    far_limit: float
    top: float = 0.0
    least: float = LEAST
    shift: npt.NDArray[Any] | None = None

    @property
    def itemsize(self) -> int:
        """Bytes of a number in the core's arithmetic."""
        return int(self.means.itemsize)

    def task(self, X: npt.NDArray[Any], weights: Array | None, far: npt.NDArray[np.int64]) -> Task:
        """What the core is told; the caller keeps its arrays alive.

        Parameters
        ----------
        X : (n, d)
        weights : (n,), optional
        far : (m,)
            Where the first rows that are far are noted.
        """
        screen, k = self.screen, len(self.means)
        shift = None
        if self.shift is not None:
            shift = np.tile(self.shift.astype(X.dtype), SHIFT_ROWS)
        n_seen = screen.offsets.shape[1]
        task = Task(
            *X.shape, k,
            self.itemsize == 4, self.form, X.dtype == np.float32,
            address(X), address(weights),
            len(self.factors),
            address(self.means), address(self.rests), address(self.factors),
            address(self.log_weights),
            address(shift), self.top, self.far_limit, self.least,
            screen.directions.shape[1], n_seen, len(screen.factors) if n_seen else 0,
            address(screen.centre), address(screen.directions), address(screen.means),
            address(screen.biases), address(screen.factors), address(screen.offsets),
            screen.worth,
            address(far), len(far), 0,
        )  # fmt: skip
        task.kept_alive = shift
        return task


@lru_cache(maxsize=4)
def in_double(parameters: Parameters) -> Arguments:
    """The mixture in float64."""
    means = parameters.means
    return Arguments(
        means,
        parameters.family.core_factors,
        steps.log_densities_at_means(parameters),
        np.zeros_like(means),
        *_screen_and_form(parameters),
        steps.far_limit(parameters),
    )


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
    screen, form = _screen_and_form(parameters, SINGLE.name)
    screen = screen._replace(centre=screen.centre - shift)
    return Arguments(
        means,
        narrow(parameters.family.core_factors),
        narrow(log_weights - top),
        narrow(parameters.means - shift - means),
        screen.narrowed(),
        form,
        -FARTHEST - parameters.n_features / 2,
        top,
        max(LEAST, float(np.log(least * NOTHING))),
        shift,
    )


def takes(weights: Array) -> bool:
    """Whether weights of rows (n,), or none, are such that float32 loses nothing of them."""
    some = weights[weights > 0]
    return not len(some) or bool(some.min() >= WEIGHTS[0] and some.max() <= WEIGHTS[1])


def _screen_and_form(parameters: Parameters, kind: str = "float64") -> tuple[Screen, int]:
    family, means = parameters.family, parameters.means
    if family.matrices is None:
        return no_screen(parameters), ONE_VARIANCE if family.covariances.ndim == 1 else VARIANCES
    if len(family.core_factors) > 1 or not _are_near(means, family.variances):
        return screen_of(parameters, kind), MATRICES
    return no_screen(parameters), WHITE


@steps.ignoring_overflow
def _are_near(means: Array, variances: Array) -> bool:
    """Whether differences of whitened rows are as good as whitened differences."""
    return bool((np.ptp(means, axis=0) <= NEAR * np.sqrt(variances.min(axis=0))).all())


def _is_safe(parameters: Parameters, means: npt.NDArray[Any], log_weights: Array) -> bool:
    used = parameters.weights > 0
    if parameters.n_features > MOST_COLUMNS or not np.ptp(log_weights[used]) <= LOG_WEIGHTS:
        return False
    deviations = np.sqrt(parameters.family.variances)
    sizes = np.abs(means) + WIDE * deviations
    if not (deviations.min() >= SIZES[0] and sizes.max() <= SIZES[1]):
        return False
    moved = 2 * UNIT * sizes[:, None]  # by rounding rows, means, their difference and the factor
    factors = parameters.family.core_factors
    seen = np.sqrt(moved**2 @ factors**2) if factors.ndim == 3 else moved[:, 0] * factors
    return bool(seen.max() <= SAFE)
