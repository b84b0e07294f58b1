"""What can be wrong with the components that an M-step found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import NotFiniteError
from gmm_dask.mixture.covariance import family
from gmm_dask.mixture.factors import combined_features
from gmm_dask.mixture.parameters import Estimate

Array = npt.NDArray[np.float64]

SMALLEST = 1e-285  # variance; with a nearly collinear column its precision is at float64's end
EPS = float(np.finfo(np.float64).eps)
# From here on a floor is not needed any more: as squared pivot of a correlation, and as variance
# in variances of the data. A hundred times the floor, so that no component goes in and out.
SOUND = 1e-4


class Cause(StrEnum):
    """Why a component is no density; a narrow one is, but hardly that of its rows."""

    STARVED = "starved"
    COLLAPSED = "collapsed"
    SINGULAR = "singular"
    NARROW = "narrow"


@dataclass(frozen=True)
class Fault:
    """One component that cannot be used as it is.

    Parameters
    ----------
    component : int or None
        None where all share the covariance that is at fault.
    cause : Cause
    features : tuple of int
        Columns in which it collapsed, or that are combinations of each other.
    """

    component: int | None
    cause: Cause
    features: tuple[int, ...] = ()


def find_faults(
    estimate: Estimate,
    data_variances: Array | None,
    *,
    resolved: bool,
    floored: Mapping[int | None, Cause],
) -> list[Fault]:
    """The faults of an estimate, in the order of components.

    Parameters
    ----------
    data_variances : (d,) or None
        What the variances of a component that collapsed are compared with.
    resolved : bool
        Whether something was added to every variance, so that none can be mere rounding.
    floored : causes by component
        Those under a floor: they need it until they are clearly sound.

    Raises
    ------
    NotFiniteError
        A mean or a variance is not finite; carries the features.
    """
    chosen = family(estimate.covariance_type)
    k, d = estimate.means.shape
    variances = chosen.variances(estimate.covariances, k, d)
    _check_finite(estimate, variances)
    # Two rows closer than this are one and the same to float64.
    with np.errstate(over="ignore"):
        noise = np.zeros((k, d)) if resolved else (4 * EPS * estimate.means) ** 2
    noise = np.maximum(noise, SMALLEST)
    if not chosen.per_feature:  # a variance that one feature resolves is no rounding
        noise = np.broadcast_to(noise.min(axis=1, keepdims=True), (k, d)).copy()
    narrow = [j for j, cause in floored.items() if cause is Cause.COLLAPSED]
    if narrow and data_variances is not None:
        # Where values are missing a floor fades from pass to pass instead of vanishing at once.
        held = [j for j in range(k) if j in narrow or None in narrow]
        noise[held] = np.maximum(noise[held], SOUND * data_variances)
    if chosen.per_component:
        faults = [Fault(int(j), Cause.STARVED) for j in np.flatnonzero(~estimate.alive)]
        faults += [
            fault
            for j in np.flatnonzero(estimate.alive)
            if (fault := _fault_of(estimate, int(j), variances[j] <= noise[j], floored))
        ]
        return sorted(faults, key=lambda fault: -1 if fault.component is None else fault.component)
    starved = [Fault(int(j), Cause.STARVED) for j in np.flatnonzero(~estimate.alive)]
    # What one component resolves is no rounding, however far another one is.
    noise = noise[estimate.alive].min(axis=0)
    shared = _fault_of(estimate, None, variances[0] <= noise, floored)
    return starved if shared is None else [shared, *starved]


def _check_finite(estimate: Estimate, variances: Array) -> None:
    finite = np.isfinite(estimate.means) & np.isfinite(variances)
    if not finite.all():
        features = tuple(int(i) for i in np.flatnonzero(~finite.all(axis=0)))
        raise NotFiniteError(
            "A mean or variance is beyond float64, whose squares end at 1e308: rescale these "
            "columns, or leave out rows that are far from all others.",
            features,
        )


def _fault_of(
    estimate: Estimate,
    j: int | None,
    collapsed: npt.NDArray[np.bool_],
    floored: Mapping[int | None, Cause],
) -> Fault | None:
    if collapsed.any():
        return Fault(j, Cause.COLLAPSED, tuple(int(i) for i in np.flatnonzero(collapsed)))
    if not family(estimate.covariance_type).correlated:
        return None
    covariance = estimate.covariances if j is None else estimate.covariances[j]
    d = len(covariance)
    scale = np.sqrt(np.diagonal(covariance))
    correlation = covariance / scale[:, None] / scale
    limit = SOUND if j in floored else 16 * d * EPS
    if _smallest_pivot(correlation) > limit:
        return None
    return Fault(j, Cause.SINGULAR, combined_features(correlation))


def _smallest_pivot(correlation: Array) -> float:
    """Least share of a column's variance that the columns before it leave unexplained."""
    try:
        return float(np.diagonal(np.linalg.cholesky(correlation)).min() ** 2)
    except np.linalg.LinAlgError:
        return 0.0
