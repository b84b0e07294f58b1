"""Each step of the commit protocol is needed: without it, a fault or an order of writers harms."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gmm_dask.errors import OutputError
from gmm_dask.storage import Store, Version, latest, list_versions, verify
from gmm_dask.storage.arrow import parquet_bytes
from gmm_dask.storage.records import manifest, receipts
from gmm_dask.storage.records.documents import sha256_hex
from gmm_dask.storage.records.receipts import PartReceipt
from gmm_dask.storage.store import local_store, runs, versions
from gmm_dask.storage.store.local_store import LocalStore
from gmm_dask.storage.store.protocol import create_once
from gmm_dask.storage.store.runs import MANIFEST, RunFolder
from gmm_dask.storage.store.versions import publish_version
from tests.faults.conftest import Drive
from tests.faults.scenarios import (
    SCENARIOS,
    Scenario,
    with_a_lost_reply,
    with_a_receipt_too_few_or_twice,
    with_a_return,
    with_a_torn_write,
    with_a_twin,
    with_a_twin_that_returns,
    with_another_run,
    with_any_fault,
    with_damage_before_the_restart,
)
from tests.storage import stores
from tests.storage.stores import MemoryStore

Mutate = Callable[[pytest.MonkeyPatch], None]


def creating(mutant: Callable[[Store, str, bytes], bytes], *modules: Any) -> Mutate:
    """Objects are created in another way, by all modules or by some."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        for module in modules or (runs, manifest, versions):
            patch.setattr(module, "create_once", mutant)

    return mutate


def replacing(target: Any, name: str, mutant: Any) -> Mutate:
    return lambda patch: patch.setattr(target, name, mutant)


def overwrite(store: Store, name: str, data: bytes) -> bytes:
    store.put(name, data)
    return data


def look_first(store: Store, name: str, data: bytes) -> bytes:
    return store.get(name) if store.exists(name) else overwrite(store, name, data)


def take_for_won(store: Store, name: str, data: bytes) -> bytes:
    create_once(store, name, data)
    return data


def delete_if_unknown(store: Store, name: str, data: bytes) -> bytes:
    try:
        return data if store.put_if_absent(name, data) else store.get(name)
    except OutputError:
        store.delete(name)
        raise


def done_if_unknown(store: Store, name: str, data: bytes) -> bytes:
    try:
        return data if store.put_if_absent(name, data) else store.get(name)
    except OutputError:
        return data


def failed_if_unknown(store: Store, name: str, data: bytes) -> bytes:
    return data if store.put_if_absent(name, data) else store.get(name)


def entry_first(store: Store, name: str, data: bytes) -> bytes:
    document = json.loads(data)
    number = 1 + max(versions.version_numbers(store), default=0)
    version = Version(number, document["run_id"], sha256_hex(data), document["rows"])
    create_once(store, version.name, version.to_json())
    return create_once(store, name, data)


def without_a_look(store: Store, run_id: str, manifest_sha256: str, rows: int) -> Version:
    while True:
        number = 1 + max(versions.version_numbers(store), default=0)
        version = Version(number, run_id, manifest_sha256, rows)
        if create_once(store, version.name, version.to_json()) == version.to_json():
            return version


def any_version_will_do(store: Store, run_id: str, manifest_sha256: str, rows: int) -> Version:
    for version in list_versions(store):
        if version.points_to(run_id, manifest_sha256):
            return version
    return publish_version(store, run_id, manifest_sha256, rows)


def looked_at_once(patch: pytest.MonkeyPatch) -> None:
    looks: list[tuple[Store, Version | None]] = []

    def once(store: Store) -> Version | None:
        if not any(known is store for known, _ in looks):
            looks.append((store, latest(store)))
        return next(found for known, found in looks if known is store)

    patch.setattr(versions, "latest", once)


def by_its_number(folder: RunFolder, index: int, table: pa.Table, **where: Any) -> PartReceipt:
    of_model = {"gmm_dask.model_sha256": where["model_sha256"]}
    data, name = parquet_bytes(table, of_model), f"labels/part-{index:05d}.parquet"
    folder.put(name, data)
    rows = table.num_rows
    return PartReceipt(index, name, sha256_hex(data), len(data), rows, **where)


class Standing(RunFolder):
    def put(self, name: str, data: bytes) -> None:
        pass


def let_stand(folder: RunFolder, *part: Any, **where: Any) -> PartReceipt:
    return receipts.write_part(Standing(folder.store, folder.run_id), *part, **where)


def own_manifest(store: Store, name: str, data: bytes) -> bytes:
    return take_for_won(store, name, data) if name.endswith(MANIFEST) else data


