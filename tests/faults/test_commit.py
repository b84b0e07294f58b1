"""The stage with a fault at every store operation: each row once, a version whole or absent."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from gmm_dask.errors import GmmDaskError, OutputError
from gmm_dask.storage import Store, Version, latest, list_versions, verify
from gmm_dask.storage.store.local_store import LocalStore
from tests.conftest import seeds
from tests.faults.conftest import ROWS, Drive
from tests.object_service import ObjectService
from tests.storage.stores import (
    FAULTS,
    Crash,
    FaultStore,
    MemoryStore,
    Turns,
    TurnStore,
    published_rows,
)

pytestmark = pytest.mark.filterwarnings("ignore:Best performing initialization did not converge")


def contents(store: Store) -> dict[str, bytes]:
    return {name: store.get(name) for name in store.list("")}


NewStore = Callable[[], Store]


@pytest.fixture(params=["memory", "s3"])
def new_store(request: pytest.FixtureRequest) -> NewStore:
    """An empty store at each call: in memory, and of S3's kind."""
    if request.param == "memory":
        return MemoryStore
    return request.getfixturevalue("service").store


# A store, and which operations get a fault: all, or some. Of S3's kind the requests themselves, of
# which an operation has several, get faults in test_steps.py.
EVERYWHERE = [
    pytest.param("memory", 5, id="memory some"),
    pytest.param("memory", 1, id="memory", marks=pytest.mark.heavy),
    pytest.param("s3", 1, id="s3", marks=[pytest.mark.heavy, pytest.mark.timeout(1800)]),
]


def operations(drive: Drive) -> list[str]:
    store = FaultStore(MemoryStore())
    drive(store)
    return store.operations


def check_one_whole_version(store: Store) -> None:
    (version,) = list_versions(store)
    assert version.number == 1
    assert verify(store, version) == []
    assert published_rows(store, version) == list(range(ROWS))


def test_a_run_takes_as_many_operations_as_the_faults_are_tried_at(drive: Drive) -> None:
    assert 40 <= len(operations(drive)) <= 120


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("new_store", "every"), EVERYWHERE, indirect=["new_store"])
def test_a_fault_at_any_operation_loses_and_doubles_nothing(
    fault: str, new_store: NewStore, every: int, drive: Drive
) -> None:
    undisturbed = new_store()
    drive(undisturbed)
    labels = {name for name in undisturbed.list("") if "/labels/" in name}
    first = 9 * FAULTS.index(fault) % every  # each fault elsewhere, where not all are tried
    for at in range(first, len(operations(drive)), every):
        store = new_store()
        with suppress(Crash, OutputError):
            drive(FaultStore(store, at, fault))
        seen = latest(store)
        assert seen is None or published_rows(store, seen) == list(range(ROWS)), at
        drive(store)
        check_one_whole_version(store)
        assert {name for name in store.list("") if "/labels/" in name} == labels, at
        before = contents(store)
        assert not drive(store).new
        assert contents(store) == before


@pytest.mark.parametrize(("new_store", "every"), EVERYWHERE, indirect=["new_store"])
def test_a_lost_reply_to_a_creation_does_not_fail_the_run(
    new_store: NewStore, every: int, drive: Drive
) -> None:
    creations = [at for at, name in enumerate(operations(drive)) if name == "put_if_absent"]
    for at in creations[::every]:
        store = new_store()
        drive(FaultStore(store, at, "lost reply"))
        check_one_whole_version(store)


@pytest.mark.heavy
def test_a_second_fault_in_the_restart_changes_nothing_on_a_service(
    drive: Drive, service: ObjectService
) -> None:
    """On models of stores 400 pairs are tried, in test_steps.py."""
    n_operations = len(operations(drive))
    for seed in seeds(range(40)):
        dice, store = random.Random(seed), service.store()
        for _ in range(2):
            with suppress(Crash, OutputError):
                drive(FaultStore(store, dice.randrange(n_operations), dice.choice(FAULTS)))
        drive(store)
        check_one_whole_version(store)


