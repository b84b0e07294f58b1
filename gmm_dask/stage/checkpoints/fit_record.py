"""A checkpoint: where the fit stands, and the states since the checkpoint before, bit for bit.

What the next pass needs is in the newest one. The states that earlier passes started from, which
the report draws, are spread over all of them: each was written once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gmm_dask.errors import CheckpointError
from gmm_dask.fitting import FitResult, Prelude, Progress, SearchRecord, State
from gmm_dask.fitting.acceleration import Coordinates, History
from gmm_dask.mixture import Parameters
from gmm_dask.storage import (
    ARRAYS,
    NUMBER,
    SIZE,
    At,
    Kind,
    Positive,
    array_shapes,
    by_name,
    check_mixture,
    count_from,
    kind_of_noise,
    list_of,
    optional,
    packed,
    record,
    shape,
)

HELD = ("n_held", "bytes_held", "bytes_read", "n_scratch", "bytes_scratch", "bytes_once")

Seconds = Mapping[int, tuple[float, ...]]


@dataclass(frozen=True)
class Shapes:
    """What the settings and the plan say of every mixture of the run.

    Parameters
    ----------
    covariance_type : str
    n_components, n_features : int
        Components at most.
    """

    covariance_type: str
    n_components: int
    n_features: int


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What is kept of a fit after a pass.

    Parameters
    ----------
    progress : Progress
    pass_seconds : mapping
        Wall time of each pass, by start.
    seconds : float
        Spent on the fit so far, in all attempts.
    held : mapping
        How many chunks stayed decoded, their bytes, and the bytes that every pass read again.
    software : mapping
        What the last digits may depend on.
    """

    progress: Progress
    pass_seconds: Seconds
    seconds: float
    held: Mapping[str, int]
    software: Mapping[str, str]

    @property
    def number(self) -> int:
        """Passes over the data, in all starts."""
        return self.progress.n_passes

    @property
    def kept(self) -> dict[int, int]:
        """States of each start that are written with this checkpoint and those before it."""
        return {start: n for start, n, _ in _paths(self.progress)}


@dataclass(frozen=True, eq=False)
class Segment:
    """States of a start that follow each other.

    Parameters
    ----------
    start : int
    first : int
        Number of passes before the first of them.
    states : tuple of Parameters
    """

    start: Positive
    first: int
    states: tuple[Parameters, ...]


@dataclass(frozen=True, eq=False)
class Kept:
    """What the file of a checkpoint holds.

    Parameters
    ----------
    number : int
        Number of the checkpoint, from 1.
    previous : int or None
        Number of the checkpoint before.
    checkpoint : Checkpoint
        The checkpoint, whose fits are without their states.
    n_states : tuple of int
        States that each fit remembers: those that are finished, and the one under way.
    trajectories : tuple of Segment
        The states that the checkpoints before do not have.
    """

    number: int
    previous: int | None
    checkpoint: Checkpoint
    n_states: tuple[Positive, ...]
    trajectories: tuple[Segment, ...]


def kept(checkpoint: Checkpoint, last: Checkpoint | None) -> Kept:
    """What is written of a checkpoint after the last one."""
    progress, known = checkpoint.progress, {} if last is None else last.kept
    # The report draws the best; of the other finished ones only the end is kept.
    n_states = [
        len(result.trajectory) if result is progress.best else 1 for result in progress.finished
    ]
    return Kept(
        checkpoint.number,
        None if last is None else last.number,
        checkpoint,
        (*n_states, len(progress.state.trajectory)),
        tuple(_segments(progress, known)),
    )


def load_checkpoint(
    read: Callable[[int], Kept], number: int, path: str, n_starts: int
) -> Checkpoint:
    """The checkpoint of that number, with the states that are in the files of those before it.

    Parameters
    ----------
    read : number -> Kept
        The content of a checkpoint's file.
    path : str
        What messages call the file.

    Raises
    ------
    As `read`, and CheckpointError naming file and field.
    """
    found, at = read(number), At(path, CheckpointError)
    progress = found.checkpoint.progress
    if found.number != number:
        at.refuse(f"is {found.number}, in the file of {number}", "number")
    if progress.start + progress.n_to_come > n_starts:
        to_come = f"{progress.n_to_come} are to come, of {n_starts}"
        at.refuse(f"is {progress.start} and {to_come}", "start")
    if progress.n_passes != number:
        at.refuse(f"is {number}, its passes are {progress.n_passes}", "number")
    return replace(found.checkpoint, progress=_with_states(read, found, at))


