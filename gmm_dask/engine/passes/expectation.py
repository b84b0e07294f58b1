"""Passes over the chunks: one fused task each, results in chunk order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from dask._task_spec import GraphNode, Task, TaskRef

from gmm_dask.engine.cluster.backends import Backend, Done
from gmm_dask.engine.cluster.opening import available_cores
from gmm_dask.engine.cluster.recovery import ItemNames
from gmm_dask.engine.cluster.threads import LocalBackend
from gmm_dask.engine.passes.chunk_map import ChunkMap, Tell, identity
from gmm_dask.engine.passes.dask_arrays import row_chunks
from gmm_dask.engine.passes.survey import Survey
from gmm_dask.engine.passes.tree_sum import Several
from gmm_dask.engine.passes.units import RowChunks
from gmm_dask.mixture import Parameters, SufficientStatistics
from gmm_dask.mixture.row_arithmetic import Missing, RowArithmetic
from gmm_dask.mixture.statistics import statistics_bytes
from gmm_dask.sampling import Fold, fewer, folded, weight_unit

DOUBLE = RowArithmetic()
SAMPLE_CHUNK_BYTES = 1 << 20  # of a pass over the sample, so that every core has a part
LEAST_PARTS = 2  # of a sample, for one of them to be worth it
SHARED_BYTES = 32 << 20  # of the statistics of all mixtures of one pass: a task has few such sums

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]


def expectation(
    chunks: RowChunks,
    backend: Backend,
    *,
    arithmetic: RowArithmetic = DOUBLE,
    unit: float = 1.0,
    tell: Tell | None = None,
) -> Expectation:
    """The function EM asks for statistics: every call is one pass over the chunks."""
    return Expectation(ChunkMap(chunks, backend, tell), arithmetic, unit)


@dataclass(frozen=True, eq=False)
class Asked:
    """What one of several fits asks of the pass that they share.

    Parameters
    ----------
    parameters : Parameters
    is_rough : bool
        Whether single precision will do, where rows go through the compiled core.
    fold : Fold, optional
        The rows that are looked at; all of them where it is not given.
    """

    parameters: Parameters
    is_rough: bool = False
    fold: Fold | None = None


@dataclass(frozen=True, eq=False)
class Expectation:
    """parameters -> statistics of all rows; bitwise the same on every backend.

    Parameters
    ----------
    chunk_map : ChunkMap
    arithmetic : RowArithmetic
        What rows go through.
    unit : float
        The power of two that weights are divided by, so that none of their products with squares
        leaves float64; all the statistics are in it.
    n_rows : int, optional
        How many the rows stand for, where each is several.
    """

    chunk_map: ChunkMap
    arithmetic: RowArithmetic = DOUBLE
    unit: float = 1.0
    n_rows: int | None = None

    def in_single(self) -> Expectation | None:
        """The pass in single precision; None where rows go through NumPy."""
        single = self.arithmetic.in_single()
        return None if single is None else replace(self, arithmetic=single)

    def __call__(self, parameters: Parameters) -> SufficientStatistics:
        """One pass over its chunks, added up by the fixed tree."""
        return self.together([Asked(parameters)])[0]

    def n_passes(self, asked: Sequence[Asked]) -> int:
        """How many passes `together` makes for these."""
        return sum(1 for _ in _groups(asked))

    def together(self, asked: Sequence[Asked]) -> list[SufficientStatistics]:
        """One pass for several mixtures, whatever their families and numbers of components.

        A task reads each chunk once and takes the statistics of every mixture while the chunk is in
        memory; they have the bits of passes of their own. Mixtures whose statistics together
        exceed SHARED_BYTES go in several passes.
        """
        function, found = partial(_statistics, self.arithmetic, self.unit), []
        for group, size in _groups(asked):
            found += self.chunk_map.summed("e_step", function, group, size).items
        if self.n_rows is None:
            return found
        return [
            replace(one, n_rows=self.n_rows) if each.fold is None else one
            for one, each in zip(found, asked, strict=True)
        ]


@dataclass(frozen=True)
class WeightedSum:
    """A weighted sum over rows, in a power of two of its own: no weight is too large or small.

    Parameters
    ----------
    weight : float
        Sum of the weights, in `unit`.
    total : float
        Weighted sum, in `unit`.
    unit : float
    """

    weight: float
    total: float
    unit: float = 1.0

    def __add__(self, other: WeightedSum) -> WeightedSum:
        unit = max(self.unit, other.unit)
        mine, theirs = self.unit / unit, other.unit / unit
        return WeightedSum(
            self.weight * mine + other.weight * theirs,
            self.total * mine + other.total * theirs,
            unit,
        )

    @property
    def mean(self) -> float:
        """The sum per unit of weight, whatever the weights' scale."""
        return self.total / self.weight

    @property
    def value(self) -> float:
        """The sum; infinite where it is beyond float64."""
        return self.total * self.unit

    @property
    def log_weight(self) -> float:
        """Log of the sum of the weights."""
        return math.log(self.weight) + math.log(self.unit)


