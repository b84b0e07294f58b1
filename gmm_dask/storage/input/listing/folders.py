"""Folders of this machine and of object stores, seen in the same way."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from gmm_dask.storage.store.object_store import os_errors

FOLDER_MARK = (
    "_$folder$"  # ends the name of an empty object that EMR and Hadoop put beside a folder
)

Kind = Literal["folder", "file", "a link to nothing", "other"]


@dataclass(frozen=True)
class Entry:
    """An entry of a folder: a file, a folder, or something else.

    Parameters
    ----------
    name : str
    kind : Kind
        Kind of the entry; of a link, that of its target.
    is_link : bool
    """

    name: str
    kind: Kind
    is_link: bool = False


class Folders(Protocol):
    """A tree of folders below a root; names of folders are relative to it, the root's is empty."""

    n_markers: int  # empty objects that only stand for a folder: they are no entries

    def entries(self, folder: str) -> list[Entry]:
        """What a folder holds, by name. Raises OSError."""

    def look_below(self, folder: str) -> None:
        """Prepare for questions about all folders below this one."""

    def identity(self, folder: str) -> Hashable:
        """A value that is equal for two names of one folder."""


class LocalFolders:
    """Folders of this machine."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.n_markers = 0

    def entries(self, folder: str) -> list[Entry]:
        """What a folder holds, by name; links are what they lead to."""
        with os.scandir(os.path.join(self._root, folder)) as found:  # noqa: PTH118
            listed = sorted(found, key=lambda entry: entry.name)
        kept = [each for each in listed if not _is_marker(each)]
        self.n_markers += len(listed) - len(kept)
        return [Entry(each.name, _kind(each), each.is_symlink()) for each in kept]

    def look_below(self, folder: str) -> None:
        """Do nothing: a disk answers at once."""

    def identity(self, folder: str) -> Hashable:
        """Device and number."""
        status = os.stat(os.path.join(self._root, folder))  # noqa: PTH116, PTH118
        return status.st_dev, status.st_ino


class RemoteFolders:
    """Folders of an object store, which are what the keys of its objects have in common.

    Parameters
    ----------
    files : fsspec filesystem
    root : str
        Bucket and key.
    """

    def __init__(self, files: Any, root: str) -> None:
        self._files, self._prefix = files, f"{root}/" if root else ""
        self._known: dict[str, dict[tuple[str, str], Entry]] = {}
        self._known_below: list[str] = []
        self.n_markers = 0

    def entries(self, folder: str) -> list[Entry]:
        """What a folder holds, by name."""
        if folder not in self._known and not self._is_known_below(folder):
            self._known[folder] = {}
            with os_errors(), suppress(FileNotFoundError):  # there is no key below it
                self._note(self._files.ls(self._place(folder), detail=True))
        return [entry for _, entry in sorted(self._known.get(folder, {}).items())]

    def look_below(self, folder: str) -> None:
        """List all that lies below the folder, a request for a thousand keys."""
        if not self._is_known_below(folder):
            self._known_below.append(folder)
            with os_errors():
                self._note(self._files.find(self._place(folder), detail=True).values())

    def identity(self, folder: str) -> Hashable:
        """The name: a store has no links."""
        return folder

    def _is_known_below(self, folder: str) -> bool:
        return any(not top or f"{folder}/".startswith(f"{top}/") for top in self._known_below)

    def _place(self, folder: str) -> str:
        return f"{self._prefix}{folder}".rstrip("/") if folder else self._prefix[:-1]

    def _note(self, found: Iterable[dict[str, Any]]) -> None:
        """Enter keys into the folders that they lie in, without keys that only mark a folder."""
        infos = [(str(info["name"])[len(self._prefix) :], info) for info in found]
        folders = {name for name, info in infos if info["type"] == "directory"}
        folders.update(above for name, _ in infos for above in _folders_above(name))
        for name in folders - {""}:
            self._put(name, "folder")
        for name, info in infos:
            marks = not name or name in folders or name.endswith(("/", FOLDER_MARK))
            if info["type"] == "directory":
                continue
            if marks and not info["size"]:
                self.n_markers += 1
            else:
                # Whoever opens it drops a slash at either end, and would open another object.
                self._put(name, "other" if name.startswith("/") or name.endswith("/") else "file")

    def _put(self, name: str, kind: Kind) -> None:
        folder, _, last = name.rpartition("/")
        self._known.setdefault(folder, {})[last, kind] = Entry(last, kind)


def _folders_above(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _is_marker(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(FOLDER_MARK) and entry.is_file() and not entry.stat().st_size


def _kind(entry: os.DirEntry[str]) -> Kind:
    if entry.is_dir():
        return "folder"
    if entry.is_file():
        return "file"
    return "a link to nothing" if entry.is_symlink() else "other"
