"""The M-step, and what can be wrong with the components that it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import NotFiniteError
from gmm_dask.mixture.covariance import CovarianceFamily, family
from gmm_dask.mixture.parameters import Estimate, Parameters
from gmm_dask.mixture.prior import Prior
from gmm_dask.mixture.statistics import SufficientStatistics
from gmm_dask.mixture.steps import ignoring_overflow
from gmm_dask.sampling import ColumnSpread

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]

SMALLEST = 1e-285  # variance; with a nearly collinear column its precision is at float64's end
EPS = float(np.finfo(np.float64).eps)
# From here on a floor is not needed any more: as squared pivot of a correlation, and as variance
# in variances of the data. A hundred times the floor, so that no component goes in and out.
SOUND = 1e-4
STARVED = 10 * np.finfo(np.float64).eps  # share of the weight under which a component has no rows
# What rounding may leave of S / N - delta^2 where they should be equal, in delta^2 and per feature.
DOUBT = 16 * np.finfo(np.float64).eps


def m_step(
    parameters: Parameters,
    statistics: SufficientStatistics,
    reg_covar: float,
    prior: Prior | None = None,
) -> Parameters:
    """Parameters that maximise the expected log-likelihood, from sums about the old means.

    Raises
    ------
    SingularCovarianceError
        A covariance is not positive definite.
    """
    return estimate(parameters, statistics, reg_covar, prior).factored()


@ignoring_overflow
def estimate(
    parameters: Parameters,
    statistics: SufficientStatistics,
    reg_covar: float,
    prior: Prior | None = None,
) -> Estimate:
    """What maximises the expected log-likelihood, or with a prior the log-posterior.

    `reg_covar` is added to each variance in the share in which values are there to have it. A
    component that holds no rows keeps its mean and covariance and gets the weight 0, unless a
    prior says otherwise.

    Notes
    -----
    Bishop, PRML, 9.24 to 9.26; with a prior Murphy, MLAPP, 11.46 to 11.48 (Dirichlet) and 4.215
    (normal-inverse-Wishart), the mode over all parameters at once.
    """
    family, (k, d) = parameters.family, parameters.means.shape
    alive = statistics.sum_resp > STARVED * statistics.sum_weight
    rows = np.where(alive, statistics.sum_resp, 0.0)
    # Dividing a dead component's empty sums by one leaves it where it was.
    centre = np.where(alive[:, None], statistics.sum_x, 0.0) / np.where(alive, rows, 1.0)[:, None]
    scatter = statistics.sum_xx - family.scatter_of(rows, centre)
    scatter = scatter + family.uncorrelated(DOUBT * d * rows[:, None] * centre**2)
    delta, extra, weights = centre, 0.0, rows / rows.sum()
    if prior is not None:
        delta, weights = _with_prior_mean(parameters, rows, centre, prior), prior.weights(rows)
        towards = prior.mean - parameters.means - delta
        scatter = scatter + family.scatter_of(rows, delta - centre) + prior.scale(family)
        scatter = scatter + family.scatter_of(np.full(k, prior.mean_precision), towards)
        extra, rows = prior.rows_of_covariance(family), rows + prior.rows_of_mean
    found, share = family.averaged(scatter, rows, extra), family.one_of_variances(np.ones(d))
    if statistics.sum_observed is not None:
        # What is expected of a missing value has had its reg_covar in an earlier pass.
        unseen = np.where(alive[:, None], statistics.sum_resp[:, None] - statistics.observed, 0.0)
        share = share - family.averaged_variances(unseen, rows, extra)
    found = found.plus(reg_covar * share)
    empty = np.flatnonzero(~alive & (extra == 0))
    if len(empty):
        found = found.replaced(empty, family.take(empty))
    held = alive | (prior is not None and prior.sustains)
    return Estimate(weights, parameters.means + delta, found, held)


def _with_prior_mean(parameters: Parameters, rows: Array, centre: Array, prior: Prior) -> Array:
    """How far each mean moves when the prior's mean counts for some rows, (k, d)."""
    total = rows + prior.mean_precision
    pull = prior.mean_precision * (prior.mean - parameters.means)
    moved = rows[:, None] * centre + pull
    return np.asarray(moved / np.where(total > 0, total, 1.0)[:, None])


