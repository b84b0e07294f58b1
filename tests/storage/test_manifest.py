"""The manifest: rows are counted against the plan, and every damaged object is named."""

from __future__ import annotations

import errno
import re
from dataclasses import replace
from typing import Any

import pytest

from gmm_dask.errors import OutputError
from gmm_dask.storage.arrow import parquet_bytes, read_parquet_bytes
from gmm_dask.storage.records.codec import At, record
from gmm_dask.storage.records.documents import sha256_hex
from gmm_dask.storage.records.manifest import MANIFEST_FILE, read_manifest, verify
from gmm_dask.storage.records.model_file import dump_model
from gmm_dask.storage.records.receipts import PartReceipt
from gmm_dask.storage.store.runs import MADE_WITH_MODEL, RUN_FILES, RunFolder
from gmm_dask.storage.store.version_log import Version, latest, list_versions, read_version
from gmm_dask.storage.store.versions import LATEST, publish_version
from tests.storage.stores import (
    CHUNK,
    OTHER,
    ROWS,
    RUN,
    MemoryStore,
    publish_run,
    published_rows,
    put_files,
    put_manifest,
    put_part,
    small_model,
)

# --- rows are counted against the plan -------------------------------------------------------


@pytest.mark.parametrize(
    ("indices", "n_rows", "message"),
    [
        ((0, 2), 12, r"part-00002-\w+\.parquet begins with row 8, expected 4"),
        ((1, 2), 12, r"part-00001-\w+\.parquet begins with row 4, expected 0"),
        ((0, 1), 12, r"end at row 8, the input has 12 rows"),
        ((0, 1, 2), 11, r"end at row 12, the input has 11 rows"),
        ((0, 1, 1, 2), 12, r"part-00001-\w+\.parquet begins with row 4, expected 8"),
    ],
)
def test_lost_and_double_rows_are_refused(
    indices: tuple[int, ...], n_rows: int, message: str
) -> None:
    folder = RunFolder(MemoryStore(), RUN)
    put_files(folder)
    receipts = [put_part(folder, index) for index in indices]
    with pytest.raises(OutputError, match=message):
        put_manifest(folder, receipts, n_rows)
    assert not folder.store.exists(f"runs/{RUN}/MANIFEST.json")


def test_parts_may_be_reported_in_any_order() -> None:
    store = MemoryStore()
    folder = RunFolder(store, RUN)
    put_files(folder)
    receipts = [put_part(folder, index) for index in (2, 0, 1)]
    version = publish_version(store, RUN, put_manifest(folder, receipts, 12), 12)
    assert published_rows(store, version) == ROWS


def test_a_receipt_that_lies_about_its_rows_is_refused() -> None:
    folder = RunFolder(MemoryStore(), RUN)
    put_files(folder)
    zero, one = put_part(folder, 0), put_part(folder, 1)
    swapped = [replace(zero, index=1, first_row=4), replace(one, index=0, first_row=0)]
    with pytest.raises(OutputError, match="does not hold exactly the 4 rows from 0 on"):
        put_manifest(folder, swapped, 8)


@pytest.mark.parametrize("name", RUN_FILES)
@pytest.mark.parametrize("damage", ["absent", "torn"])
def test_a_run_with_an_absent_or_torn_file_gets_no_manifest(name: str, damage: str) -> None:
    store = MemoryStore()
    folder = RunFolder(store, RUN)
    put_files(folder)
    key = f"runs/{RUN}/{name}"
    store.objects[key] = store.objects[key][:7]
    if damage == "absent" or name == "report.html":
        del store.objects[key]
    with pytest.raises(OutputError, match=name):
        put_manifest(folder, [put_part(folder, 0)], CHUNK)
    assert not store.exists(f"runs/{RUN}/MANIFEST.json")


