"""The rows that a search looks at, in coordinates of its own, and EM of its candidates there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SingularCovarianceError
from gmm_dask.fitting.em import Fit, Rule, advance, passes
from gmm_dask.fitting.m_step import IN_TROUBLE, Maximisation, Step
from gmm_dask.mixture import Parameters, SufficientStatistics
from gmm_dask.mixture.core.climb import Slope, can_climb
from gmm_dask.mixture.core.groups import order_of
from gmm_dask.mixture.row_arithmetic import RowArithmetic

Array = npt.NDArray[np.float64]

NARROWEST = 1e-10  # of the widest direction's variance: what a direction is taken to have at least
MATRICES = ("full", "tied")
FAMILIES = ("full", "tied", "diag", "spherical")  # of which a search knows the covariances
EXACT = 6  # digits of a log-likelihood by which candidates are ranked
WORTH_A_THREAD = 1 << 24  # rows times columns times components times steps of a climb


@dataclass(frozen=True, eq=False)
class Candidate:
    """A mixture on its way, in the coordinates of the ground.

    Parameters
    ----------
    weights : (k,)
    means : (k, d)
    covariances : family's shape
    line : int
        The start that it goes back to.
    log_likelihood : float
        Before the last M-step, in rows of the ground; minus infinity before any pass.
    rows : (k,)
        Weight of the rows of each component, in the last pass.
    n_passes : int
        Passes of the last climb.
    converged : bool
    """

    weights: Array
    means: Array
    covariances: Array
    line: int = 0
    log_likelihood: float = -math.inf
    rows: Array | None = None
    n_passes: int = 0
    converged: bool = False

    @property
    def level(self) -> float:
        """The log-likelihood without digits that rounding of the rows or weights could change."""
        return (
            round(self.log_likelihood, EXACT) if math.isfinite(self.log_likelihood) else -math.inf
        )


@dataclass(frozen=True, eq=False)
class Frame:
    """Coordinates Y = (X - centre) T that are as wide in every direction as the family allows.

    Full and tied covariances look the same after any linear map, so T whitens; diagonal ones after
    any scaling of columns, and spherical ones after one scaling of all.

    Parameters
    ----------
    centre : (d,)
    T, inverse : (d, d)
    """

    centre: Array
    T: Array
    inverse: Array

    @classmethod
    def of(cls, X: Array, weight: Array | None, covariance_type: str) -> Frame:
        """The coordinates of rows X (n, d), of which NaN is a missing value."""
        total, d = Frame._moments(X, weight), X.shape[1]
        centre, covariance = total
        spread = np.sqrt(np.diagonal(covariance))
        if covariance_type == "spherical":
            spread = np.full(d, math.sqrt(float((spread**2).mean())))
        spread = np.where(spread > 0, spread, 1.0)
        T, inverse = np.diag(1 / spread), np.diag(spread)
        if covariance_type in MATRICES:
            values, vectors = np.linalg.eigh(covariance / spread / spread[:, None])
            roots = np.sqrt(np.maximum(values, NARROWEST * values[-1]))
            T, inverse = T @ vectors / roots, (vectors * roots).T @ inverse
        return cls(centre, T, inverse)

    @staticmethod
    def _moments(X: Array, weight: Array | None) -> tuple[Array, Array]:
        centre = X.mean(axis=0) if weight is None else _mean(X, weight)
        if weight is None and np.isnan(centre).any():
            centre = np.nanmean(X, axis=0)
        D = _about(X, centre)
        W = D if weight is None else D * weight[:, None]
        return centre, W.T @ D / (len(X) if weight is None else weight.sum())

    def rows(self, X: Array) -> Array:
        """Rows in these coordinates; a missing value stands at the mean of its column."""
        return np.ascontiguousarray(_about(X, self.centre) @ self.T)

    def into(self, covariances: Array, covariance_type: str) -> Array:
        """Covariances of the data, in the family's shape, in these coordinates."""
        return self._mapped(covariances, covariance_type, self.T)

    def back(self, covariances: Array, covariance_type: str) -> Array:
        """Covariances of these coordinates, in the family's shape, in those of the data."""
        return self._mapped(covariances, covariance_type, self.inverse)

    @staticmethod
    def _mapped(covariances: Array, covariance_type: str, by: Array) -> Array:
        if covariance_type in MATRICES:
            mapped = by.T @ covariances @ by
            return np.asarray((mapped + mapped.swapaxes(-1, -2)) / 2)
        squares = np.diagonal(by) ** 2
        return np.asarray(covariances * (squares if covariance_type == "diag" else squares[0]))


def _about(X: Array, centre: Array) -> Array:
    """Rows from the centre; a missing value is none away from it."""
    D = X - centre
    return D if np.isfinite(D).all() else np.nan_to_num(D, copy=False, nan=0.0)


def _mean(X: Array, weight: Array) -> Array:
    there = ~np.isnan(X)
    return np.asarray((weight @ np.where(there, X, 0.0)) / np.maximum(weight @ there, 1e-300))


