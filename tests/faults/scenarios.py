"""Faults and orders of writers through which the commit protocol is led; each raises at harm."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gmm_dask.errors import OutputError
from gmm_dask.storage import Version, latest, list_versions
from gmm_dask.storage.store.runs import RunFolder
from tests.storage import stores
from tests.storage.stores import (
    FAULTS,
    OTHER,
    ROWS,
    RUN,
    Between,
    Crash,
    FaultStore,
    MemoryStore,
    Reader,
    check_one_whole_version,
    publish_run,
    put_files,
    put_part,
)

Scenario = Callable[[], None]
OTHER_BITS = 1e-12  # what another processor may add to a score


@dataclass
class Watched(Between):
    """A store with a reader that looks at all versions after every operation that changes it."""

    store: MemoryStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        self.reader, self.seen = Reader(self.store, ROWS), {}

    def around(self, operation: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        finally:
            if self.store.objects != self.seen:
                self.seen = dict(self.store.objects)
                self.reader.look()


def n_operations() -> int:
    counting = FaultStore(MemoryStore())
    publish_run(counting)
    return len(counting.operations)


def with_any_fault() -> None:
    """A fault at every operation, and a restart that makes other bits."""
    for fault in FAULTS:
        for at in range(n_operations()):
            watched = Watched()
            try:
                version = publish_run(FaultStore(watched, at, fault), note="first")
            except (Crash, OutputError):
                pass
            else:
                assert version in list_versions(watched.store), "the version is not there"
            publish_run(watched, note="second", noise=OTHER_BITS)
            check_one_whole_version(watched.store)


def with_a_lost_reply() -> None:
    """The creation took effect and its writer does not hear of it."""
    counting = FaultStore(MemoryStore())
    publish_run(counting)
    for at, operation in enumerate(counting.operations):
        if operation == "put_if_absent":
            try:
                publish_run(FaultStore(MemoryStore(), at, "lost reply"))
            except OutputError as error:
                raise AssertionError("a lost reply failed the run") from error


@dataclass
class Overtaken(Between):
    """Another driver does all its work before the operation of that index."""

    other: Callable[[], Version]
    at: int
    count: int = 0
    version: Version | None = None

    def around(self, operation: str, call: Callable[[], Any]) -> Any:
        if self.count == self.at:
            self.version = self.other()
        self.count += 1
        return call()


def with_a_twin() -> None:
    """A driver of the same run, of other bits, that overtakes at any operation."""
    for at in range(n_operations()):
        watched = Watched()
        twin = partial(publish_run, watched, note="two", noise=OTHER_BITS)
        slow = Overtaken(watched, twin, at)
        assert publish_run(slow, note="one") == slow.version, "a run has an extra version"
        check_one_whole_version(watched.store)


def with_another_run() -> None:
    """A driver of another run that overtakes at any operation."""
    for at in range(n_operations()):
        watched = Watched()
        slow = Overtaken(watched, partial(publish_run, watched, OTHER), at)
        last = publish_run(slow)
        assert {slow.version, last} == set(list_versions(watched.store)), "a version is lost"


def two_runs() -> dict[str, bytes]:
    """What the run and another leave, each published."""
    watched = Watched()
    for run in (RUN, OTHER):
        publish_run(watched, run)
    return watched.store.objects


def again(left: dict[str, bytes]) -> Watched:
    """A store of its own that holds what was left, and has been looked at."""
    watched = Watched(MemoryStore(dict(left)))
    watched.reader.look()
    return watched


def check_returned(watched: Watched, before: dict[str, bytes]) -> None:
    """The run has one new version, the latest, and none of its files was touched."""
    assert latest(watched.store).run_id == RUN, "readers see another run"
    runs = [version.run_id for version in list_versions(watched.store)]
    assert runs == [RUN, OTHER, RUN], "a run has an extra version"
    assert files_of_runs(watched.store) == before, "a file of a run was written again"


def files_of_runs(store: MemoryStore) -> dict[str, bytes]:
    return {name: store.objects[name] for name in store.list("runs/")}


def with_a_return() -> None:
    """A run done again that is not the latest version, with any fault and once more."""
    counting = FaultStore(again(left := two_runs()))
    publish_run(counting)
    for fault in FAULTS:
        for at in range(len(counting.operations)):
            before = files_of_runs((watched := again(left)).store)
            with suppress(Crash, OutputError):
                publish_run(FaultStore(watched, at, fault), noise=OTHER_BITS)
                check_returned(watched, before)
            publish_run(watched, noise=OTHER_BITS)
            check_returned(watched, before)


def with_a_twin_that_returns() -> None:
    """Two drivers do a run again that is not the latest version."""
    counting = FaultStore(again(left := two_runs()))
    publish_run(counting)
    for at in range(len(counting.operations)):
        before = files_of_runs((watched := again(left)).store)
        slow = Overtaken(watched, partial(publish_run, watched), at)
        assert publish_run(slow) == slow.version, "a run has an extra version"
        check_returned(watched, before)


def with_a_return_overtaken() -> None:
    """While a run is done again another becomes the latest version: who is later is the latest."""
    counting = FaultStore(again(left := two_runs()))
    publish_run(counting)
    for at in range(len(counting.operations)):
        watched = again(left)
        slow = Overtaken(watched, partial(publish_run, watched, OTHER), at)
        mine = publish_run(slow)
        assert {mine, slow.version} <= set(list_versions(watched.store)), "a version is lost"
        assert latest(watched.store) == max((mine, slow.version), key=lambda each: each.number)


@dataclass
class Tears(MemoryStore):
    """A store that says a write is done and keeps half of it."""

    torn: str = ""

    def put_if_absent(self, name: str, data: bytes) -> bool:
        return super().put_if_absent(name, data[: len(data) // 2] if name == self.torn else data)


def with_a_torn_write() -> None:
    """Any file of a run torn while its writer goes on: nothing is published, or what is whole."""
    whole = MemoryStore()
    publish_run(whole)
    for name in whole.list("runs/"):
        watched = Watched(Tears(torn=name))
        with suppress(OutputError):
            publish_run(watched)
        if "/labels/" in name:
            publish_run(watched)
            check_one_whole_version(watched.store)


def with_damage_before_the_restart() -> None:
    """A part that the manifest names is damaged, and the restart makes others."""
    whole = MemoryStore()
    publish_run(whole)
    left = {name: data for name, data in whole.objects.items() if name.startswith("runs/")}
    for name in whole.list(f"runs/{RUN}/labels/"):
        watched = Watched(MemoryStore(left | {name: b"torn"}))
        with suppress(OutputError):
            publish_run(watched, noise=OTHER_BITS)


def with_a_receipt_too_few_or_twice() -> None:
    """Parts that are not those of the plan are never published."""
    for indices in ([0, 2], [0, 1], [1, 2], [0, 1, 1, 2]):
        watched = Watched()
        folder = RunFolder(watched, RUN)
        put_files(folder)
        with suppress(OutputError):
            receipts = [put_part(folder, index) for index in indices]
            sha256 = stores.put_manifest(folder, receipts, len(ROWS))
            stores.publish_version(watched, RUN, sha256, len(ROWS))


SCENARIOS = (
    with_any_fault,
    with_a_lost_reply,
    with_a_twin,
    with_another_run,
    with_a_return,
    with_a_twin_that_returns,
    with_a_return_overtaken,
    with_a_torn_write,
    with_damage_before_the_restart,
    with_a_receipt_too_few_or_twice,
)
