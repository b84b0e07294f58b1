"""Low-rank covariances: loadings of q factors and one variance of noise for each feature.

A component's covariance is L L^T + P with loadings L (d, q) and a diagonal P, so the mixture is
one of factor analysers (Ghahramani and Hinton 1997, "The EM algorithm for mixtures of factor
analyzers"; McLachlan and Peel, Finite Mixture Models, chapter 8). Given a row, the factors have
the mean z = B (x - m) with B = L^T (L L^T + P)^-1, and of a scatter matrix S no more is kept than
S B^T and the diagonal of S: d (q + 1) numbers a component. Nothing of the size d x d is on the way
of a row.
"""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SettingsError
from gmm_dask.mixture.covariance.factors import factor_variances
from gmm_dask.mixture.covariance.family import Array, CovarianceFamily, Indices
from gmm_dask.mixture.covariance.matrices import Full

LOW_RANK = "low_rank:"  # and the rank, in the name of a family
FAINT = 0.01  # share of a variance in loadings that say nothing: EM never leaves those of zero
LEAST_NOISE = 0.01  # of a feature's variance, at a start


class LowRank(CovarianceFamily):
    """Each component has loadings and, in a last column, variances of noise, (k, d, q + 1).

    The factors, in the same shape, are B^T and the reciprocals of the noise's standard deviations.
    """

    rank: ClassVar[int]

    @classmethod
    def shape(cls, k: int, d: int) -> tuple[int, ...]:
        return (k, d, cls.rank + 1)

    @classmethod
    def n_free(cls, k: int, d: int) -> int:
        q = cls.rank
        if q >= d:
            raise SettingsError(
                f"covariance_type is {cls.name!r}, of {q} factors, for {d} features: there must "
                "be more features than factors. Choose fewer factors, or full."
            )
        # Loadings may be rotated among each other (Lawley and Maxwell 1971, 2.3).
        return k * (d * (q + 1) - q * (q - 1) // 2)

    @classmethod
    def diagonal(cls, k: int, variances: Array) -> Self:
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (len(variances), cls.rank))
        loadings = np.sqrt(FAINT * variances / cls.rank)[:, None] * signs
        one = np.column_stack([loadings, (1 - FAINT) * variances])
        return cls(k, len(variances), np.broadcast_to(one, (k, *one.shape)))

    @classmethod
    def of_start(cls, k: int, d: int) -> CovarianceFamily:
        return Full.diagonal(k, np.ones(d))

    @classmethod
    def from_start(cls, found: CovarianceFamily) -> CovarianceFamily:
        # Principal axes of the correlations (Tipping and Bishop 1999, equation 7), which EM starts
        # from better than from any other loadings.
        k, d = found.n_components, found.n_features
        cls.n_free(k, d)  # refuses more factors than the features can have
        packed = np.empty(cls.shape(k, d))
        for j, covariance in enumerate(found.covariances):
            packed[j] = _principal(covariance, cls.rank)
        return cls(k, d, packed)

    @property
    def loadings(self) -> Array:
        return self.covariances[:, :, :-1]

    @property
    def noise(self) -> Array:
        """Variance of each feature's noise in each component, (k, d)."""
        return self.covariances[:, :, -1]

    @property
    def precisions(self) -> Array:
        scaled = self._scaled * self._reciprocals[:, :, None]
        found = -(scaled @ np.linalg.solve(self._inner, scaled.swapaxes(1, 2)))
        along = np.arange(self.n_features)
        found[:, along, along] += self._reciprocals**2
        return (found + found.swapaxes(1, 2)) / 2

    @property
    def variances(self) -> Array:
        return np.asarray((self.loadings**2).sum(axis=2) + self.noise)

    def dense(self) -> Array:
        along = np.arange(self.n_features)
        found = self.loadings @ self.loadings.swapaxes(1, 2)
        found[:, along, along] += self.noise
        return found

    def log_determinants(self) -> Array:
        return np.asarray(self._log_determinants)

    @cached_property
    def _log_determinants(self) -> Array:
        # |L L^T + P| = |P| |I + L^T P^-1 L|
        lower = np.linalg.cholesky(self._inner)
        inner = np.log(np.einsum("kqq->kq", lower)).sum(axis=1)
        return np.asarray(np.log(self._reciprocals).sum(axis=1) - inner)

    def squared_distances(self, D: Array, j: int, work: Array, out: Array) -> None:
        # |D|^2 = (D - L z)^T P^-1 (D - L z) + z^T z: a sum, so nothing cancels, and since z makes
        # it least, the rounding of z shows in its square alone.
        z = D @ self._to_factors(j)
        np.matmul(z, self.loadings[j].T, out=work)
        np.subtract(D, work, out=work)
        np.multiply(work, self._reciprocals[j], out=work)
        np.einsum("nd,nd->n", work, work, out=out)
        out += np.einsum("nq,nq->n", z, z)

    def add_scatter(self, scatter: Array, j: int, resp: Array, D: Array, work: Array) -> None:
        np.multiply(D, np.sqrt(resp)[:, None], out=work)
        scatter[j, :, :-1] += work.T @ (work @ self._to_factors(j))
        scatter[j, :, -1] += np.einsum("nd,nd->d", work, work)

    def scatter_of(self, weights: Array, V: Array) -> Array:
        root = V * np.sqrt(weights)[:, None]
        z = np.einsum("kd,kdq->kq", root, self._gains)
        return np.concatenate([root[:, :, None] * z[:, None, :], root[:, :, None] ** 2], axis=2)

    def uncorrelated(self, squares: Array) -> Array:
        return _packed(squares[:, :, None] * self._gains, squares)

    def expected_scatter(self, rows: Array) -> Array:
        # (L L^T + P) B^T = L
        return rows[:, None, None] * _packed(self.loadings, self.variances)

    def averaged(self, scatter: Array, rows: Array, extra: float = 0.0) -> Self:
        """One step of EM for the factors, with S averaged (Ghahramani and Hinton 1997, A.1)."""
        counted = rows + extra
        mean = scatter / np.where(counted == 0, 1.0, counted)[:, None, None]
        crossed, squares = mean[:, :, :-1], mean[:, :, -1]
        # Second moment of the factors: I - B L + B S B^T, and I - B L = (I + L^T P^-1 L)^-1.
        moment = np.linalg.inv(self._inner) + self._gains.swapaxes(1, 2) @ crossed
        moment = (moment + moment.swapaxes(1, 2)) / 2
        loadings = np.linalg.solve(moment, crossed.swapaxes(1, 2)).swapaxes(1, 2)
        noise = squares - np.einsum("kdq,kdq->kd", loadings, crossed)
        return self._with(_packed(loadings, np.maximum(noise, 0.0)))

    def averaged_variances(self, squares: Array, rows: Array, extra: float = 0.0) -> Array:
        counted = rows + extra
        mean = squares / np.where(counted == 0, 1.0, counted)[:, None]
        return _packed(np.zeros((*mean.shape, self.rank)), mean)

    def one_of_variances(self, variances: Array) -> Array:
        return _packed(np.zeros((len(variances), self.rank)), variances)

    def prior_scatter(self, variances: Array) -> Array:
        return self.uncorrelated(np.broadcast_to(variances, (self.n_components, len(variances))))

    def trace_with(self, variances: Array) -> float:
        # The diagonal of P^-1 - P^-1 L B.
        noise = self._reciprocals**2
        explained = noise * np.einsum("kdq,kdq->kd", self.loadings, self._gains)
        return float(((noise - explained) * variances).sum())

    def least_pivots(self) -> Array:
        return np.asarray(self._unexplained.min(axis=1))

    def dependent_features(self, i: int) -> tuple[int, ...]:
        shares = self._unexplained[i]
        return tuple(map(int, np.flatnonzero(shares <= shares.min())))

    @property
    def _unexplained(self) -> Array:
        """Share of each variance that is noise, (k, d)."""
        variances = self.variances
        return np.asarray(self.noise / np.where(variances > 0, variances, 1.0))

    def average(self, shares: Array) -> Self:
        return self.diagonal(1, shares @ self.variances)

    def marginal(self, observed: Indices) -> Self:
        return type(self)(self.n_components, len(observed), self.covariances[:, observed])

    def completed(
        self, sums: tuple[Array, Array, Array], observed: Indices, missing: Indices
    ) -> tuple[Array, Array]:
        sum_resp, sum_x, sum_xx = sums
        of_observed = self.marginal(observed)
        loadings, crossed = self.loadings[:, missing], sum_xx[:, :, :-1]
        gains = of_observed._gains
        x, xx = np.empty((self.n_components, self.n_features)), np.empty(self.sum_shape)
        x[:, observed] = sum_x
        x[:, missing] = np.einsum("kmq,koq,ko->km", loadings, gains, sum_x)
        # The factors' mean given the whole row has, given what is observed, the mean that follows
        # from the observed features alone; so their rows of S B^T stay as they are.
        xx[:, observed] = sum_xx
        moment = gains.swapaxes(1, 2) @ crossed
        left = np.linalg.inv(of_observed._inner)  # covariance of the factors given the row
        spread = loadings @ left
        noise = self.noise[:, missing]
        unexplained = np.einsum("kmq,kmq->km", spread, loadings) + noise
        of_missing = self._gains[:, missing]
        added = spread @ (loadings.swapaxes(1, 2) @ of_missing) + noise[:, :, None] * of_missing
        xx[:, missing, :-1] = loadings @ moment + sum_resp[:, None, None] * added
        seen = np.einsum("kmq,kqp,kmp->km", loadings, moment, loadings)
        xx[:, missing, -1] = seen + sum_resp[:, None] * unexplained
        return x, xx

    def regressions(self, observed: Indices, missing: Indices) -> Array:
        gains = self.marginal(observed)._gains
        return np.asarray(self.loadings[:, missing] @ gains.swapaxes(1, 2))

    def encoded(self, other: Self) -> Array:
        moved = (other.loadings - self.loadings) * self._reciprocals[:, :, None]
        spreads = np.log(other.noise * self._reciprocals**2) / np.sqrt(2)
        return _packed(moved, spreads).reshape(self.n_components, -1)

    def decoded(self, numbers: Array) -> Self:
        packed = numbers.reshape(self.covariances.shape)
        loadings = self.loadings + packed[:, :, :-1] / self._reciprocals[:, :, None]
        return self._with(_packed(loadings, np.exp(np.sqrt(2) * packed[:, :, -1]) * self.noise))

    def _factored(self) -> Array:
        reciprocals = factor_variances(self.noise)
        scaled = self.loadings * reciprocals[:, :, None]
        inner = np.eye(self.rank) + scaled.swapaxes(1, 2) @ scaled
        gains = np.linalg.solve(inner, (scaled * reciprocals[:, :, None]).swapaxes(1, 2))
        return _packed(gains.swapaxes(1, 2), reciprocals)

    @property
    def _gains(self) -> Array:
        """B^T of each component, (k, d, q)."""
        return self.precisions_cholesky[:, :, :-1]

    @property
    def _reciprocals(self) -> Array:
        """1 / standard deviation of the noise, (k, d)."""
        return self.precisions_cholesky[:, :, -1]

    @property
    def _scaled(self) -> Array:
        return np.asarray(self.loadings * self._reciprocals[:, :, None])

    @cached_property
    def _inner(self) -> Array:
        """I + L^T P^-1 L, (k, q, q)."""
        scaled = self._scaled
        return np.asarray(np.eye(self.rank) + scaled.swapaxes(1, 2) @ scaled)

    def _to_factors(self, j: int) -> Array:
        """B^T of one component, (d, q)."""
        return self.precisions_cholesky[j, :, :-1]

    def __reduce__(self) -> tuple[Any, ...]:
        arrays = (self.n_components, self.n_features, self.covariances, self._known())
        return _restored, (self.rank, *arrays)


