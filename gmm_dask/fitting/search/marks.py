"""Marks of spurious components, whose likelihood says nothing of the data.

The likelihood of most mixtures has no bound (Day 1969, Biometrika 56), and has local maxima on a
few rows that happen to lie near a hyperplane (McLachlan and Peel 2000, Finite Mixture Models,
3.10). A component has a mark where its rows cannot carry it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

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
    _known: dict[Candidate, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, ground: Ground) -> Judge:
        """The judge of candidates on these rows."""
        gaps = np.zeros(ground.X.shape[1])
        for i, column in enumerate(ground.X.T):
            steps = np.diff(np.unique(column[~np.isnan(column)]))
            gaps[i] = steps.min(initial=np.inf)
        return cls(ground, gaps)

    def is_admissible(self, candidate: Candidate) -> bool:
        """Whether no component has a mark; before the end of a climb those of its shape count."""
        if candidate not in self._known:
            found = any(self._of_shape(candidate))
            if candidate.converged and not found:
                found = any(True for _ in self._of_columns(candidate))
            self._known[candidate] = not found
        return self._known[candidate]

    def marks(self, candidate: Candidate) -> list[tuple[int, Mark]]:
        """The marked components, and the first mark of each; a tied covariance is component 0."""
        found: dict[int, Mark] = {}
        shape = ((j, mark) for j, mark in enumerate(self._of_shape(candidate)) if mark)
        for j, mark in (*shape, *self._of_columns(candidate)):
            found.setdefault(j, mark)
        return sorted(found.items())

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

    def _of_columns(self, candidate: Candidate) -> Iterator[tuple[int, Mark]]:
        """What speaks of `reg_covar` and of the columns as they are."""
        ground, k = self.ground, len(candidate.weights)
        kind, reg_covar = ground.covariance_type, ground.guard.reg_covar
        mine = ground.frame.back(candidate.covariances, kind)
        total = _covariance(ground)
        matrices = self._dense(mine, total.shape[0], k)
        pooled = total if kind == "tied" else np.tensordot(candidate.weights, matrices, axes=1)
        for j, S in enumerate(matrices):
            values, vectors = np.linalg.eigh(S)
            along = vectors[:, 0]
            if values[0] < FLOORED * reg_covar and along @ pooled @ along > RESOLVED * reg_covar:
                yield j, Mark.FLOOR
            deviations = np.sqrt(np.diagonal(S)) * math.sqrt(12)
            if ((deviations < self.gaps) & (np.diagonal(total) > self.gaps**2 / 6)).any():
                yield j, Mark.TIE

    def _dense(self, covariances: Array, d: int, k: int) -> Array:
        kind = self.ground.covariance_type
        if kind == "full":
            return covariances
        if kind == "tied":
            return covariances[None]
        each = covariances if kind == "diag" else np.repeat(covariances[:, None], d, axis=1)
        return np.asarray(each[:, :, None] * np.eye(d))


def _covariance(ground: Ground) -> Array:
    """Of the rows, in the coordinates of the data, (d, d)."""
    Y = ground.rows @ ground.frame.inverse
    W = Y if ground.weight is None else Y * ground.weight[:, None]
    return np.asarray(W.T @ Y / ground.n_rows)
