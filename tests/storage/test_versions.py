"""Versions: published once, listed in order, named by references."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.errors import OutputError
from gmm_dask.storage.records.codec import is_time, utc_now
from gmm_dask.storage.records.documents import MAX_BYTES, canonical_json, sealed, sha256_hex
from gmm_dask.storage.records.manifest import read_manifest, verify
from gmm_dask.storage.store.local_store import LocalStore
from gmm_dask.storage.store.runs import RUN_FILES, RunFolder, run_id
from gmm_dask.storage.store.version_log import (
    Registry,
    Version,
    entry_name,
    latest,
    list_versions,
    parse_ref,
    read_version,
)
from gmm_dask.storage.store.versions import LATEST, find_version, publish_version
from tests.storage.stores import (
    CHUNK,
    OTHER,
    PUBLISHED,
    ROWS,
    RUN,
    MemoryStore,
    check_one_whole_version,
    publish_run,
    published_rows,
    put_files,
    put_manifest,
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


# --- returning to a run that was published before --------------------------------------------


def below_runs(store: MemoryStore) -> dict[str, bytes]:
    return {name: data for name, data in store.objects.items() if name.startswith("runs/")}


def test_a_run_that_is_not_the_latest_gets_a_version_that_points_to_it_and_nothing_else() -> None:
    store = MemoryStore()
    first, second = publish_run(store, RUN), publish_run(store, OTHER)
    before = below_runs(store)
    third = publish_run(store, RUN)
    assert (third.number, third.run_id, third.manifest_sha256) == (3, RUN, first.manifest_sha256)
    assert list_versions(store) == [first, second, third]
    assert latest(store) == third == find_version(store, RUN)
    assert below_runs(store) == before
    assert published_rows(store, third) == ROWS


def test_a_log_has_no_two_neighbours_of_one_run() -> None:
    store = MemoryStore()
    for run in (RUN, RUN, OTHER, OTHER, RUN, RUN, RUN, OTHER):
        publish_run(store, run)
    assert [version.run_id for version in list_versions(store)] == [RUN, OTHER, RUN, OTHER]


def test_latest_for_people_names_the_latest_after_every_command() -> None:
    store = MemoryStore()
    for run in (RUN, OTHER, RUN):
        version = publish_run(store, run)
        assert store.get(LATEST) == f"version {version.number}: runs/{run}\n".encode()
    for hint in (b"version 1: runs/torn", None):  # its driver was killed before it wrote the hint
        store.objects.pop(LATEST)
        if hint is not None:
            store.objects[LATEST] = hint
        assert publish_run(store, RUN) == version
        assert store.get(LATEST) == f"version 3: runs/{RUN}\n".encode()


def test_a_driver_that_was_overtaken_lets_the_hint_name_the_other_version() -> None:
    class Overtaken(MemoryStore):
        def put(self, name: str, data: bytes) -> None:
            if data.startswith(b"version 1:"):
                publish_run(self, OTHER)
            super().put(name, data)

    store = Overtaken()
    assert publish_run(store, RUN).number == 1
    assert store.get(LATEST) == f"version 2: runs/{OTHER}\n".encode()


def test_a_damaged_entry_of_another_version_hides_no_earlier_one() -> None:
    store = MemoryStore()
    first, _, third = (publish_run(store, run) for run in (RUN, OTHER, "00000000000000cc"))
    store.objects[entry_name(2)] = b"?"
    fourth = publish_run(store, RUN)
    assert (fourth.number, fourth.manifest_sha256) == (4, first.manifest_sha256)
    assert find_version(store, third.run_id) == third


def test_an_entry_that_cannot_be_read_now_is_not_taken_for_damaged() -> None:
    class Silent(MemoryStore):
        def get(self, name: str, at_most: int = MAX_BYTES) -> bytes:
            if name == entry_name(2):
                raise OutputError("the store did not answer") from TimeoutError()
            return super().get(name, at_most)

    store = MemoryStore()
    publish_run(store, RUN)
    other = publish_run(store, OTHER)
    silent = Silent(store.objects)
    with pytest.raises(OutputError, match="did not answer"):
        find_version(silent, RUN)
    store.objects[entry_name(3)] = store.objects.pop(entry_name(2))
    assert find_version(silent, OTHER) == replace(other, number=3)


# --- times -----------------------------------------------------------------------------------


def test_an_entry_and_a_manifest_say_when_they_were_made() -> None:
    store = MemoryStore()
    publish_run(store)
    manifest_sha256 = publish_run(store, OTHER).manifest_sha256
    times = iter(["2031-02-03T04:05:06.789Z"])
    first = read_version(store, 1)
    version = publish_version(
        store, RUN, first.manifest_sha256, first.rows, now=lambda: next(times)
    )
    assert version.published == "2031-02-03T04:05:06.789Z"
    assert read_version(store, 3) == version
    assert json.loads(store.get(entry_name(3)))["published"] == version.published
    assert read_manifest(store, version)["published"] == PUBLISHED
    assert read_version(store, 2).manifest_sha256 == manifest_sha256


def test_the_time_is_now_in_utc() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    now = utc_now()
    assert before <= datetime.fromisoformat(now) <= datetime.now(UTC)
    assert now.endswith("Z")
    assert is_time(now)


@pytest.mark.parametrize(
    "other",
    [
        "2026-08-01", "2026-08-01T12:00:00Z", "2026-08-01T12:00:00.000", "2026-13-01T12:00:00.000Z",
        "2026-08-01T12:00:00.000+00:00", "2026-08-01 12:00:00.000Z", "", "now", 1785585600, None,
        "0001-01-01T00:00:00.000+23:00",
    ],
)  # fmt: skip
def test_a_time_has_one_form(other: Any) -> None:
    assert not is_time(other)


entries = st.builds(
    Version,
    number=st.integers(1, 10**12),
    run_id=st.text("0123456789abcdef", min_size=16, max_size=16),
    manifest_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    rows=st.integers(0, 2**63 - 1),
    published=st.none()
    | st.datetimes().map(lambda time: f"{time.isoformat(timespec='milliseconds')}Z"),
    registry=st.builds(
        Registry,
        aliases=st.dictionaries(st.text(max_size=9), st.integers(1, 10**12), max_size=3),
        names=st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3),
        retired=st.sampled_from([(), (RUN,)]),
        unlabelled=st.sampled_from([(), (OTHER, RUN)]),
    ),
)


@given(entries)
def test_an_entry_is_read_as_it_was_written(version: Version) -> None:
    assert read_version(MemoryStore({version.name: version.to_json()}), version.number) == version


def entry(format_version: int, **changes: Any) -> bytes:
    document = {
        "format": "gmm_dask.version",
        "format_version": format_version,
        "run_id": RUN,
        "manifest_sha256": "0" * 64,
        "rows": 12,
    } | changes
    return canonical_json(document if format_version == 1 else sealed(document))


@pytest.mark.parametrize("run_id", ["../../runs", "0" * 15, "0" * 17, "A" * 16, "", f"{RUN}\n", 7])
def test_an_entry_that_points_to_no_run_of_ours_is_damaged(run_id: Any) -> None:
    store = MemoryStore({entry_name(1): entry(3, run_id=run_id, published=None)})
    with pytest.raises(OutputError, match=r"00000001\.json: run_id is .*, not 16 hex"):
        latest(store)


@pytest.mark.parametrize("format_version", [1, 2])
def test_entries_of_older_formats_are_read_and_their_time_is_unknown(format_version: int) -> None:
    store = MemoryStore({entry_name(1): entry(format_version)})
    assert read_version(store, 1) == Version(1, RUN, "0" * 64, 12, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (entry(3), "published is absent"),
        (entry(3, published="yesterday"), "published is 'yesterday', not a time"),
        (entry(3, published=1785585600), "published is 1785585600"),
        (entry(2, published=PUBLISHED, by="me"), "'by' is an unknown field"),
        (entry(4, published=PUBLISHED), "registry is absent"),
        (entry(5, published=PUBLISHED), "newer than 4"),
    ],
)
def test_an_entry_without_a_time_or_with_another_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        read_version(MemoryStore({entry_name(1): content}), 1)


def test_an_entry_of_newer_software_is_not_to_be_moved_away() -> None:
    for content, is_damaged in ((entry(5, published=PUBLISHED), False), (entry(3), True)):
        with pytest.raises(OutputError) as caught:
            read_version(MemoryStore({entry_name(1): content}), 1)
        assert ("move it away" in str(caught.value)) is is_damaged


def test_a_run_of_an_older_format_is_read_promoted_and_left_as_it_is() -> None:
    store = MemoryStore()
    publish_run(store)
    manifest = json.loads(store.get(f"runs/{RUN}/MANIFEST.json"))
    del manifest["published"], manifest["model_sha256"]
    data = canonical_json(manifest | {"format_version": 1})
    store.objects[f"runs/{RUN}/MANIFEST.json"] = data
    store.objects[entry_name(1)] = entry(2, manifest_sha256=sha256_hex(data))
    first, _ = latest(store), publish_run(store, OTHER)
    assert first.published is None
    assert read_manifest(store, first)["published"] is None
    again = publish_run(store, RUN)
    assert (again.number, again.points_to(RUN, first.manifest_sha256)) == (3, True)
    assert verify(store, again) == []
    assert store.get(entry_name(1)) == entry(2, manifest_sha256=sha256_hex(data))


def test_an_older_entry_that_is_the_latest_is_left_as_it_is() -> None:
    store = MemoryStore()
    version = publish_run(store)
    old = entry(2, manifest_sha256=version.manifest_sha256)
    store.objects[entry_name(1)] = old
    assert publish_run(store) == Version(1, RUN, version.manifest_sha256, 12, None)
    assert store.get(entry_name(1)) == old


# --- files -----------------------------------------------------------------------------------


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
    version = publish_version(store, RUN, put_manifest(folder, [], 12), 12)
    assert read_manifest(store, version)["labels"] == ()
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
        ("out@latest", ("out", None)),
        ("out@champion", ("out", "champion")),
        ("s3://bucket/out@v-1_a", ("s3://bucket/out", "v-1_a")),
        ("out@no.alias", ("out@no.alias", None)),
        ("out@", ("out@", None)),
        ("out@-1", ("out@-1", None)),
        ("out@²", ("out@²", None)),
    ],
)
def test_a_reference_is_a_folder_and_perhaps_a_number(
    ref: str, expected: tuple[str, int | str | None]
) -> None:
    assert parse_ref(ref) == expected


@pytest.mark.parametrize("ref", ["", "@7", "out@0", "out@000", "out@" + "9" * 5000])
def test_a_reference_to_nothing_is_refused(ref: str) -> None:
    with pytest.raises(OutputError):
        parse_ref(ref)
