"""What is of no use any more once a run is published; removed when asked for, never by a run."""

from __future__ import annotations

from dataclasses import dataclass

from gmm_dask.storage.store.protocol import Store
from gmm_dask.storage.store.runs import RunFolder
from gmm_dask.storage.store.version_log import list_versions
from gmm_dask.storage.store.versions import find_version


@dataclass(frozen=True)
class Garbage:
    """Objects that no version lists and no later attempt of a run reads.

    Parameters
    ----------
    names : tuple of str
    bytes : int
        Of all of them.
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
    for run_id in dict.fromkeys(version.run_id for version in list_versions(store)):
        if find_version(store, run_id) is not None:
            folder = RunFolder(store, run_id)
            names += [f"runs/{run_id}/{name}" for name in folder.list("checkpoints/")]
    return Garbage(tuple(names), sum(store.size(name) for name in names))


def remove(store: Store, garbage: Garbage) -> None:
    """Delete the objects; one that is gone already is no error, and doing it again is safe."""
    for name in reversed(garbage.names):  # the newest first: what is left is always a whole row
        store.delete(name)
