"""Components keep their number, and what happens to them is told when it happens."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmm_dask.fitting import FitResult, Outcome
from gmm_dask.fitting.events import Action, Event
from gmm_dask.mixture import Cause, Parameters
from gmm_dask.mixture.matching import SEPARATE, overlaps
from gmm_dask.stage.lineage.changes import (
    CHANGES_FILE,
    Changes,
    Followed,
    Kind,
    Predecessor,
    changes_of,
    first_descents,
    order_of,
    renumbered,
)
from tests.stage.lineage.nights import BORN, DIED, SPLIT, nights
from tests.storage.stores import model_of
from tests.strategies import mixtures

FOLLOWED = Followed(None, 3, "0" * 16, "a" * 64)


def line(
    means: list[float], weights: list[float] | None = None, variances: list[float] | None = None
) -> Parameters:
    k = len(means)
    return Parameters.from_covariances(
        np.full(k, 1 / k) if weights is None else weights,
        np.reshape(means, (k, 1)),
        np.ones(k) if variances is None else np.array(variances),
        "spherical",
    )


def changes(before: Parameters, now: Parameters, n_rows: int = 10_000) -> Changes:
    model = model_of(before)
    predecessor = Predecessor(FOLLOWED, before, n_rows, first_descents(model))
    return changes_of(model_of(now, n_rows=n_rows), predecessor)


def told(before: Parameters, now: Parameters) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    found = changes(before, now).changes
    return [(str(each.kind), each.components, each.previous) for each in found]


def test_without_a_predecessor_the_largest_weight_comes_first() -> None:
    found = line([0.0, 5.0, 9.0], [0.2, 0.5, 0.3])
    assert order_of(found, None) == [1, 2, 0]
    assert changes_of(model_of(found), None).follows is None


@settings(max_examples=30)
@given(mixtures(), st.randoms(use_true_random=False))
def test_in_any_order_components_get_the_numbers_they_had(parameters: Parameters, random) -> None:
    order = list(range(parameters.n_components))
    random.shuffle(order)
    shuffled = parameters.take(order)
    found = shuffled.take(order_of(shuffled, parameters))
    np.testing.assert_array_equal(found.means, parameters.means)
    assert told(parameters, found) == []


@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_those_that_are_born_take_the_numbers_that_are_free(order: tuple[int, ...]) -> None:
    before = line([0.0, 20.0, 40.0])
    now = line([20.0, 60.0, 80.0], [0.2, 0.3, 0.5]).take(order)
    found = now.take(order_of(now, before))
    np.testing.assert_array_equal(found.means[:, 0], [80.0, 20.0, 60.0])
    kinds = [("born", (0,), ()), ("born", (2,), ()), ("died", (), (0,)), ("died", (), (2,))]
    assert told(before, found) == kinds


def test_of_fewer_components_only_the_last_get_another_number() -> None:
    before, now = line([0.0, 20.0, 40.0]), line([0.0, 40.0])
    found = now.take(order_of(now, before))
    np.testing.assert_array_equal(found.means[:, 0], [0.0, 40.0])
    assert told(before, found) == [("died", (), (1,)), ("renumbered", (1,), (2,))]


def test_a_split_and_a_merger_are_told_with_all_who_took_part() -> None:
    whole = line([0.0, 30.0], [0.6, 0.4], [10.0, 1.0])
    halves = line([-3.0, 30.0, 3.0], [0.3, 0.4, 0.3])
    assert told(whole, halves) == [("split", (0, 2), (0,))]
    assert told(halves, whole) == [("merged", (0,), (0, 2))]


def test_what_is_born_beside_another_is_no_split() -> None:
    before, now = line([0.0, 30.0]), line([0.0, 30.0, 6.0], [0.45, 0.45, 0.1])
    assert told(before, now) == [("born", (2,), ())]


def test_a_move_is_told_where_it_is_more_than_chance() -> None:
    before = line([0.0, 30.0], [0.5, 0.5])
    assert told(before, line([0.4, 31.0])) == [("moved", (1,), (1,))]
    assert changes(before, line([0.4, 31.0])).components[0].shift == pytest.approx(0.4)
    assert changes(before, line([0.0, 31.0]), n_rows=10).changes == ()


def test_the_file_has_all_of_it() -> None:
    found = changes(line([0.0, 20.0]), line([0.5, 60.0]))
    assert CHANGES_FILE.load(CHANGES_FILE.dump(found), "changes.json") == found
    (kept, born) = found.components
    assert (kept.previous, born.previous) == (0, None)
    assert kept.identity == first_descents(model_of(line([0.0, 20.0])))[0].identity
    assert born.identity == f"{found.model_sha256[:16]}-1"
    assert found.partners == {0: 0}


def test_events_of_a_fit_have_the_numbers_of_its_end() -> None:
    def event(number: int, component: int | None, action: Action) -> Event:
        return Event(number, component, Cause.STARVED, action, (), number)

    final, larger = line([0.0, 5.0]), line([0.0, 5.0, 9.0])
    events = (
        event(1, 0, Action.FLOORED),
        event(2, 2, Action.DROPPED),
        event(3, 0, Action.FLOORED),
        event(3, None, Action.FLOORED),
    )
    result = FitResult(final, (0.0,), Outcome.CONVERGED, (larger, final), 9, 9.0, events)
    found = renumbered(result, [1, 0])
    assert [each.component for each in found.events_] == [0, 2, 1, None]
    assert found.trajectory[0] is larger
    np.testing.assert_array_equal(found.trajectory[1].means, found.parameters.means)
    np.testing.assert_array_equal(found.parameters.means[:, 0], [5.0, 0.0])


def check_nights(seed: int, *, choose: bool) -> None:
    """Names follow the truth, and each event is told in its night and in no other."""
    identities: dict[str, str] = {}
    events: list[tuple[int, Kind]] = []
    for number, night in enumerate(nights(seed, choose=choose), start=1):
        found = night.model.parameters
        assert found.n_components == len(night.truth), (seed, number)
        apart = overlaps(found) - np.eye(found.n_components)
        for name, mean in night.truth.items():
            j = int(np.argmin(np.linalg.norm(found.means - mean, axis=1)))
            if apart[j].max() < SEPARATE and not name.startswith("c,"):
                identity = night.changes.components[j].identity
                assert identities.setdefault(name, identity) == identity, (seed, number, name)
        events += [(number, each.kind) for each in night.changes.changes]
    expected = [(BORN, Kind.BORN), (DIED, Kind.DIED), (SPLIT, Kind.SPLIT)]
    small = (Kind.MOVED, Kind.RENUMBERED)
    assert [each for each in events if each[1] not in small] == expected, seed
    assert len(set(identities.values())) == len(identities)


def test_names_follow_the_truth_through_thirty_nights() -> None:
    check_nights(0, choose=False)


def test_nothing_is_invented_on_data_that_stay_as_they_are() -> None:
    told = [night.changes.changes for night in nights(0, drifts=False)]
    assert told == [()] * len(told)


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(20))
def test_names_follow_the_truth_where_the_data_say_how_many_there_are(seed: int) -> None:
    check_nights(seed, choose=True)


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_invented_whatever_is_drawn(seed: int) -> None:
    assert not any(night.changes.changes for night in nights(seed, drifts=False, choose=True))
