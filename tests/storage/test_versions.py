"""Versions: published once, listed in order, named by references."""

from __future__ import annotations

from pathlib import Path

import pytest

from gmm_dask.errors import OutputError
from gmm_dask.storage.local_store import LocalStore
from gmm_dask.storage.runs import RUN_FILES, RunFolder, run_id
from gmm_dask.storage.versions import (
    LATEST,
    find_version,
    latest,
    list_versions,
    parse_ref,
    publish_version,
    read_manifest,
    verify,
    write_manifest,
)
from tests.storage.stores import (
    CHUNK,
    OTHER,
    ROWS,
    RUN,
    MemoryStore,
    check_one_whole_version,
    publish_run,
    published_rows,
    put_files,
)

# --- what a run leaves -----------------------------------------------------------------------


def test_a_run_is_published_once_and_again_writes_nothing(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "out"))
    assert latest(store) is None
    first = publish_run(store)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert publish_run(store, note="later") == first == latest(store) == find_version(store, RUN)
    assert publish_version(store, RUN, first.manifest_sha256, first.rows) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    check_one_whole_version(store)


def test_two_runs_are_two_versions_and_both_stay_readable() -> None:
    store = MemoryStore()
    first, second = publish_run(store, RUN), publish_run(store, OTHER, n_parts=2)
    assert [version.number for version in list_versions(store)] == [1, 2]
    assert latest(store) == second
    assert find_version(store, RUN) == first
    assert find_version(store, "00000000000000cc") is None
    assert published_rows(store, first) == ROWS
    assert published_rows(store, second) == ROWS[: 2 * CHUNK]
    assert f"runs/{OTHER}" in store.get(LATEST).decode()


def test_a_path_with_spaces_and_signs_is_a_path(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "ein Ort %2F + = ü @ #"))
    publish_run(store)
    check_one_whole_version(store)


def test_the_manifest_lists_every_file_with_size_hash_and_rows() -> None:
    store = MemoryStore()
    version = publish_run(store)
    manifest = read_manifest(store, version)
    folder = RunFolder(store, RUN)
    assert set(manifest["files"]) == {*RUN_FILES, *manifest["labels"]}
    assert [manifest["files"][name]["first_row"] for name in manifest["labels"]] == [0, 4, 8]
    for name, entry in manifest["files"].items():
        assert len(folder.get_verified(name, manifest)) == entry["bytes"]
    assert folder.get_verified_json("run.json", manifest) == {"plan": 1}
    with pytest.raises(OutputError, match=r"receipts/00000\.json is no part of the published run"):
        folder.get_verified("receipts/00000.json", manifest)


def test_a_manifest_of_ten_thousand_parts_stays_below_three_megabytes() -> None:
    sizes = []
    for n_parts in (10, 20):
        store = MemoryStore()
        publish_run(store, n_parts=n_parts)
        sizes.append(len(store.get(f"runs/{RUN}/MANIFEST.json")))
    assert (sizes[1] - sizes[0]) / 10 < 300


def test_a_run_without_labels_can_be_published() -> None:
    store = MemoryStore()
    folder = RunFolder(store, RUN)
    put_files(folder)
    version = publish_version(store, RUN, write_manifest(folder, [], n_rows=12), 12)
    assert read_manifest(store, version)["labels"] == []
    assert verify(store, version) == []


# --- identity and references -----------------------------------------------------------------


def test_the_identity_of_a_run_depends_on_content_and_not_on_order() -> None:
    identity = run_id({"a": 1, "b": [1.0, 2.0]}, "f" * 64)
    assert identity == run_id({"b": [1.0, 2.0], "a": 1}, "f" * 64)
    assert len(identity) == 16
    others = [
        run_id({"a": 2, "b": [1.0, 2.0]}, "f" * 64),
        run_id({"a": 1, "b": [2.0, 1.0]}, "f" * 64),
        run_id({"a": 1, "b": [1.0, 2.0]}, "e" * 64),
        run_id({"a": 1, "b": [1.0, 2.0], "c": None}, "f" * 64),
    ]
    assert len({identity, *others}) == 5


@pytest.mark.parametrize("bad", ["", "..", "a/b", ".hidden", "x" * 65, "ü"])
def test_a_run_folder_has_a_plain_name(bad: str) -> None:
    with pytest.raises(OutputError, match="not the identity of a run"):
        RunFolder(MemoryStore(), bad)


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("out", ("out", None)),
        ("out@7", ("out", 7)),
        ("/data/out@12", ("/data/out", 12)),
        ("user@host/out", ("user@host/out", None)),
        ("user@host/out@3", ("user@host/out", 3)),
        ("out@latest", ("out@latest", None)),
        ("out@", ("out@", None)),
        ("out@-1", ("out@-1", None)),
        ("out@²", ("out@²", None)),
    ],
)
def test_a_reference_is_a_folder_and_perhaps_a_number(
    ref: str, expected: tuple[str, int | None]
) -> None:
    assert parse_ref(ref) == expected


@pytest.mark.parametrize("ref", ["", "@7", "out@0"])
def test_a_reference_to_nothing_is_refused(ref: str) -> None:
    with pytest.raises(OutputError):
        parse_ref(ref)
