"""Records of a fit as fields of a document and back, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gmm_dask.fitting import Event, FitResult, Outcome, State
from gmm_dask.fitting.acceleration import NOTHING, Coordinates, History
from gmm_dask.fitting.components import Action
from gmm_dask.mixture import Parameters
from gmm_dask.mixture.covariance import family
from gmm_dask.mixture.estimate import Cause
from gmm_dask.storage.records.fields import Fields, packed
from gmm_dask.storage.records.model_file import WEIGHTS_SLACK

_ARRAYS = ("weights", "means", "covariances", "precisions_cholesky")
_PARAMETERS = ("n_components", *_ARRAYS)
_HISTORY = ("reference", "n_steps", "points", "images")
_EVENT = ("pass_number", "component", "cause", "action", "columns", "until", "start")
_OF_BOTH = ("n_bounds", "lower_bounds", "n_taken_back", "events", "n_states", "n_rows")
STATE = (
    *_OF_BOTH,
    "parameters",
    "settled",
    "previous",
    "history",
    "settled_within_tol",
    "sum_weight",
    "is_rough",
)
RESULT = (*_OF_BOTH, "start", "parameters", "outcome", "sum_weight")


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


def dump_parameters(parameters: Parameters) -> dict[str, Any]:
    """For a JSON document."""
    arrays = {name: packed(getattr(parameters, name)) for name in _ARRAYS}
    return {"n_components": parameters.n_components, **arrays}


def load_parameters(reader: Fields, field: str, shapes: Shapes) -> Parameters:
    """The mixture in a field, checked to be one."""
    inner = reader.inner(field, _PARAMETERS)
    k, d = inner.count("n_components", least=1), shapes.n_features
    if k > shapes.n_components:
        inner.refuse("n_components", f"is {k}, of at most {shapes.n_components}")
    of_family = family(shapes.covariance_type).shape(k, d)
    each = zip(_ARRAYS, ((k,), (k, d), of_family, of_family), strict=True)
    arrays = {name: inner.packed(name, shape) for name, shape in each}
    if arrays["weights"].min() < 0 or abs(math.fsum(arrays["weights"]) - 1) > WEIGHTS_SLACK:
        inner.refuse("weights", "are not shares that sum to 1")
    parameters = Parameters.from_arrays(**arrays, covariance_type=shapes.covariance_type)
    if (problem := parameters.family.covariances_problem()) is not None:
        inner.refuse("covariances", problem)
    return parameters


def dump_state(state: State) -> dict[str, Any]:
    """For a JSON document; the trajectory is kept elsewhere."""
    extrapolated = state.parameters is not state.settled
    return _of_both(state) | {
        "parameters": dump_parameters(state.parameters),
        "settled": dump_parameters(state.settled) if extrapolated else None,
        "previous": state.previous if math.isfinite(state.previous) else None,
        "history": _dump_history(state.history),
        "settled_within_tol": state.settled_within_tol,
        "sum_weight": float(state.sum_weight),
        "is_rough": state.is_rough,
    }


def load_state(reader: Fields, trajectory: Sequence[Parameters], shapes: Shapes) -> State:
    """The state in a document, after the states of `trajectory`."""
    parameters = load_parameters(reader, "parameters", shapes)
    settled = parameters  # the same object says that nothing was extrapolated
    if reader.document["settled"] is not None:
        settled = load_parameters(reader, "settled", shapes)
    return State(
        parameters,
        settled,
        -math.inf if reader.document["previous"] is None else reader.number("previous"),
        _bounds(reader),
        reader.count("n_taken_back"),
        _events(reader),
        _load_history(reader, shapes),
        (*trajectory, parameters),
        reader.flag("settled_within_tol"),
        reader.count("n_rows"),
        reader.size("sum_weight"),
        reader.flag("is_rough"),
    )


def dump_result(result: FitResult) -> dict[str, Any]:
    """For a JSON document; the trajectory is kept elsewhere."""
    total = result.sum_weight
    return _of_both(result) | {
        "start": result.start,
        "parameters": dump_parameters(result.parameters),
        "outcome": str(result.outcome),
        "sum_weight": total if math.isfinite(total) else None,
    }


def load_result(reader: Fields, trajectory: Sequence[Parameters], shapes: Shapes) -> FitResult:
    """The finished fit in a document, after the states of `trajectory`."""
    parameters = load_parameters(reader, "parameters", shapes)
    if reader.document["outcome"] not in tuple(Outcome):
        reader.refuse("outcome", "is none that a fit has")
    return FitResult(
        parameters,
        _bounds(reader),
        Outcome(reader.document["outcome"]),
        (*trajectory, parameters),
        reader.count("n_rows"),
        math.inf if reader.document["sum_weight"] is None else reader.size("sum_weight"),
        _events(reader),
        reader.count("n_taken_back"),
        reader.count("start", least=1),
    )


def _of_both(record: State | FitResult) -> dict[str, Any]:
    events = record.events if isinstance(record, State) else record.events_
    return {
        "n_bounds": len(record.lower_bounds),
        "lower_bounds": [float(bound) for bound in record.lower_bounds],
        "n_taken_back": record.n_taken_back,
        "events": [_dump_event(event) for event in events],
        "n_states": len(record.trajectory),
        "n_rows": record.n_rows,
    }


def _bounds(reader: Fields) -> tuple[float, ...]:
    return tuple(reader.array("lower_bounds", (reader.count("n_bounds"),)).tolist())


def _dump_history(history: History) -> dict[str, Any] | None:
    if history.chart is None:
        return None
    points, images = list(history.points), list(history.images)
    return {
        "reference": dump_parameters(history.chart.reference),
        "n_steps": len(points),
        "points": [packed(point) for point in points],
        "images": [packed(image) for image in images],
    }


def _load_history(reader: Fields, shapes: Shapes) -> History:
    if reader.document["history"] is None:
        return NOTHING
    inner = reader.inner("history", _HISTORY)
    chart = Coordinates(load_parameters(inner, "reference", shapes))
    if chart.reference.weights.min() == 0:
        inner.refuse("reference", "has an empty component, from which nothing is measured")
    n, length = inner.count("n_steps", least=1), len(chart.scale)
    return History(
        chart, inner.packed_list("points", n, length), inner.packed_list("images", n, length)
    )


def _dump_event(event: Event) -> dict[str, Any]:
    words = {"cause": str(event.cause), "action": str(event.action)}
    return asdict(event) | words | {"columns": list(event.columns)}


def _events(reader: Fields) -> tuple[Event, ...]:
    return tuple(_event(inner) for inner in reader.inners("events", _EVENT))


def _event(reader: Fields) -> Event:
    document = reader.document
    if document["cause"] not in tuple(Cause) or document["action"] not in tuple(Action):
        reader.refuse("cause", "or action is none that there is")
    columns = document["columns"]
    return Event(
        reader.count("pass_number"),
        None if document["component"] is None else reader.count("component"),
        Cause(document["cause"]),
        Action(document["action"]),
        reader.texts("columns", len(columns) if isinstance(columns, list) else 0),
        reader.count("until"),
        reader.count("start", least=1),
    )
