"""A fit stopped after any pass and gone on with ends with the bits of one that never stopped."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gmm_dask.fitting import Method, Progress
from gmm_dask.fitting.state import State
from tests.fitting.results import assert_same_result, fits, methods, rows

EVERY_WAY: dict[str, st.SearchStrategy[Any]] = {
    "policy": st.sampled_from(["floor", "reseed", "drop"]),
    "prior": st.booleans(),
    "n_starts": st.integers(1, 3),
    "is_part": st.booleans(),
    "is_rough": st.booleans(),
}


@given(st.data(), methods, st.integers(0, 50), st.booleans(), st.fixed_dictionaries(EVERY_WAY))
@settings(max_examples=40)
def test_stopped_after_any_pass_it_ends_the_same(
    data: st.DataObject, method: Method, seed: int, equal: bool, way: dict[str, Any]
) -> None:
    X, kept = rows(seed, equal=equal), []
    whole = fits(X, method, keep=kept.append, **way)
    where = data.draw(st.sampled_from(kept))
    later: list[Progress] = []
    resumed = fits(X, method, keep=later.append, progress=where, **way)
    assert len(resumed) == len(whole)
    for mine, theirs in zip(resumed, whole, strict=True):
        assert_same_result(mine, theirs)
    # Nothing was done again: what is kept goes on from there.
    assert [each.n_passes for each in later] == [each.n_passes for each in kept][
        kept.index(where) :
    ]


@given(methods, st.integers(0, 50))
@settings(max_examples=10)
def test_it_is_over_where_no_pass_is_left(method: Method, seed: int) -> None:
    kept: list[Progress] = []
    X = rows(seed, equal=False)
    fits(X, method, policy="floor", prior=False, n_starts=2, is_part=False, keep=kept.append)
    over = [progress.is_over(method.max_iter) for progress in kept]
    assert over == [False] * (len(kept) - 1) + [True]


def test_the_state_before_the_first_pass_is_kept_and_told_of_once() -> None:
    kept: list[Progress] = []
    method = Method(2, "full", "k-means++", 1e-3, 3, sample_em=False, acceleration="none")
    way: dict[str, Any] = {"policy": "floor", "prior": False, "n_starts": 1, "is_part": False}
    fits(rows(0, equal=False), method, keep=kept.append, **way)
    first = kept[0]
    assert (first.n_passes, first.start, first.finished, first.n_to_come) == (0, 1, (), 0)
    assert isinstance(first.state, State)
    told: list[object] = []
    fits(rows(0, equal=False), method, progress=kept[1], tell=told.append, **way)
    assert told == []