@dataclass(frozen=True, eq=False)
class Ground:
    """Rows, and what EM is asked of there.

    Parameters
    ----------
    X : (m, d)
        Different rows of the data, in an order of their own.
    weight : (m,) or None
        They sum up to the rows that these stand for.
    covariance_type : str
    guard : Maximisation
        M-step of the fit to come.
    frame : Frame
    threads : int
    """

    X: Array
    weight: Array | None
    covariance_type: str
    guard: Maximisation
    frame: Frame
    threads: int = 1

    @cached_property
    def rows(self) -> Array:
        """The rows in the ground's coordinates, (m, d)."""
        return self.frame.rows(self.X)

    @property
    def n_rows(self) -> float:
        """Rows that these stand for."""
        return float(len(self.X)) if self.weight is None else float(self.weight.sum())

    def ordered(self) -> tuple[Ground, npt.NDArray[np.intp]]:
        """The ground with the rows that are nearest to the centre first, and the rows' indices."""
        order = order_of(np.vecdot(self.rows, self.rows).round(9))
        return self._of(order, None if self.weight is None else self.weight[order]), order

    def part(self, n_rows: int) -> tuple[Ground, npt.NDArray[np.intp]]:
        """A ground of at most `n_rows` of the rows, at equal steps of weight, and their indices."""
        total = np.arange(1.0, len(self.X) + 1) if self.weight is None else np.cumsum(self.weight)
        places = (np.arange(n_rows) + 0.5) * (total[-1] / n_rows)
        chosen, counts = np.unique(np.searchsorted(total, places), return_counts=True)
        chosen = np.minimum(chosen, len(self.X) - 1)
        weight = None if (counts == 1).all() else counts.astype(np.float64)
        return self._of(chosen, weight), chosen

    def _of(self, chosen: npt.NDArray[np.intp], weight: Array | None) -> Ground:
        """The ground of these rows, of such weights."""
        found = replace(self, X=self.X[chosen], weight=weight)
        found.__dict__["rows"] = self.rows[chosen]
        return found

    @cached_property
    def variances(self) -> Array:
        """Variances of the columns of the rows in the ground's coordinates, (d,)."""
        return (
            np.asarray((self.rows**2).mean(axis=0))
            if self.weight is None
            else np.asarray(self.weight @ self.rows**2 / self.weight.sum())
        )

    @cached_property
    def is_quick(self) -> bool:
        """Whether the core climbs here: it does for complete rows and the plain M-step."""
        guard = self.guard
        is_plain = guard.prior is None and guard.eigenvalue_ratio is None
        if not (is_plain and can_climb(self.covariance_type)):
            return False
        return not np.isnan(self.X).any()

    @cached_property
    def _slope(self) -> Slope | None:
        if not self.is_quick:
            return None
        return Slope(self.rows, self.weight, self.covariance_type, self.added)

    @cached_property
    def added(self) -> Array:
        """What reg_covar is in the ground's coordinates, (d, d) or (d,)."""
        T, is_matrix = self.frame.T, self.covariance_type in MATRICES
        return np.asarray(self.guard.reg_covar * (T.T @ T if is_matrix else np.diagonal(T) ** 2))

    def climb(
        self,
        candidates: Sequence[Candidate],
        n_steps: int,
        *,
        tol: float = -1.0,
        accelerate: bool = False,
        prior_rows: float = 0.0,
    ) -> list[Candidate]:
        """The candidates after so many passes at most; those with a component in trouble left.

        Parameters
        ----------
        candidates : sequence of Candidate
        n_steps : int
        tol : float
            Changes of the log-likelihood under which a candidate has converged.
        accelerate : bool
        prior_rows : float
            Rows of the data's variances that are added to each component's scatter.
        """
        slope = self._slope
        if slope is None:
            return self._asked_climb(candidates, n_steps, tol, accelerate=accelerate)
        prior = (prior_rows, prior_rows * self.variances) if prior_rows else None

        def climbed(some: Sequence[Candidate]) -> list[Candidate]:
            mixtures = [(each.weights, each.means, each.covariances) for each in some]
            ended = slope.climb(mixtures, n_steps, tol=tol, accelerate=accelerate, prior=prior)
            return [
                Candidate(
                    *found[:3], each.line, found.log_likelihood, found.sum_resp, found.n_passes,
                    found.converged,
                )
                for each, found in zip(some, ended, strict=True)
                if not found.in_trouble
            ]  # fmt: skip

        if not candidates:
            return []
        size = self.rows.size * len(candidates[0].weights) * n_steps
        if self.threads > 1 and len(candidates) > 1 and size > WORTH_A_THREAD:
            with ThreadPoolExecutor(self.threads) as pool:
                return [one for (one,) in filter(None, pool.map(climbed, zip(candidates)))]
        return climbed(candidates)

    def _asked_climb(
        self, candidates: Sequence[Candidate], n_steps: int, tol: float, *, accelerate: bool
    ) -> list[Candidate]:
        """The climb pass by pass through Fit: for missing values, priors, and without the core."""
        rule = Rule(max(tol, 0.0) / self.n_rows, n_steps, accelerate)
        found = []
        for each in candidates:
            try:
                start = Step(self.parameters(each), ())
            except SingularCovarianceError:
                continue
            ended = advance(
                [Fit.begin(start, self.guard, rule)], passes(self._expectation), leaving=IN_TROUBLE
            )
            if not ended or ended[0].state.events:
                continue
            result = ended[0].result
            p = result.parameters
            found.append(
                replace(
                    self.candidate(p, each.line),
                    log_likelihood=result.lower_bounds[-1] * self.n_rows,
                    rows=p.weights * self.n_rows,
                    n_passes=result.n_passes,
                    converged=result.converged,
                )
            )
        return found

    def _expectation(self, parameters: Parameters) -> SufficientStatistics:
        """A pass as heavy as all rows, so that a prior counts for as much as it will later."""
        spread, weight = self.guard.spread, self.weight
        if self.guard.prior is not None and spread is not None:
            each = float(spread.weight.max()) / self.n_rows
            weight = np.full(len(self.X), each) if weight is None else weight * each
        return self._arithmetic.e_step(self.X, parameters, weight)

    @cached_property
    def _arithmetic(self) -> RowArithmetic:
        return RowArithmetic.chosen("em" if np.isnan(self.X).any() else "error")

    def parameters(self, candidate: Candidate) -> Parameters:
        """The candidate in the coordinates of the data; raises SingularCovarianceError."""
        return Parameters.from_covariances(
            candidate.weights / candidate.weights.sum(),
            candidate.means @ self.frame.inverse + self.frame.centre,
            self.frame.back(candidate.covariances, self.covariance_type),
            self.covariance_type,
        )

    def candidate(self, parameters: Parameters, line: int) -> Candidate:
        """A mixture of the data as a candidate."""
        return Candidate(
            parameters.weights,
            (parameters.means - self.frame.centre) @ self.frame.T,
            self.frame.into(parameters.covariances, self.covariance_type),
            line,
        )

    def responsibilities(self, candidate: Candidate) -> Array:
        """Shares of the components in each row, (m, k); raises SingularCovarianceError."""
        return self._arithmetic.responsibilities(self.X, self.parameters(candidate))

    def different_rows(self, candidate: Candidate) -> Array:
        """How many of the different rows each component holds, (k,); nothing where it has none."""
        mixture = candidate.weights, candidate.means, candidate.covariances
        if self._slope is not None:
            (once,) = replace(self._slope, weight=None).climb([mixture], 1)
            return np.zeros(len(mixture[0])) if once.in_trouble else once.sum_resp
        try:
            return np.asarray(self.responsibilities(candidate).sum(axis=0))
        except np.linalg.LinAlgError:
            return np.zeros(len(mixture[0]))

    def log_densities(self, candidate: Candidate) -> Array:
        """Log-densities of the rows in the data's units, (m,); raises SingularCovarianceError."""
        return self._arithmetic.score(self.X, self.parameters(candidate)).log_density


