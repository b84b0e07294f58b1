"""What happens to components in the course of a fit, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from gmm_dask.mixture import Cause

MAX_LISTED, MAX_COLUMNS = 8, 100  # columns that a message names, and that metrics.json does
MAX_NAME = 40  # characters of a column's name in a message


class Action(StrEnum):
    """What was done with a component in trouble."""

    FLOORED = "floored"
    EMPTIED = "kept as it was"
    RESEEDED = "reseeded"
    DROPPED = "dropped"
    LEFT = "left as it was"


@dataclass(frozen=True)
class Event:
    """One component that was in trouble, and what was done.

    Parameters
    ----------
    pass_number : int
        The pass after which it was seen; 0 is the start.
    component : int or None
        As numbered in that pass; None where all share the covariance.
    cause : Cause
    action : Action
    columns : tuple of str, or of int where columns have no names
        Where it collapsed or is narrow, or which are combinations of each other.
    until : int
        The last pass in an unbroken row after which the same was done.
    start : int
        The number of the initialisation, from 1.
    """

    pass_number: int
    component: int | None
    cause: Cause
    action: Action
    columns: tuple[str | int, ...]
    until: int
    start: int = 1

    @property
    def message(self) -> str:
        """The event as a sentence."""
        return self._said(f"Component {self.component}")

    @property
    def under_way(self) -> str:
        """The event in the course of a fit, before its components have the numbers of a model."""
        return self._said("A component")

    def _said(self, component: str) -> str:
        who = "The tied covariance" if self.component is None else component
        says = f"{_SAYS[self.cause]} {columns_called(self.columns)}".rstrip()
        if self.cause is Cause.NARROW:
            return f"{who} {says}: {_NARROW}"
        if self.cause in SPURIOUS:
            return f"{who} {says}: {_SPURIOUS}"
        when = "at the start" if self.pass_number == 0 else f"after pass {self.pass_number}"
        if self.until > self.pass_number:
            when = f"{when}, and on to pass {self.until}"
        return f"{who} {says} {when}; it was {self.action}."

    @classmethod
    def of_dict(cls, document: Mapping[str, Any]) -> Event:
        """The event that `to_dict` made this of; raises KeyError, TypeError or ValueError."""
        return cls(
            int(document["pass"]),
            None if document["component"] is None else int(document["component"]),
            Cause(document["cause"]),
            Action(document["action"]),
            tuple(document["columns"]),
            int(document["until"]),
            int(document["start"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """For a JSON document, with MAX_COLUMNS columns at most."""
        document = asdict(self)
        document["pass"] = document.pop("pass_number")
        said = {"columns": list(self.columns[:MAX_COLUMNS]), "message": self.message}
        return document | {"kind": str(self.cause)} | said


_SAYS = {
    Cause.STARVED: "held no rows",
    Cause.COLLAPSED: "had no spread left in",
    Cause.SINGULAR: "became singular, for in its rows these depend on each other:",
    Cause.NARROW: "has hardly any spread of its own in",
    Cause.FEW_ROWS: "holds too few different rows for its covariance",
    Cause.THIN: "is thinner than its rows can carry",
    Cause.HELD_UP: "has a variance that is mostly reg_covar",
    Cause.TIED_VALUES: "sits on one repeated value of a column",
}
SPURIOUS = (Cause.FEW_ROWS, Cause.THIN, Cause.HELD_UP, Cause.TIED_VALUES)
_SPURIOUS = (
    "it is spurious, and so is one in every optimum that was found. Set n_components lower, "
    "covariance_type to a simpler one, or reg_covar higher."
)
_NARROW = (
    "half of its variance there or more is what reg_covar adds, and rows that differ by less are "
    "hardly told apart. Scale such columns or set reg_covar lower; leave out a column of codes; "
    "set n_components lower where a component has few rows."
)


def under_floor(events: tuple[Event, ...], pass_number: int) -> dict[int | None, Cause]:
    """The causes of the floors that were put before this pass, by component."""
    return {
        e.component: e.cause
        for e in events
        if e.action is Action.FLOORED and e.until == pass_number - 1
    }


def noted(events: tuple[Event, ...], event: Event) -> tuple[Event, ...]:
    """The events with this one; what is done pass after pass is one event that lasts."""
    for i, earlier in enumerate(events):
        same = (earlier.component, earlier.cause, earlier.action, earlier.start)
        again = same == (event.component, event.cause, event.action, event.start)
        if again and event.action in _LASTING and earlier.until == event.pass_number - 1:
            return (*events[:i], replace(earlier, until=event.until), *events[i + 1 :])
    return (*events, event)


_LASTING = (Action.FLOORED, Action.EMPTIED)


def listed(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - MAX_LISTED:,} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more


def columns_called(names: Sequence[str | int]) -> str:
    """The first of the columns by name or number, and how many more there are; "" for none."""
    if not names:
        return ""
    return f"{'column' if len(names) == 1 else 'columns'} {listed(quoted(names))}"


def quoted(names: Sequence[str | int]) -> list[str]:
    """Names on one line each, and the long ones cut; numbers as they are."""
    return [repr(_cut(name) if isinstance(name, str) else name) for name in names]


def _cut(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..."
