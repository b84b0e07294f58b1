"""Checkpoints of a run: sealed documents below checkpoints/, immutable, and read strictly.

Each names the run, the plan and the settings it belongs to. One that is damaged or foreign is
refused by name and never passed over: whoever moves it away has decided where to go on from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from gmm_dask.errors import CheckpointError, OutputError
from gmm_dask.storage.records.codec import At, Kind, literal, shape
from gmm_dask.storage.records.documents import MAX_MARKS, Document
from gmm_dask.storage.store.runs import RunFolder

T = TypeVar("T")
SURVEY = "checkpoints/survey.json"

_NAME = re.compile(r"checkpoints/(\d{5,})\.json", re.ASCII)


@dataclass(frozen=True)
class Origin:
    """What a checkpoint belongs to.

    Parameters
    ----------
    settings_hash : str
        Hash of the settings that decide the model.
    plan_hash : str
        Hash of the data and how they are cut.
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


def _document(origin: Origin, body: Kind[T]) -> Document[dict[str, Any]]:
    origins = {name: _exactly(value, _OF_OTHERS[name]) for name, value in vars(origin).items()}
    return Document(
        shape({**origins, "body": body}),
        "gmm_dask.checkpoint",
        version=2,
        error=CheckpointError,
        max_marks=MAX_MARKS,
        is_exact=True,
    )


def write_checkpoint(folder: RunFolder, name: str, origin: Origin, body: Kind[T], value: T) -> bool:
    """Create the file unless it is there; False where it would be larger than any that is read.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    document = _document(origin, body)
    data = document.dump({**vars(origin), "body": value})
    if document.is_too_large(data):
        return False
    folder.put_if_absent(name, data)
    return True


def read_checkpoint(folder: RunFolder, name: str, origin: Origin, body: Kind[T]) -> T:
    """What a checkpoint keeps.

    Raises
    ------
    CheckpointError
        It is absent, damaged, newer, or of another run; the message says which.
    OutputError
        It cannot be read.
    """
    path = folder.path(name)
    document = _document(origin, body)
    if not folder.exists(name):
        raise CheckpointError(f"{path} is absent, and the checkpoints after it build on it.")
    document.check_size(path, folder.size(name))
    found: T = document.load(folder.get(name), path)["body"]
    return found


def read_if_there(folder: RunFolder, name: str, origin: Origin, body: Kind[T]) -> T | None:
    """What a checkpoint keeps that no other builds on; None where it is absent.

    Raises
    ------
    CheckpointError
        It is damaged, newer, or of another run.
    OutputError
        It cannot be read.
    """
    if not folder.exists(name):
        return None
    try:
        with remedied(folder, name):
            return read_checkpoint(folder, name, origin, body)
    except OutputError:
        if folder.exists(name):
            raise
        return None  # a twin published this run meanwhile, and `gc` took it away


@contextmanager
def remedied(folder: RunFolder, name: str = "") -> Iterator[None]:
    """Add to a refusal within the block what can be done about it.

    `name` is of a checkpoint that no other builds on; those after passes have none.
    """
    try:
        yield
    except CheckpointError as error:
        remedy = (
            "Move it away: the rows are then looked at once more."
            if name
            else "Move it and the checkpoints of higher numbers away to go on from the one before, "
            f"or move {folder.path('checkpoints')} away to fit from the beginning."
        )
        raise CheckpointError(f"{error} {remedy}") from None


def _exactly(expected: Any, why: str) -> Kind[Any]:
    """One value; of any other `why` says what it means."""

    def load(value: Any, at: At) -> Any:
        if type(value) is not type(expected) or value != expected:
            raise at.error(
                f"{at.file}: {at.field} is {literal(value)}, that of this run is "
                f"{literal(expected)}; {why}."
            )
        return value

    return Kind(load)