def kind_of_checkpoint(shapes: Shapes) -> Kind[Kept]:
    """How the file of a checkpoint of these mixtures is written and read."""
    mixture = _mixture(shapes)
    search = optional(
        record(
            SearchRecord, n_starts=count_from(1), n_replicated=count_from(1), n_passes=count_from(0)
        )
    )
    prelude = optional(record(Prelude, numbers=list_of(count_from(1)), trajectory=list_of(mixture)))
    state: Kind[State] = record(
        State,
        {"trajectory": ()},
        parameters=mixture,
        settled=optional(mixture),
        previous=_or_infinite(NUMBER, -math.inf),
        history=_history(mixture),
        sum_weight=SIZE,
        search=search,
        prelude=prelude,
    )
    result = record(
        FitResult,
        {"trajectory": ()},
        parameters=mixture,
        sum_weight=_or_infinite(SIZE, math.inf),
        start=count_from(1),
        search=search,
        prelude=prelude,
    )
    progress = record(
        Progress, start=count_from(1), state=_compact(state), finished=list_of(result)
    )
    checkpoint = record(
        Checkpoint,
        progress=progress,
        pass_seconds=_by_start(list_of(SIZE)),
        seconds=SIZE,
        held=shape(dict.fromkeys(HELD, count_from(0))),
    )
    segment = record(Segment, states=list_of(mixture))
    return record(Kept, checkpoint=checkpoint, trajectories=list_of(segment))


def _mixture(shapes: Shapes) -> Kind[Parameters]:
    """A mixture with its arrays packed, checked to be one."""

    def arrays(k: int) -> Kind[dict[str, Any]]:
        of_arrays = array_shapes(shapes.covariance_type, k, shapes.n_features)
        kinds = {name: packed(*of_array) for name, of_array in of_arrays.items()}
        noise = kind_of_noise(packed(shapes.n_features))
        return shape({"n_components": count_from(1), **kinds}, {"noise": noise})

    def load(value: Any, at: At) -> Parameters:
        k = count_from(1).of(value, "n_components", at)
        if k > shapes.n_components:
            at.refuse(f"is {k}, of at most {shapes.n_components}", "n_components")
        found = arrays(k).load(value, at)
        parameters = Parameters.from_arrays(
            **{name: found[name] for name in ARRAYS},
            covariance_type=shapes.covariance_type,
            noise=found.get("noise"),
        )
        check_mixture(parameters, at)
        return parameters

    def dump(parameters: Parameters) -> Any:
        k = parameters.n_components
        known = {name: getattr(parameters, name) for name in ARRAYS}
        if parameters.noise is not None:
            known["noise"] = parameters.noise
        return arrays(k).dump({"n_components": k, **known})

    return Kind(load, dump)


def _compact(state: Kind[State]) -> Kind[State]:
    """A state whose last M-step is null where that is what the next pass starts from."""

    def load(value: Any, at: At) -> State:
        found = state.load(value, at)
        return found if found.settled is not None else replace(found, settled=found.parameters)

    def dump(one: State) -> Any:
        nothing: dict[str, Any] = {"settled": None} if one.parameters is one.settled else {}
        return state.dump(replace(one, **nothing))

    return Kind(load, dump)