@cache
def low_rank(rank: int) -> type[LowRank]:
    """The family of covariances with so many factors."""
    return type(f"LowRank{rank}", (LowRank,), {"rank": rank, "name": f"{LOW_RANK}{rank}"})


def _restored(rank: int, *arrays: Any) -> LowRank:
    return low_rank(rank)(*arrays)


def _packed(loadings: npt.NDArray[Any], last: Array) -> Array:
    return np.concatenate([loadings, last[..., None]], axis=-1)


def _principal(covariance: Array, q: int) -> Array:
    """Loadings and noise of the principal axes of a covariance's correlations, (d, q + 1)."""
    variances, d = np.diagonal(covariance), len(covariance)
    scale = np.sqrt(np.where(variances > 0, variances, 1.0))
    found, vectors = np.linalg.eigh(covariance / scale[:, None] / scale)
    largest, axes = found[::-1][:q], vectors[:, ::-1][:, :q]
    rest = max((found.sum() - largest.sum()) / max(d - q, 1), LEAST_NOISE)
    loadings = scale[:, None] * axes * np.sqrt(np.maximum(largest - rest, FAINT * rest))
    noise = variances - (loadings**2).sum(axis=1)
    return _packed(loadings, np.maximum(noise, LEAST_NOISE * variances))
