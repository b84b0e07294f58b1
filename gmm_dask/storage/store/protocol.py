"""What the commit protocol needs of a place to keep objects, and how one is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from gmm_dask.errors import OutputError, PlaceTakenError
from gmm_dask.storage.records.documents import MAX_BYTES
from gmm_dask.storage.store.local_store import LocalStore, Names
from gmm_dask.storage.store.object_store import ObjectStore

ATTEMPTS = 3  # to create what is taken, and gone when it is read

__all__ = ["LocalStore", "ObjectStore", "Store", "check_writable", "create_once", "open_store"]


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


def open_store(url: str, *, private: bool = False) -> Store:
    """The store of a path, a file:// or an s3:// URL; nothing is created or tried yet.

    Parameters
    ----------
    url : str
    private : bool
        Whether files and folders are for this user alone; of a bucket its policy decides.

    Raises
    ------
    OutputError
        Another scheme.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return LocalStore(_at_home(url), private)
    if scheme.lower() == "s3":
        return ObjectStore(url)
    if scheme.lower() != "file":
        # Only the scheme: the rest of a URL may hold a password.
        raise OutputError(
            f"{scheme}:// is not supported for outputs and models: choose s3://bucket/prefix, or a "
            "folder of a local or mounted file system."
        )
    host, _, path = rest.partition("/")
    if host not in ("", "localhost"):
        raise OutputError(f"{url} names the host {host!r}: a local folder is file:///folder.")
    return LocalStore("/" + unquote(path), private)


def check_writable(store: Store) -> str | None:
    """Raise OutputError with the system's reason and a remedy where publishing would fail.

    A text says what must be known of a store that cannot decide between two writers.
    """
    return store.check_writable()


def create_once(store: Store, name: str, data: bytes) -> bytes:
    """What the name holds from now on: `data`, or what another writer put there before.

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


def _at_home(path: str) -> str:
    try:
        return str(Path(path).expanduser()) if path else path
    except RuntimeError as error:
        raise OutputError(f"The output folder {path} cannot be found: {error}.") from error
