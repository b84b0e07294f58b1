"""The stage with faults, and in any order with others, at every system call and every request.

A reader looks at all versions after each change.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from gmm_dask.errors import GmmDaskError
from gmm_dask.stage.outputs import Published
from gmm_dask.storage import Store, Version, list_versions
from gmm_dask.storage.store import local_store, object_store
from gmm_dask.storage.store.object_store import ObjectStore
from gmm_dask.storage.store.versions import find_garbage, remove_garbage
from tests.conftest import seeds
from tests.faults.conftest import ROWS, Drive
from tests.faults.steps import FAULTS, NEW_STORES, REQUESTS, FaultAt, Harm, InTurn, led_by
from tests.storage.stores import Crash, Reader, Turns

pytestmark = [
    pytest.mark.filterwarnings("ignore:Best performing initialization did not converge"),
    pytest.mark.timeout(1800),
]

KINDS = pytest.mark.parametrize("kind", NEW_STORES)


@contextmanager
def new_store(kind: str, folder: Path) -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch:
        yield NEW_STORES[kind](patch, folder)


def read_by(store: Store) -> Reader:
    return Reader(store, list(range(ROWS)))


def check_one_version(store: Store) -> Version:
    """Read by somebody who comes afterwards."""
    read_by(store).look()
    (version,) = list_versions(store)
    assert version.number == 1
    return version


def steps(kind: str, drive: Drive, folder: Path) -> list[str]:
    with new_store(kind, folder) as store:
        lead = FaultAt(read_by(store))
        with led_by(lead):
            drive(store)
    return lead.names


def attempt(drive: Drive, store: Store, lead: FaultAt) -> None:
    """One attempt of the run, which may end early, but never as if it were published."""
    with suppress(Crash, GmmDaskError), led_by(lead):
        published = drive(store)
        assert published.version in list_versions(store)


def share(quick: int) -> pytest.MarkDecorator:
    """All steps, or every so many in the tests that are always run."""
    many = pytest.param(1, id="all", marks=pytest.mark.heavy)
    return pytest.mark.parametrize("every", [pytest.param(quick, id="some"), many])


CELLS = [(kind, fault) for kind in NEW_STORES for fault in FAULTS]
CELLS.remove(("folder", "repeated"))
CELLS.remove(("service", "full"))


@share(60)
@pytest.mark.parametrize(("kind", "fault"), CELLS)
def test_after_a_fault_at_any_step_a_rerun_publishes_one_whole_version(
    kind: str, fault: str, every: int, drive: Drive, tmp_path: Path
) -> None:
    names = steps(kind, drive, tmp_path)
    assert len(names) > 60
    for at in range(11 * FAULTS.index(fault) % every, len(names), every):
        if fault == "repeated" and names[at] not in REQUESTS:
            continue
        with new_store(kind, tmp_path / str(at)) as store:
            attempt(drive, store, lead := FaultAt(read_by(store), at, fault))
            again = FaultAt(lead.reader)
            with led_by(again):
                drive(store)
            check_one_version(store)


PAIRS = [pytest.param(range(8), id="some"), pytest.param(range(8, 408), marks=pytest.mark.heavy)]


@KINDS
@pytest.mark.parametrize("cases", PAIRS)
def test_after_any_two_faults_a_rerun_publishes_one_whole_version(
    kind: str, cases: range, drive: Drive, tmp_path: Path
) -> None:
    n = len(steps(kind, drive, tmp_path))
    for seed in seeds(cases):
        dice = random.Random(seed)
        with new_store(kind, tmp_path / str(seed)) as store:
            reader = read_by(store)
            for _ in range(2):
                attempt(drive, store, FaultAt(reader, dice.randrange(n), dice.choice(FAULTS)))
            with led_by(FaultAt(reader)):
                drive(store)
            check_one_version(store)


Driver = Callable[[], Published | None]


MANY = 10_000  # steps: until a driver ends


def turns_of(n_drivers: int, seed: int, n_steps: int) -> Turns:
    """An order of steps: one at a time or some in a row, in half of all after a long lead.

    Drivers that start together seldom meet where it matters: so one goes to any of its steps,
    and another from its beginning to any of its own, or to its end.
    """
    dice, first = random.Random(seed), []
    if dice.random() < 0.5:
        one, two = dice.sample((0, 1), 2)
        first = [
            (one, dice.randrange(n_steps)),
            (two, dice.choice((dice.randrange(n_steps), MANY))),
        ]
    return Turns(n_drivers, seed, dice.choice([0.0, 0.5, 0.9, 0.99]), first)


def in_turns(store: Store, turns: Turns, drivers: list[Driver]) -> list[Published | None]:
    """All drivers at once, one step at a time."""
    reader = read_by(store)

    def work(who: int) -> Published | None:
        try:
            turns.begin(who)
            with led_by(InTurn(reader, turns, who)):
                return drivers[who]()
        finally:
            turns.leave(who)

    with ThreadPoolExecutor(len(drivers)) as pool:
        return list(pool.map(work, range(len(drivers))))


def collect(store: Store) -> None:
    """What `gc` does, three times."""
    for _ in range(3):
        remove_garbage(store, find_garbage(store))


# 1,000 in all, of two kinds of stores and two of drivers.
ORDERS = [pytest.param(range(6), id="some"), pytest.param(range(6, 256), marks=pytest.mark.heavy)]


@KINDS
@pytest.mark.parametrize("cases", ORDERS)
def test_two_drivers_of_one_run_and_gc_publish_one_version_in_any_order(
    kind: str, cases: range, drive: Drive, tmp_path: Path
) -> None:
    n = len(steps(kind, drive, tmp_path))
    for seed in seeds(cases):
        with new_store(kind, tmp_path / str(seed)) as store:
            drivers = [partial(drive, store, name) for name in ("one", "two")]
            all_three = [*drivers, partial(collect, store)]
            one, two, _ = in_turns(store, turns_of(3, seed, n), all_three)
            assert one.version == two.version == check_one_version(store)


@KINDS
@pytest.mark.parametrize("cases", ORDERS)
def test_two_runs_and_gc_publish_two_versions_in_any_order(
    kind: str, cases: range, drive: Drive, tmp_path: Path
) -> None:
    n = len(steps(kind, drive, tmp_path))
    for seed in seeds(cases):
        with new_store(kind, tmp_path / str(seed)) as store:
            drivers = [partial(drive, store, str(k), n_components=k) for k in (1, 2)]
            all_three = [*drivers, partial(collect, store)]
            *published, _ = in_turns(store, turns_of(3, seed, n), all_three)
            read_by(store).look()
            versions = sorted(each.version.number for each in published)
            assert versions == [version.number for version in list_versions(store)] == [1, 2]


def linked_over(temporary: Path, path: Path) -> bool:
    temporary.replace(path)
    return True


def created_over(path: str, data: bytes) -> bool:
    object_store._service().pipe_file(path, data)
    return True


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("kind", "target", "name", "mutant"),
    [
        ("folder", local_store, "_link", linked_over),
        ("service", ObjectStore, "_create", staticmethod(created_over)),
    ],
)
def test_without_an_atomic_creation_a_version_would_be_lost(
    kind: str, target: object, name: str, mutant: object, drive: Drive, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The tests above can fail: some of their orders show it."""
    n, said = len(steps(kind, drive, tmp_path)), []
    monkeypatch.setattr(target, name, mutant)
    for seed in seeds(range(506)):
        with new_store(kind, tmp_path / str(seed)) as store:
            drivers = [partial(drive, store, str(k), n_components=k) for k in (1, 2)]
            try:
                in_turns(store, turns_of(2, seed, n), drivers)
            except Harm as error:
                said.append(str(error))
                break
    assert said
    assert "a version" in said[0]
