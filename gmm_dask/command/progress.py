"""The passes of a running fit in numbers and words, and what is left of it."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gmm_dask.fitting import Pass
from gmm_dask.pace import Pace, is_round
from gmm_dask.stage import text
from gmm_dask.stage.settings import FitSettings
from gmm_dask.stage.watch import Watcher

if TYPE_CHECKING:
    from gmm_dask.stage.outputs import Published

RECENT = 5  # passes that the estimate of what is left looks back on


@dataclass(frozen=True)
class Forecast:
    """How much of a fit is left.

    Parameters
    ----------
    passes : int
        Over the data, all starts together.
    settles : bool
        Whether the change is on its way down to tol; otherwise `passes` is what max_iter allows.
    """

    passes: int
    settles: bool


def forecast(changes: Sequence[float], start: int, settings: FitSettings) -> Forecast:
    """The passes that are left after those that changed the log-likelihood by `changes`.

    EM converges geometrically near its end, so the ratio of the last changes says how many more
    it takes to get under tol. Starts to come are taken to be as long as this one.
    """
    number, most = len(changes), settings.max_iter - len(changes)
    needed = _passes_to_tol(changes, settings.tol)
    left = most if needed is None else min(needed, most)
    to_come = max(settings.n_init - start, 0) * (number + left)
    return Forecast(left + to_come, needed is not None and needed <= most)


def _passes_to_tol(changes: Sequence[float], tol: float) -> int | None:
    recent = [abs(change) for change in changes if math.isfinite(change)][-RECENT:]
    if recent and recent[-1] < tol:
        return 0
    if tol <= 0 or len(recent) < 2 or not 0 < recent[-1] < recent[0]:
        return None
    decay = math.log(recent[-1] / recent[0]) / (len(recent) - 1)
    # The change must get under tol, not just reach it, so there is at least one more pass.
    return max(1, math.ceil(math.log(tol / recent[-1]) / decay))


class Progress(Watcher):
    """A watcher that keeps the passes of the start under way; every display is one.

    Parameters
    ----------
    clock : callable
        Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._pace = clock, Pace(clock)
        self.told: list[str] = []  # warnings that somebody can read
        self._name = ""  # of the phase
        self._is_one_start = True
        self._changes: list[float] = []
        self._seconds: list[float] = []

    def running(self) -> AbstractContextManager[Any]:
        """The time in which the stage runs."""
        return nullcontext()

    @property
    def under_way(self) -> str:
        """See Watcher."""
        if self._name == "fit" and self._changes:
            return f"pass {len(self._changes) + 1}" if self._is_one_start else "the pass"
        return {"label": "the labelling", "check": "the check"}.get(self._name, "the work")

    def phase(self, name: str, detail: str) -> None:
        """See Watcher."""
        self._name = name
        self._changes.clear()
        self._pace.begin()

    def passed(self, record: Pass, settings: FitSettings) -> None:
        """See Watcher."""
        self._is_one_start = settings.n_init == 1
        if record.number == 1:
            self._changes.clear()
        unseen = record.number - 1 - len(self._changes)  # an earlier attempt made them
        self._changes += [*([math.inf] * unseen), record.change]
        self._seconds = [*self._seconds, record.seconds][-RECENT:]
        left = forecast(self._changes, record.start, settings)
        self.show_pass(record, settings, left, left.passes * statistics.median(self._seconds))

    def is_worth_a_line(self, record: Pass) -> bool:
        """Whether a log tells of this pass: of few where there are many, of each that is long."""
        told = is_round(record.number) or self._pace.is_due
        if told:
            self._pace.told()
        return told

    def failed(self, message: str, code: int) -> bool:
        """Show that the stage failed; returns whether the reader of the display was told."""
        return False

    def published(self, published: Published, seconds: float) -> None:
        """Show that the stage ended well."""

    def show_pass(
        self, record: Pass, settings: FitSettings, left: Forecast, seconds_left: float
    ) -> None:
        """Show a pass that ended."""


# How facts are written in lines of a log; all others as they are.
FORMATS = {
    "log_likelihood_per_row": f".{text.PER_ROW}f",
    "log_posterior_per_row": f".{text.PER_ROW}f",
    "change": ".3e",
    "seconds": ".3f",
    "seconds_left": ".1f",
    "seconds_at_most": ".0f",
}


def pass_facts(record: Pass, settings: FitSettings, seconds_left: float) -> dict[str, Any]:
    """A pass as names and numbers; None where there is nothing to tell."""
    return {
        "start": record.start if settings.n_init > 1 else None,
        "number": record.number,
        f"{settings.objective.replace('-', '_')}_per_row": record.lower_bound,
        "change": record.change if math.isfinite(record.change) else None,
        "taken_back": record.taken_back,
        "rows": record.n_rows,
        "seconds": record.seconds,
        "rows_per_second": rows_per_second(record),
        "seconds_left": seconds_left,
    }


def in_text(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts as one line of a log, without those that are None or false."""
    shown = {"change": "-"} if "change" in facts else {}
    for name, value in facts.items():
        if value is not None and value is not False:
            shown[name] = "true" if value is True else format(value, FORMATS.get(name, ""))
    return {name: shown[name] for name in facts if name in shown}


def which_pass(record: Pass, settings: FitSettings) -> str:
    """Number of the pass, and of its start where there are several."""
    start = f"start {record.start} of {settings.n_init}, " if settings.n_init > 1 else ""
    return f"{start}pass {record.number} of at most {settings.max_iter}"


def reached(record: Pass, settings: FitSettings) -> str:
    """The result of a pass in words; the first pass has no change."""
    says = f"{settings.objective} per row {text.per_row(record.lower_bound)}"
    change = f"{record.change:.1e}" if math.isfinite(record.change) else ""
    if record.taken_back:
        return f"{says}, lower than before: the extrapolation is taken back"
    settles = f" (settles below {settings.tol:g})" if settings.tol > 0 else ""
    return f"{says}, changed by {change}{settles}" if change else says


def rows_per_second(record: Pass) -> int:
    """Rows a second."""
    return round(record.n_rows / max(record.seconds, 1e-6))