def log_likelihood(
    chunks: RowChunks, backend: Backend, parameters: Parameters, missing: Missing = "error"
) -> WeightedSum:
    """The sum of the rows' log-densities."""
    return _summed("score", _density_sum, chunks, backend, parameters, missing)


def completed_log_likelihood(
    chunks: RowChunks, backend: Backend, parameters: Parameters, missing: Missing = "error"
) -> WeightedSum:
    """The sum of log-density plus log largest responsibility of each row."""
    return _summed("icl", _completed_sum, chunks, backend, parameters, missing)


def _summed(
    name: str,
    function: Callable[..., WeightedSum],
    chunks: RowChunks,
    backend: Backend,
    parameters: Parameters,
    missing: Missing,
) -> WeightedSum:
    arithmetic = RowArithmetic.chosen(missing)
    total: WeightedSum = ChunkMap(chunks, backend).summed(
        name, partial(function, arithmetic), parameters
    )
    return total


def map_items(
    name: str,
    function: Callable[..., Any],
    items: Sequence[Any],
    backend: Backend,
    *,
    common: Any = None,
    on_done: Done | None = None,
    names: Sequence[str] | None = None,
) -> list[Any]:
    """`function(common, item)` for every item, one task each; results in the order of items.

    Parameters
    ----------
    names : sequence of str, optional
        What each item is called in messages.
    """
    token = uuid4().hex
    common_key = f"{name}_input-{token}"
    graph: dict[Any, GraphNode] = {common_key: Task(common_key, identity, common)}
    keys = []
    for i, item in enumerate(items):
        key = (f"{name}-{token}", i)
        graph[key] = Task(key, function, TaskRef(common_key), item)
        keys.append(key)
    return backend.compute(graph, keys, on_done, None if names is None else ItemNames(names))


def _groups(asked: Sequence[Asked]) -> Iterator[tuple[Sequence[Asked], int]]:
    """Mixtures of one pass each, in their order, and the size of their statistics together."""
    sizes = [statistics_bytes(each.parameters) for each in asked]
    first, total = 0, 0
    for i, size in enumerate(sizes):
        if i > first and total + size > SHARED_BYTES:
            yield asked[first:i], total
            first, total = i, 0
        total += size
    if asked:
        yield asked[first:], total


def _statistics(
    arithmetic: RowArithmetic,
    unit: float,
    asked: Sequence[Asked],
    X: Rows,
    sample_weight: Rows | None = None,
) -> Several[SufficientStatistics]:
    """The statistics of each mixture from one chunk, whose rows are parted once for all."""
    folds = {each.fold for each in asked if each.fold is not None}
    parts = folded(X, sample_weight, folds) if folds else {}
    single = arithmetic.in_single() or arithmetic

    def statistics(each: Asked) -> SufficientStatistics:
        chosen = single if each.is_rough else arithmetic
        rows, weight = (X, sample_weight) if each.fold is None else parts[each.fold]
        return chosen.e_step(rows, each.parameters, weight, unit=unit)

    return Several(tuple(map(statistics, asked)))


