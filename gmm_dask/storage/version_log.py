"""The log of published versions: one small object each, numbered from 1, never changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gmm_dask.errors import OutputError
from gmm_dask.storage.documents import (
    canonical_json,
    check_format,
    check_keys,
    is_count,
    is_sha256,
    parse_json,
    sealed,
    shown,
    unsealed,
)
from gmm_dask.storage.store import Store

FORMAT = "gmm_dask.version"
FORMAT_VERSION = 2  # entries of version 1 have no checksum

_ENTRY = re.compile(r"versions/(\d{8,})\.json", re.ASCII)
_KEYS = ("format", "format_version", "run_id", "manifest_sha256", "rows")
_REMEDY = "Restore the entry from a copy, or move it away and run again; other versions are intact."


@dataclass(frozen=True)
class Version:
    """A published version: a number and the run, by the hash of its manifest.

    Parameters
    ----------
    number : int
        From 1.
    run_id, manifest_sha256 : str
    rows : int
        Rows of the input.
    """

    number: int
    run_id: str
    manifest_sha256: str
    rows: int

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
        }
        return canonical_json(sealed(document))


def entry_name(number: int) -> str:
    """The name of a version's entry in the store."""
    return f"versions/{number:08d}.json"


def version_numbers(store: Store) -> Sequence[int]:
    """Numbers of all versions, ascending; other files in the folder are not looked at."""
    matches = (_ENTRY.fullmatch(name) for name in store.list("versions/"))
    numbers = (int(match[1]) for match in matches if match)
    return sorted(number for number in numbers if number > 0)


def read_version(store: Store, number: int) -> Version:
    """The entry of that number.

    Raises
    ------
    OutputError
        It is absent, damaged, or newer than this package reads.
    """
    path = store.path(entry_name(number))
    data = store.get(entry_name(number))
    try:
        return _parse(data, path, number)
    except OutputError as error:
        raise OutputError(f"{error} {_REMEDY}") from None


def _parse(data: bytes, path: str, number: int) -> Version:
    document = parse_json(data, path)
    check_format(document, path, FORMAT, FORMAT_VERSION)
    if document["format_version"] > 1:
        document = unsealed(document, path)
    check_keys(document, path, _KEYS)
    for key, right in (
        ("run_id", isinstance(document["run_id"], str)),
        ("manifest_sha256", is_sha256(document["manifest_sha256"])),
        ("rows", is_count(document["rows"])),
    ):
        if not right:
            raise OutputError(f"{path}: {key} is {shown(document[key])}; the entry is damaged.")
    return Version(number, document["run_id"], document["manifest_sha256"], document["rows"])


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
    if digits and int(digits) == 0:
        raise OutputError(f"{ref!r}: versions are numbered from 1.")
    return url, int(digits) if digits else None
