"""The tree's order is fixed by the index alone."""

from __future__ import annotations

from itertools import accumulate

import dask
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.engine.passes.tree_sum import PartialSum, tree_sum, tree_tasks


class Term:
    """Records how it was added up."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __add__(self, other: Term) -> Term:
        return Term(f"({self.text}+{other.text})")


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, "0"), (2, "(0+1)"), (3, "((0+1)+2)"), (4, "((0+1)+(2+3))"), (6, "(((0+1)+(2+3))+(4+5))")],
)
def test_the_tree_is_dyadic(n: int, expected: str) -> None:
    assert tree_sum(Term(str(i)) for i in range(n)).text == expected


values_in_runs = st.lists(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), min_size=1, max_size=20
)


def partial_sums(runs: list[list[float]]) -> list[PartialSum[float]]:
    firsts = accumulate((len(run) for run in runs), initial=0)
    return [PartialSum.of(first, run) for first, run in zip(firsts, runs, strict=False)]


@given(values_in_runs)
def test_any_runs_of_items_give_the_same_bits(runs: list[list[float]]) -> None:
    total = tree_sum(value for run in runs for value in run)
    assert PartialSum.joined(partial_sums(runs)).total == total


@given(values_in_runs)
def test_sums_on_workers_have_the_bits_of_the_driver(runs: list[list[float]]) -> None:
    graph = {("part", i): part for i, part in enumerate(partial_sums(runs))}
    tasks, keys = tree_tasks(list(graph))
    found = PartialSum.joined(dask.get({**graph, **tasks}, keys)).total
    assert found == tree_sum(value for run in runs for value in run)


def test_a_partial_sum_of_aligned_items_is_one_sum() -> None:
    assert len(PartialSum.of(24, [1.0] * 8).nodes) == 1


def test_one_partial_sum_per_level_is_held() -> None:
    alive: set[int] = set()
    most = 0

    class Counted:
        def __init__(self) -> None:
            nonlocal most
            alive.add(id(self))
            most = max(most, len(alive))

        def __add__(self, other: Counted) -> Counted:
            return Counted()

        def __del__(self) -> None:
            alive.discard(id(self))

    tree_sum(Counted() for _ in range(1024))
    assert most <= 2 + 11 * 2


def test_nothing_has_no_sum() -> None:
    with pytest.raises(ValueError, match="at least one"):
        tree_sum([])
