"""Which files a dataset is made of, in one order everywhere."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa

from gmm_dask.errors import DataError
from gmm_dask.kinds import lies_between
from gmm_dask.storage.input.columns.column_types import HIVE_NULL, Keys, hive_keys
from gmm_dask.storage.input.inputs import Problems, check_scheme, is_remote
from gmm_dask.storage.input.listing import table_formats as delta
from gmm_dask.storage.input.listing.places import (
    Paths,
    Place,
    common_root,
    joined,
    paths_of,
    places_of,
    without_scheme,
)
from gmm_dask.storage.input.listing.table_formats import (
    REQUESTS_AT_ONCE,
    refusal,
    refusal_below,
    refusal_inside,
    table_around,
)
from gmm_dask.storage.input.listing.walk import Choice, Walk, unlistable
from gmm_dask.words import numbered

NO_VERSION = (
    "data.version: is that of one Delta table, and data.path names none or several. Leave it out."
)


@dataclass(frozen=True)
class File:
    """One file.

    Parameters
    ----------
    name : str
        Posix path relative to the root.
    keys : tuple of Key
        Values of folder keys, the same in all rows of the file.
    columns : tuple of str
        Columns of the Delta table that the file is a part of; the file may be older than a column
        and then lacks it.
    """

    name: str
    keys: Keys
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """The files of a dataset, sorted by name.

    Parameters
    ----------
    root : str
        Absolute path or URL of the folder that names are relative to.
    files : tuple of File
    tables : tuple of (str, int)
        The Delta tables that are read: name relative to the root, and version.
    n_ignored, n_hidden : int
        Files left out as the settings ask, and files and folders left out for their names.
    without_files : tuple of (str, Schema)
        The log and the columns of each table that no file is a part of: it has no rows.
    caution : str or None
        What must be known of files that were named one by one.
    """

    root: str
    files: tuple[File, ...]
    tables: tuple[tuple[str, int], ...] = ()
    n_ignored: int = 0
    n_hidden: int = 0
    without_files: tuple[tuple[str, pa.Schema], ...] = ()
    caution: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the files, in order."""
        return tuple(file.name for file in self.files)

    def url(self, name: str) -> str:
        """Where a file of this listing is opened."""
        return joined(self.root, name)


def list_files(
    paths: Paths,
    problems: Problems,
    ignore: Sequence[str] = (),
    version: int | None = None,
    between: Mapping[str, tuple[str, str]] | None = None,
) -> Listing:
    """List the Parquet files of folders, files and globs; what cannot be goes to `problems`.

    A folder that is a Delta table stands for the files of one of its versions. Names are relative
    to the folder that all places have in common, and do not depend on the order of the paths.

    Names that start with "_" or "." are skipped, as other readers do; a folder `_key=value` is not,
    for its rows would be lost without a word; so are empty objects that mark a folder. Below a
    folder, files must have a suffix of Parquet or none, as Hive and Athena name them.

    Parameters
    ----------
    paths : path, or sequence of paths
    problems : Problems
    ignore : sequence of str
        Globs of files to leave out; see Choice.
    version : int, optional
        Version of the Delta table; its latest where not given.
    between : mapping of str to (str, str), optional
        The first and the last value of keys.

    Raises
    ------
    DataError
        A scheme that is not allowed, or several kinds of places.
    InputError
        The storage fails.
    """
    texts = paths_of(paths)
    for text in texts:
        check_scheme(text)
    places = _places(dict.fromkeys(texts), problems)
    roots = [place.root for each in places.values() for place in each]
    search = _Search(common_root(roots) if roots else texts[0], Choice(ignore, problems), version)
    files, found_by = dict[str, File](), dict[str, str]()
    for text in texts:
        found = search.files_of(text, places[text])
        _check_twice(text, found.keys(), found_by, problems)
        files |= found
        found_by |= dict.fromkeys(found, text)
    files = _between(files, between or {}, problems)
    if version is not None and len(search.tables) != 1 and not problems:
        problems.add("version", NO_VERSION)
    listing = Listing(
        search.root,
        tuple(files[name] for name in sorted(_sound(files, problems))),
        tuple(sorted(search.tables.items())),
        search.choice.n_ignored,
        search.choice.n_hidden,
        tuple(sorted(search.without_files.items())),
        _caution(search.root, [each for found in places.values() for each in found], problems),
    )
    _check_links(listing, problems)
    return listing


