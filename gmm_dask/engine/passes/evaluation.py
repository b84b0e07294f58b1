"""What all rows say of finished mixtures, and of two mixtures about each other: one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.engine.passes.expectation import Asked, Expectation
from gmm_dask.engine.passes.tree_sum import Several
from gmm_dask.mixture import Parameters
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.sampling import Fold, folded

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]


@dataclass(frozen=True)
class Scored:
    """Sums over rows under a mixture; weights in the unit of the pass.

    Parameters
    ----------
    weight : float
        Sum of the weights.
    log_likelihood : float
        Weighted sum of the log-densities of the rows.
    completed : float
        Weighted sum of each row's log-density plus the logarithm of its largest responsibility.
    """

    weight: float
    log_likelihood: float
    completed: float

    def __add__(self, other: Scored) -> Scored:
        return Scored(
            self.weight + other.weight,
            self.log_likelihood + other.log_likelihood,
            self.completed + other.completed,
        )


class Compared(NamedTuple):
    """Two mixtures whose labels of the rows of a fold are compared."""

    own: Parameters
    other: Parameters
    fold: Fold


def evaluated(
    over_all: Expectation, asked: Sequence[Asked], compared: Sequence[Compared] = ()
) -> tuple[list[Scored], list[Array]]:
    """Sums under each mixture, and for each pair the weight of rows by both labels, (k, l).

    All come from one pass over the rows.
    """
    function = partial(_evaluated, over_all.arithmetic, over_all.unit)
    common = (tuple(asked), tuple(compared))
    total: Several[Any] = over_all.chunk_map.summed("criteria", function, common)
    return list(total.items[: len(asked)]), list(total.items[len(asked) :])


def _evaluated(
    arithmetic: RowArithmetic,
    unit: float,
    common: tuple[Sequence[Asked], Sequence[Compared]],
    X: Rows,
    sample_weight: Rows | None = None,
) -> Several[Any]:
    asked, compared = common
    X, weight, _ = arithmetic.counted(X, sample_weight)
    weight = None if weight is None else weight / unit
    folds = {each.fold for each in asked if each.fold is not None}
    folds |= {each.fold for each in compared}
    parts = folded(X, weight, folds)

    def scored(each: Asked) -> Scored:
        rows, of_rows = (X, weight) if each.fold is None else parts[each.fold]
        found = arithmetic.score(rows, each.parameters)
        counts = np.ones(len(rows)) if of_rows is None else of_rows
        log_likelihood = float(counts @ found.log_density)
        certainty = float(counts @ np.log(found.max_responsibility))
        return Scored(float(counts.sum()), log_likelihood, log_likelihood + certainty)

    def table(each: Compared) -> Array:
        rows, of_rows = parts[each.fold]
        k = each.other.n_components
        own, other = (arithmetic.score(rows, one).labels for one in (each.own, each.other))
        cells = own.astype(np.int64) * k + other
        found = np.bincount(cells, of_rows, each.own.n_components * k)
        return found.reshape(-1, k).astype(np.float64)

    return Several((*map(scored, asked), *map(table, compared)))