# The step that is taken out, where that shows, and what then happens.
MUTANTS: dict[str, tuple[Mutate, Scenario, str]] = {
    "a creation overwrites": (
        creating(overwrite),
        with_another_run,
        "a version that was seen is lost",
    ),
    "a creation looks first": (
        creating(look_first),
        with_another_run,
        "a version that was seen is lost",
    ),
    "an entry overwrites": (
        creating(overwrite, versions),
        with_another_run,
        "a version that was seen is lost",
    ),
    "a manifest overwrites": (creating(overwrite, manifest), with_a_twin, "a version is partial"),
    "a file of a run overwrites": (creating(overwrite, runs), with_a_twin, "a version is partial"),
    "a lost race is taken for won": (
        creating(take_for_won, versions),
        with_another_run,
        "a version is lost",
    ),
    "the latest is looked at once": (
        looked_at_once,
        with_another_run,
        "1000 version numbers in a row were taken by others",
    ),
    "an unknown outcome is deleted": (
        creating(delete_if_unknown),
        with_any_fault,
        "a version that was seen is lost",
    ),
    "an unknown outcome is taken for done": (
        creating(done_if_unknown),
        with_any_fault,
        "the version is not there",
    ),
    "an unknown outcome is taken for failed": (
        creating(failed_if_unknown),
        with_a_lost_reply,
        "a lost reply failed the run",
    ),
    "the entry comes before the manifest": (
        creating(entry_first, manifest),
        with_any_fault,
        "a version is partial",
    ),
    "it is not looked which run is the latest": (
        replacing(stores, "publish_version", without_a_look),
        with_a_twin,
        "a run has an extra version",
    ),
    "who returns to a run does not look which is the latest": (
        replacing(stores, "publish_version", without_a_look),
        with_a_twin_that_returns,
        "a run has an extra version",
    ),
    "any version of the run will do": (
        replacing(stores, "publish_version", any_version_will_do),
        with_a_return,
        "readers see another run",
    ),
    "the manifest is not read again": (
        replacing(versions, "read_manifest", lambda *_: {}),
        with_a_torn_write,
        "a version is partial",
    ),
    "the manifest of a twin is not named": (
        creating(own_manifest, manifest),
        with_any_fault,
        ".* is not the manifest that the version names",
    ),
    "an earlier manifest is not checked": (
        replacing(manifest, "_check_earlier", lambda *_: None),
        with_damage_before_the_restart,
        "a version is partial",
    ),
    "parts are not read back": (
        replacing(PartReceipt, "damage", lambda *_: None),
        with_a_torn_write,
        "a version is partial",
    ),
    "rows are not compared with the plan": (
        replacing(manifest, "_uncovered_rows", lambda *_: []),
        with_a_receipt_too_few_or_twice,
        "rows are lost or double",
    ),
    "a part is named by its number": (
        replacing(stores, "write_part", by_its_number),
        with_a_twin,
        "a version is partial",
    ),
    "a damaged part stands": (
        replacing(stores, "write_part", let_stand),
        with_a_torn_write,
        r"Run .* is not whole: .*part-00000-\w+.parquet is damaged",
    ),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_protocol_as_it_is_harms_nothing(scenario: Scenario) -> None:
    scenario()


@pytest.mark.parametrize("step", MUTANTS)
def test_without_one_of_its_steps_the_protocol_does_harm(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate, scenario, harm = MUTANTS[step]
    mutate(monkeypatch)
    with pytest.raises((AssertionError, OutputError), match=f"(?s){harm}"):
        scenario()


# --- receipts, which the stage alone trusts ----------------------------------------------------


def restart_with_a_torn_part(drive: Drive) -> None:
    memory = MemoryStore()
    drive(memory)
    left = {name: data for name, data in memory.objects.items() if not name.startswith("versions/")}
    left = {name: data for name, data in left.items() if not name.endswith(MANIFEST)}
    torn = next(name for name in left if "/labels/" in name)
    again = MemoryStore(left | {torn: b"torn"})
    version = drive(again).version
    assert verify(again, version) == []


@pytest.mark.filterwarnings("ignore:Best performing initialization did not converge")
def test_a_receipt_that_is_trusted_unread_stops_every_restart(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    restart_with_a_torn_part(drive)
    monkeypatch.setattr(PartReceipt, "is_whole", lambda *_: True)
    with pytest.raises(OutputError, match=r"part-\w+-\w+\.parquet is damaged"):
        restart_with_a_torn_part(drive)


# --- files, whose creation is a link -----------------------------------------------------------


def create_overtaken(store: LocalStore, patch: pytest.MonkeyPatch) -> bool:
    """Create an object that another writer creates just before it gets its name."""
    link = local_store._link

    def late(temporary: Path, path: Path) -> bool:
        patch.setattr(local_store, "_link", link)
        assert store.put_if_absent("versions/00000001.json", b"other")
        return link(temporary, path)

    patch.setattr(local_store, "_link", late)
    return store.put_if_absent("versions/00000001.json", b"mine")


def test_a_file_that_is_moved_to_its_name_would_overwrite_the_other_writers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = LocalStore(str(tmp_path / "linked"))
    assert not create_overtaken(store, monkeypatch)
    assert store.get("versions/00000001.json") == b"other"
    monkeypatch.setattr(local_store, "_link", lambda temporary, path: temporary.replace(path))
    store = LocalStore(str(tmp_path / "moved"))
    assert create_overtaken(store, monkeypatch)
    assert store.get("versions/00000001.json") == b"mine"
