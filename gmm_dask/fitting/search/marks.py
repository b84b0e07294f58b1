"""Marks of spurious components, whose likelihood says nothing of the data.

The likelihood of most mixtures has no bound (Day 1969, Biometrika 56), and has local maxima on a
few rows that happen to lie near a hyperplane (McLachlan and Peel 2000, Finite Mixture Models,
3.10). A component has a mark where its rows cannot carry it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gmm_dask.fitting.search.ground import MATRICES, Candidate, Ground

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

CARRIED = 6.0  # each such factor of smallness must be carried by as many rows as a shape takes
FLOORED = 2.0  # times reg_covar is a variance that is held up by it
RESOLVED = 100.0  # times reg_covar is what is beside such a variance, at least
FEW_ROWS = 512  # whose gaps mostly tell that no variance is as small as one


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
    """

    ground: Ground
    _known: dict[Candidate, int] = field(default_factory=dict)

    def is_admissible(self, candidate: Candidate) -> bool:
        """Whether no component has a mark."""
        return self.n_marked(candidate) == 0

    def n_marked(self, candidate: Candidate) -> int:
        """How many components, or covariances, have a mark."""
        if candidate not in self._known:
            self.look_at([candidate])
        return self._known[candidate]

    def look_at(self, candidates: Sequence[Candidate]) -> None:
        """Judge all of them at once, which takes hardly longer than one."""
        new = [each for each in candidates if each not in self._known]
        if new:
            marked = np.any(list(self._marked(new).values()), axis=0)
            self._known.update(zip(new, marked.sum(axis=1).tolist(), strict=True))

    def marks(self, candidate: Candidate) -> list[tuple[int, Mark]]:
        """The marked components, and the first mark of each; a tied covariance is component 0."""
        marked = self._marked([candidate])
        flags = np.stack([found[0] for found in marked.values()])
        names = list(marked)
        return [(int(j), names[int(flags[:, j].argmax())]) for j in np.flatnonzero(flags.any(0))]

    def _marked(self, candidates: Sequence[Candidate]) -> dict[Mark, Flags]:
        """By mark the covariances that have it, (s, k) or, where they are one, (s, 1)."""
        covariances = np.stack([each.covariances for each in candidates])
        if self.ground.covariance_type == "tied":
            total = np.broadcast_to(self._total, covariances.shape)
            return self._of_columns(covariances[:, None], total, np.zeros((len(candidates), 1)))
        weights = np.stack([each.weights for each in candidates])
        within = np.einsum("sk,sk...->s...", weights, covariances)
        smallness = self._smallness(covariances, within)
        of_columns = self._of_columns(covariances, self._outward(within), smallness)
        return {**self._of_shape(candidates, smallness), **of_columns}

    def _of_shape(self, candidates: Sequence[Candidate], smallness: Array) -> dict[Mark, Flags]:
        """Which components have too few different rows, or are too thin for them."""
        weight = self.ground.weight
        ends = (1.0, 1.0) if weight is None else (float(weight.max()), float(weight.min()))
        nothing = np.zeros(smallness.shape[1])
        rows = np.stack([nothing if each.rows is None else each.rows for each in candidates])
        # A row of weight w counts once: bounds mostly say enough.
        low, high = (self._verdict(rows / end, smallness) for end in ends)
        unsure = np.array([each.rows is None for each in candidates])
        unsure |= (low != high).any(axis=(0, 2))
        if unsure.any():
            chosen = [each for each, one in zip(candidates, unsure, strict=True) if one]
            rows = np.stack([self.ground.different_rows(each) for each in chosen])
            low[:, unsure] = self._verdict(rows, smallness[unsure])
        return {Mark.ROWS: low[0], Mark.THIN: low[1]}

    def _verdict(self, rows: Array, smallness: Array) -> Flags:
        """Which components have too few rows and which are too thin for them, (2, s, k)."""
        kind, d = self.ground.covariance_type, self.ground.rows.shape[1]
        least = d + 1 if kind == "full" else 2
        free = rows - d if kind == "full" else rows - 1 if kind == "diag" else (rows - 1) * d
        thin = smallness < CARRIED ** -np.clip(free / least, 0.0, 300.0)
        return np.stack([rows < least + 0.5, thin])

    def _smallness(self, covariances: Array, within: Array) -> Array:
        """Least variance of each component in units of the pooled covariance there, (s, k)."""
        ratio: Array = covariances
        if self.ground.covariance_type == "full":
            lower = np.linalg.inv(np.linalg.cholesky(within))[:, None]
            return np.asarray(np.linalg.eigvalsh(lower @ ratio @ lower.swapaxes(2, 3))[:, :, 0])
        ratio = covariances / within[:, None]
        return ratio if ratio.ndim == 2 else np.asarray(ratio.min(axis=2))

    def _of_columns(self, covariances: Array, beside: Array, smallness: Array) -> dict[Mark, Flags]:
        """Marks that speak of `reg_covar` and of the columns as they are, of each covariance.

        `beside` is (s, d, d), in the coordinates of the data.
        """
        reg_covar, own = self.ground.guard.reg_covar, self._outward(covariances)
        held_up = np.zeros(own.shape[:2], bool)
        # No variance is less than its smallness times the least variance beside it.
        least = np.linalg.eigvalsh(beside)[:, 0]
        doubtful = ~(smallness * least[:, None] > FLOORED * reg_covar)
        if doubtful.any():
            values, vectors = np.linalg.eigh(own[doubtful])
            along, there = vectors[:, :, 0], beside[np.nonzero(doubtful)[0]]
            resolved = np.einsum("jd,jde,je->j", along, there, along) > RESOLVED * reg_covar
            held_up[doubtful] = (values[:, 0] < FLOORED * reg_covar) & resolved
        return {Mark.FLOOR: held_up, Mark.TIE: self._are_tied(own)}

    def _are_tied(self, own: Array) -> Flags:
        """Which covariances (s, j, d, d) are narrower in a column than what it is rounded to."""
        variances = np.diagonal(own, axis1=2, axis2=3)
        if not (variances < self._few_roundings).any():  # the gaps of all rows are narrower still
            return np.zeros(own.shape[:2], bool)
        narrow = variances < self._roundings
        tied = narrow & (np.diagonal(self._total) > 2 * self._roundings)
        return np.asarray(tied.any(axis=2))

    @cached_property
    def _few_roundings(self) -> Array:
        X = self.ground.X
        return _roundings(X[:: max(1, len(X) // FEW_ROWS)])

    @cached_property
    def _roundings(self) -> Array:
        return _roundings(self.ground.X)

    @cached_property
    def _total(self) -> Array:
        """The covariance of the rows in the coordinates of the data, (d, d)."""
        ground = self.ground
        D = ground.rows @ ground.frame.inverse
        W = D if ground.weight is None else D * ground.weight[:, None]
        return np.asarray(W.T @ D / ground.n_rows)

    def _outward(self, covariances: Array) -> Array:
        """Covariances in the coordinates of the data, as matrices (..., d, d)."""
        kind, d = self.ground.covariance_type, self.ground.rows.shape[1]
        found = self.ground.frame.back(covariances, kind)
        if kind in MATRICES:
            return found
        return np.asarray(
            (found[..., None] if kind == "spherical" else found)[..., None] * np.eye(d)
        )


def _roundings(X: Array) -> Array:
    """Variances of rounding to the least difference of two values of each column, (d,).

    Infinite where all values of a column are equal.
    """
    values = np.sort(X, axis=0)  # missing ones come last
    steps = np.diff(values, axis=0)
    least = np.min(steps, axis=0, where=steps > 0, initial=np.inf)
    return np.asarray(least**2 / 12)
