"""Initial values that the user sets, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import DataError, SingularCovarianceError
from gmm_dask.kinds import MAY_BE_TAKEN, kind_of_dtype
from gmm_dask.mixture.covariance import family

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Given:
    """Initial values set by the user; what is None is taken from the sample.

    Parameters
    ----------
    weights : (k,), optional
    means : (k, d), optional
    precisions : family's shape, optional
    """

    weights: Array | None = None
    means: Array | None = None
    precisions: Array | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether everything is taken from the sample."""
        return self.weights is None and self.means is None and self.precisions is None


def checked_start(
    weights: Any, means: Any, precisions: Any, shape: tuple[int, int], covariance_type: str
) -> Given:
    """Initial values of the right shape and range; messages are those of scikit-learn.

    Parameters
    ----------
    weights, means, precisions : array-like or None
    shape : (k, d)
    covariance_type : {"full", "tied", "diag", "spherical"}

    Raises
    ------
    DataError
        Names the value that cannot be used.
    """
    k, d = shape
    what = f"{covariance_type} precision"
    return Given(
        None if weights is None else _checked_weights(_shaped(weights, "weights", (k,))),
        None if means is None else _shaped(means, "means", (k, d)),
        None
        if precisions is None
        else _checked_precisions(
            _shaped(precisions, what, family(covariance_type).shape(k, d)), shape, covariance_type
        ),
    )


def _shaped(value: Any, name: str, shape: tuple[int, ...]) -> Array:
    try:
        found = np.asarray(value)
        array = found.astype(np.float64) if kind_of_dtype(found.dtype) in MAY_BE_TAKEN else None
    except (TypeError, ValueError):
        array = None
    if array is None:
        raise DataError(f"The parameter '{name}' must be an array of numbers.")
    if array.shape != shape:
        raise DataError(
            f"The parameter '{name}' should have the shape of {shape}, but got {array.shape}"
        )
    if not np.isfinite(array).all():
        raise DataError(f"The parameter '{name}' holds NaN or infinity; give finite numbers.")
    return array


def _checked_weights(weights: Array) -> Array:
    if weights.min() < 0 or weights.max() > 1:
        # Least and greatest stand in scikit-learn's order, which its tests hold.
        raise DataError(
            "The parameter 'weights' should be in the range [0, 1], but got "
            f"max value {weights.min():.5f}, min value {weights.max():.5f}"
        )
    if abs(weights.sum() - 1) > 1e-6:
        raise DataError(
            "The parameter 'weights' should be normalized, "
            f"but got sum(weights) = {weights.sum():.5f}"
        )
    return weights


def _checked_precisions(precisions: Array, shape: tuple[int, int], covariance_type: str) -> Array:
    chosen, (k, d) = family(covariance_type), shape
    try:
        found = chosen.of_precisions(k, d, precisions)
    except SingularCovarianceError:
        raise DataError(
            f"'{covariance_type} precision' should be {chosen.precisions_are}"
        ) from None
    if not np.isfinite(found.covariances).all():
        raise DataError(
            f"'{covariance_type} precision' is so small that its inverse, the covariance, is "
            "beyond float64, which ends at 1e308. Give larger precisions, or rescale the columns."
        )
    return precisions
