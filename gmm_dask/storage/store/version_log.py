"""The log of published versions: one small object each, numbered from 1, never changed.

Each entry points to a run. The latest version is the entry of the highest number; going back to an
earlier run is a new entry that points to it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gmm_dask.errors import OutputError
from gmm_dask.storage.records.documents import (
    canonical_json,
    check_format,
    check_keys,
    literal,
    parse_json,
    sealed,
    unsealed,
)
from gmm_dask.storage.records.fields import Fields
from gmm_dask.storage.store.protocol import Store

FORMAT = "gmm_dask.version"
FORMAT_VERSION = 3  # entries of version 1 have no checksum, and those of 2 no time

MAX_BYTES = 1 << 16  # of an entry
MAX_NUMBER_DIGITS = 18  # of a version; what has more is no entry

_ENTRY = re.compile(rf"versions/(\d{{8,{MAX_NUMBER_DIGITS}}})\.json", re.ASCII)
_KEYS = ("format", "format_version", "run_id", "manifest_sha256", "rows", "published")
_REMEDY = "Restore the entry from a copy, or move it away and run again; other versions are intact."


@dataclass(frozen=True)
class Version:
    """A published version: a number and the run that it points to, by the hash of its manifest.

    Parameters
    ----------
    number : int
        From 1.
    run_id, manifest_sha256 : str
    rows : int
        Rows of the input.
    published : str or None
        When the entry was made: UTC, ISO 8601. None where an entry of an older format does not say.
    """

    number: int
    run_id: str
    manifest_sha256: str
    rows: int
    published: str | None = None

    @property
    def name(self) -> str:
        """The name of its entry in the store."""
        return entry_name(self.number)

    def to_json(self) -> bytes:
        """The content of its entry; the number is in the name."""
        document = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "run_id": self.run_id,
            "manifest_sha256": self.manifest_sha256,
            "rows": self.rows,
            "published": self.published,
        }
        return canonical_json(sealed(document))

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
    data = store.get(entry_name(number), MAX_BYTES)
    with _remedied():
        document = parse_json(data, path)
        check_format(document, path, FORMAT, sys.maxsize)
    check_format(document, path, FORMAT, FORMAT_VERSION)  # a newer one must not be moved away
    with _remedied():
        return _version(document, path, number)


@contextmanager
def _remedied() -> Iterator[None]:
    """Add to an error of damage within the block what can be done about it."""
    try:
        yield
    except OutputError as error:
        raise OutputError(f"{error} {_REMEDY}") from None


def _version(document: dict[str, Any], path: str, number: int) -> Version:
    if document["format_version"] > 1:
        document = unsealed(document, path)
    if document["format_version"] < 3:
        document = {"published": None} | document
    check_keys(document, path, _KEYS)
    reader = Fields(document, path, OutputError)
    return Version(
        number,
        reader.run_id("run_id"),
        reader.sha256("manifest_sha256"),
        reader.count("rows"),
        reader.time("published"),
    )


def list_versions(store: Store) -> list[Version]:
    """All versions, oldest first; raises OutputError naming an entry that is damaged."""
    return [read_version(store, number) for number in version_numbers(store)]


def latest(store: Store) -> Version | None:
    """The version of the highest number, or None where nothing was published."""
    numbers = version_numbers(store)
    return read_version(store, numbers[-1]) if numbers else None


def parse_ref(ref: str) -> tuple[str, int | None]:
    """Split OUT@7 into the folder and the number; OUT alone has no number.

    Raises
    ------
    OutputError
        No folder, or the number 0.
    """
    url, separator, digits = ref.rpartition("@")
    if not separator or not (digits.isascii() and digits.isdigit()):
        url, digits = ref, ""
    if not url:
        raise OutputError(f"{ref!r} names no output folder: write OUT, or OUT@7 for version 7.")
    digits = digits.lstrip("0") or digits[:1]
    if digits == "0":
        raise OutputError(f"{ref!r}: versions are numbered from 1.")
    if len(digits) > MAX_NUMBER_DIGITS:
        raise OutputError(f"{literal(ref)}: no version has a number of {len(digits)} digits.")
    return url, int(digits) if digits else None