def test_only_the_manifest_that_was_written_is_published() -> None:
    store = MemoryStore()
    folder = RunFolder(store, RUN)
    put_files(folder)
    sha256 = put_manifest(folder, [put_part(folder, 0)], CHUNK)
    with pytest.raises(OutputError, match="not the manifest that the version names"):
        publish_version(store, RUN, "0" * 64, CHUNK)
    with pytest.raises(OutputError, match="says 5 rows"):
        publish_version(store, RUN, sha256, 5)
    assert latest(store) is None


# --- every file is of the model of the run ---------------------------------------------------


def with_changed(content: bytes, name: str) -> bytes:
    """The content with another model named in it; as good as any other in every other way."""
    if name.endswith(".parquet"):
        metadata = {"gmm_dask.model_sha256": "0" * 64}
        return parquet_bytes(read_parquet_bytes(content), metadata)
    return content.replace(small_model().sha256.encode(), b"0" * 64)


@pytest.mark.parametrize("name", [*MADE_WITH_MODEL, "labels/"])
def test_what_another_model_made_is_refused_and_found(name: str) -> None:
    store = MemoryStore()
    version = publish_run(store)
    key = next(key for key in store.objects if key.startswith(f"runs/{RUN}/{name}"))
    changed = with_changed(store.objects[key], key)
    assert changed != store.objects[key]
    told = rf"{key} is damaged: it was made with the model 0{{16}}, that of the run is \w{{16}}"
    forged = forge(store, version, {key: changed})
    assert len(problems := verify(forged, latest(forged))) == 1
    assert re.search(told, problems[0])
    del store.objects[f"runs/{RUN}/MANIFEST.json"]
    store.objects[key] = changed
    folder, bytes_now = (
        RunFolder(store, RUN),
        {"sha256": sha256_hex(changed), "bytes": len(changed)},
    )
    receipts = [
        record(PartReceipt).load(folder.get_json(f"receipts/0000{i}.json"), At("receipt"))
        for i in range(3)
    ]
    receipts = [replace(each, **bytes_now) if each.name in key else each for each in receipts]
    with pytest.raises(OutputError, match=told):
        put_manifest(folder, receipts, 12)


def test_a_model_that_is_not_that_of_the_labels_is_refused_and_found() -> None:
    store = MemoryStore()
    version = publish_run(store)
    key, told = (
        f"runs/{RUN}/model.json",
        r"model\.json is damaged: it is the model \w+, that of the",
    )
    other = dump_model(replace(small_model(), n_rows=13))
    forged = forge(store, version, {key: other})
    assert len(problems := verify(forged, latest(forged))) == 1
    assert re.search(told, problems[0])
    del store.objects[f"runs/{RUN}/MANIFEST.json"]
    store.objects[key] = other
    folder = RunFolder(store, RUN)
    with pytest.raises(OutputError, match=told):
        put_manifest(folder, [put_part(folder, i) for i in range(3)], 12)


def test_rows_that_a_part_does_not_have_are_found() -> None:
    """Every hash is right, and the manifest has all rows once: in parts that hold others."""
    store = MemoryStore()
    version = publish_run(store)
    manifest = read_manifest(store, version)
    one, two, _ = (manifest["files"][name] for name in manifest["labels"])
    one["rows"], two["first_row"], two["rows"] = 5, 5, 3
    forged = forge(store, version, {}, manifest)
    problems = verify(forged, latest(forged))
    assert ["does not hold exactly" in line for line in problems] == [True, True]


def forge(
    store: MemoryStore,
    version: Version,
    changed: dict[str, bytes],
    manifest: dict[str, Any] | None = None,
) -> MemoryStore:
    """A store with other objects, whose manifest and version entry have the right hashes."""
    manifest = manifest or read_manifest(store, version)
    for key, data in changed.items():
        entry = manifest["files"][key.removeprefix(f"runs/{RUN}/")]
        entry |= {"bytes": len(data), "sha256": sha256_hex(data)}
    data = MANIFEST_FILE.dump(manifest)
    entry = replace(version, manifest_sha256=sha256_hex(data))
    objects = changed | {f"runs/{RUN}/MANIFEST.json": data, version.name: entry.to_json()}
    return MemoryStore(store.objects | objects)


