"""The operations that the commit protocol needs of a store, and the names of objects."""

from __future__ import annotations

from typing import Protocol

from gmm_dask.errors import OutputError, PlaceTakenError
from gmm_dask.storage.records.documents import MAX_BYTES

ATTEMPTS = 3  # to create what is taken, and gone when it is read


class Store(Protocol):
    """Named immutable objects; small and picklable, since workers write too.

    Names are relative, in POSIX form. Every failure is an OutputError; one raised by a write
    leaves open whether the write took effect, and only a read can tell.
    """

    @property
    def url(self) -> str:
        """Where the store is."""

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Create the object in one step; False where the name was taken, and nothing changed."""

    def put(self, name: str, data: bytes) -> None:
        """Create or replace the object in one step."""

    def get(self, name: str, at_most: int = MAX_BYTES) -> bytes:
        """The whole content; raises OutputError where there is none, or more bytes than that."""

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""

    def size(self, name: str) -> int:
        """Bytes of the content; raises OutputError where there is none."""

    def delete(self, name: str) -> None:
        """Remove the object, if there is one; only `garbage` calls this, no path of a run."""

    def list(self, prefix: str) -> Names:
        """Sorted names, relative to the store, that start with the prefix."""

    def path(self, name: str) -> str:
        """Where the object lies, for people and for pyarrow."""

    def check_writable(self) -> str | None:
        """Raise OutputError where publishing would fail; leave nothing behind.

        A text says what must be known of a store in which a race of two writers is not decided.
        """


def create_once(store: Store, name: str, data: bytes) -> bytes:
    """Create an object and return what its name holds: `data`, or what another writer put there.

    A failure that leaves the outcome open is resolved by reading back, and by asking once more:
    what is there may not be on the disk yet. Nothing is ever deleted: what looks like a failed
    write may be the one that everybody else has seen.

    Raises
    ------
    PlaceTakenError
        The name is that of a folder, a link or a pipe.
    OutputError
        The object cannot be created.
    """
    for attempt in range(ATTEMPTS):
        try:
            if store.put_if_absent(name, data):
                return data
        except OutputError:
            if attempt == ATTEMPTS - 1 or not _is_held(store, name):
                raise
            continue
        try:
            return store.get(name, max(MAX_BYTES, len(data)))
        except PlaceTakenError:
            raise
        except OutputError:
            if store.exists(name):
                raise
            # `gc` removed it meanwhile, as it does with checkpoints: the name is free again.
    raise OutputError(
        f"{store.path(name)} was there whenever it was to be created, and gone whenever it was to "
        "be read. See what removes it, then run again."
    )


def _is_held(store: Store, name: str) -> bool:
    try:
        return store.exists(name)
    except OutputError:
        return False


def name_parts(name: str, url: str) -> list[str]:
    """The parts of a name; raises OutputError where it is none of an object in the store."""
    parts = name.split("/")
    # A leading dot is for unfinished files, and for "." and "..".
    if "\0" in name or "\\" in name or any(not part or part[0] == "." for part in parts):
        raise OutputError(f"{name!r} cannot be the name of an object in {url}.")
    return parts


def is_visible(name: str) -> bool:
    """Whether no part of a name begins with a dot."""
    return not any(part.startswith(".") for part in name.split("/"))


Names = list[str]  # inside the class, `list` is the method


def too_large(path: str, size: int, at_most: int) -> str:
    """The message about a file that is too large to be read."""
    return f"{path} has {size} bytes, at most {at_most} belong there: it is damaged or not ours."


def absent(path: object) -> str:
    """The message about an object that is not there."""
    return f"{path} does not exist: it was moved or deleted, or never published."
