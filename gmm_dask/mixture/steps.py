"""The two steps of EM, and what is read off a mixture for given rows.

Everything walks a chunk in tiles, so memory beyond the chunk is a constant, and float32 rows are
widened tile by tile: all sums are float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import DataError
from gmm_dask.mixture.covariance import family
from gmm_dask.mixture.far import FAR, far_log_responsibilities
from gmm_dask.mixture.parameters import Estimate, Parameters
from gmm_dask.mixture.prior import Prior
from gmm_dask.mixture.statistics import SufficientStatistics
from gmm_dask.sampling import ColumnSpread

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]

TILE_BYTES = 1 << 20  # workspaces of one tile stay in a core's second-level cache
STARVED = 10 * np.finfo(np.float64).eps  # share of the weight under which a component has no rows
# What rounding may leave of S / N - delta^2 where they should be equal, in delta^2 and per feature.
DOUBT = 16 * np.finfo(np.float64).eps
LOG_2PI = float(np.log(2 * np.pi))
# Sums beyond float64 are infinite or NaN, which whoever takes them looks for and names.
ignoring_overflow = np.errstate(over="ignore", invalid="ignore")


class RowScores(NamedTuple):
    """What a mixture says of each row: label, log-density, largest responsibility; each (n,)."""

    labels: npt.NDArray[np.int32]
    log_density: Array
    max_responsibility: Array


@ignoring_overflow
def e_step(
    X: Rows, parameters: Parameters, sample_weight: Rows | None = None
) -> SufficientStatistics:
    """Sufficient statistics of the rows under the parameters; one read of X.

    Parameters
    ----------
    X : (n, d) float32 or float64, n may be 0
    parameters : Parameters
    sample_weight : (n,), optional
        Non-negative; the scale matters only to `sum_weight` and `log_likelihood`.

    Notes
    -----
    Dempster, Laird, Rubin 1977; Bishop, PRML, equations 9.23 to 9.27, with x measured from the
    components' current means.
    """
    check_weights(X, sample_weight)
    add_scatter = parameters.family.add_scatter
    total = SufficientStatistics.zero(parameters)
    log_likelihood, sum_weight = 0.0, 0.0
    for tile in _tiles(X, parameters):
        log_density = tile.log_responsibilities()
        resp = np.exp(tile.log_resp, out=tile.log_resp)
        if sample_weight is None:
            log_likelihood += float(log_density.sum())
            sum_weight += tile.n_rows
        else:
            # Contiguous: BLAS adds a strided vector in another order, so to other bits.
            weight = np.ascontiguousarray(sample_weight[tile.rows], dtype=np.float64)
            counted = positive(weight)
            log_likelihood += float(weight @ np.where(counted, log_density, 0.0))
            sum_weight += float(weight.sum())
            resp *= weight[:, None]
        total.sum_resp[:] += resp.sum(axis=0)
        for j in range(parameters.n_components):
            D, resp_j = tile.deviations(j), np.ascontiguousarray(resp[:, j])
            total.sum_x[j] += resp_j @ D
            add_scatter(total.sum_xx, j, resp_j, D, tile.work)
    return SufficientStatistics(
        X.shape[0], sum_weight, log_likelihood, total.sum_resp, total.sum_x, total.sum_xx
    )


def check_weights(X: Rows, sample_weight: Rows | None) -> None:
    """Raise DataError unless there is one weight for each row."""
    if sample_weight is not None and sample_weight.shape != X.shape[:1]:
        raise DataError(f"{sample_weight.shape} weights were given for {X.shape[0]} rows.")


def positive(weight: Array) -> npt.NDArray[np.bool_]:
    """Rows that count, (n,); raises DataError where a weight is negative, NaN or infinite."""
    counted = weight > 0
    if not (np.isfinite(weight).all() and (counted | (weight == 0)).all()):
        raise DataError("Some weights are negative, NaN or infinite.")
    return np.asarray(counted)


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
    chosen, (k, d) = parameters.family, parameters.means.shape
    alive = statistics.sum_resp > STARVED * statistics.sum_weight
    rows = np.where(alive, statistics.sum_resp, 0.0)
    # Dividing a dead component's empty sums by one leaves it where it was.
    centre = np.where(alive[:, None], statistics.sum_x, 0.0) / np.where(alive, rows, 1.0)[:, None]
    scatter = statistics.sum_xx - chosen.scatter_of(rows, centre)
    scatter = scatter + chosen.uncorrelated(DOUBT * d * rows[:, None] * centre**2)
    delta, extra, weights = centre, 0.0, rows / rows.sum()
    if prior is not None:
        kind = parameters.covariance_type
        delta, weights = _with_prior_mean(parameters, rows, centre, prior), prior.weights(rows)
        towards = prior.mean - parameters.means - delta
        scatter = scatter + chosen.scatter_of(rows, delta - centre) + prior.scale(kind)
        scatter = scatter + chosen.scatter_of(np.full(k, prior.mean_precision), towards)
        extra, rows = prior.rows_of_covariance(kind), rows + prior.rows_of_mean
    empty = ~alive & (extra == 0)
    rows = np.where(empty, 1.0, rows)
    covariances = chosen.averaged(scatter, rows, extra, d)
    if statistics.sum_observed is None:
        covariances = chosen.regularised(covariances, reg_covar)
    else:
        unseen = np.where(alive[:, None], statistics.sum_resp[:, None] - statistics.observed, 0.0)
        lacking = chosen.averaged(chosen.uncorrelated(unseen), rows, extra, d)
        # What is expected of a missing value has had it in an earlier pass.
        covariances = covariances + reg_covar * (chosen.of_variances(np.ones(d)) - lacking)
    if chosen.per_component and empty.any():
        covariances[empty] = parameters.covariances[empty]
    means, held = parameters.means + delta, alive | (prior is not None and prior.sustains)
    return Estimate(weights, means, covariances, parameters.covariance_type, held)


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
    scatter = np.zeros(chosen.shape(k, d))
    sum_x = np.zeros((k, d))
    for j in map(int, np.flatnonzero(alive)):
        mine = np.flatnonzero(resp[:, j])  # of groups that share no row, each has few
        of_j, resp_j = X[mine], resp[mine, j]
        # About a row of its own: the mean of all rows may be far from the component.
        origin = of_j[resp_j.argmax()]
        means[j] = origin + resp_j @ (of_j - origin) / rows[j]
        D = of_j - means[j]
        sum_x[j] = resp_j @ D
        chosen.add_scatter(scatter, j, resp_j, D, np.empty_like(D))
    delta, rows = sum_x / rows[:, None], np.where(alive, rows, 0.0)
    scatter = scatter - chosen.scatter_of(rows, delta)
    covariances = chosen.averaged(
        scatter, np.where(alive, rows, float(chosen.per_component)), 0.0, d
    )
    if chosen.per_component:
        covariances[~alive] = chosen.of_variances(spread.variances)
    covariances = chosen.regularised(covariances, reg_covar)
    return Estimate(rows / rows.sum(), means + delta, covariances, covariance_type, alive)


def parameters_from_responsibilities(
    X: Rows,
    responsibilities: Array,
    covariance_type: str,
    reg_covar: float,
    sample_weight: Rows | None = None,
) -> Parameters:
    """As `estimate_from_responsibilities`, factored; raises SingularCovarianceError."""
    return estimate_from_responsibilities(
        X, responsibilities, covariance_type, reg_covar, sample_weight
    ).factored()


def score_rows(X: Rows, parameters: Parameters) -> RowScores:
    """Label, log-density and largest responsibility of each row; ties go to the lowest index."""
    n = X.shape[0]
    scores = RowScores(np.empty(n, np.int32), np.empty(n), np.empty(n))
    for tile in _tiles(X, parameters):
        scores.log_density[tile.rows] = tile.log_responsibilities()
        best = tile.log_resp.argmax(axis=1)
        scores.labels[tile.rows] = best
        scores.max_responsibility[tile.rows] = np.exp(
            np.take_along_axis(tile.log_resp, best[:, None], axis=1)[:, 0]
        )
    return scores


def log_density(X: Rows, parameters: Parameters) -> Array:
    """Log of the mixture's density at each row, (n,)."""
    return score_rows(X, parameters).log_density


