"""The steps of the commit protocol, each alone; tests/faults drives the whole stage."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from gmm_dask.errors import OutputError
from gmm_dask.storage.records.codec import record
from gmm_dask.storage.records.documents import MAX_BYTES, canonical_json
from gmm_dask.storage.records.manifest import read_manifest, verify
from gmm_dask.storage.records.receipts import PartReceipt
from gmm_dask.storage.store.local_store import LocalStore
from gmm_dask.storage.store.protocol import create_once
from gmm_dask.storage.store.runs import RunFolder
from gmm_dask.storage.store.version_log import Version, latest, list_versions
from gmm_dask.storage.store.versions import LATEST, find_version, publish_version
from tests.storage.stores import (
    CHUNK,
    OTHER,
    RUN,
    MemoryStore,
    check_one_whole_version,
    publish_run,
    published_rows,
    put_files,
    put_manifest,
    put_part,
)

# --- faults ----------------------------------------------------------------------------------


def test_a_hint_that_cannot_be_written_does_not_fail_a_published_run() -> None:
    class NoHints(MemoryStore):
        def put(self, name: str, data: bytes) -> None:
            if name == LATEST:
                raise OutputError("no space left")
            super().put(name, data)

    store = NoHints()
    assert publish_run(store).number == 1
    check_one_whole_version(store)


def test_nothing_is_published_when_the_entry_cannot_be_created() -> None:
    class Full(MemoryStore):
        def put_if_absent(self, name: str, data: bytes) -> bool:
            if name.startswith("versions/"):
                raise OutputError("no space left")
            return super().put_if_absent(name, data)

    store = Full()
    with pytest.raises(OutputError, match="no space left"):
        publish_run(store)
    assert latest(store) is None


def test_what_was_taken_and_is_gone_when_it_is_read_is_created_again() -> None:
    """As a checkpoint of a twin is that `gc` removes."""

    class Removed(MemoryStore):
        def get(self, name: str, at_most: int = MAX_BYTES) -> bytes:
            self.delete(name)
            return super().get(name, at_most)

    store = Removed({"checkpoints/00001.json": b"theirs"})
    assert create_once(store, "checkpoints/00001.json", b"ours") == b"ours"
    assert store.objects == {"checkpoints/00001.json": b"ours"}


def test_what_is_taken_and_gone_each_time_is_named() -> None:
    class Flickering(MemoryStore):
        def put_if_absent(self, name: str, data: bytes) -> bool:
            return False

    with pytest.raises(OutputError, match=r"00001\.json was there whenever .* See what removes it"):
        create_once(Flickering(), "checkpoints/00001.json", b"ours")


# --- several writers -------------------------------------------------------------------------


def test_writers_racing_for_one_number_each_get_their_own_and_twins_share_one(
    tmp_path: Path,
) -> None:
    store = LocalStore(str(tmp_path))
    runs = [f"{i:016x}" for i in range(8)]
    hashes = []
    for run in runs:
        folder = RunFolder(store, run)
        put_files(folder)
        hashes.append(put_manifest(folder, [put_part(folder, 0)], CHUNK))
    start = threading.Barrier(16)

    def publish(run: str, manifest_sha256: str) -> Version:
        start.wait(timeout=60)
        return publish_version(store, run, manifest_sha256, CHUNK)

    with ThreadPoolExecutor(16) as pool:  # every run twice
        versions = list(pool.map(publish, runs * 2, hashes * 2))
    assert [version.run_id for version in versions] == runs * 2
    listed = list_versions(store)
    assert [version.number for version in listed] == list(range(1, len(listed) + 1))
    assert set(versions) == set(listed)
    # Twins share a version but where another run became the latest between them.
    assert all(one.run_id != next_.run_id for one, next_ in pairwise(listed))


def test_twins_that_return_to_a_run_at_once_make_one_version(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    for run in (RUN, OTHER):
        publish_run(store, run)
    start = threading.Barrier(8)

    def again(_: int) -> Version:
        start.wait(timeout=60)
        return publish_run(store, RUN)

    with ThreadPoolExecutor(8) as pool:
        versions = set(pool.map(again, range(8)))
    assert versions == {latest(store)}
    assert [version.run_id for version in list_versions(store)] == [RUN, OTHER, RUN]


def test_a_reader_sees_only_whole_versions_while_others_are_published(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    done, problems, numbers = threading.Event(), [], []

    def read() -> None:
        while not done.is_set():
            version = latest(store)
            if version is not None:
                problems.extend(verify(store, version))
                numbers.append(version.number)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        try:
            for i in range(10):
                publish_run(store, f"{i:016x}", 1)
        finally:
            done.set()
        reading.result(timeout=60)
    assert problems == []
    assert numbers == sorted(numbers)


def test_a_straggler_that_finishes_after_the_commit_changes_nothing() -> None:
    store = MemoryStore()
    version = publish_run(store)
    before = published_rows(store, version), read_manifest(store, version)
    folder = RunFolder(store, RUN)
    late = put_part(folder, 1, noise=1e-12)  # other bits: another name, listed by nobody
    folder.put("receipts/00001.json", canonical_json(record(PartReceipt).dump(late)))
    folder.put("run.json", canonical_json({"plan": 2}))  # a listed file stands
    assert (published_rows(store, version), read_manifest(store, version)) == before
    assert verify(store, version) == []


def test_the_manifest_of_an_earlier_attempt_stands_if_it_is_whole() -> None:
    store = MemoryStore()
    folder = RunFolder(store, RUN)
    put_files(folder)
    first = put_manifest(folder, [put_part(folder, 0)], CHUNK)
    assert put_manifest(folder, [put_part(folder, 0, noise=1e-12)], CHUNK) == first
    store.objects[f"runs/{RUN}/{put_part(folder, 0).name}"] = b"torn"
    with pytest.raises(OutputError, match=r"part-00000-.* is damaged: it has 4 bytes"):
        put_manifest(folder, [put_part(folder, 0, noise=2e-12)], CHUNK)


def test_a_run_whose_folder_was_deleted_is_published_anew() -> None:
    store = MemoryStore()
    first = publish_run(store)
    for name in store.list(f"runs/{RUN}/"):
        del store.objects[name]
    assert "MANIFEST.json" in verify(store, first)[0]
    folder = RunFolder(store, RUN)
    put_files(folder, "again")
    sha256 = put_manifest(folder, [put_part(folder, i) for i in range(3)], 12)
    second = publish_version(store, RUN, sha256, 12)
    assert (second.number, find_version(store, RUN)) == (2, second)
    assert verify(store, second) == []