# --- damage ----------------------------------------------------------------------------------


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGES = {
    "emptied": lambda data: b"",
    "truncated": lambda data: data[:-1],
    "one bit flipped": flip,
    "lengthened": lambda data: data + b"\n",
    "of another kind": lambda data: b'{"format": "other"}\n',
}


@pytest.mark.parametrize("damage", [*DAMAGES, "deleted"])
def test_every_damaged_object_of_a_version_is_named(damage: str) -> None:
    store = MemoryStore()
    version = publish_run(store)
    whole = dict(store.objects)
    listed = [*read_manifest(store, version)["files"], "MANIFEST.json"]
    for name in listed:
        key = f"runs/{RUN}/{name}"
        store.objects = dict(whole)
        if damage == "deleted":
            del store.objects[key]
        else:
            store.objects[key] = DAMAGES[damage](whole[key])
        problems = verify(store, version)
        assert len(problems) == 1, name
        assert name in problems[0]
        if name != "MANIFEST.json":
            with pytest.raises(OutputError, match=name):
                RunFolder(store, RUN).get_verified(name, read_manifest(store, version))


@pytest.mark.parametrize("name", ["MANIFEST.json", "model.json", "labels/", "metrics.json"])
def test_a_storage_that_fails_is_no_damage(name: str) -> None:
    store = MemoryStore()
    version = publish_run(store)
    get = store.get

    def refused(key: str, at_most: int = 0) -> bytes:
        if name in key:
            raise OutputError(f"{key} cannot be read: denied.") from OSError(errno.EACCES, "denied")
        return get(key, at_most)

    store.get = refused  # type: ignore[method-assign]
    with pytest.raises(OutputError, match=f"{name}.* cannot be read: denied") as caught:
        verify(store, version)
    assert caught.value.is_of_storage
    assert "damaged" not in str(caught.value)


def test_objects_that_changed_places_are_both_named() -> None:
    store = MemoryStore()
    version = publish_run(store)
    one, two = (f"runs/{RUN}/{name}" for name in read_manifest(store, version)["labels"][:2])
    store.objects[one], store.objects[two] = store.objects[two], store.objects[one]
    problems = verify(store, version)
    assert [one in problems[0], two in problems[1]] == [True, True]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"format":"gmm_dask.version"}',
        b'{"format":"gmm_dask.version","format_version":2}',
        b'{"format":"gmm_dask.version","format_version":1,"run_id":"x","rows":1}',
        b'{"format":"gmm_dask.version","format_version":1,"run_id":"x","rows":-1,"manifest_sha256":"%s"}'
        % (b"0" * 64),
        b'{"format":"gmm_dask.version","format_version":1,"run_id":1,"rows":1,"manifest_sha256":"%s"}'
        % (b"0" * 64),
        b'{"format":"gmm_dask.version","format_version":1,"run_id":"x","rows":1,"manifest_sha256":"0"}',
    ],
)
def test_a_damaged_version_entry_is_an_error_that_names_it_never_the_version_before(
    content: bytes,
) -> None:
    store = MemoryStore()
    publish_run(store)
    store.objects["versions/00000002.json"] = content
    with pytest.raises(OutputError, match=r"versions/00000002\.json"):
        latest(store)
    with pytest.raises(OutputError, match=r"versions/00000002\.json"):
        publish_run(store, OTHER)
    assert read_version(store, 1).run_id == RUN


def test_other_files_beside_the_entries_are_not_looked_at() -> None:
    store = MemoryStore()
    version = publish_run(store)
    for name in ("README", "00000009.json.bak", "9.json", "00000000.json", "old/00000009.json"):
        store.put(f"versions/{name}", b"?")
    store.put(LATEST, b"version 99")  # a hint for people, not for us
    assert list_versions(store) == [version]