@ignoring_overflow
def estimate_from_responsibilities(
    X: Rows,
    responsibilities: Array,
    covariance_type: str,
    reg_covar: float,
    sample_weight: Rows | None = None,
) -> Estimate:
    """The M-step of given responsibilities, for a start; two passes over rows held in memory.

    A component without rows gets the mean and the variances of all rows, and the weight 0.

    Parameters
    ----------
    X : (n, d)
    responsibilities : (n, k)
        Rows sum to one.
    """
    resp = responsibilities if sample_weight is None else responsibilities * sample_weight[:, None]
    k, d = resp.shape[1], X.shape[1]
    rows = resp.sum(axis=0)
    alive = rows > STARVED * rows.sum()
    rows = np.where(alive, rows, 1.0)
    X = np.asarray(X, dtype=np.float64)
    spread = ColumnSpread.of(X, sample_weight)
    means = np.repeat(spread.mean[None, :], k, axis=0)
    chosen = family(covariance_type)
    plain = chosen.of_start(k, d)
    scatter = np.zeros(plain.sum_shape)
    sum_x = np.zeros((k, d))
    for j in map(int, np.flatnonzero(alive)):
        mine = np.flatnonzero(resp[:, j])  # of groups that share no row, each has few
        of_j, resp_j = X[mine], resp[mine, j]
        # About a row of its own: the mean of all rows may be far from the component.
        origin = of_j[resp_j.argmax()]
        means[j] = origin + resp_j @ (of_j - origin) / rows[j]
        D = of_j - means[j]
        sum_x[j] = resp_j @ D
        plain.add_scatter(scatter, j, resp_j, D, np.empty_like(D))
    delta, rows = sum_x / rows[:, None], np.where(alive, rows, 0.0)
    scatter = scatter - plain.scatter_of(rows, delta)
    found = chosen.from_start(plain.averaged(scatter, rows))
    if not alive.all():
        found = found.replaced(~alive, chosen.diagonal(1, spread.variances))
    found = found.plus(reg_covar * found.one_of_variances(np.ones(d)))
    return Estimate(rows / rows.sum(), means + delta, found, alive)


def parameters_from_responsibilities(
    X: Rows,
    responsibilities: Array,
    covariance_type: str,
    reg_covar: float,
    sample_weight: Rows | None = None,
) -> Parameters:
    """Parameters of greatest likelihood for given responsibilities, with factored covariances.

    Raises
    ------
    SingularCovarianceError
        A covariance has no factor.
    """
    return estimate_from_responsibilities(
        X, responsibilities, covariance_type, reg_covar, sample_weight
    ).factored()


class Cause(StrEnum):
    """Why a component is no density, or why it is one that says nothing of the data."""

    STARVED = "starved"
    COLLAPSED = "collapsed"
    SINGULAR = "singular"
    NARROW = "narrow"
    FEW_ROWS = "few rows"
    THIN = "thin"
    HELD_UP = "held up"
    TIED_VALUES = "tied values"


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
    found: Estimate,
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
        Components that are held up by a floor: they need it until they are clearly sound.

    Raises
    ------
    NotFiniteError
        A mean or a variance is not finite; carries the features.
    """
    family, alive, variances = found.family, found.alive, found.family.variances
    _check_finite(found.means, variances)
    # Two rows closer than this are one and the same to float64.
    with np.errstate(over="ignore"):
        noise = np.zeros_like(found.means) if resolved else (4 * EPS * found.means) ** 2
    # A variance that one feature or one component resolves is no rounding, however far others are.
    noise = family.least_shared(np.maximum(noise, SMALLEST), alive)
    faults = [Fault(int(j), Cause.STARVED) for j in np.flatnonzero(~alive)]
    if floored and data_variances is not None:
        # Where values are missing a floor fades from pass to pass instead of vanishing at once.
        held = [floored.get(owner) is Cause.COLLAPSED for owner in family.owners]
        noise[held] = np.maximum(noise[held], SOUND * data_variances)
    collapsed = variances[[owner or 0 for owner in family.owners]] <= noise
    pivots = family.least_pivots()
    for i in map(int, np.flatnonzero(collapsed.any(axis=1) | (pivots <= SOUND))):
        owner = family.owners[i]
        if owner is None or alive[owner]:
            columns, limit = np.flatnonzero(collapsed[i]), SOUND if owner in floored else None
            fault = _fault_of(family, i, columns, float(pivots[i]), limit)
            if fault is not None:
                faults.append(fault)
    return sorted(faults, key=lambda fault: -1 if fault.component is None else fault.component)


def _check_finite(means: Array, variances: Array) -> None:
    finite = np.isfinite(means) & np.isfinite(variances)
    if not finite.all():
        features = tuple(int(i) for i in np.flatnonzero(~finite.all(axis=0)))
        raise NotFiniteError(
            "A mean or variance is beyond float64, whose squares end at 1e308: rescale these "
            "columns, or leave out rows that are far from all others.",
            features,
        )


def _fault_of(
    family: CovarianceFamily, i: int, collapsed: Indices, pivot: float, limit: float | None
) -> Fault | None:
    """What is wrong with the i-th different covariance, of which these columns collapsed."""
    owner = family.owners[i]
    if len(collapsed):
        return Fault(owner, Cause.COLLAPSED, tuple(map(int, collapsed)))
    limit = 16 * family.n_features * EPS if limit is None else limit
    if pivot > limit:
        return None
    return Fault(owner, Cause.SINGULAR, family.dependent_features(i))
