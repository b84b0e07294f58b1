"""Publish a run as a version, in one step that either happens or does not.

1. Workers write label parts under names made of their content; a retry, a twin or a straggler
   writes the same bytes again, or bytes that nobody will list.
2. The driver reads everything back and creates the manifest, once per run.
3. The driver creates the next version entry, which names the manifest by its hash. Creating that
   name is the commit; of several writers one wins, the others look again at what is the latest.
   A run that is finished already, and is not the latest version, gets such an entry and no more.

Readers go from the highest version to its manifest to the files it lists, and check the hash of
each; they never list a folder of parts. Nothing is deleted on any path of a run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

from gmm_dask.errors import OutputError, PlaceTakenError
from gmm_dask.storage.records.codec import Clock, utc_now
from gmm_dask.storage.records.documents import sha256_hex
from gmm_dask.storage.records.manifest import read_manifest
from gmm_dask.storage.store.protocol import Store, create_once
from gmm_dask.storage.store.runs import MANIFEST, RunFolder
from gmm_dask.storage.store.version_log import (
    EMPTY,
    Version,
    latest,
    list_versions,
    read_version,
    version_numbers,
)

LATEST = "LATEST"  # for people; never read by code that looks for a version
MAX_LOST_RACES = 1000  # each was won by another writer, so this ends only in a store gone wrong


def find_version(store: Store, run_id: str) -> Version | None:
    """The newest version of a run whose manifest is the one that was published.

    None where the run was never published, or where its folder was moved away: then it can be run
    and published again. A damaged entry of some version is no version of the run.

    Raises
    ------
    OutputError
        There is a manifest, but another one; or an entry cannot be read.
    """
    folder = RunFolder(store, run_id)
    if not folder.exists(MANIFEST):
        return None
    found = sha256_hex(folder.get(MANIFEST))
    entries = (_undamaged(store, number) for number in reversed(version_numbers(store)))
    of_run = (entry for entry in entries if entry is not None and entry.run_id == run_id)
    newest = next(of_run, None)
    if newest is None:
        return None
    same = (entry for entry in chain((newest,), of_run) if entry.manifest_sha256 == found)
    version = next(same, newest)
    try:
        read_manifest(store, version)
    except OutputError as error:
        said = f"{error} Or move {folder.path()} away and run again."
        raise OutputError(said) from error.__cause__
    return version


def publish_version(
    store: Store, run_id: str, manifest_sha256: str, rows: int, now: Clock = utc_now
) -> Version:
    """Append an entry that points to the run; nothing is written where the latest version does.

    Raises
    ------
    OutputError
        The manifest is not the one that was written, the latest entry is damaged, or the next
        cannot be created. Whether or not it was, publishing again is safe.
    """
    # The manifest is read once more: what the entry names must be there before the entry is.
    read_manifest(store, Version(0, run_id, manifest_sha256, rows))

    def entry(newest: Version | None, number: int) -> Version | None:
        if newest is not None and newest.points_to(run_id, manifest_sha256):
            return None
        registry = EMPTY if newest is None else newest.registry
        if run_id in registry.gone:
            raise OutputError(
                f"{store.url}: run {run_id} was removed meanwhile, as `gmm-dask gc` was told to. "
                "Run again."
            )
        return Version(number, run_id, manifest_sha256, rows, now(), registry)

    return append(store, entry)


def append(store: Store, entry: Callable[[Version | None, int], Version | None]) -> Version:
    """Append an entry to the log, made of the newest one and the number that it gets.

    Where another writer was first, it is made again of what that writer wrote. Where it is None
    the newest entry says all that it is to say, and nothing is written.

    Raises
    ------
    OutputError
        The latest entry is damaged, or the next cannot be created.
    """
    taken = 0  # the highest number whose name is that of a folder: no entry, and none can be made
    for _ in range(MAX_LOST_RACES):
        newest = latest(store)
        number = 1 + max(taken, 0 if newest is None else newest.number)
        version = entry(newest, number)
        if version is None:
            assert newest is not None
            _settle(store, newest)
            _point_people_to(store, newest)
            return newest
        try:
            if create_once(store, version.name, version.to_json()) == version.to_json():
                _point_people_to(store, version)
                return version
        except PlaceTakenError:
            taken = number
    raise OutputError(
        f"{store.url}: {MAX_LOST_RACES} version numbers in a row were taken by others. "
        "See that no other program writes into the folder `versions`, then run again."
    )


def _undamaged(store: Store, number: int) -> Version | None:
    """The entry of a number; None where the entry is damaged, or was moved away meanwhile."""
    try:
        return read_version(store, number)
    except OutputError as error:
        if isinstance(error.__cause__, OSError):
            raise  # nobody knows yet what it holds
        return None


def _settle(store: Store, version: Version) -> None:
    """Flush the entry of a version to the disk, before anybody is told of the version.

    Raises
    ------
    OutputError
        The writer of the entry may have died before the flush, and now the flush fails.
    """
    create_once(store, version.name, store.get(version.name))


def _point_people_to(store: Store, version: Version) -> None:
    """Write into the file LATEST, which people read, which version is the latest."""
    # The version is published; a hint that cannot be written must not make it look failed.
    with suppress(OutputError):
        while True:
            hint = f"version {version.number}: runs/{version.run_id}\n".encode()
            if not _holds(store, LATEST, hint):
                store.put(LATEST, hint)
            newest = latest(store)
            if newest is None or newest == version:
                return
            version = newest


def _holds(store: Store, name: str, data: bytes) -> bool:
    same_size = store.exists(name) and store.size(name) == len(data)
    return same_size and store.get(name, len(data)) == data


@dataclass(frozen=True)
class Garbage:
    """Objects that no version lists and no later attempt of a run reads.

    Parameters
    ----------
    names : tuple of str
    bytes : int
        Size of all of them, in bytes.
    """

    names: tuple[str, ...]
    bytes: int


def find_garbage(store: Store) -> Garbage:
    """The checkpoints of published runs; those of unfinished runs are what they go on from.

    Raises
    ------
    OutputError
        A version is damaged: whether its run is to be made again is not known.
    """
    names: list[str] = []
    for each in dict.fromkeys(version.run_id for version in list_versions(store)):
        if find_version(store, each) is not None:
            folder = RunFolder(store, each)
            names += [f"runs/{each}/{name}" for name in folder.list("checkpoints/")]
    return Garbage(tuple(names), sum(store.size(name) for name in names))


def remove_garbage(store: Store, garbage: Garbage) -> None:
    """Delete the objects; one that is gone already is no error, and doing it again is safe."""
    for name in reversed(garbage.names):  # the newest first: what is left is always a whole row
        store.delete(name)