def grouped(
    ground: Ground, labels: npt.NDArray[np.integer], k: int, line: int, prior_rows: float
) -> Candidate | None:
    """The candidate of rows in k groups, by labels (m,); None where a group has no rows.

    Each group's scatter has so many rows of all rows' variances added, and each covariance what
    reg_covar adds: a constant column has no variance of its own.
    """
    kind, variances = ground.covariance_type, ground.variances
    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], np.arange(k + 1))
    if (first[1:] == first[:-1]).any():
        return None
    Y = ground.rows[order]
    weight = None if ground.weight is None else ground.weight[order]
    W = Y if weight is None else Y * weight[:, None]
    rows = np.diff(first).astype(float) if weight is None else np.add.reduceat(weight, first[:-1])
    means = np.add.reduceat(W, first[:-1], axis=0) / rows[:, None]
    D = Y - np.repeat(means, np.diff(first), axis=0)
    W = D if weight is None else D * weight[:, None]
    counted = rows + prior_rows
    if kind in MATRICES:
        parts = [slice(*ends) for ends in pairwise(first.tolist())]
        scatter = np.stack([W[part].T @ D[part] for part in parts])
        added = prior_rows * np.diag(variances)
        if kind == "full":
            covariances = (scatter + added) / counted[:, None, None]
        else:
            covariances = (scatter.sum(axis=0) + added) / (rows.sum() + prior_rows)
        covariances = covariances + ground.added
    else:
        squares = np.add.reduceat(W * D, first[:-1], axis=0)
        covariances = (squares + prior_rows * variances) / counted[:, None] + ground.added
        if kind == "spherical":
            covariances = covariances.mean(axis=1)
    return Candidate(rows / rows.sum(), means, covariances, line)


def best_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """In the order of their log-likelihoods; the earliest of equals first."""
    return sorted(candidates, key=lambda each: -each.level)
