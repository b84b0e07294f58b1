"""Globs, read in one way for folders of this machine, object stores, and files yet to come."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate

from gmm_dask.errors import DataError

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
        """Whether the names so far are what the glob asks for."""
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
        """`**` is also no folder at all."""
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