def _places(texts: Iterable[str], problems: Problems) -> dict[str, list[Place]]:
    """The places that each path stands for; stores are asked about many paths at once."""

    def asked(text: str) -> list[Place] | OSError:
        try:
            return places_of(text, problems)
        except OSError as error:
            return error

    remote = list(filter(is_remote, texts))
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        found = dict(zip(remote, pool.map(asked, remote), strict=True))
    places: dict[str, list[Place]] = {}
    for text in texts:
        answer = found[text] if text in found else asked(text)
        if isinstance(answer, OSError):
            problems.add("places that cannot be listed", unlistable(text, answer))
        places[text] = [] if isinstance(answer, OSError) else answer
    return places


def _caution(root: str, places: Sequence[Place], problems: Problems) -> str | None:
    """A caution of files that are named one by one inside a table, whose log is not asked."""
    files = [place for place in places if place.kind == "file"]
    if not files or problems:
        return None
    try:
        found = table_around(without_scheme(root), files[0].filesystem())
    except OSError as error:
        problems.add("places that cannot be listed", unlistable(root, error))
        return None
    if found is None:
        return None
    table, kind = found
    named = f"{kind} table {root.removesuffix(without_scheme(root)) + table}"
    return f"Files are read as data.path lists them, whatever the log of the {named} says."


@dataclass
class _Search:
    """The search for the files of all paths.

    Parameters
    ----------
    root : str
        Folder that names are relative to.
    choice : Choice
    version : int or None
        Version of the Delta table; None where the folder is none, or its latest version is asked
        for.
    tables : dict of str to int
        Versions of the Delta tables found, by name.
    without_files : dict of str to Schema
        Columns of those that have no files, by the name of their log.
    """

    root: str
    choice: Choice
    version: int | None
    tables: dict[str, int] = field(default_factory=dict)
    without_files: dict[str, pa.Schema] = field(default_factory=dict)

    def files_of(self, text: str, places: Sequence[Place]) -> dict[str, File]:
        """The files of one path by name; a path without any is a problem."""
        files, problems, n_before = dict[str, File](), self.choice.problems, self._n_told
        for place in places:
            n_known = self._n_told
            try:
                found = self._files_of_place(place)
                if not found and self._n_told == n_known and _must_hold_files(place, places):
                    problems.add("empty", _nothing(place.path, place.kind, self.choice))
                files.update(found)
            except OSError as error:
                problems.add("places that cannot be listed", unlistable(place.path, error))
        if places and not files and self._n_told == n_before:
            problems.add("empty", _nothing(text, "glob", self.choice))
        return files

    @property
    def _n_told(self) -> int:
        """The number of places that hold no files and have no other problem."""
        return len(self.choice.problems) + len(self.without_files)

    def _files_of_place(self, place: Place) -> dict[str, File]:
        prefix = self._prefix(place)
        if place.kind == "file":
            return _plain_files([prefix + place.pattern.parts[0]])
        if not (place.is_remote or place.is_there()):
            return {}
        table = table_around(place.key, place.filesystem())
        if table is not None:
            return self._files_of_table(place, *table)
        found = Walk(place, self.choice, prefix).found()
        for folder, kind in found.tables.items():
            below = joined(place.root, folder)
            line = refusal_below(place.path, below, kind) if folder else refusal(place.root, kind)
            self.choice.problems.add("tables", line)
        return _plain_files([prefix + name for name in found.names])

    def _files_of_table(self, place: Place, table: str, kind: str) -> dict[str, File]:
        """The files of a Delta table; a part of a table, or one of another kind, is a problem."""
        problems = self.choice.problems
        is_whole = place.kind == "folder" and table in (place.key, os.path.realpath(place.key))
        if is_whole and kind == "Delta" and delta.is_installed():
            return self._files_of_snapshot(place)
        where = place.root.removesuffix(place.key) + table
        refused = refusal(place.path, kind) if is_whole else refusal_inside(place.path, where, kind)
        problems.add("tables", refused)
        return {}

    def _files_of_snapshot(self, place: Place) -> dict[str, File]:
        try:
            snapshot = delta.read_snapshot(place.root, self.version)
        except DataError as error:
            self.choice.problems.add("tables", str(error))
            return {}
        prefix = self._prefix(place)
        self.tables[prefix.rstrip("/")] = snapshot.version
        if not snapshot.keys:
            self.without_files[f"{prefix}_delta_log"] = snapshot.schema
        return {
            prefix + name: File(prefix + name, (*hive_keys(prefix), *keys), snapshot.columns)
            for name, keys in snapshot.keys.items()
            if not self.choice.ignores(name)
        }

    def _prefix(self, place: Place) -> str:
        """The part of a name, relative to the root, that lies above the place."""
        inner = place.root.removeprefix(self.root).strip("/")
        return f"{inner}/" if inner else ""


