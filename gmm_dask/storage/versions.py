"""Publish a run as a version, in one step that either happens or does not.

1. Workers write label parts under names made of their content; a retry, a twin or a straggler
   writes the same bytes again, or bytes that nobody will list.
2. The driver reads everything back and creates the manifest, once per run.
3. The driver creates the next version entry, which names the manifest by its hash. Creating that
   name is the commit; of several writers one wins, the others take the next number.

Readers go from the highest version to its manifest to the files it lists, and check the hash of
each; they never list a folder of parts. Nothing is deleted on any path of a run.
"""

from __future__ import annotations

from contextlib import suppress

from gmm_dask.errors import OutputError
from gmm_dask.storage.documents import canonical_json, sha256_hex
from gmm_dask.storage.manifest import read_manifest, verify, write_manifest
from gmm_dask.storage.runs import MANIFEST, RUN_FILES, RunFolder, run_id
from gmm_dask.storage.store import Store, create_once
from gmm_dask.storage.version_log import (
    Version,
    latest,
    list_versions,
    parse_ref,
    read_version,
    version_numbers,
)

__all__ = [
    "LATEST",
    "MANIFEST",
    "RUN_FILES",
    "RunFolder",
    "Version",
    "canonical_json",
    "find_version",
    "latest",
    "list_versions",
    "parse_ref",
    "publish_version",
    "read_manifest",
    "run_id",
    "settle",
    "verify",
    "write_manifest",
]

LATEST = "LATEST"  # for people; never read by code that looks for a version
MAX_LOST_RACES = 1000  # each was won by another writer, so this ends only in a store gone wrong


def find_version(store: Store, run_id: str) -> Version | None:
    """The newest version of a run whose manifest is the one that was published.

    None where the run was never published, or where its folder was moved away: then it can be run
    and published again.

    Raises
    ------
    OutputError
        There is a manifest, but another one; or an entry is damaged.
    """
    entries = (read_version(store, number) for number in reversed(version_numbers(store)))
    versions = [version for version in entries if version.run_id == run_id]
    if not versions or not store.exists(f"runs/{run_id}/{MANIFEST}"):
        return None
    found = sha256_hex(RunFolder(store, run_id).get(MANIFEST))
    same = (version for version in versions if version.manifest_sha256 == found)
    version = next(same, versions[0])
    read_manifest(store, version)
    return version


def publish_version(store: Store, run_id: str, manifest_sha256: str, rows: int) -> Version:
    """Append the run to the versions, unless it is there: then that version is returned.

    Raises
    ------
    OutputError
        The manifest is not the one that was written, or the entry cannot be created. Whether or
        not it was, publishing again is safe.
    """
    # The manifest is read once more: what the entry names must be there before the entry is.
    read_manifest(store, Version(0, run_id, manifest_sha256, rows))
    known: dict[int, Version] = {}
    for _ in range(MAX_LOST_RACES):
        numbers = version_numbers(store)
        for number in reversed(numbers):
            if number not in known:
                known[number] = read_version(store, number)
            version = known[number]
            if (version.run_id, version.manifest_sha256) == (run_id, manifest_sha256):
                settle(store, version)
                return version
        version = Version(1 + max(numbers, default=0), run_id, manifest_sha256, rows)
        if create_once(store, version.name, version.to_json()) == version.to_json():
            _point_people_to(store, version)
            return version
    raise OutputError(
        f"{store.url}: {MAX_LOST_RACES} version numbers in a row were taken by others. "
        "See that no other program writes into the folder `versions`, then run again."
    )


def settle(store: Store, version: Version) -> None:
    """Have the entry of a version that was found on the disk, before it is told that it is there.

    Raises
    ------
    OutputError
        Whoever created it may have died before flushing it, and now it cannot be flushed.
    """
    create_once(store, version.name, version.to_json())


def _point_people_to(store: Store, version: Version) -> None:
    # The version is published; a hint that cannot be written must not make it look failed.
    with suppress(OutputError):
        text = f"version {version.number}: runs/{version.run_id}\n"
        store.put(LATEST, text.encode())
