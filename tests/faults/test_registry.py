"""Promotion, roll-back, names and retention under faults and rivals: no alias points to nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from gmm_dask.errors import OutputError
from gmm_dask.stage.identity import ATTEMPT
from gmm_dask.stage.lineage import registry
from gmm_dask.stage.lineage.retention import Policy, collect
from gmm_dask.storage import (
    Registry,
    RunFolder,
    Store,
    Version,
    append,
    canonical_json,
    find_entry,
    latest,
    list_versions,
    verify,
)
from gmm_dask.storage.store.runs import MANIFEST
from tests.faults.scenarios import Overtaken
from tests.faults.steps import NEW_STORES, led_by
from tests.faults.test_requests import Nth, after
from tests.object_service import ObjectService
from tests.storage.stores import (
    CHUNK,
    FAULTS,
    ROWS,
    Between,
    Crash,
    FaultStore,
    MemoryStore,
    publish_run,
    published_rows,
)

RUNS = [f"{n:016x}" for n in range(1, 6)]
POLICY = Policy(runs=2, labels=1, abandoned_days=7.0)
TODAY = "2026-08-20T12:00:00.000Z"
Action = Callable[[Store], Any]
# Of the steps that create nothing, so many are passed over.
EVERY = pytest.mark.parametrize("every", [40, pytest.param(1, marks=pytest.mark.heavy)])


def clock() -> str:
    return TODAY


def point(store: Store, alias: str, number: int) -> None:
    """An alias as `promote` sets it; the runs of these tests have no settings with criteria."""
    version = find_entry(store, number)
    folder = RunFolder(store, version.run_id)
    registry.promote_as(folder, version, alias, unchecked=True, now=clock)


def gc(store: Store) -> None:
    collect(store, POLICY, now=clock)


@dataclass
class Watched(Between):
    """A store that is looked at after every operation that changes it."""

    store: MemoryStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        self.seen: dict[str, bytes] = {}

    def around(self, operation: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        finally:
            n_more = len(self.store.objects) - len(self.seen)
            if (
                n_more > 0 or n_more <= -9
            ):  # of what goes, one after the other, not each is looked at
                self.seen = dict(self.store.objects)
                check(self.store)


def check(store: MemoryStore) -> None:
    """Every version that is not removed is whole, and so is what aliases point to."""
    newest = latest(store)
    if newest is None:
        return
    known = newest.registry
    assert newest.run_id not in known.retired, "the latest version was removed"
    for alias in known.aliases:
        try:
            find_entry(store, alias)
        except OutputError as error:
            raise AssertionError("an alias points to nothing") from error
    for version in list_versions(store):
        if version.run_id not in known.retired:
            check_whole(store, version, version.run_id in known.unlabelled)


WHOLE: set[Any] = set()  # what was looked at already


def check_whole(store: MemoryStore, version: Version, unlabelled: bool) -> None:
    of_run = f"runs/{version.run_id}/"
    files = frozenset(each for each in store.objects.items() if each[0].startswith(of_run))
    if (files, version, unlabelled) in WHOLE:
        return
    assert verify(store, version) == [], "a version is partial"
    if not unlabelled:
        assert published_rows(store, version) == ROWS[:CHUNK], "rows are lost or double"
    WHOLE.add((files, version, unlabelled))


def five_runs() -> dict[str, bytes]:
    """Five versions, an alias on the second, a run that was given up, and one under way."""
    return dict(_five_runs())


@cache
def _five_runs() -> dict[str, bytes]:
    store = MemoryStore()
    for run_id in RUNS:
        publish_run(store, run_id, n_parts=1)
    point(store, "champion", 2)
    for run_id, began in (("a" * 16, "2026-08-01T12:00:00.000Z"), ("b" * 16, TODAY)):
        folder = RunFolder(store, run_id)
        folder.put(ATTEMPT, canonical_json({"began": began}))
        folder.put_if_absent("run.json", b'{"plan":1}\n')
    return store.objects


@pytest.fixture(autouse=True)
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run.json of these runs holds no settings: whether files are private is not asked."""
    monkeypatch.setattr(registry, "as_its_run", lambda folder: folder.store)


def again(left: dict[str, bytes]) -> Watched:
    watched = Watched(MemoryStore(dict(left)))
    check(watched.store)
    return watched


def steps_of(operations: list[str], every: int) -> list[int]:
    """All steps that create something, and some of the others."""
    return [
        at
        for at, operation in enumerate(operations)
        if operation.startswith("put") or at % every == 0
    ]