def labels(X: Rows, parameters: Parameters) -> npt.NDArray[np.int32]:
    """The component of largest responsibility for each row, (n,)."""
    return score_rows(X, parameters).labels


def responsibilities(X: Rows, parameters: Parameters) -> Array:
    """Posterior probability of each component for each row, (n, k); rows sum to one."""
    result = np.empty((X.shape[0], parameters.n_components))
    for tile in _tiles(X, parameters):
        tile.log_responsibilities()
        np.exp(tile.log_resp, out=result[tile.rows])
    return result


def tile_rows(k: int, d: int) -> int:
    """Rows of a tile: as many as keep its workspaces within TILE_BYTES, never fewer than 32."""
    rows: int = TILE_BYTES // (8 * (2 * d + 2 * k)) // 32 * 32
    return max(32, rows)


@dataclass(frozen=True, eq=False)
class _Tile:
    """A few rows of a chunk with the workspaces that all tiles of the chunk share."""

    X: Rows
    rows: slice
    parameters: Parameters
    log_weights: Array  # (k,) log weight + log |U| - d/2 log 2 pi
    D: Array
    work: Array
    log_resp: Array
    distances: Array

    @property
    def n_rows(self) -> int:
        return int(self.rows.stop - self.rows.start)

    def deviations(self, j: int) -> Array:
        """X - means[j] in float64, in the shared workspace."""
        return np.asarray(np.subtract(self.X, self.parameters.means[j], out=self.D))

    def log_responsibilities(self) -> Array:
        """Fill log_resp with log responsibilities and return the log-densities, (n,)."""
        log_resp, parameters = self.log_resp, self.parameters
        with np.errstate(over="ignore", invalid="ignore"):  # far rows are looked at below
            for j in range(parameters.n_components):
                parameters.family.squared_distances(
                    self.deviations(j), parameters.precisions_cholesky, j, self.work, self.distances
                )
                np.multiply(self.distances, -0.5, out=self.distances)
                np.add(self.distances, self.log_weights[j], out=log_resp[:, j])
            largest = log_resp.max(axis=1)
            far, density = self._resolve_far(largest)
        log_density = normalise(log_resp, largest)
        log_density[far] = density
        return log_density

    def _resolve_far(self, largest: Array) -> tuple[Indices, Array]:
        """Find the shares of rows far from every component; those rows, and their log-densities."""
        unclear = np.flatnonzero(is_far(largest, self.parameters))
        if not len(unclear):
            return unclear, np.empty(0)
        log_resp = self.log_resp[unclear]
        log_resp[np.isnan(log_resp)] = -np.inf
        far = is_far(log_resp.max(axis=1), self.parameters)
        shares = log_resp.copy()
        if far.any():
            shares[far] = far_log_responsibilities(
                self.X[unclear[far]], self.parameters, self.log_weights
            )
        self.log_resp[unclear], largest[unclear] = shares, shares.max(axis=1)
        best = shares[far].argmax(axis=1)[:, None]
        of_best = [np.take_along_axis(each[far], best, axis=1)[:, 0] for each in (log_resp, shares)]
        return unclear[far], of_best[0] - of_best[1]


