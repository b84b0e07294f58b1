"""How surely rows are assigned: sums of the label pass that add up over rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture.merging import classification_table, overlaps_of, row_entropies
from gmm_dask.mixture.parameters import Parameters
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.mixture.steps import RowScores

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]

# A row is certain where no more than this is left for all other components; to take it for wholly
# certain changes the entropy per row by less than 2e-5, and saves most of the work.
DOUBT = 1e-6
MOST_ROWS = 1 << 15  # of a chunk whose certainty is looked at; drawn where there are more
AT_ONCE = 1 << 14  # rows whose posterior probabilities are there together


@dataclass(frozen=True)
class Classification:
    """Posterior probabilities by assigned component, of labelled rows.

    Parameters
    ----------
    posteriors : k tuples of k floats
        For each assigned component the weighted sums of the posterior probabilities of all.
    entropies : k floats
        For each assigned component the weighted sum of the entropies of its rows, in nats.
    """

    posteriors: tuple[tuple[float, ...], ...]
    entropies: tuple[float, ...]

    @classmethod
    def none(cls, k: int) -> Classification:
        """The table of no rows of k components, the neutral element of `+`; k of 0 is unknown."""
        return cls(((0.0,) * k,) * k, (0.0,) * k)

    @classmethod
    def of(
        cls,
        X: Rows,
        parameters: Parameters,
        scores: RowScores,
        arithmetic: RowArithmetic,
        weight: Array | None = None,
        n_beside: int = 0,
    ) -> Classification:
        """The table of usable rows X (n, d) and their scores; rows with label -1 are left out.

        Where they and the `n_beside` other rows of their chunk are more than MOST_ROWS, one is
        drawn in every so many, and counts for as many; of a label that none drawn has, all are
        looked at. Which ones are drawn follows from these numbers alone.
        """
        k, drawn = parameters.n_components, _evenly(len(X), len(X) + n_beside)
        held = _by_label(scores.labels, weight, k)
        labels, density, largest = scores
        drawn = _with_rare(labels, drawn, k)
        X, scores = X[drawn], RowScores(labels[drawn], density[drawn], largest[drawn])
        weight = np.ones(len(X)) if weight is None else weight[drawn]
        counted = _by_label(scores.labels, weight, k)
        scale = held / np.where(counted > 0, counted, 1.0)
        labelled = scores.labels >= 0
        certain = labelled & (scores.max_responsibility > 1 - DOUBT)
        labels, of_certain = scores.labels[certain], (weight * scores.max_responsibility)[certain]
        rows = np.flatnonzero(labelled & ~certain)
        resp, of_rows = arithmetic.responsibilities(X[rows], parameters), scores.labels[rows]
        table = classification_table(resp, of_rows, weight[rows])
        table += np.diag(np.bincount(labels, of_certain, minlength=k).astype(np.float64))
        unsure = weight[rows] * row_entropies(resp)
        entropies = scale * np.bincount(of_rows, unsure, minlength=k)
        table *= scale[:, None]
        return cls(tuple(map(tuple, table.tolist())), tuple(entropies.tolist()))

    def __add__(self, other: Classification) -> Classification:
        if len(self.entropies) != len(other.entropies):
            return Classification.none(0)  # of some rows nothing is known
        table, entropies = self.table + other.table, np.add(self.entropies, other.entropies)
        return Classification(tuple(map(tuple, table.tolist())), tuple(entropies.tolist()))

    @property
    def table(self) -> Array:
        """`posteriors` as an array, (k, k)."""
        return np.array(self.posteriors)

    @property
    def mean_posteriors(self) -> Array:
        """Mean posterior probabilities of the rows of each assigned component, (k, k).

        Rows sum to one; they are zero for a component that no row is assigned to.
        """
        table = self.table
        sums = table.sum(axis=1, keepdims=True)
        return np.asarray(table / np.where(sums > 0, sums, 1.0))

    @property
    def mean_entropies(self) -> Array:
        """Mean entropy of the rows of each assigned component, (k,); zero where there is none."""
        rows = self.table.sum(axis=1)
        return np.asarray(np.array(self.entropies) / np.where(rows > 0, rows, 1.0))

    @property
    def overlaps(self) -> Array:
        """Overlap of each two components as these rows have it, (k, k); see `overlaps_of`."""
        return overlaps_of(self.table)

    @property
    def relative_entropy(self) -> float | None:
        """1 where every row is certain, 0 where none says anything; None without rows or choice.

        1 - E / (n log k), E the entropy of all rows (Ramaswamy, DeSarbo, Reibstein, Robinson,
        Marketing Science 12, 1993).
        """
        total, k = float(self.table.sum()), len(self.entropies)
        if k == 1 or total <= 0:
            return None
        return 1 - sum(self.entropies) / (total * math.log(k))


@dataclass(frozen=True)
class Migration:
    """Rows by their label under a mixture before and by the label that they have; they add up.

    Parameters
    ----------
    counts : tuple of tuple of int
        One row for each component before, and a last one for rows that were in none; columns
        alike for the components now. Empty where nothing was compared.
    log_likelihood : float
        Weighted, of the mixture before.
    """

    counts: tuple[tuple[int, ...], ...] = ()
    log_likelihood: float = 0.0

    @classmethod
    def of(
        cls,
        before: RowScores,
        labels: npt.NDArray[np.integer],
        sizes: tuple[int, int],
        weight: Array | None,
    ) -> Migration:
        """The table of usable rows: scores by the mixture before, labels now, sizes of both."""
        table = np.zeros((sizes[0] + 1, sizes[1] + 1), dtype=np.int64)
        np.add.at(table, (before.labels, labels), 1)  # a row in no component has the label -1
        density = np.maximum(before.log_density, LEAST_DENSITY)
        total = density.sum() if weight is None else weight @ density
        return cls(tuple(tuple(int(n) for n in row) for row in table), float(total))

    def __add__(self, other: Migration) -> Migration:
        if not self.counts or not other.counts:
            return self if self.counts else other
        pairs = zip(self.counts, other.counts, strict=True)
        return Migration(
            tuple(tuple(map(sum, zip(*rows, strict=True))) for rows in pairs),
            self.log_likelihood + other.log_likelihood,
        )


NOT_COMPARED = Migration()
LEAST_DENSITY = -1e290  # log-density of a row that is too far for float64: sums stay finite


def kept_labels(
    X: Rows,
    parameters: Parameters,
    found: RowScores,
    wanted: npt.NDArray[np.integer],
    least_gain: float,
    arithmetic: RowArithmetic,
) -> npt.NDArray[np.int32]:
    """The labels of rows that leave a component only for a gain of more than that.

    Parameters
    ----------
    X : (n, d)
    found : RowScores
    wanted : (n,)
        The component in which each row was; -1 where there is none to stay in.
    least_gain : float
        Gain in the row's log-posterior from which on it moves: the logarithm of the ratio of both
        probabilities.
    """
    labels = found.labels.copy()
    torn = np.flatnonzero((wanted >= 0) & (found.labels >= 0) & (wanted != found.labels))
    for start in range(0, len(torn), AT_ONCE):
        rows = torn[start : start + AT_ONCE]
        resp = arithmetic.responsibilities(X[rows], parameters)
        at = np.arange(len(rows))
        with np.errstate(divide="ignore"):
            gain = np.log(resp[at, found.labels[rows]]) - np.log(resp[at, wanted[rows]])
        stays = gain <= least_gain
        labels[rows[stays]] = wanted[rows[stays]]
    return labels


def _evenly(n: int, of: int) -> npt.NDArray[np.intp]:
    """Rows of n, all or one at random out of every so many: MOST_ROWS of as many as `of`."""
    step = -(-of // MOST_ROWS)
    if step <= 1:
        return np.arange(n)
    first = np.arange(0, n - step + 1, step)
    return first + np.random.Generator(np.random.PCG64(n)).integers(0, step, len(first))


def _with_rare(
    labels: npt.NDArray[np.int32], drawn: npt.NDArray[np.intp], k: int
) -> npt.NDArray[np.intp]:
    """The rows drawn, and all rows of each label that none of them has; there are few of those."""
    if len(drawn) == len(labels):
        return drawn
    is_lost = np.bincount(labels[drawn] + 1, minlength=k + 1) == 0
    is_lost[0] = False
    rare = np.flatnonzero(is_lost[labels + 1])
    return np.union1d(drawn, rare) if len(rare) else drawn


def _by_label(labels: npt.NDArray[np.int32], weight: Array | None, k: int) -> Array:
    """Weight of the rows of each label, (k,)."""
    return np.bincount(labels + 1, weight, minlength=k + 1)[1:].astype(np.float64)
