"""Marks of spurious components, whose likelihood says nothing of the data.

The likelihood of most mixtures has no bound (Day 1969, Biometrika 56), and has local maxima on a
few rows that happen to lie near a hyperplane (McLachlan and Peel 2000, Finite Mixture Models,
3.10). A component has a mark where its rows cannot carry it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gmm_dask.fitting.search.ground import Candidate, Ground

Array = npt.NDArray[np.float64]

CARRIED = 6.0  # each such factor of smallness must be carried by as many rows as a shape takes
FLOORED, RESOLVED = (
    2.0,
    100.0,
)  # reg_covar that a variance is at most, and that of the data at least


class Mark(StrEnum):
    """Why a component is spurious."""

    ROWS = "rows"
    THIN = "thin"
    FLOOR = "floor"
    TIE = "tie"


@dataclass(frozen=True, eq=False)
class Judge:
    """What candidates on a ground are judged by.

    Parameters
    ----------
    ground : Ground
    gaps : (d,)
        Least difference of two values of each column that differ.
    """

    ground: Ground
    gaps: Array
    _known: dict[Candidate, int] = field(default_factory=dict)

    @classmethod
    def of(cls, ground: Ground) -> Judge:
        """The judge of candidates on these rows."""
        gaps = np.zeros(ground.X.shape[1])
        for i, column in enumerate(ground.X.T):
            steps = np.diff(np.unique(column[~np.isnan(column)]))
            gaps[i] = steps.min(initial=np.inf)
        return cls(ground, gaps)

    def is_admissible(self, candidate: Candidate) -> bool:
        """Whether no component has a mark."""
        return self.n_marked(candidate) == 0

    def n_marked(self, candidate: Candidate) -> int:
        """How many components, or covariances, have a mark."""
        if candidate not in self._known:
            self._known[candidate] = len(self.marks(candidate))
        return self._known[candidate]

    def marks(self, candidate: Candidate) -> list[tuple[int, Mark]]:
        """The marked components, and the first mark of each; a tied covariance is component 0."""
        of_columns = self._of_columns(candidate)
        of_shape = self._of_shape(candidate)[: len(of_columns)]
        both = enumerate(zip(of_shape, of_columns, strict=True))
        return [(j, one or other) for j, (one, other) in both if one or other]  # type: ignore[misc]

    def _of_shape(self, candidate: Candidate) -> list[Mark | None]:
        """Which components have too few different rows, or are too thin for them."""
        kind, (k, d) = self.ground.covariance_type, candidate.means.shape
        if kind == "tied":
            return [None] * k
        smallness = self._smallness(candidate)
        weight, rows = self.ground.weight, candidate.rows
        if rows is not None:  # a row of weight w counts once: the bounds mostly say enough
            ends = (1.0, 1.0) if weight is None else (float(weight.max()), float(weight.min()))
            low, high = (self._verdict(rows / end, smallness, d) for end in ends)
            if low == high:
                return low
        try:
            rows = self.ground.responsibilities(candidate).sum(axis=0)
        except np.linalg.LinAlgError:
            rows = np.zeros(k)
        return self._verdict(rows, smallness, d)

    def _verdict(self, rows: Array, smallness: Array, d: int) -> list[Mark | None]:
        kind = self.ground.covariance_type
        least = d + 1 if kind == "full" else 2
        free = {"full": rows - d, "diag": rows - 1}.get(kind, (rows - 1) * d)
        bounds = CARRIED ** -np.clip(free / least, 0.0, 300.0)
        thin = [Mark.THIN if one else None for one in smallness < bounds]
        return [
            Mark.ROWS if few else one for few, one in zip(rows < least + 0.5, thin, strict=True)
        ]

    def _smallness(self, candidate: Candidate) -> Array:
        """Least variance of each component in units of the pooled covariance there, (k,)."""
        within = np.tensordot(candidate.weights, candidate.covariances, axes=1)
        mine = candidate.covariances
        if mine.ndim == 1:
            return np.asarray(mine / within)
        if mine.ndim == 2:
            return np.asarray((mine / within).min(axis=1))
        lower = np.linalg.inv(np.linalg.cholesky(within))
        return np.asarray(np.linalg.eigvalsh(lower @ mine @ lower.T)[:, 0])

    def _of_columns(self, candidate: Candidate) -> list[Mark | None]:
        """Marks that speak of `reg_covar` and of the columns as they are, of each covariance."""
        ground, total = self.ground, self._total
        kind, reg_covar = ground.covariance_type, ground.guard.reg_covar
        covariances = ground.frame.back(candidate.covariances, kind)
        matrices = self._dense(covariances, total.shape[0])
        pooled = total if kind == "tied" else np.tensordot(candidate.weights, matrices, axes=1)
        values, vectors = np.linalg.eigh(matrices)
        along = vectors[:, :, 0]
        resolved = np.einsum("jd,de,je->j", along, pooled, along) > RESOLVED * reg_covar
        held_up = (values[:, 0] < FLOORED * reg_covar) & resolved
        squares = self.gaps**2 / 12  # of rounding
        narrow = np.diagonal(matrices, axis1=1, axis2=2) < squares
        tied = np.any(narrow & (np.diagonal(total) > 2 * squares), axis=1)
        return [
            Mark.FLOOR if floor else Mark.TIE if tie else None
            for floor, tie in np.stack([held_up, tied], axis=1)
        ]

    @cached_property
    def _total(self) -> Array:
        """The covariance of the rows in the coordinates of the data, (d, d)."""
        ground = self.ground
        D = ground.rows @ ground.frame.inverse
        W = D if ground.weight is None else D * ground.weight[:, None]
        return np.asarray(W.T @ D / ground.n_rows)

    def _dense(self, covariances: Array, d: int) -> Array:
        kind = self.ground.covariance_type
        if kind == "full":
            return covariances
        if kind == "tied":
            return covariances[None]
        each = covariances if kind == "diag" else np.repeat(covariances[:, None], d, axis=1)
        return np.asarray(each[:, :, None] * np.eye(d))
