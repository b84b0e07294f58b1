"""Which files a dataset is made of: a folder, one file or a glob, in one order everywhere."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gmm_dask.errors import InputError
from gmm_dask.storage.inputs import (
    REFUSALS,
    check_scheme,
    is_remote,
    local_path,
    remote_files,
    scheme_of,
    unreadable,
)
from gmm_dask.storage.object_errors import as_os_error
from gmm_dask.storage.problems import Problems, shown

SUFFIXES = (".parquet", ".pq", ".parq")
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"  # the folder name that stands for a missing value


@dataclass(frozen=True)
class Listing:
    """The files of a dataset, sorted by name.

    Parameters
    ----------
    root : str
        Absolute path or URL of the folder that names are relative to.
    names : tuple of str
        Posix paths relative to the root.
    n_ignored, n_hidden : int
        Files left out as the settings ask, and files and folders left out for their names.
    """

    root: str
    names: tuple[str, ...]
    n_ignored: int = 0
    n_hidden: int = 0

    def url(self, name: str) -> str:
        """Where a file of this listing is opened."""
        return joined(self.root, name)


def joined(root: str, name: str) -> str:
    """The path or URL of a name under a root."""
    return f"{root.rstrip('/')}/{name}"


def list_files(path: str, problems: Problems, ignore: Sequence[str] = ()) -> Listing:
    """List the Parquet files of a folder, glob or file; what cannot be listed goes to `problems`.

    Files that a glob of `ignore` matches are left out: by their file name, or, where the glob has a
    slash, by their name relative to the root.

    Names that start with "_" or "." are skipped, as other readers do; a folder `_key=value` is not,
    because its rows would be lost without a word.

    Raises
    ------
    DataError
        A scheme that is not allowed.
    """
    check_scheme(path)
    choice = _Choice(tuple(ignore), problems)
    seek = _remote_names if is_remote(path) else _local_names
    try:
        root, names = seek(path, choice)
    except InputError:
        raise
    except OSError as error:
        problems.add("places that cannot be listed", _unlistable(path, error))
        root, names = path, set()
    sound = tuple(sorted(_sound(names, problems)))
    listing = Listing(root, sound, choice.n_ignored, choice.n_hidden)
    if not listing.names and not problems:
        problems.add("empty", f"{shown(path)}: holds no Parquet files. Check data.path.")
    _check_links(listing, problems)
    return listing


class _Choice:
    """Which files are taken; counts those that are left out without a problem."""

    def __init__(self, ignore: tuple[str, ...], problems: Problems) -> None:
        self.problems = problems
        self.n_ignored = self.n_hidden = 0
        self._ignore = [(pattern, tuple(pattern.split("/"))) for pattern in ignore]

    def takes(self, name: str) -> bool:
        """Whether a file is wanted, as far as its name goes; `name` is relative to the root."""
        parts = tuple(name.split("/"))
        if is_hidden(name):
            self.n_hidden += 1
        elif any(
            _fits(parts, pattern) if "/" in text else fnmatchcase(parts[-1], text)
            for text, pattern in self._ignore
        ):
            self.n_ignored += 1
        else:
            return True
        return False


def would_list(path: str, file: str) -> bool:
    """Whether a Parquet file, were it there, would be taken for a part of the dataset."""
    if is_remote(path) != is_remote(file) or scheme_of(path) != scheme_of(file):
        return False
    place, target = _place(path), _place(file)
    if glob.has_magic(str(place)) and (is_remote(path) or not place.exists()):
        at = _first_magic(place)
        root, pattern = Path(*place.parts[:at]), place.parts[at:]
    elif is_remote(path) or place.is_dir():
        root, pattern = place, ()
    else:
        return False
    if not is_remote(path):
        root, target = Path(os.path.realpath(root)), Path(os.path.realpath(target))
    if not target.is_relative_to(root):
        return False
    parts = target.relative_to(root).parts
    matched = any(_fits(parts[:n], pattern) for n in range(len(parts) + 1))
    return matched and not is_hidden("/".join(parts))


def _place(path: str) -> Path:
    """The path of a file, or bucket and key of an object as one."""
    return Path(path.partition("://")[2]) if is_remote(path) else local_path(path)


def _fits(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether names match a glob, name by name; `**` matches any number of them."""
    if not pattern or not parts:
        return not parts and all(each == "**" for each in pattern)
    if pattern[0] == "**":
        return _fits(parts, pattern[1:]) or _fits(parts[1:], pattern)
    return fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def hive_keys(name: str) -> tuple[tuple[str, str | None], ...]:
    """The pairs of the folders `key=value` in a name, decoded; the null folder gives None."""
    pairs = (folder.partition("=") for folder in name.split("/")[:-1])
    return tuple(
        (unquote(key), None if value == HIVE_NULL else unquote(value))
        for key, equals, value in pairs
        if key and equals
    )


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder it lies in, has a name that readers skip."""
    *folders, file = name.split("/")
    return file.startswith((".", "_")) or any(map(_is_hidden_folder, folders))


def _is_hidden_folder(folder: str) -> bool:
    return folder.startswith(".") or (folder.startswith("_") and "=" not in folder)


def _local_names(path: str, choice: _Choice) -> tuple[str, set[str]]:
    place = local_path(path)
    if place.is_file():
        return str(place.parent), {place.name}
    if place.is_dir():
        return str(place), _walk(place, "", choice)
    if os.path.lexists(place):
        line = f"{shown(str(place))}: is neither a folder nor a regular file. Check data.path."
        choice.problems.add("no file", line)
        return str(place), set()
    if glob.has_magic(str(place)):
        return _local_glob(place, choice)
    choice.problems.add("missing", _missing(place))
    return str(place), set()


def _local_glob(place: Path, choice: _Choice) -> tuple[str, set[str]]:
    at = _first_magic(place)
    root, pattern = Path(*place.parts[:at]), str(Path(*place.parts[at:]))
    names: set[str] = set()
    for match in glob.iglob(pattern, root_dir=root, recursive=True):  # noqa: PTH207
        if (root / match).is_dir():
            folder = match.rstrip("/")
            if not any(map(_is_hidden_folder, folder.split("/"))):
                names |= _walk(root, folder, choice)
        elif match not in names and choice.takes(match):
            names.add(match)
    if not names and not choice.problems:
        line = f"{shown(str(place))}: matches no files. Check data.path."
        choice.problems.add("missing", line)
    return str(root), names


def _first_magic(place: Path) -> int:
    return next(i for i, part in enumerate(place.parts) if glob.has_magic(part))


def _walk(root: Path, start: str, choice: _Choice) -> set[str]:
    """Names of the Parquet files in and below a folder; links are followed, but only once."""
    names: set[str] = set()
    seen: dict[tuple[int, int], str] = {}
    folders = [start]
    while folders:
        folder = folders.pop()
        try:
            if _is_second_look(root, folder, seen, choice.problems):
                continue
            with os.scandir(root / folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            line = _unlistable(folder or str(root), error)
            choice.problems.add("places that cannot be listed", line)
            continue
        for entry in listed:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir():
                if _is_hidden_folder(entry.name):
                    choice.n_hidden += 1
                else:
                    folders.append(name)
            elif choice.takes(name) and _is_readable(entry, name, choice.problems):
                names.add(name)
    return names


def _is_second_look(
    root: Path, folder: str, seen: dict[tuple[int, int], str], problems: Problems
) -> bool:
    status = (root / folder).stat()
    first = seen.setdefault((status.st_dev, status.st_ino), folder)
    if first == folder:
        return False
    line = (
        f"{shown(folder)}: is the same folder as {shown(first or str(root))}, so its rows would "
        "count twice. Remove one of the links."
    )
    problems.add("folders reached twice", line)
    return True


def _is_readable(entry: os.DirEntry[str], name: str, problems: Problems) -> bool:
    if not entry.is_file():
        what = "a link to nothing" if entry.is_symlink() else "not a regular file"
        line = f"{shown(name)}: is {what}. Remove it from the dataset."
        problems.add("names that are no regular file", line)
        return False
    return _has_parquet_name(name, problems)


def _has_parquet_name(name: str, problems: Problems) -> bool:
    if name.lower().endswith(SUFFIXES):
        return True
    line = (
        f"{shown(name)}: is not named as a Parquet file ({', '.join(SUFFIXES)}). Move it out of "
        "the dataset, name it in data.ignore, or give data.path a glob such as FOLDER/**/*.parquet."
    )
    problems.add("files not named as Parquet", line)
    return False


def _check_links(listing: Listing, problems: Problems) -> None:
    """A link to a file, or to a folder above it, would count the same rows twice."""
    if is_remote(listing.root):
        return
    paths = [listing.url(name) for name in listing.names]
    first: dict[str, str] = {}
    for name, path in zip(listing.names, paths, strict=True):
        other = first.setdefault(os.path.realpath(path), name)
        if other != name:
            line = f"{shown(name)}: is the same file as {shown(other)}. Remove one of the links."
            problems.add("files reached twice", line)


def _sound(names: Iterable[str], problems: Problems) -> list[str]:
    """Only names that can be written down, as the fingerprint and the labels must."""
    sound = []
    for name in names:
        try:
            name.encode()
            sound.append(name)
        except UnicodeEncodeError:
            line = f"{name!a}: the file name is not valid UTF-8. Rename the file."
            problems.add("names that are not UTF-8", line)
    return sound


def _remote_names(path: str, choice: _Choice) -> tuple[str, set[str]]:
    scheme = scheme_of(path)
    files = remote_files(scheme)
    try:
        root, found, explicit = _remote_find(files, str(files._strip_protocol(path)))
    except Exception as error:  # each store has exceptions of its own
        choice.problems.add("places that cannot be listed", _unlistable(path, error))
        return path, set()
    names = {name for name in found if explicit == "file" or choice.takes(name)}
    if explicit == "folder":
        names = {name for name in sorted(names) if _has_parquet_name(name, choice.problems)}
    if not found:
        choice.problems.add(
            "missing", f"{shown(path)}: holds or matches no files. Check data.path."
        )
    return f"{scheme}://{root}", names


def _remote_find(files: Any, place: str) -> tuple[str, list[str], str]:
    """Root, names below it, and whether a file, a glob or a folder was named."""
    files.invalidate_cache()
    if files.isfile(place):
        root, _, name = place.rpartition("/")
        return root, [name], "file"
    if glob.has_magic(place):
        parts = place.split("/")
        at = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        root, kind = "/".join(parts[:at]), "glob"
        found = [key for key, info in files.glob(place, detail=True).items() if _is_file(info)]
    else:
        root, kind, found = place.rstrip("/"), "folder", files.find(place)
    return root, [key.removeprefix(root).lstrip("/") for key in found], kind


def _is_file(info: dict[str, Any]) -> bool:
    return bool(info["type"] == "file")


def _missing(place: Path) -> str:
    parent = next((each for each in place.parents if each.is_dir()), place.parent)
    return (
        f"{shown(str(place))}: does not exist; {shown(str(parent))} does. "
        "Check data.path; relative paths start at the current folder."
    )


def _unlistable(name: str, error: Exception) -> str:
    cause = as_os_error(error)
    if cause.errno not in REFUSALS:
        raise unreadable(name, cause) from cause
    reason = cause.strerror
    return f"{shown(name)}: cannot be listed: {reason}. Grant read access or correct data.path."
