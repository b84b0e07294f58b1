"""The log of published versions: one small object each, numbered from 1, never changed.

Each entry points to a run. The latest version is the entry of the highest number; going back to an
earlier run is a new entry that points to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gmm_dask.errors import OutputError
from gmm_dask.storage.records.codec import COUNT, RUN_ID, SHA256, TIME, literal, optional, shape
from gmm_dask.storage.records.documents import Document
from gmm_dask.storage.store.protocol import Store

MAX_NUMBER_DIGITS = 18  # of a version; what has more is no entry

_ENTRY = re.compile(rf"versions/(\d{{8,{MAX_NUMBER_DIGITS}}})\.json", re.ASCII)
ENTRY_FILE = Document(
    shape(
        {"run_id": RUN_ID, "manifest_sha256": SHA256, "rows": COUNT, "published": optional(TIME)}
    ),
    "gmm_dask.version",
    version=3,
    since={"checksum": 2, "published": 3},
    max_bytes=1 << 16,
    remedy="Restore the entry from a copy, or move it away and run again; other versions are "
    "intact.",
)


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
    return Version(number, **ENTRY_FILE.load(data, path))


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