def runs_of(store: Store) -> set[str]:
    return {name.split("/")[1] for name in store.list("runs/")}


def test_gc_removes_what_nobody_needs_and_nothing_else() -> None:
    watched = again(five_runs())
    found = collect(watched, POLICY, dry_run=True, now=clock)
    assert watched.store.objects == five_runs()
    done = collect(watched, POLICY, now=clock)
    assert done == found
    assert set(done.runs) == {RUNS[0], RUNS[2], "a" * 16}
    assert done.labels == (RUNS[3],)
    assert runs_of(watched) == {RUNS[1], RUNS[3], RUNS[4], "b" * 16}
    assert not watched.list(f"runs/{RUNS[3]}/labels/")
    assert watched.list(f"runs/{RUNS[1]}/labels/"), "an alias keeps the labels, too"
    assert collect(watched, POLICY, now=clock).garbage.names == ()
    with pytest.raises(OutputError, match="version 1 was removed"):
        find_entry(watched, 1)


def test_an_attempt_that_nobody_noted_is_given_up_a_week_after_it_was_seen() -> None:
    store = MemoryStore(five_runs())
    old = "c" * 16
    store.objects[f"runs/{old}/run.json"] = b'{"plan":1}\n'
    gc(store)
    assert old in runs_of(store)
    collect(store, POLICY, now=lambda: "2026-08-28T12:00:00.000Z")
    assert old not in runs_of(store)


ACTIONS: dict[str, Action] = {
    "gc": gc,
    "promotion": partial(point, alias="champion", number=3),
    "roll-back": lambda store: registry.promote_back(store.url, "champion", clock),
    "publishing again": lambda store: publish_run(store, RUNS[0], n_parts=1),
}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[[Store], None]:
    """Have `promote_back`, which takes the path of an output, find the store of the test."""
    found: list[Store] = []
    monkeypatch.setattr(registry, "open_store", lambda url: found[-1])
    return found.append


@EVERY
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("action", ACTIONS)
def test_stopped_at_any_step_it_can_be_done_again(
    action: str, fault: str, every: int, opened: Callable[[Store], None]
) -> None:
    left = MemoryStore(five_runs())
    point(left, "champion", 4)  # so that there is something to go back to
    done = again(left.objects)
    opened(counting := FaultStore(done))
    ACTIONS[action](counting)
    for at in steps_of(counting.operations, every):
        watched = again(left.objects)
        opened(faulty := FaultStore(watched, at, fault))
        with suppress(Crash, OutputError):
            ACTIONS[action](faulty)
        check(watched.store)
        opened(watched)
        before = latest(watched.store)
        assert before is not None
        aliases = before.registry.aliases
        if action != "roll-back" or aliases["champion"] == 4:  # twice would go back twice
            ACTIONS[action](watched)
        check(watched.store)
        ended, expected = latest(watched.store), latest(done.store)
        assert ended is not None
        assert expected is not None
        assert (ended.run_id, ended.registry) == (expected.run_id, expected.registry)
        assert runs_of(watched) == runs_of(done)


@EVERY
@pytest.mark.parametrize("rival", ACTIONS)
@pytest.mark.parametrize("action", ACTIONS)
def test_overtaken_at_any_step_no_alias_points_to_nothing(
    action: str, rival: str, every: int, opened: Callable[[Store], None]
) -> None:
    left = MemoryStore(five_runs())
    point(left, "champion", 4)
    opened(counting := FaultStore(again(left.objects)))
    ACTIONS[action](counting)
    for at in steps_of(counting.operations, every):
        watched = again(left.objects)
        slow = Overtaken(watched, lambda: None, at)

        def other(slow: Overtaken = slow) -> None:
            opened(slow.store)
            with suppress(OutputError):  # what was removed is refused
                ACTIONS[rival](slow.store)
            opened(slow)

        slow.other = other
        opened(slow)
        with suppress(OutputError):
            ACTIONS[action](slow)
        check(watched.store)
        newest = latest(watched.store)
        assert newest is not None
        assert newest.registry.aliases.keys() == {"champion"}


@dataclass
class Killed:
    """The process ends before the step of that index, and takes no more."""

    at: int = -1
    n_steps: int = 0

    def __call__(self, name: str, carry_out: Callable[[], Any]) -> Any:
        if self.n_steps == self.at:
            raise Crash
        self.n_steps += 1
        return carry_out()


