"""The E-step in NumPy, and what a mixture says of given rows: the reference of the compiled core.

Everything walks a chunk in tiles, so memory beyond the chunk is a constant, and float32 rows are
widened tile by tile: all sums are float64.

Rows so far from every component that their distances do not tell the components apart are looked
at once more. A difference of two squared distances is rounding where the squares are large, and
infinity less infinity where they overflow. With z_j = (x - m_j) U_j it is

    |z_j|^2 - |z_l|^2 = (z_j - z_l) . (z_j + z_l)
          z_j - z_l   = (x - m_j)(U_j - U_l) + (m_l - m_j) U_l

in which nothing large cancels; where components share a covariance, U_j = U_l and what is left is
Fisher's linear discriminant (Bishop, Pattern Recognition and Machine Learning, 4.65).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import DataError
from gmm_dask.mixture.parameters import Parameters
from gmm_dask.mixture.statistics import SufficientStatistics

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]
Powers = npt.NDArray[np.int64]

TILE_BYTES = 1 << 20  # workspaces of one tile stay in a core's second-level cache
LOG_2PI = float(np.log(2 * np.pi))
# Log of weight times density under which the rounding of its square may show in a share: a
# million standard deviations, where float64 leaves about 1e-3 of a difference of squares.
FAR = -0.5e12
QUARTER = 0.25  # of a row and of a mean: their difference does not overflow
FAR_BELOW = -(1 << 14)  # power of two of a coordinate that is 0
VANISHED = -1100  # powers of two below the row's largest coordinate where nothing is left
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
        sums = (total.sum_x, total.sum_xx)
        parameters.family.add_sums(sums, tile.X, parameters.means, resp, tile.D, tile.work)
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

    @property
    def n_rows(self) -> int:
        return int(self.rows.stop - self.rows.start)

    def log_responsibilities(self) -> Array:
        """Fill log_resp with log responsibilities and return the log-densities, (n,)."""
        log_resp, parameters = self.log_resp, self.parameters
        with np.errstate(over="ignore", invalid="ignore"):  # far rows are looked at below
            parameters.family.measure(self.X, parameters.means, self.D, self.work, log_resp)
            np.multiply(log_resp, -0.5, out=log_resp)
            np.add(log_resp, self.log_weights, out=log_resp)
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
    d = parameters.n_features
    with np.errstate(divide="ignore"):  # a component of weight 0 has log weight -inf
        log_weights = np.log(parameters.weights)
    log_weights += parameters.family.log_determinants()
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
    log_resp = np.empty((size, k))
    log_weights = log_densities_at_means(parameters)
    for start in range(0, n, size):
        stop = min(start + size, n)
        m = stop - start
        yield _Tile(
            X[start:stop], slice(start, stop), parameters, log_weights,
            D[:m], work[:m], log_resp[:m],
        )  # fmt: skip


class _Scaled(NamedTuple):
    """A product V F, before it is taken: V (n, d) and F (d, d) as mantissas and powers of two."""

    mantissas: Array
    powers: Powers
    factor: Array

    @classmethod
    def of(cls, V: Array, F: Array) -> _Scaled:
        _, exponents = np.frexp(np.abs(F).max(axis=1))
        mantissas, powers = np.frexp(V)
        nothing = (V == 0) | (F == 0).all(axis=1)
        powers = np.where(nothing, FAR_BELOW, powers.astype(np.int64) + exponents)
        return cls(mantissas, powers, np.ldexp(F, -exponents[:, None]))

    def product(self, unit: Powers) -> Array:
        """V F in units of 2^unit of each row, (n, d)."""
        shift = np.maximum(self.powers - unit[:, None], VANISHED)
        return np.asarray(np.ldexp(self.mantissas, shift.astype(np.int32)) @ self.factor)


def far_log_responsibilities(
    X: npt.NDArray[np.floating], parameters: Parameters, log_weights: Array
) -> Array:
    """Log responsibilities of finite rows, however far from every component, (n, k).

    All that is compared for a row is taken in one power of two of its own.

    Parameters
    ----------
    X : (n, d) finite
    parameters : Parameters
    log_weights : (k,)
        Log weight plus log-determinant of each component's factor.
    """
    quarters = np.asarray(X, dtype=np.float64) * QUARTER
    means, k = parameters.means * QUARTER, parameters.n_components
    factors = [parameters.dense_factor(j) for j in range(k)]
    parts = [_Scaled.of(quarters - m, U) for m, U in zip(means, factors, strict=True)]
    unit = _largest(parts)
    Z = np.stack([part.product(unit) for part in parts])
    squares = np.einsum("knd,knd->nk", Z, Z)
    empty = np.isneginf(log_weights)
    squares[:, empty] = np.inf
    nearest, log_resp = squares.argmin(axis=1), np.empty(squares.shape)
    for near in map(int, np.unique(nearest)):
        rows = np.flatnonzero(nearest == near)
        beyond, small = _beyond(quarters[rows], Z[:, rows], means, factors, near)
        beyond[:, empty] = np.inf
        beyond -= beyond.min(axis=1, keepdims=True)
        # Half the difference of squares, of coordinates divided by 4 * 2^unit and 4 * 2^small.
        power = (unit[rows] + small + 3)[:, None]
        with np.errstate(over="ignore"):
            log_resp[rows] = log_weights - np.ldexp(beyond, power.astype(np.int32))
    log_resp -= log_resp.max(axis=1, keepdims=True)
    log_resp -= np.log(np.exp(log_resp).sum(axis=1, keepdims=True))
    return np.asarray(log_resp)


def _beyond(
    X: Array, Z: Array, means: Array, factors: Sequence[Array], near: int
) -> tuple[Array, Powers]:
    """|z_j|^2 - |z_near|^2 of each row and component, (n, k), and the power of two it is in."""
    differences = [
        (
            _Scaled.of(X - m, U - factors[near]),
            _Scaled.of(np.broadcast_to(means[near] - m, X.shape), factors[near]),
        )
        for m, U in zip(means, factors, strict=True)
    ]
    small = _largest(part for pair in differences for part in pair)
    beyond = np.empty((len(X), len(means)))
    for j, (along, between) in enumerate(differences):
        apart = along.product(small) + between.product(small)
        beyond[:, j] = np.einsum("nd,nd->n", apart, Z[j] + Z[near])
    return beyond, small


def _largest(parts: Iterable[_Scaled]) -> Powers:
    """The largest power of two in each row, (n,)."""
    return np.asarray(np.max([part.powers.max(axis=1) for part in parts], axis=0))
