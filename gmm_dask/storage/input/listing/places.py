"""What the paths of a dataset stand for: folders, files and globs, here or in an object store."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from gmm_dask.errors import DataError
from gmm_dask.storage.input.inputs import (
    Problems,
    is_remote,
    local_path,
    readable,
    remote_files,
    scheme_of,
    with_lower_scheme,
)
from gmm_dask.storage.input.listing.folders import Folders, LocalFolders, RemoteFolders
from gmm_dask.storage.store.object_store import os_errors

MAX_ALTERNATIVES = 10_000  # of one text with braces: a few braces stand for millions of paths
ANY_FOLDERS = "**"

States = frozenset[int]  # how many parts of a pattern may be matched by now


@dataclass(frozen=True)
class Pattern:
    """What a glob says of names below its root, one part for each name; `**` is any folders.

    A pattern without parts is that of a folder: everything below its root is in it.
    """

    parts: tuple[str, ...] = ()

    def start(self) -> States:
        """Before the first name."""
        return self._with_skipped({0})

    def after(self, states: States, name: str) -> States:
        """After one more name; without any state, nothing below that name can match."""
        stay = {i for i in states if i < len(self.parts) and self.parts[i] == ANY_FOLDERS}
        further = {
            i + 1 for i in states - stay if i < len(self.parts) and fnmatchcase(name, self.parts[i])
        }
        return self._with_skipped(stay | further)

    def is_matched(self, states: States) -> bool:
        """Whether the names that led to these states match the whole glob."""
        return len(self.parts) in states

    def is_deep(self, states: States) -> bool:
        """Whether folders of any depth can still match."""
        return any(ANY_FOLDERS in self.parts[i : i + 1] for i in states)

    def matches(self, names: Sequence[str]) -> bool:
        """Whether it matches all the names."""
        *_, states = self._along(names)
        return self.is_matched(states)

    def covers(self, names: Sequence[str]) -> bool:
        """Whether it matches a file, or a folder that the file lies in."""
        return any(self.is_matched(states) for states in self._along(names))

    def _along(self, names: Sequence[str]) -> Iterator[States]:
        return accumulate(names, self.after, initial=self.start())

    def _with_skipped(self, states: set[int]) -> States:
        """The states after `**` has matched no folder at all."""
        found = set[int]()
        for i in states:
            found.add(i)
            while i < len(self.parts) and self.parts[i] == ANY_FOLDERS:
                found.add(i := i + 1)
        return frozenset(found)


def split_glob(parts: Sequence[str]) -> tuple[tuple[str, ...], Pattern]:
    """The parts of a path before the first one that is a glob, and the pattern of the others."""
    at = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return tuple(parts[:at]), Pattern(tuple(parts[at:]))


def is_glob(path: str) -> bool:
    """Whether a path has a part that is a glob."""
    return glob.has_magic(path)


def alternatives(path: str) -> tuple[str, ...]:
    """The paths that a text with braces stands for: `day={1,2}` is `day=1` and `day=2`.

    Braces without a comma stand for themselves, as in a shell.

    Raises
    ------
    DataError
        They are more than MAX_ALTERNATIVES.
    """
    done: list[str] = []
    open_ends = [("", path)]  # what is expanded already, and the text after it
    while open_ends:
        head, rest = open_ends.pop()
        braces = _first_braces(rest)
        if braces is None:
            done.append(head + rest)
        else:
            before, choices, after = braces
            open_ends += [(head + before, choice + after) for choice in reversed(choices)]
        if len(done) + len(open_ends) > MAX_ALTERNATIVES:
            raise DataError(
                f"data.path: its braces stand for more than {MAX_ALTERNATIVES} paths. Name a "
                "folder above them, or use a glob."
            )
    return tuple(dict.fromkeys(done))


def _first_braces(text: str) -> tuple[str, list[str], str] | None:
    """The text before the first braces with a comma, what is between the commas, and the rest."""
    start = -1
    while (start := text.find("{", start + 1)) >= 0:
        depth, choices, first = 0, list[str](), start + 1
        for at in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            if depth == 0 or (depth == 1 and text[at] == ","):
                choices.append(text[first:at])
                first = at + 1
            if depth == 0:
                if len(choices) > 1:
                    return text[:start], choices, text[first:]
                break
    return None


Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Place:
    """A folder, a file or a glob.

    Parameters
    ----------
    root : str
        Absolute path or URL of the folder that names are relative to.
    pattern : Pattern
        What is asked for below it; of a file, its name.
    kind : {"folder", "file", "glob"}
    """

    root: str
    pattern: Pattern
    kind: Literal["folder", "file", "glob"]

    @property
    def path(self) -> str:
        """The place as one path or URL."""
        return "/".join((self.root.rstrip("/"), *self.pattern.parts)) or "/"

    @property
    def key(self) -> str:
        """The root without the scheme: a path, or bucket and key."""
        return without_scheme(self.root)

    def is_there(self) -> bool:
        """Whether there is anything at the root. Raises OSError."""
        return bool(self.folders().entries("")) if self.is_remote else Path(self.root).is_dir()

    @property
    def is_remote(self) -> bool:
        """Whether it lies in an object store."""
        return is_remote(self.root)

    def filesystem(self) -> Any:
        """Filesystem of the store; None for a place of this machine."""
        return remote_files(scheme_of(self.root)) if self.is_remote else None

    def folders(self) -> Folders:
        """The folders below the root."""
        if self.is_remote:
            return RemoteFolders(self.filesystem(), self.key)
        return LocalFolders(self.root)


def joined(root: str, name: str) -> str:
    """The path or URL of a name under a root."""
    return f"{root}{name}" if root.endswith("/") else f"{root}/{name}"


def without_scheme(url: str) -> str:
    """A path without its scheme: of an object, bucket and key."""
    return url.partition("://")[2] if is_remote(url) else url


def paths_of(paths: Paths) -> tuple[str, ...]:
    """One path or several, as a tuple of texts; `S3://` is `s3://`."""
    several = (paths,) if isinstance(paths, str | os.PathLike) else paths
    return tuple(with_lower_scheme(os.fspath(each)) for each in several)


def places_of(path: str, problems: Problems) -> list[Place]:
    """The places that one path stands for; local ones that are not there go to `problems`.

    Raises
    ------
    OSError
        A store cannot be asked.
    """
    if is_remote(path):
        return _remote_places(path)
    texts = (path,) if os.path.lexists(local_path(path)) else alternatives(path)
    found = (_local_place(local_path(text), problems) for text in texts)
    return [place for place in found if place is not None]


def would_list(paths: Paths, file: str) -> bool:
    """Whether a Parquet file, were it there, would be taken for a part of the dataset."""
    return any(_would_list(path, file) for path in paths_of(paths))


def lies_in(inner: str, outer: str) -> bool:
    """Whether a path or URL is another one, or lies in it; links of this machine are followed."""
    if scheme_of(inner) != scheme_of(outer):
        return False
    within, around = (Path(_real(each)) for each in (inner, outer))
    return within.is_relative_to(around)


def overlaps(paths: Paths, folder: str) -> bool:
    """Whether a folder lies in one that the dataset is, or holds a place of the dataset."""
    places = [place for path in paths_of(paths) for place in _places_to_come(path)]
    return any(
        lies_in(place.root, folder) or (place.kind == "folder" and lies_in(folder, place.root))
        for place in places
    )


def common_root(roots: Sequence[str]) -> str:
    """The folder that all roots lie in.

    Raises
    ------
    DataError
        They lie in stores of several kinds.
    """
    schemes = {scheme_of(root) for root in roots}
    if len(schemes) > 1:
        raise DataError(
            f"data.path: names places of several kinds ({', '.join(sorted(schemes))}). Copy the "
            "files to one of them."
        )
    shared: list[str] = []
    for parts in zip(*(without_scheme(root).split("/") for root in roots), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    start = f"{schemes.pop()}://" if is_remote(roots[0]) else ""
    return start + "/".join(shared) or "/"


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder it lies in, has a name that readers skip."""
    *folders, file = name.split("/")
    return file.startswith((".", "_")) or any(map(is_hidden_folder, folders))


