"""The tree's order is fixed by the index alone."""

from __future__ import annotations

import dask
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.engine.passes.tree_sum import SPLIT_EVERY, tree_sum, tree_tasks


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


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=100))
def test_groups_of_a_power_of_two_give_the_same_bits(values: list[float]) -> None:
    groups = [values[i : i + SPLIT_EVERY] for i in range(0, len(values), SPLIT_EVERY)]
    assert tree_sum(tree_sum(group) for group in groups) == tree_sum(values)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_sums_on_workers_have_the_bits_of_the_driver(values: list[float]) -> None:
    graph = {("value", i): value for i, value in enumerate(values)}
    tasks, keys = tree_tasks(list(graph))
    assert tree_sum(dask.get({**graph, **tasks}, keys)) == tree_sum(values)


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
