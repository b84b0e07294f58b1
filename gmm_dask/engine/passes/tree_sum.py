"""A sum whose order is fixed by the index of the chunk, not by who finishes first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import uuid4

from dask._task_spec import List, Task, TaskRef

T = TypeVar("T")

SPLIT_EVERY = 8  # partial sums that a task on a worker adds up


@dataclass(frozen=True, eq=False)
class PartialSum(Generic[T]):
    """The sum of items that follow each other, as far as the dyadic tree adds them to each other.

    Parameters
    ----------
    nodes : tuple of (first index, rank, sum)
        The largest subtrees within the items, in order; one of rank r is over 2^r items.
    """

    nodes: tuple[tuple[int, int, T], ...]

    @classmethod
    def of(cls, first: int, items: Iterable[T]) -> PartialSum[T]:
        """The partial sum of the items from index `first` on; holds one sum per rank, not all."""
        return cls(_added((first + i, 0, item) for i, item in enumerate(items)))

    @classmethod
    def joined(cls, parts: Iterable[PartialSum[T]]) -> PartialSum[T]:
        """The partial sum of items whose partial sums these are, in order."""
        return cls(_added(node for part in parts for node in part.nodes))

    @property
    def total(self) -> T:
        """The sum of all items, where these are all: by the tree, whatever parts it was made of.

        Raises
        ------
        ValueError
            There are no items.
        """
        if not self.nodes:
            raise ValueError("tree_sum needs at least one item")
        *rest, (_, _, total) = self.nodes
        for _, _, before in reversed(rest):
            total = before + total  # type: ignore[operator]
        return total


@dataclass(frozen=True, eq=False)
class Several(Generic[T]):
    """Sums of several things, each of which is added to its own.

    Parameters
    ----------
    items : tuple
        The things to be added; all that are added have the same number of items, in the same order.
    """

    items: tuple[T, ...]

    def __add__(self, other: Several[T]) -> Several[T]:
        pairs = zip(self.items, other.items, strict=True)
        return Several(tuple(one + another for one, another in pairs))  # type: ignore[operator]


def tree_sum(items: Iterable[T]) -> T:
    """Sum by the dyadic tree over the index.

    Raises
    ------
    ValueError
        There are no items.
    """
    return PartialSum.of(0, items).total


def tree_tasks(keys: list[Any]) -> tuple[dict[Any, Task], list[Any]]:
    """Tasks that join SPLIT_EVERY partial sums each, and their keys in order."""
    token, tasks, sums = uuid4().hex, {}, []
    for start in range(0, len(keys), SPLIT_EVERY):
        key = f"sum_statistics-{token}-{start // SPLIT_EVERY}"  # no tuple: it is of no one chunk
        refs = (TaskRef(k) for k in keys[start : start + SPLIT_EVERY])
        tasks[key] = Task(key, PartialSum.joined, List(*refs))
        sums.append(key)
    return tasks, sums


def _added(nodes: Iterable[tuple[int, int, Any]]) -> tuple[tuple[int, int, Any], ...]:
    """Subtrees in order, each pair that makes up a larger one added."""
    levels: list[tuple[int, int, Any]] = []
    for first, rank, total in nodes:
        while levels and levels[-1][1] == rank and levels[-1][0] % (2 << rank) == 0:
            first, _, before = levels.pop()
            total = before + total
            rank += 1
        levels.append((first, rank, total))
    return tuple(levels)