def _between(
    files: dict[str, File], between: Mapping[str, tuple[str, str]], problems: Problems
) -> dict[str, File]:
    """The files whose keys have values of the ranges; a file without such a key is a problem."""
    for key, (first, last) in between.items():
        values = {name: _value_of(file, key) for name, file in files.items()}
        for name in sorted(name for name, value in values.items() if value is None):
            line = f"{name}: no folder {key}=... is above it, by which data.between asks for files."
            problems.add("files without the key of a range", line)
        asked = [value for value in values.values() if value is not None]
        _check_form(key, (first, last), asked, problems)
        files = {
            name: files[name]
            for name, value in values.items()
            if value is not None and lies_between(value, first, last)
        }
        if asked and not files:
            line = f"data.between: no file has {key} from {first} to {last}; there are "
            problems.add("empty", f"{line}{min(asked)} to {max(asked)}.")
    return files


def _check_form(key: str, ends: Sequence[str], values: Sequence[str], problems: Problems) -> None:
    """Report ends of a range of dates that are not written as the dates are.

    Texts are compared sign by sign, so that 2026-2-1 would come after 2026-11-01.
    """
    forms = {re.sub(r"\d", "0", value) for value in values if value != HIVE_NULL}
    if len(forms) != 1 or not re.match(r"0000\D", form := forms.pop()):
        return
    for end in ends:
        if re.sub(r"\d", "0", end) != form:
            line = f"data.between: {key} {end} is not written as {max(values)}, which it is to "
            problems.add("ends of ranges", f"{line}be compared with. Write it in the same form.")


def _value_of(file: File, key: str) -> str | None:
    """The value of a key as text; that of missing values is the name that Hive gives it."""
    texts = [each.text for each in file.keys if each.name == key]
    return None if not texts else HIVE_NULL if texts[-1] is None else texts[-1]


def _plain_files(names: Iterable[str]) -> dict[str, File]:
    return {name: File(name, hive_keys(name)) for name in names}


def _must_hold_files(place: Place, places: Sequence[Place]) -> bool:
    """Whether a place that holds no file is a problem: one of several globs may match nothing."""
    return place.kind == "folder" or (len(places) > 1 and not place.is_there())


def _nothing(path: str, kind: str, choice: Choice) -> str:
    what = "holds no Parquet files" if kind == "folder" else "matches no files"
    left = (
        (choice.n_hidden, 'begins with "_" or "."', 'begin with "_" or "."'),
        (choice.n_ignored, "data.ignore leaves out", "data.ignore leaves out"),
    )
    names = [f"{numbered(n, 'name')} that {one if n == 1 else many}" for n, one, many in left if n]
    but = f" but {' and '.join(names)}" if names else ""
    return f"{path}: {what}{but}. Check data.path."


def _check_twice(
    text: str, names: Iterable[str], found_by: Mapping[str, str], problems: Problems
) -> None:
    for name in sorted(set(names) & found_by.keys()):
        line = (
            f"{name}: is found by two of the paths of data.path, {found_by[name]} "
            f"and {text}, so its rows would count twice. Name it by one of them."
        )
        problems.add("files found twice", line)


def _check_links(listing: Listing, problems: Problems) -> None:
    """A link to a file, or to a folder above it, would count the same rows twice."""
    if is_remote(listing.root):
        return
    first: dict[str, str] = {}
    for name in listing.names:
        other = first.setdefault(os.path.realpath(listing.url(name)), name)
        if other != name:
            line = f"{name}: is the same file as {other}. Remove one of the links."
            problems.add("files reached twice", line)


def _sound(names: Iterable[str], problems: Problems) -> list[str]:
    """The names that are valid UTF-8, as fingerprint and labels need; others are problems."""
    sound = []
    for name in names:
        try:
            name.encode()
            sound.append(name)
        except UnicodeEncodeError:
            line = f"{name!a}: the file name is not valid UTF-8. Rename the file."
            problems.add("names that are not UTF-8", line)
    return sound