def test_a_crash_leaves_a_local_store_usable(drive: Drive, tmp_path: Path) -> None:
    for at in range(0, len(operations(drive)), 12):  # all of them in memory, above
        store = LocalStore(str(tmp_path / str(at)))
        with suppress(Crash):
            drive(FaultStore(store, at, "crash after"))
        drive(store)
        check_one_whole_version(store)


def in_turns(store: Store, seed: int, drivers: list[Callable[[Store], Version]]) -> list[Version]:
    turns = Turns(len(drivers), seed)

    def work(who: int) -> Version:
        try:
            return drivers[who](TurnStore(store, turns, who))
        finally:
            turns.leave(who)

    with ThreadPoolExecutor(len(drivers)) as pool:
        return list(pool.map(work, range(len(drivers))))


# A store, and how many orders: of smaller steps test_steps.py tries 1,000, some of them always.
ORDERS = [
    pytest.param("memory", 10, id="memory", marks=pytest.mark.heavy),
    pytest.param("s3", 20, id="s3", marks=pytest.mark.heavy),
]


@pytest.mark.parametrize(("new_store", "n"), ORDERS, indirect=["new_store"])
def test_two_drivers_of_one_run_publish_one_version_in_any_order(
    new_store: NewStore, n: int, drive: Drive
) -> None:
    undisturbed = new_store()
    drive(undisturbed)
    (model,) = (name for name in undisturbed.list("") if name.endswith("/model.json"))
    for seed in seeds(range(n)):
        store = new_store()
        drivers = [lambda store, name=name: drive(store, name).version for name in ("one", "two")]
        one, two = in_turns(store, seed, drivers)
        assert one == two
        check_one_whole_version(store)
        # Either may have gone on from a checkpoint of the other.
        assert store.get(model) == undisturbed.get(model)


@pytest.mark.parametrize(("new_store", "n"), ORDERS, indirect=["new_store"])
def test_two_runs_publish_two_versions_in_any_order(
    new_store: NewStore, n: int, drive: Drive
) -> None:
    for seed in seeds(range(n)):
        store = new_store()
        drivers = [
            lambda store, name=name, k=k: drive(store, name, n_components=k).version
            for name, k in (("one", 1), ("two", 2))
        ]
        versions = in_turns(store, seed, drivers)
        assert sorted(version.number for version in versions) == [1, 2]
        for version in versions:
            assert verify(store, version) == []
            assert published_rows(store, version) == list(range(ROWS))


def test_without_an_atomic_creation_versions_would_be_lost(drive: Drive) -> None:
    """The tests above can fail: a store that looks first and writes then loses versions."""

    class LooksFirst(TurnStore):
        def put_if_absent(self, name: str, data: bytes) -> bool:
            if self.exists(name):
                return False
            self.put(name, data)
            return True

    def versions(seed: int) -> int:
        memory, turns = MemoryStore(), Turns(2, seed)

        def work(who: int) -> None:
            try:
                drive(LooksFirst(memory, turns, who), str(who), n_components=1 + who)
            finally:
                turns.leave(who)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(work, (0, 1)))
        return len(list_versions(memory))

    assert any(versions(seed) < 2 for seed in seeds(range(200)))


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.heavy)])
def test_a_damaged_object_of_an_unfinished_run_is_made_again_or_named(
    every: int, drive: Drive
) -> None:
    """Whatever an interrupted run left: the next one ends whole, or says which file is damaged."""
    whole = MemoryStore()
    drive(whole)
    left = {name: data for name, data in whole.objects.items() if not name.startswith("versions/")}
    for number, (name, data) in enumerate(left.items()):
        damages = (b"", data[: len(data) // 2], bytes([data[0] ^ 1]) + data[1:])
        for damaged in damages[number % every :: every]:
            memory = MemoryStore(left | {name: damaged})
            refusal = refusal_of(lambda memory=memory: drive(memory))
            if refusal is None:
                check_one_whole_version(memory)
            else:
                assert name.rpartition("/")[2] in refusal
                assert latest(memory) is None


def refusal_of(call: Callable[[], object]) -> str | None:
    """What a call is refused with; None where it is not."""
    try:
        call()
    except GmmDaskError as error:
        return str(error)
    return None