def is_hidden_folder(folder: str) -> bool:
    """Whether a folder has a name that readers skip; the rows of `_key=value` would be lost."""
    return folder.startswith(".") or (folder.startswith("_") and "=" not in folder)


def _local_place(place: Path, problems: Problems) -> Place | None:
    if place.is_file():
        return Place(str(place.parent), Pattern((place.name,)), "file")
    if place.is_dir():
        return Place(str(place), Pattern(), "folder")
    if os.path.lexists(place):
        line = f"{place!s}: is neither a folder nor a regular file. Check data.path."
        problems.add("no file", line)
    elif is_glob(str(place)):
        return _glob(place.parts)
    else:
        problems.add("missing", _missing(place))
    return None


def _glob(parts: Sequence[str], start: str = "") -> Place:
    root, pattern = split_glob(parts)
    return Place(start + str(Path(*root)) if root else start, pattern, "glob")


def _missing(place: Path) -> str:
    parent = next((each for each in place.parents if each.is_dir()), place.parent)
    return (
        f"{place!s}: does not exist; {parent!s} does. "
        "Check data.path; relative paths start at the current folder."
    )


def _remote_places(path: str) -> list[Place]:
    scheme = scheme_of(path)
    files = remote_files(scheme)
    with os_errors():
        files.invalidate_cache()
        whole = str(files._strip_protocol(path))
        if _is_object(files, whole):
            return [_remote_file(f"{scheme}://{whole}")]
        texts = alternatives(whole)
        return [
            _remote_file(f"{scheme}://{text}")
            if len(texts) > 1 and _is_object(files, text)
            else _remote_pattern(f"{scheme}://", text)
            for text in texts
        ]


