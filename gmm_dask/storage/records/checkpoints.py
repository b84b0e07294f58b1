"""Checkpoints of a run: sealed documents below checkpoints/, immutable, and read strictly.

Each names the run, the plan and the settings it belongs to. One that is damaged or foreign is
refused by name and never passed over: whoever moves it away has decided where to go on from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from gmm_dask.errors import CheckpointError, OutputError
from gmm_dask.storage.records.documents import (
    MAX_BYTES,
    canonical_json,
    check_format,
    check_keys,
    literal,
    parse_json,
    sealed,
    unsealed,
)
from gmm_dask.storage.records.fields import Fields
from gmm_dask.storage.store.runs import RunFolder

FORMAT = "gmm_dask.checkpoint"
FORMAT_VERSION = 1
MAX_MARKS = 1 << 20  # brackets, colons, quotes: small in a file, large once they are objects
SURVEY = "checkpoints/survey.json"

_NAME = re.compile(r"checkpoints/(\d{5,})\.json", re.ASCII)


@dataclass(frozen=True)
class Origin:
    """What a checkpoint belongs to.

    Parameters
    ----------
    settings_hash : str
        Of the settings that decide the model.
    plan_hash : str
        Of the data and how they are cut.
    run_id : str
    random_state : int
    """

    settings_hash: str
    plan_hash: str
    run_id: str
    random_state: int


_OF_OTHERS = {
    "settings_hash": "it was written with other settings",
    "plan_hash": "it was written for other data",
    "run_id": "it is another run's",
    "random_state": "it was written with another seed",
}


def checkpoint_name(number: int) -> str:
    """The name of the checkpoint after so many passes."""
    return f"checkpoints/{number:05d}.json"


def checkpoint_numbers(folder: RunFolder) -> list[int]:
    """Numbers of all checkpoints, ascending; other files in the folder are not looked at."""
    matches = (_NAME.fullmatch(name) for name in folder.list("checkpoints/"))
    numbers = {int(match[1]): match[0] for match in matches if match}
    return sorted(number for number, name in numbers.items() if name == checkpoint_name(number))


def write_checkpoint(folder: RunFolder, name: str, origin: Origin, body: Mapping[str, Any]) -> bool:
    """Create the file unless it is there; False where it would be larger than any that is read.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    document = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(origin), **body}
    data = canonical_json(sealed(document))
    if _is_too_large(data):
        return False
    folder.put_if_absent(name, data)
    return True


def read_checkpoint(folder: RunFolder, name: str, origin: Origin, keys: Iterable[str]) -> Fields:
    """The fields of a checkpoint.

    Parameters
    ----------
    keys : iterable of str
        Of the body.

    Raises
    ------
    CheckpointError
        It is absent, damaged, newer, or of another run; the message says which.
    OutputError
        It cannot be read.
    """
    path = folder.path(name)
    if not folder.exists(name):
        raise CheckpointError(f"{path} is absent, and the checkpoints after it build on it.")
    size = folder.size(name)
    if size > MAX_BYTES:
        raise CheckpointError(f"{path} is larger, with its {size} bytes, than any checkpoint.")
    data = folder.get(name, MAX_BYTES)
    try:
        document = _document(data, path)
    except CheckpointError:
        raise
    except OutputError as error:
        said = str(error)
        raise CheckpointError(said if path in said else f"{path}: {said}") from None
    _check_origin(document, path, origin)
    known = ("format", "format_version", *asdict(origin), *keys)
    check_keys(document, path, known, CheckpointError)
    return Fields(document, path, CheckpointError)


@contextmanager
def remedied(folder: RunFolder, name: str = "") -> Iterator[None]:
    """Add to a refusal within the block what can be done about it."""
    try:
        yield
    except CheckpointError as error:
        remedy = (
            "Move it away: the rows are then looked at once more."
            if name == SURVEY
            else "Move it and the checkpoints of higher numbers away to go on from the one before, "
            f"or move {folder.path('checkpoints')} away to fit from the beginning."
        )
        raise CheckpointError(f"{error} {remedy}") from None


def _document(data: bytes, path: str) -> dict[str, Any]:
    if _is_too_large(data):
        raise CheckpointError(f"{path} has more fields than any checkpoint.")
    document = parse_json(data, path, CheckpointError)
    check_format(document, path, FORMAT, FORMAT_VERSION, CheckpointError)
    if canonical_json(document) != data:
        raise CheckpointError(f"{path} is not as it was written: the same fields in another form.")
    return unsealed(document, path)


def _check_origin(document: Mapping[str, Any], path: str, origin: Origin) -> None:
    for field, expected in asdict(origin).items():
        found = document.get(field)
        if type(found) is not type(expected) or found != expected:
            raise CheckpointError(
                f"{path}: {field} is {literal(found)}, that of this run is {literal(expected)}; "
                f"{_OF_OTHERS[field]}."
            )


def _is_too_large(data: bytes) -> bool:
    return len(data) > MAX_BYTES or sum(map(data.count, (b"[", b"{", b":", b'"'))) > MAX_MARKS
