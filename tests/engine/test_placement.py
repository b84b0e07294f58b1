"""Held chunks lie where a pass over them takes all workers equally long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.engine.cache.kept import TOLERANCE, moves

WORKERS = ("a", "b", "c")


def loads(holders: list[str | None], sizes: list[float], threads: dict[str, int]) -> list[float]:
    return [
        sum(size for at, size in zip(holders, sizes, strict=True) if at == worker) / n
        for worker, n in threads.items()
    ]


@given(
    st.lists(
        st.tuples(st.sampled_from((*WORKERS, "gone", None)), st.integers(1, 100)), max_size=40
    ),
    st.dictionaries(st.sampled_from(WORKERS), st.integers(1, 4), min_size=1),
)
def test_after_the_moves_no_worker_has_more_than_its_share_and_one_chunk(
    chunks: list[tuple[str | None, int]], threads: dict[str, int]
) -> None:
    holders, sizes = [at for at, _ in chunks], [float(size) for _, size in chunks]
    found = moves(holders, sizes, threads)
    after = [found.get(chunk, at) for chunk, at in enumerate(holders)]
    assert set(after) <= set(threads)
    fair = sum(sizes) / sum(threads.values())
    assert max(loads(after, sizes, threads)) <= TOLERANCE * fair + max(sizes, default=0)
    assert moves(after, sizes, threads) == {}, "it is spread, and stays as it is"


def test_all_on_one_of_two_workers_becomes_half_on_each() -> None:
    assert len(moves(["a"] * 16, [1.0] * 16, {"a": 1, "b": 1})) in (7, 8)


def test_a_worker_of_more_threads_holds_more() -> None:
    found = moves([None] * 12, [1.0] * 12, {"a": 1, "b": 3})
    assert sorted(found.values()) == ["a"] * 3 + ["b"] * 9


def test_what_is_even_enough_is_not_read_again() -> None:
    assert moves(["a"] * 21 + ["b"] * 20, [1.0] * 41, {"a": 1, "b": 1}) == {}


def test_without_a_worker_nothing_can_be_placed() -> None:
    assert moves(["gone", None], [1.0, 1.0], {}) == {}