def _remote_file(url: str) -> Place:
    root, _, name = url.rpartition("/")
    return Place(root, Pattern((name,)), "file")


def _remote_pattern(start: str, text: str) -> Place:
    """The folder or glob that a key stands for where there is no such object."""
    if is_glob(text):
        return _glob(text.split("/"), start)
    return Place(start + text.rstrip("/"), Pattern(), "folder")


def _is_object(files: Any, place: str) -> bool:
    """Whether a key is that of an object that is more than a mark of a folder."""
    if set("*?[{") & set(place.partition("/")[0]):
        return False  # no bucket has such a name
    try:
        info = files.info(place)
    except (FileNotFoundError, PermissionError):
        return False
    is_file = info["type"] == "file"
    return is_file and (info["size"] > 0 or set(files.find(place)) <= {place})


def _would_list(path: str, file: str) -> bool:
    if scheme_of(path) != scheme_of(file):
        return False
    with readable(path):
        return any(_would_take(place, file) for place in _places_to_come(path))


def _places_to_come(path: str) -> Iterable[Place]:
    if not is_remote(path):
        return places_of(path, Problems())
    start, key = f"{scheme_of(path)}://", path.partition("://")[2]
    return (_remote_pattern(start, text) for text in alternatives(key))


def _real(path: str) -> str:
    """Bucket and key of an object; of a path of this machine, where its links lead."""
    return without_scheme(path) if is_remote(path) else os.path.realpath(local_path(path))


def _would_take(place: Place, file: str) -> bool:
    root, target = Path(_real(place.root)), Path(_real(file))
    if place.kind == "file" or not target.is_relative_to(root):
        return False
    parts = target.relative_to(root).parts
    return place.pattern.covers(parts) and not is_hidden("/".join(parts))