def _density_sum(
    arithmetic: RowArithmetic,
    parameters: Parameters,
    X: Rows,
    sample_weight: Rows | None = None,
) -> WeightedSum:
    unit = _unit(sample_weight)
    found = arithmetic.e_step(X, parameters, sample_weight, unit=unit)
    return WeightedSum(found.sum_weight, found.log_likelihood, unit)


def _completed_sum(
    arithmetic: RowArithmetic,
    parameters: Parameters,
    X: Rows,
    sample_weight: Rows | None = None,
) -> WeightedSum:
    unit = _unit(sample_weight)
    X, weight, _ = arithmetic.counted(X, sample_weight)
    scores = arithmetic.score(X, parameters)
    weight = np.ones(len(X)) if weight is None else weight / unit
    each = scores.log_density + np.log(scores.max_responsibility)
    return WeightedSum(float(weight.sum()), float(weight @ each), unit)


def _unit(sample_weight: Rows | None) -> float:
    """The unit of a chunk's weights: that of all is not known before they were looked at."""
    return 1.0 if sample_weight is None else weight_unit(float(sample_weight.max(initial=0.0)))


class OnRows(NamedTuple):
    """Passes over rows that are in this process.

    Parameters
    ----------
    X : (m, d)
    weight : (m,), optional
        Weights of the rows, of which only the ratios matter.
    expectation : Expectation, optional
        A pass over them, as heavy as all rows; None where they are all.
    """

    X: Rows
    weight: Array | None
    expectation: Expectation | None


class Expectations(NamedTuple):
    """The passes that EM asks for.

    Parameters
    ----------
    over_all : Expectation
        A pass over all rows; over the sample, where that says all that they say.
    sample : OnRows
        Rows that starts are found on.
    part : OnRows, optional
        Fewer of its rows, where it is large.
    on_larger : Expectation, optional
        A pass over a larger sample, where there is one, as heavy as all rows.
    """

    over_all: Expectation
    sample: OnRows
    part: OnRows | None = None
    on_larger: Expectation | None = None


def expectations(
    surveyed: Survey,
    chunks: RowChunks,
    backend: Backend,
    *,
    arithmetic: RowArithmetic,
    unit: float,
    sample_rows: int,
    part_rows: int,
    tell: Tell | None = None,
) -> Expectations:
    """Passes over all rows, over so many of the sample as are said, and over all of it."""
    over_all = expectation(chunks, backend, unit=unit, arithmetic=arithmetic, tell=tell)
    X, weight = surveyed.sample, surveyed.sample_weight
    if not surveyed.is_drawn or weight is None:
        return Expectations(over_all, OnRows(X, weight, None))

    def on(X: Rows, weight: Array) -> Expectation:
        rows = row_chunks(X, weight * (surveyed.unit / unit), SAMPLE_CHUNK_BYTES)
        # Here, whatever the backend: the driver holds the sample, and a pass takes no time.
        here = LocalBackend(min(available_cores(), rows.n_chunks))
        return expectation(rows, here, arithmetic=arithmetic)

    on_all = on(X, weight)
    if surveyed.replaces_rows:
        return Expectations(replace(on_all, n_rows=surveyed.n_usable), OnRows(X, weight, None))
    is_larger = len(X) > sample_rows
    if is_larger:
        X, weight = fewer(X, weight, sample_rows)
    sample = OnRows(X, weight, on(X, weight) if is_larger else on_all)
    part = None
    if part_rows <= len(X) // LEAST_PARTS:
        of_part = fewer(X, weight, part_rows)
        part = OnRows(*of_part, on(*of_part))
    return Expectations(over_all, sample, part, on_all if is_larger else None)