def normalise(log_joint: Array, largest: Array) -> Array:
    """Turn logs of weight times density into log responsibilities; the log-densities, (n,).

    By log-sum-exp with the largest of each row (n,): however small they all are, the shares sum
    to one.
    """
    log_joint -= largest[:, None]
    log_sum = np.log(np.exp(log_joint).sum(axis=1))
    log_joint -= log_sum[:, None]
    return np.asarray(largest + log_sum)


def is_far(largest: Array, parameters: Parameters) -> npt.NDArray[np.bool_]:
    """Rows whose distances say nothing, from their largest log of weight times density (n,)."""
    return np.asarray(~(largest > far_limit(parameters)))


def log_densities_at_means(parameters: Parameters) -> Array:
    """Log of weight times density of each component at its own mean, (k,)."""
    k, d = parameters.means.shape
    with np.errstate(divide="ignore"):  # a component of weight 0 has log weight -inf
        log_weights = np.log(parameters.weights)
    log_weights += parameters.family.log_determinants(parameters.precisions_cholesky, k, d)
    return np.asarray(log_weights - 0.5 * d * LOG_2PI)


def far_limit(parameters: Parameters) -> float:
    """Log of weight times density down to which distances tell components apart.

    One component alone needs no comparison, only a distance that does not overflow.
    """
    return FAR if parameters.n_components > 1 else -np.inf


def _tiles(X: Rows, parameters: Parameters) -> Iterator[_Tile]:
    n, d = X.shape
    k = parameters.n_components
    if d != parameters.n_features:
        raise ValueError(f"X has {d} features, the mixture has {parameters.n_features}")
    size = min(tile_rows(k, d), max(n, 1))
    D, work = np.empty((size, d)), np.empty((size, d))
    log_resp, distances = np.empty((size, k)), np.empty(size)
    log_weights = log_densities_at_means(parameters)
    for start in range(0, n, size):
        stop = min(start + size, n)
        m = stop - start
        yield _Tile(
            X[start:stop], slice(start, stop), parameters, log_weights,
            D[:m], work[:m], log_resp[:m], distances[:m],
        )  # fmt: skip
