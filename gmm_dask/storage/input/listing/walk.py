"""The walk through the folders of a place: which of the files there are asked for."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from gmm_dask.storage.input.inputs import REFUSALS, Problems, unreadable
from gmm_dask.storage.input.listing.folders import Entry, Folders
from gmm_dask.storage.input.listing.places import (
    ANY_FOLDERS,
    Pattern,
    Place,
    States,
    is_hidden,
    is_hidden_folder,
    joined,
)
from gmm_dask.storage.input.listing.table_formats import table_around, table_format
from gmm_dask.storage.store.object_store import GIVE_CREDENTIALS, NO_CREDENTIALS, as_os_error

SUFFIXES = (".parquet", ".pq", ".parq")
FEW_FOLDERS = 8  # to ask an object store about, one after the other


class Choice:
    """Which files are taken; counts those that are left out without a problem.

    Parameters
    ----------
    ignore : sequence of str
        Globs of files to leave out, by file name, or with a slash by their name below their path.
    problems : Problems
    """

    def __init__(self, ignore: Sequence[str], problems: Problems) -> None:
        self.problems = problems
        self.n_ignored = self.n_hidden = 0
        self._ignore = [(text, Pattern(tuple(text.split("/")))) for text in ignore]

    def takes(self, name: str) -> bool:
        """Whether a file is wanted, as far as its name goes."""
        if is_hidden(name):
            self.n_hidden += 1
            return False
        return not self.ignores(name)

    def ignores(self, name: str) -> bool:
        """Whether the settings ask to leave a file out."""
        parts = name.split("/")
        found = any(
            pattern.matches(parts) if "/" in text else fnmatchcase(parts[-1], text)
            for text, pattern in self._ignore
        )
        self.n_ignored += found
        return found


@dataclass
class Found:
    """What a walk found.

    Parameters
    ----------
    names : list of str
        Names of the files, relative to the root of the place.
    tables : dict of str to str
        Folders that are tables, which were not entered, and what kind of table each is.
    """

    names: list[str] = field(default_factory=list)
    tables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Step:
    """A folder to look into.

    Parameters
    ----------
    folder : str
    states : States
        What of the pattern is matched by the names of the folders down to it.
    covered : bool
        Whether the pattern matches the folder or one above it, so that all files below are meant.
    """

    folder: str
    states: States
    covered: bool


class Walk:
    """A walk through all folders of a place that hold what is asked for.

    Parameters
    ----------
    place : Place
    choice : Choice
    prefix : str
        What messages put before the names.
    """

    def __init__(self, place: Place, choice: Choice, prefix: str = "") -> None:
        self._place, self._choice, self._prefix = place, choice, prefix
        self._folders: Folders = place.folders()
        self._seen: dict[Hashable, str] = {}
        self._odd_names: list[str] = []
        self._links = set[str]()  # folders that are links

    def found(self) -> Found:
        """Walk. Folders that cannot be listed go to the problems of the choice."""
        found, states = Found(), self._place.pattern.start()
        steps = [_Step("", states, self._place.pattern.is_matched(states))]
        while steps:
            steps += self._look(steps.pop(), found)
        self._choice.n_hidden += self._folders.n_markers
        self._tell_odd_names(found.names)
        return found

    def _look(self, step: _Step, found: Found) -> list[_Step]:
        """Take the files of one folder; the folders in it that come next."""
        try:
            entries = self._entries(step)
            kind = self._table_format(step.folder, entries)
            if kind is not None:
                found.tables[step.folder] = kind
                return []
            steps = self._below(step, [each for each in entries if each.kind == "folder"])
        except OSError as error:
            line = unlistable(self._called(step.folder), error)
            self._choice.problems.add("places that cannot be listed", line)
            return []
        for each in entries:
            if each.kind != "folder" and self._is_asked_for(step, each):
                self._take(step, each, found)
        return steps

    def _entries(self, step: _Step) -> list[Entry]:
        if step.covered or self._place.pattern.is_deep(step.states):
            if self._is_second_look(step.folder):
                return []
            self._folders.look_below(step.folder)
        return self._folders.entries(step.folder)

    def _table_format(self, folder: str, entries: Sequence[Entry]) -> str | None:
        """What kind of table a folder is, or is a part of where a link led to it."""
        kind = table_format([each.name for each in entries], self._names_in(folder))
        if kind is None and folder in self._links:
            around = table_around(joined(self._place.root, folder))
            return around[1] if around else None
        return kind

    def _below(self, step: _Step, folders: Sequence[Entry]) -> list[_Step]:
        """The folders in one that can hold what is asked for."""
        pattern, steps = self._place.pattern, list[_Step]()
        for each in folders:
            states = pattern.after(step.states, each.name)
            covered = step.covered or pattern.is_matched(states)
            name = _name(step.folder, each.name)
            if each.is_link:
                self._links.add(name)
            if covered or states:
                if is_hidden_folder(each.name):
                    self._choice.n_hidden += 1
                else:
                    steps.append(_Step(name, states, covered))
        n_covered = sum(each.covered for each in steps)
        if n_covered > max(FEW_FOLDERS, len(folders) // 2):
            self._folders.look_below(step.folder)
        return steps

    def _is_asked_for(self, step: _Step, entry: Entry) -> bool:
        pattern = self._place.pattern
        last = pattern.parts[-1:]
        return step.covered or (
            last != (ANY_FOLDERS,) and pattern.is_matched(pattern.after(step.states, entry.name))
        )

    def _take(self, step: _Step, entry: Entry, found: Found) -> None:
        name = _name(step.folder, entry.name)
        if not self._choice.takes(name):
            return
        if entry.kind != "file":
            what = entry.kind if entry.kind == "a link to nothing" else "not a regular file"
            line = f"{self._prefix + name}: is {what}. Remove it from the dataset."
            self._choice.problems.add("names that are no regular file", line)
        elif step.covered and not _has_parquet_name(entry.name):
            self._odd_names.append(name)
        else:
            found.names.append(name)

    def _names_in(self, folder: str) -> Callable[[str], Sequence[str]]:
        def names_in(name: str) -> Sequence[str]:
            with suppress(OSError):
                return [each.name for each in self._folders.entries(_name(folder, name))]
            return ()

        return names_in

    def _is_second_look(self, folder: str) -> bool:
        """Whether a link leads to a folder that was seen, so that its rows would count twice."""
        first = self._seen.setdefault(self._folders.identity(folder), folder)
        if first == folder:
            return False
        line = (
            f"{self._called(folder)}: is the same folder as {self._called(first)}, "
            "so its rows would count twice. Remove one of the links."
        )
        self._choice.problems.add("folders reached twice", line)
        return True

    def _called(self, folder: str) -> str:
        return self._prefix + folder if folder else self._place.root

    def _tell_odd_names(self, taken: Sequence[str]) -> None:
        """Name the files whose suffix is not that of Parquet, with a glob that leaves them out."""
        for name in self._odd_names:
            suffix = _commonest_suffix(taken or [name])
            glob_of = joined(glob.escape(self._place.root), f"**/*{suffix}")
            also = f", or give data.path a glob such as {glob_of}" if suffix else ""
            line = (
                f"{self._prefix + name}: is not named as a Parquet file "
                f"({', '.join(SUFFIXES)}, or no suffix at all). Move it out of the dataset, name "
                f"it in data.ignore{also}."
            )
            self._choice.problems.add("files not named as Parquet", line)


def unlistable(name: str, error: OSError) -> str:
    """The message of a place that cannot be listed; raises InputError where its storage fails."""
    cause = as_os_error(error)
    if cause.errno not in REFUSALS:
        raise unreadable(name, cause) from cause
    reason, remedy = str(cause.strerror), "grant read access or correct data.path"
    if NO_CREDENTIALS in reason:
        remedy = GIVE_CREDENTIALS
    return f"{name}: cannot be listed: {reason}. {remedy[0].upper()}{remedy[1:]}."


def _name(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _has_parquet_name(name: str) -> bool:
    """Whether a file is named as writers name Parquet files: Hive and Athena add no suffix."""
    return "." not in name or name.lower().endswith(SUFFIXES)


def _commonest_suffix(names: Sequence[str]) -> str:
    last = (name.rpartition("/")[2] for name in names)
    suffixes = Counter("".join(name.rpartition(".")[1:]) if "." in name else "" for name in last)
    return suffixes.most_common(1)[0][0]