@contextmanager
def real_store(kind: str, folder: Path) -> Iterator[Store]:
    """Five runs in a folder, each system call of which is a step, or in a service of requests."""
    with pytest.MonkeyPatch.context() as patch:
        store = NEW_STORES[kind](patch, folder)
        for name, data in started().items():
            store.put(name, data)
        yield store


@cache
def started() -> dict[str, bytes]:
    left = MemoryStore(five_runs())
    point(left, "champion", 4)
    return left.objects


def copied(store: Store) -> MemoryStore:
    return MemoryStore({name: store.get(name) for name in store.list("")})


@pytest.mark.parametrize("every", [30, pytest.param(1, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("kind", NEW_STORES)
@pytest.mark.parametrize("action", ACTIONS)
def test_killed_at_any_system_call_or_request_it_can_be_done_again(
    action: str, kind: str, every: int, opened: Callable[[Store], None], tmp_path: Path
) -> None:
    with real_store(kind, tmp_path) as store, led_by(lead := Killed()):
        opened(store)
        ACTIONS[action](store)
        expected = latest(store)
    assert lead.n_steps > 10
    assert expected is not None
    for at in range(lead.n_steps - 1, 0, -every):  # the last steps are those that commit
        with real_store(kind, tmp_path / str(at)) as store:
            opened(store)
            with led_by(Killed(at)), suppress(Crash):
                ACTIONS[action](store)
            check(copied(store))
            before = latest(store)
            assert before is not None
            if action != "roll-back" or before.registry.aliases["champion"] == 4:
                ACTIONS[action](store)
            check(copied(store))
            ended = latest(store)
            assert ended is not None
            assert (ended.run_id, ended.registry) == (expected.run_id, expected.registry)


@pytest.mark.parametrize("every", [160, pytest.param(1, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.timeout(1800)
def test_a_fault_at_any_request_to_s3_does_not_fail_it(
    action: str, every: int, opened: Callable[[Store], None], service: ObjectService
) -> None:
    """What the library repeats, since it heard no answer, is done once."""
    expected = None
    n_requests = at = every // 2
    while at <= n_requests:  # the first time nothing is spoilt, and requests are counted
        store = service.store()
        for name, data in started().items():
            store.put(name, data)
        opened(store)
        with service.spoilt(spoilt := Nth(at if expected else -1, after)):
            ACTIONS[action](store)
        check(copied(store))
        ended = latest(store)
        assert ended is not None
        if expected is None:
            expected, n_requests = ended, spoilt.seen
            continue
        assert (ended.run_id, ended.registry) == (expected.run_id, expected.registry)
        at += every


def test_a_name_is_not_lost_to_another_writer() -> None:
    """Two writers of names, one of which overtakes at any operation: both names are there."""

    def named(store: Store, identity: str) -> Version:
        def entry(newest: Version | None, number: int) -> Version | None:
            assert newest is not None
            names = {**newest.registry.names, identity: "x"}
            if names == newest.registry.names:
                return None
            found = Registry(newest.registry.aliases, names)
            return Version(number, newest.run_id, newest.manifest_sha256, newest.rows, TODAY, found)

        return append(store, entry)

    counting = FaultStore(again(five_runs()))
    named(counting, "one")
    for at in range(len(counting.operations)):
        watched = again(five_runs())
        named(Overtaken(watched, partial(named, watched, "two"), at), "one")
        newest = latest(watched.store)
        assert newest is not None
        assert newest.registry.names.keys() == {"one", "two"}


@pytest.mark.parametrize("action", ["publishing again", "promotion"])
def test_without_a_look_at_what_was_removed_there_is_harm(
    action: str, monkeypatch: pytest.MonkeyPatch, opened: Callable[[Store], None]
) -> None:
    """The test above sees it where writers do not look at what the newest entry says."""
    _five_runs()
    monkeypatch.setattr(Registry, "gone", frozenset())
    with pytest.raises(AssertionError, match=r"was removed|points to nothing|partial"):
        test_overtaken_at_any_step_no_alias_points_to_nothing(action, "gc", 5, opened)


def test_a_run_that_was_removed_is_made_anew_under_another_identity() -> None:
    store = MemoryStore(five_runs())
    gc(store)
    with pytest.raises(OutputError, match="was removed meanwhile"):
        publish_run(store, RUNS[0], n_parts=1)
    assert RunFolder(store, RUNS[0]).exists(MANIFEST)  # a driver that knew of nothing made it
    gc(store)
    assert not store.list(f"runs/{RUNS[0]}/")
