"""A sum whose order is fixed by the index of the chunk, not by who finishes first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar
from uuid import uuid4

from dask._task_spec import List, Task, TaskRef

T = TypeVar("T")

SPLIT_EVERY = 8  # fan-in on workers; a power of two, so that groups are whole subtrees of tree_sum


def tree_sum(items: Iterable[T]) -> T:
    """Sum by the dyadic tree over the index; holds one partial sum per level, not all items.

    Any grouping into aligned blocks whose length is a power of two gives the same bits.

    Raises
    ------
    ValueError
        There are no items.
    """
    levels: list[tuple[int, Any]] = []  # (rank, sum of 2^rank items), as a binary counter
    for item in items:
        rank, total = 0, item
        while levels and levels[-1][0] == rank:
            total = levels.pop()[1] + total
            rank += 1
        levels.append((rank, total))
    if not levels:
        raise ValueError("tree_sum needs at least one item")
    total = levels.pop()[1]
    while levels:
        total = levels.pop()[1] + total
    return total


def tree_tasks(keys: list[Any]) -> tuple[dict[Any, Task], list[Any]]:
    """Tasks that add up groups of SPLIT_EVERY keys, and the keys of their sums, in order."""
    token, tasks, sums = uuid4().hex, {}, []
    for start in range(0, len(keys), SPLIT_EVERY):
        key = f"sum_statistics-{token}-{start // SPLIT_EVERY}"  # no tuple: it is of no one chunk
        refs = (TaskRef(k) for k in keys[start : start + SPLIT_EVERY])
        tasks[key] = Task(key, tree_sum, List(*refs))
        sums.append(key)
    return tasks, sums
