"""Which files a dataset is made of, in one order everywhere."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gmm_dask.storage.inputs import check_scheme, is_remote, remote_files, scheme_of
from gmm_dask.storage.listing.keys import Keys, hive_keys
from gmm_dask.storage.listing.places import Paths, Place, common_root, joined, paths_of, places_of
from gmm_dask.storage.listing.table_formats import (
    refusal,
    refusal_below,
    refusal_inside,
    table_above,
)
from gmm_dask.storage.listing.walk import Choice, Walk, unlistable
from gmm_dask.storage.problems import Problems, shown


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

    def keys(self, name: str) -> Keys:
        """Values that all rows of a file have."""
        return hive_keys(name)

    def url(self, name: str) -> str:
        """Where a file of this listing is opened."""
        return joined(self.root, name)


def list_files(paths: Paths, problems: Problems, ignore: Sequence[str] = ()) -> Listing:
    """List the Parquet files of folders, files and globs; what cannot be goes to `problems`.

    Names are relative to the folder that all places have in common, and do not depend on the order
    of the paths. A path with braces stands for several.

    Names that start with "_" or "." are skipped, as other readers do; a folder `_key=value` is not,
    because its rows would be lost without a word. Empty objects that mark a folder are skipped.
    Below a folder, files must have a suffix of Parquet or none, as Hive and Athena name them.

    Parameters
    ----------
    paths : path, or sequence of paths
    problems : Problems
    ignore : sequence of str
        Globs of files to leave out; see Choice.

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
    places = {text: _places(text, problems) for text in dict.fromkeys(texts)}
    roots = [place.root for each in places.values() for place in each]
    root = common_root(roots) if roots else texts[0]
    choice, found_by = Choice(ignore, problems), dict[str, str]()
    for text in texts:
        names = _names(text, places[text], root, choice)
        _check_twice(text, names, found_by, problems)
        found_by.update(dict.fromkeys(names, text))
    sound = tuple(sorted(_sound(found_by, problems)))
    listing = Listing(root, sound, choice.n_ignored, choice.n_hidden)
    _check_links(listing, problems)
    return listing


def _places(text: str, problems: Problems) -> list[Place]:
    try:
        return places_of(text, problems)
    except OSError as error:
        problems.add("places that cannot be listed", unlistable(text, error))
        return []


def _names(text: str, places: Sequence[Place], root: str, choice: Choice) -> set[str]:
    """The files of one path by their names below the root; a path without any is a problem."""
    names, problems, n_before = set[str](), choice.problems, len(choice.problems)
    for place in places:
        n_known, found = len(problems), _names_of(place, root, choice)
        if not found and len(problems) == n_known and _must_hold_files(place, places):
            problems.add("empty", _nothing(place.path, place.kind))
        names |= found
    if places and not names and len(problems) == n_before:
        problems.add("empty", _nothing(text, "glob"))
    return names


def _must_hold_files(place: Place, places: Sequence[Place]) -> bool:
    """Of several globs in braces one may match nothing, but not for want of its folder."""
    return place.kind == "folder" or (len(places) > 1 and not place.is_there())


def _names_of(place: Place, root: str, choice: Choice) -> set[str]:
    inner = place.root.removeprefix(root).strip("/")
    prefix = f"{inner}/" if inner else ""
    if place.kind == "file":
        return {prefix + place.pattern.parts[0]}
    if not (place.is_remote or place.is_there()) or _is_inside_a_table(place, choice.problems):
        return set()
    found = Walk(place, choice, prefix).found()
    for folder, kind in found.tables.items():
        choice.problems.add("tables", _refused(place, folder, kind))
    return {prefix + name for name in found.names}


def _is_inside_a_table(place: Place, problems: Problems) -> bool:
    files = remote_files(scheme_of(place.root)) if place.is_remote else None
    try:
        found = table_above(place.key, files)
    except OSError as error:
        problems.add("places that cannot be listed", unlistable(place.path, error))
        return True
    if found is None:
        return False
    table, kind = found
    where = place.root.removesuffix(place.key) + table
    problems.add("tables", refusal_inside(place.path, where, kind))
    return True


def _refused(place: Place, folder: str, kind: str) -> str:
    """Why a table that a walk came upon is not read as a folder of files."""
    if folder:
        return refusal_below(place.path, joined(place.root, folder), kind)
    if place.kind == "glob":
        return refusal_inside(place.path, place.root, kind)
    return refusal(place.path, kind)


def _nothing(path: str, kind: str) -> str:
    what = "holds no Parquet files" if kind == "folder" else "matches no files"
    return f"{shown(path)}: {what}. Check data.path."


def _check_twice(text: str, names: set[str], found_by: dict[str, str], problems: Problems) -> None:
    for name in sorted(names & found_by.keys()):
        line = (
            f"{shown(name)}: is found by two of the paths of data.path, {shown(found_by[name])} "
            f"and {shown(text)}, so its rows would count twice. Name it by one of them."
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