def _history(mixture: Kind[Parameters]) -> Kind[History]:
    """The steps of an acceleration, in the chart around a mixture without an empty component."""

    def kinds(length: int) -> Kind[dict[str, Any]]:
        vectors = list_of(packed(length))
        return shape({"reference": optional(mixture), "points": vectors, "images": vectors})

    def load(value: Any, at: At) -> History:
        reference = optional(mixture).of(value, "reference", at)
        if reference is not None and reference.weights.min() == 0:
            at.refuse("has an empty component, from which nothing is measured", "reference")
        chart = None if reference is None else Coordinates(reference)
        found = kinds(0 if chart is None else len(chart.scale)).load(value, at)
        n = len(found["points"])
        if len(found["images"]) != n or (n > 0) != (chart is not None):
            at.refuse(f"are {len(found['images'])} of {n} points", "images")
        return History(chart, found["points"], found["images"])

    def dump(history: History) -> Any:
        chart = history.chart
        reference = None if chart is None else chart.reference
        known = {"reference": reference, "points": history.points, "images": history.images}
        return kinds(0 if chart is None else len(chart.scale)).dump(known)

    return Kind(load, dump)


def _by_start(kind: Kind[Any]) -> Kind[dict[int, Any]]:
    """Values of a kind by the number of a start, which is text in JSON."""
    by_text = by_name(kind)

    def load(value: Any, at: At) -> dict[int, Any]:
        found = by_text.load(value, at)
        if not all(name.isascii() and name.isdecimal() and len(name) < 19 for name in found):
            at.refuse("has a name that is no number of a start")
        return {int(name): each for name, each in found.items()}

    return Kind(load, lambda values: by_text.dump({str(n): each for n, each in values.items()}))


def _paths(progress: Progress) -> Iterator[tuple[int, int, Sequence[Parameters]]]:
    """Start, number of the states before the last, and the latest of these."""
    best = progress.best
    records: list[tuple[int, State | FitResult]] = [(progress.start, progress.state)]
    if best is not None:
        records.append((best.start, best))
    for start, one in records:
        yield start, len(one.lower_bounds), one.trajectory[:-1]


def _segments(progress: Progress, known: Mapping[int, int]) -> Iterator[Segment]:
    for start, n, states in _paths(progress):
        first = max(known.get(start, 0), n - len(states))
        if first < n:
            yield Segment(start, first, tuple(states[len(states) - (n - first) :]))


def _with_states(read: Callable[[int], Kept], found: Kept, at: At) -> Progress:
    """Where the fit stands, each fit with the states that it remembers."""
    progress = found.checkpoint.progress
    fits: list[State | FitResult] = [*progress.finished, progress.state]
    if len(found.n_states) != len(fits):
        at.refuse(f"are {len(found.n_states)} of {len(fits)} fits", "n_states")
    places: list[list[tuple[int, int]]] = []
    for fit, n_states in zip(fits, found.n_states, strict=True):
        n, start = len(fit.lower_bounds), getattr(fit, "start", progress.start)
        if n_states > n + 1:
            at.refuse(f"is {n_states} after {n} passes", "n_states")
        places.append([(start, i) for i in range(n + 1 - n_states, n)])
    known = _gathered(read, found, {place for each in places for place in each}, at)
    paths = [tuple(known[place] for place in each) for each in places]
    return replace(
        progress,
        state=replace(progress.state, trajectory=(*paths.pop(), progress.state.parameters)),
        finished=tuple(
            replace(fit, trajectory=(*path, fit.parameters))
            for fit, path in zip(progress.finished, paths, strict=True)
        ),
    )


def _gathered(
    read: Callable[[int], Kept], found: Kept, missing: set[tuple[int, int]], at: At
) -> dict[tuple[int, int], Parameters]:
    """The states that are needed, from this checkpoint and those before it."""
    known: dict[tuple[int, int], Parameters] = {}
    while True:
        for segment in found.trajectories:
            for i, state in enumerate(segment.states, segment.first):
                known.setdefault((segment.start, i), state)  # what is newer counts
        lacking = missing - known.keys()
        if not lacking:
            return known
        if found.previous is None:
            start, i = min(lacking)
            at.refuse(f"lack the state of pass {i + 1} of start {start}", "trajectories")
        if found.previous >= found.number:
            at.refuse(f"is {found.previous}, which is not before it", "previous")
        found = read(found.previous)


def _or_infinite(kind: Kind[float], infinity: float) -> Kind[float]:
    """A number of the kind, or that infinity, which is null in JSON."""
    inner = optional(kind)
    return Kind(
        lambda value, at: infinity if (found := inner.load(value, at)) is None else found,
        lambda value: inner.dump(value if math.isfinite(value) else None),
    )
