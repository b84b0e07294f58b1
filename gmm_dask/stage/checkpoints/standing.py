"""A checkpoint: where the fit stands, and the states since the checkpoint before.

What the next pass needs is in the newest one. The states that earlier passes started from, which
the report draws, are spread over all of them: each was written once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gmm_dask.fitting import FitResult, Standing, State
from gmm_dask.mixture import Parameters
from gmm_dask.stage.checkpoints.records import (
    RESULT,
    STATE,
    Shapes,
    dump_parameters,
    dump_result,
    dump_state,
    load_parameters,
    load_result,
    load_state,
)
from gmm_dask.storage.records.fields import Fields

_SEGMENT = ("start", "first", "states")
_SECONDS = ("start", "n_passes", "seconds")
HELD = ("n_held", "bytes_held", "bytes_read", "n_scratch", "bytes_scratch", "bytes_once")
BODY = (
    "number",
    "previous",
    "start",
    "n_to_come",
    "state",
    "finished",
    "trajectories",
    "pass_seconds",
    "seconds",
    "held",
    "software",
)

Read = Callable[[int], Fields]
Seconds = Mapping[int, tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What is kept of a fit after a pass.

    Parameters
    ----------
    standing : Standing
    pass_seconds : mapping
        Wall time of each pass, by start.
    seconds : float
        Spent on the fit so far, in all attempts.
    held : mapping
        How many chunks stayed decoded, their bytes, and the bytes that every pass read again.
    software : mapping
        What the last digits may depend on.
    """

    standing: Standing
    pass_seconds: Seconds
    seconds: float
    held: Mapping[str, int]
    software: Mapping[str, str]

    @property
    def number(self) -> int:
        """Passes over the data, in all starts."""
        return self.standing.n_passes

    @property
    def kept(self) -> dict[int, int]:
        """States of each start that are written with this one and those before it."""
        return {start: n for start, n, _ in _paths(self.standing)}


def dump_checkpoint(
    checkpoint: Checkpoint, previous: int | None, kept: Mapping[int, int]
) -> dict[str, Any]:
    """The body of the document, with the states that those before it do not have.

    Parameters
    ----------
    previous : int or None
        Number of the checkpoint before.
    kept : mapping
        States of each start that are written with it and those before it.
    """
    standing = checkpoint.standing
    return {
        "number": checkpoint.number,
        "previous": previous,
        "start": standing.start,
        "n_to_come": standing.n_to_come,
        "state": dump_state(standing.state),
        "finished": [_dump_finished(result, standing) for result in standing.finished],
        "trajectories": list(_segments(standing, kept)),
        "pass_seconds": [
            {"start": start, "n_passes": len(seconds), "seconds": list(seconds)}
            for start, seconds in checkpoint.pass_seconds.items()
        ],
        "seconds": checkpoint.seconds,
        "held": dict(checkpoint.held),
        "software": dict(checkpoint.software),
    }


def load_checkpoint(read: Read, number: int, shapes: Shapes, n_starts: int) -> Checkpoint:
    """The checkpoint of that number.

    Parameters
    ----------
    read : number -> Fields
        Of a checkpoint's file; asked for those before it, too.

    Raises
    ------
    As `read`, and CheckpointError naming file and field.
    """
    reader = read(number)
    if reader.count("number") != number:
        reader.refuse("number", f"is {reader.document['number']}, in the file of {number}")
    state, results = reader.inner("state", STATE), reader.inners("finished", RESULT)
    start, to_come = reader.count("start", least=1), reader.count("n_to_come")
    if start + to_come > n_starts:
        reader.refuse("start", f"is {start} and {to_come} are to come, of {n_starts}")
    paths = [(each.count("start", least=1), each) for each in results] + [(start, state)]
    known = _gathered(read, number, paths, shapes)
    standing = Standing(
        start,
        load_state(state, _path(known, start, state), shapes),
        tuple(load_result(each, _path(known, at, each), shapes) for at, each in paths[:-1]),
        to_come,
    )
    if standing.n_passes != number:
        reader.refuse("number", f"is {number}, its passes are {standing.n_passes}")
    return Checkpoint(
        standing,
        {each.count("start", least=1): _seconds(each) for each in _seconds_of(reader)},
        reader.size("seconds"),
        {name: reader.inner("held", HELD).count(name) for name in HELD},
        reader.mapping("software"),
    )


def _dump_finished(result: FitResult, standing: Standing) -> dict[str, Any]:
    # The report draws the best; of the others only the end is kept.
    only_end = {} if result is standing.best else {"n_states": 1}
    return dump_result(result) | only_end


def _paths(standing: Standing) -> Iterator[tuple[int, int, Sequence[Parameters]]]:
    """Start, number of the states before the last, and the latest of these."""
    best = standing.best
    records: list[tuple[int, State | FitResult]] = [(standing.start, standing.state)]
    if best is not None:
        records.append((best.start, best))
    for start, record in records:
        yield start, len(record.lower_bounds), record.trajectory[:-1]


def _segments(standing: Standing, kept: Mapping[int, int]) -> Iterator[dict[str, Any]]:
    for start, n, states in _paths(standing):
        first = max(kept.get(start, 0), n - len(states))
        if first < n:
            new = [dump_parameters(each) for each in states[len(states) - (n - first) :]]
            yield {"start": start, "first": first, "states": new}


def _indices(reader: Fields) -> range:
    """Which states of its start a record needs beside the last."""
    n, n_states = reader.count("n_bounds"), reader.count("n_states", least=1)
    if n_states > n + 1:
        reader.refuse("n_states", f"is {n_states} after {n} passes")
    return range(n + 1 - n_states, n)


def _path(
    known: Mapping[tuple[int, int], Parameters], start: int, reader: Fields
) -> list[Parameters]:
    return [known[start, i] for i in _indices(reader)]


def _gathered(
    read: Read, number: int, paths: Sequence[tuple[int, Fields]], shapes: Shapes
) -> dict[tuple[int, int], Parameters]:
    """The states that are needed, from this checkpoint and those before it."""
    missing = {(start, i) for start, reader in paths for i in _indices(reader)}
    known: dict[tuple[int, int], Parameters] = {}
    while True:
        reader = read(number)
        for segment in reader.inners("trajectories", _SEGMENT):
            for key, holder, name in _states(segment):
                if key in missing:  # what is newer counts
                    missing.remove(key)
                    known[key] = load_parameters(holder, name, shapes)
        if not missing:
            return known
        if reader.document["previous"] is None:
            start, i = min(missing)
            reader.refuse("trajectories", f"lack the state of pass {i + 1} of start {start}")
        previous = reader.count("previous")
        if previous >= number:
            reader.refuse("previous", f"is {previous}, which is not before it")
        number = previous


def _states(segment: Fields) -> Iterator[tuple[tuple[int, int], Fields, str]]:
    start, first = segment.count("start", least=1), segment.count("first")
    states = segment.document["states"]
    if not isinstance(states, list):
        segment.refuse("states", "is not a list")
    for i, state in enumerate(states):
        name = f"states[{i}]"
        inside = Fields({name: state}, segment.name, segment.error, segment.within)
        yield (start, first + i), inside, name


def _seconds_of(reader: Fields) -> list[Fields]:
    return reader.inners("pass_seconds", _SECONDS)


def _seconds(reader: Fields) -> tuple[float, ...]:
    return tuple(reader.array("seconds", (reader.count("n_passes"),)).tolist())
