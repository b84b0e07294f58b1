"""What a disk may hold after a power cut: what was flushed, and of the rest whatever does harm.

POSIX promises no more than this: a file has the content of its last flush, a folder the names of
its last flush. Each later change of a name may have come to the disk or not, by itself and in any
order; a file that was never flushed may be empty or torn, whoever names it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from gmm_dask.storage.store.version_log import Version
from tests.faults.steps import Arguments
from tests.storage.stores import Crash

MANY = 4  # unflushed names of which every choice is tried
Tree = frozenset[tuple[str, bytes | None]]  # paths and contents; a folder has none


@dataclass(eq=False)
class File:
    path: Path
    written: bytes = b""
    flushed: bytes | None = None

    def content(self, torn: bool) -> bytes:
        """What it may hold after a power cut: of what was never flushed nothing, or half."""
        if self.flushed is not None:
            return self.flushed
        return self.written[: len(self.written) // 2] if torn else b""


@dataclass(eq=False)
class Folder:
    names: dict[str, File | Folder] = field(default_factory=dict)
    flushed: dict[str, File | Folder] = field(default_factory=dict)

    def unflushed(self) -> Iterator[tuple[Folder, str]]:
        """Changes of names, here and below; of hidden ones, which nobody reads, none."""
        for name in sorted(self.names.keys() | self.flushed.keys()):
            inner = self.names.get(name)
            if inner is not self.flushed.get(name) and not name.startswith("."):
                yield self, name
            if isinstance(inner, Folder):
                yield from inner.unflushed()

    def after(
        self, changes: set[tuple[Folder, str]], torn: bool, above: str = ""
    ) -> Iterator[tuple[str, bytes | None]]:
        """What is on the disk where these changes came to it."""
        for name in self.names.keys() | self.flushed.keys():
            inner = (self.names if (self, name) in changes else self.flushed).get(name)
            if isinstance(inner, Folder):
                yield above + name, None
                yield from inner.after(changes, torn, f"{above}{name}/")
            elif inner is not None:
                yield above + name, inner.content(torn)


@dataclass
class Disk:
    """A folder that was there and empty, and what becomes of it call by call."""

    path: Path
    root: Folder = field(default_factory=Folder)
    opened: dict[int, File | Folder] = field(default_factory=dict)

    def note(self, call: str, arguments: Arguments, answer: Any) -> None:
        """A system call that was carried out."""
        if call == "open":
            self._open(answer, *arguments)
        elif call == "fsync":
            self._flush(self.opened[arguments[0]])
        elif call == "mkdir":
            folder, name = self._named(arguments[0])
            folder.names[name] = Folder()
        elif call in ("link", "replace"):
            self._name(*arguments)
        if call in ("replace", "unlink"):
            folder, name = self._named(arguments[0])
            del folder.names[name]

    def after_a_power_cut(self) -> Iterator[Tree]:
        """Of the changes that were not flushed none is there, or some, or all."""
        changes = list(self.root.unflushed())
        for n in range(len(changes) + 1):
            if len(changes) <= MANY or n in (0, 1, len(changes) - 1, len(changes)):
                for chosen in combinations(changes, n):
                    yield (tree := frozenset(self.root.after(set(chosen), torn=False)))
                    if any(content == b"" for _, content in tree):
                        yield frozenset(self.root.after(set(chosen), torn=True))

    def _open(self, descriptor: int, path: Any, flags: int, *_: Any) -> None:
        folder, name = self._named(path)
        if flags & os.O_CREAT:
            assert flags & os.O_EXCL, "what is left of an old content is not modelled"
            folder.names[name] = File(Path(path))
        self.opened[descriptor] = folder.names[name] if name else folder

    @staticmethod
    def _flush(what: File | Folder) -> None:
        if isinstance(what, Folder):
            what.flushed = dict(what.names)
        else:
            what.flushed = what.path.read_bytes()

    def _name(self, path: Any, to: Any) -> None:
        (old, name), (new, other) = self._named(path), self._named(to)
        file = new.names[other] = old.names[name]
        assert isinstance(file, File)
        file.written = Path(to).read_bytes()

    def _named(self, path: Any) -> tuple[Folder, str]:
        """The folder that holds the name, and the name; that of the disk itself is empty."""
        *above, name = ("", *Path(path).relative_to(self.path).parts)
        folder = self.root
        for part in above[1:]:
            inner = folder.names[part]
            assert isinstance(inner, Folder)
            folder = inner
        return folder, name


@dataclass
class Powered:
    """Leads the calls of one attempt, and keeps what a power cut after each of them may leave.

    Parameters
    ----------
    disk : Disk
    kill_at : int
        The process ends before the call of that index.
    refused : int
        The flush of that index fails, and has no effect.
    cuts : dict
        For each disk that may be left, the versions that had been reported by then.
    """

    disk: Disk
    kill_at: int = -1
    refused: int = -1
    cuts: dict[Tree, tuple[Version, ...]] = field(default_factory=dict)
    reported: tuple[Version, ...] = ()
    calls: list[str] = field(default_factory=list)

    def __call__(self, call: str, arguments: Arguments, carry_out: Callable[[], Any]) -> Any:
        if 0 <= self.kill_at <= len(self.calls):
            raise Crash
        self.calls.append(call)
        if call == "fsync" and self.calls.count("fsync") - 1 == self.refused:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        answer = carry_out()
        self.disk.note(call, arguments, answer)
        if call in ("fsync", "mkdir", "link", "replace", "unlink"):
            self._cut()
        return answer

    def report(self, version: Version) -> None:
        """Somebody was told that the version is published."""
        self.reported += (version,)
        self._cut()

    def _cut(self) -> None:
        self.cuts |= dict.fromkeys(self.disk.after_a_power_cut(), self.reported)


def lay_out(tree: Tree, folder: Path) -> None:
    """Make the disk anew."""
    folder.mkdir()
    for name, content in sorted(tree, key=lambda each: each[0]):
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)
