"""The log of published versions: one small object each, numbered from 1, never changed.

Each entry points to a run. The latest version is the entry of the highest number; going back to an
earlier run is a new entry that points to it. Each entry also has the whole registry: aliases of
versions, names of components, and what was removed. Whoever changes any of it appends an entry to
the newest by put-if-absent, so that of two writers one sees what the other wrote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gmm_dask.errors import OutputError
from gmm_dask.storage.records.codec import (
    COUNT,
    RUN_ID,
    SHA256,
    TIME,
    Positive,
    RunId,
    literal,
    optional,
    record,
    shape,
)
from gmm_dask.storage.records.documents import Document
from gmm_dask.storage.store.protocol import Store

MAX_NUMBER_DIGITS = 18  # of a version; what has more is no entry

_ENTRY = re.compile(rf"versions/(\d{{8,{MAX_NUMBER_DIGITS}}})\.json", re.ASCII)
_ALIAS = re.compile(r"[A-Za-z][0-9A-Za-z_-]{0,63}", re.ASCII)
LATEST_ALIAS = "latest"  # what every output has, and nobody sets
NO_ALIAS = (LATEST_ALIAS, "none")  # words that settings have in the place of an alias


@dataclass(frozen=True)
class Registry:
    """What the log says beside which run is the latest.

    Parameters
    ----------
    aliases : mapping of str to int
        Numbers of versions by a word, such as `champion`.
    names : mapping of str to str
        Names of components, by the identity of the component.
    retired : tuple of str
        Runs that were removed; none of these identities is ever used again.
    unlabelled : tuple of str
        Runs whose labels were removed.
    """

    aliases: Mapping[str, Positive] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    retired: tuple[RunId, ...] = ()
    unlabelled: tuple[RunId, ...] = ()

    @property
    def gone(self) -> frozenset[str]:
        """Runs that are no longer whole: a run done again needs another identity."""
        return frozenset((*self.retired, *self.unlabelled))


EMPTY = Registry()
ENTRY_FILE = Document(
    shape(
        {
            "run_id": RUN_ID,
            "manifest_sha256": SHA256,
            "rows": COUNT,
            "published": optional(TIME),
            "registry": optional(record(Registry)),
        }
    ),
    "gmm_dask.version",
    version=4,
    since={"checksum": 2, "published": 3, "registry": 4},
    max_bytes=1 << 22,
    remedy="Restore the entry from a copy, or move it away and run again; other versions are "
    "intact.",
)


@dataclass(frozen=True)
class Version:
    """A published version: a number and the run that it points to, by the hash of its manifest.

    Parameters
    ----------
    number : int
        Number of the version, from 1.
    run_id, manifest_sha256 : str
    rows : int
        The number of rows of the input.
    published : str or None
        When the entry was made: UTC, ISO 8601. None where an entry of an older format does not say.
    registry : Registry
        As of this entry.
    """

    number: int
    run_id: str
    manifest_sha256: str
    rows: int
    published: str | None = None
    registry: Registry = field(default=EMPTY, hash=False)

    @property
    def name(self) -> str:
        """The name of its entry in the store."""
        return entry_name(self.number)

    def to_json(self) -> bytes:
        """The content of its entry; the number is in the name."""
        return ENTRY_FILE.dump(vars(self))

    def points_to(self, run_id: str, manifest_sha256: str) -> bool:
        """Whether it is a version of that run, as it was finished with that manifest."""
        return (self.run_id, self.manifest_sha256) == (run_id, manifest_sha256)


def entry_name(number: int) -> str:
    """The name of a version's entry in the store."""
    return f"versions/{number:08d}.json"


def version_numbers(store: Store) -> Sequence[int]:
    """Numbers of all versions, ascending; other files in the folder are not looked at."""
    matches = (_ENTRY.fullmatch(name) for name in store.list("versions/"))
    numbers = {int(match[1]): match[0] for match in matches if match}
    named = (number for number, name in numbers.items() if name == entry_name(number))
    return sorted(number for number in named if number > 0)


def read_version(store: Store, number: int) -> Version:
    """The entry of that number.

    Raises
    ------
    OutputError
        It is absent, damaged, or newer than this package reads.
    """
    path = store.path(entry_name(number))
    data = store.get(entry_name(number), ENTRY_FILE.max_bytes)
    found = ENTRY_FILE.load(data, path)
    return Version(number, **found | {"registry": found["registry"] or EMPTY})


def list_versions(store: Store) -> list[Version]:
    """All versions, oldest first; raises OutputError naming an entry that is damaged."""
    return [read_version(store, number) for number in version_numbers(store)]


def latest(store: Store) -> Version | None:
    """The version of the highest number, or None where nothing was published."""
    numbers = version_numbers(store)
    return read_version(store, numbers[-1]) if numbers else None


def registry_of(store: Store, version: Version) -> Registry:
    """The registry as it is now; where the newest entry is damaged, as of this version."""
    with suppress(OutputError):
        return (latest(store) or version).registry
    return version.registry


def find_entry(store: Store, which: int | str | None) -> Version:
    """The version of a number or an alias, or the latest.

    Raises
    ------
    OutputError
        There is none, its entry is damaged, or its run was removed.
    """
    if Path(store.url).is_file():
        raise OutputError(
            f"{store.url} is a file. Give the output folder of a run that has ended, or a "
            "model.json where a model is asked for."
        )
    version = _entry(store, which)
    if version.run_id in registry_of(store, version).retired:
        raise OutputError(
            f"{store.url}: version {version.number} was removed, as `gmm-dask gc` was told to."
        )
    return version


def _entry(store: Store, which: int | str | None) -> Version:
    if isinstance(which, int):
        numbers = version_numbers(store)
        if which not in numbers:
            known = ", ".join(map(str, numbers)) or "none"
            raise OutputError(f"{store.url} holds no version {which}; published: {known}.")
        return read_version(store, which)  # damage of the others does not matter
    newest = latest(store)
    if newest is None:
        raise OutputError(
            f"{store.url} holds no published version. Give the output folder of a run that has "
            "ended, or a model.json."
        )
    if which is None:
        return newest
    number = newest.registry.aliases.get(which)
    if number is None:
        known = ", ".join(sorted(newest.registry.aliases)) or "none"
        raise OutputError(f"{store.url} has no alias {which!r}; its aliases: {known}.")
    return read_version(store, number)


def is_alias(word: str) -> bool:
    """Whether the word can be an alias: a letter, then letters, digits, _ and -; no NO_ALIAS."""
    return word not in NO_ALIAS and _ALIAS.fullmatch(word) is not None


def parse_ref(ref: str) -> tuple[str, int | str | None]:
    """Split OUT@7 into the folder and the number, OUT@champion into the folder and the alias.

    OUT and OUT@latest have neither.

    Raises
    ------
    OutputError
        No folder, or the number 0.
    """
    url, separator, which = ref.rpartition("@")
    is_number = which.isascii() and which.isdigit()
    if not separator or not (is_number or _ALIAS.fullmatch(which)):
        url, which = ref, ""
    if not url:
        raise OutputError(f"{ref!r} names no output folder: write OUT, or OUT@7 for version 7.")
    if not is_number:
        return url, which if which not in ("", LATEST_ALIAS) else None
    digits = which.lstrip("0") or which[:1]
    if digits == "0":
        raise OutputError(f"{ref!r}: versions are numbered from 1.")
    if len(digits) > MAX_NUMBER_DIGITS:
        raise OutputError(f"{literal(ref)}: no version has a number of {len(digits)} digits.")
    return url, int(digits)
