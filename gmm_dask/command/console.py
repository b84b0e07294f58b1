"""How things are printed, and the live display and the log lines of a running stage.

Progress goes to stderr and results to stdout, so that either can be kept alone. Everything works
without colour, in narrow terminals and in encodings that lack most characters.
"""

from __future__ import annotations

import io
import json
import math
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from gmm_dask.command.progress import (
    Forecast,
    Progress,
    in_text,
    pass_facts,
    reached,
    rows_per_second,
    which_pass,
)
from gmm_dask.errors import shown
from gmm_dask.fitting import Pass
from gmm_dask.pace import in_words
from gmm_dask.redaction import redacted
from gmm_dask.stage import text
from gmm_dask.stage.settings import FitSettings

if TYPE_CHECKING:
    from gmm_dask.stage.outputs import Published

PROMOTED_OR_NOT = (
    "The latest version is as it was, or the promoted one already: `gmm-dask versions` tells. The "
    "same command may be given again; no file of any version was changed."
)
AGAIN = (
    "What is not published yet is seen by nobody. Run again: a fit goes on from its last "
    "checkpoint and ends the same; label parts that are written are kept."
)
LABEL_LINES = 10  # log lines at most about the labels

MIN_WIDTH = 40  # characters of a line, however narrow the terminal says it is
_ASCII = str.maketrans({"±": "+-", "…": "...", "✓": "*", "✗": "!", "−": "-"})


def make_console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr that prints names as they are and never fails on one."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if console.width < MIN_WIDTH:  # COLUMNS=0, of a terminal that does not know, would show nothing
        console.width = MIN_WIDTH
    return console


def printable(message: str) -> str:
    """The lines of a message without control characters and without secrets."""
    return "\n".join(map(shown, redacted(message).split("\n")))


def print_line(console: Console, message: str, style: str = "") -> None:
    """Print the message on one line: never cut or broken to the width of the terminal."""
    console.print(fit_text(message, console, style), soft_wrap=True)


def fit_text(message: str, console: Console, style: str = "") -> Text:
    """The message on one line, as a console can show it."""
    message = shown(redacted(message))
    return Text(message.translate(_ASCII) if console.options.ascii_only else message, style)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r"[\s\"=]", value) else value


class LogLines(Progress):
    """One line of key=value pairs per event, each with its time: for log files.

    Parameters
    ----------
    console : Console
    clock : callable
        Seconds; what goes on for long has fewer lines later on.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._console = console
        self._tenths = 0

    def phase(self, name: str, detail: str) -> None:
        """See Watcher."""
        super().phase(name, detail)
        self.write("phase", {"name": name, "detail": detail})
        self._tenths = 0

    def detail(self, message: str) -> None:
        """See Watcher."""
        self.write("detail", {"message": message})

    def progress(self, phase: str, done: int, of: int | None = None, note: str = "") -> None:
        """See Watcher."""
        if self._pace.is_due:
            self._pace.told()
            self.write("progress", {"what": phase, "done": done, "of": of, "note": note or None})

    def show_pass(
        self, record: Pass, settings: FitSettings, left: Forecast, seconds_left: float
    ) -> None:
        """See Progress."""
        if self.is_worth_a_line(record):
            self.write("pass", pass_facts(record, settings, seconds_left))

    def labelled(self, done: int, total: int) -> None:
        """See Watcher."""
        tenths = LABEL_LINES * done // max(total, 1)
        if tenths > self._tenths or self._pace.is_due:
            self._tenths = tenths
            self._pace.told()
            self.write("labelled", {"parts": done, "of": total})

    def warn(self, message: str) -> None:
        """See Watcher."""
        self.told.append(message)
        self.write("warning", {"message": message})

    def waiting(self, what: str | None, seconds: float = 0.0) -> None:
        """See Watcher."""
        if what is not None:
            self.write("waiting", {"what": what, "seconds_at_most": seconds})

    def write(self, event: str, facts: Mapping[str, Any]) -> None:
        """Write the line of an event."""
        pairs = [f"time={_now()}", f"event={event}"]
        pairs += [f"{key}={_quoted(value)}" for key, value in in_text(facts).items()]
        print_line(self._console, " ".join(pairs))


class JsonLines(LogLines):
    """The events of LogLines as one JSON object a line, and the end of the stage as one more."""

    def failed(self, message: str, code: int) -> bool:
        """See Progress."""
        self.write("failed", {"message": message, "exit_code": code})
        return True

    def published(self, published: Published, seconds: float) -> None:
        """See Progress."""
        version = published.version
        self.write(
            "published",
            {
                "version": version.number,
                "run_id": version.run_id,
                "output": published.folder.store.url,
                "rows": version.rows,
                "outcome": published.model.outcome,
                "is_new": published.new,
                "seconds": seconds,
            },
        )

    def write(self, event: str, facts: Mapping[str, Any]) -> None:
        """See LogLines."""
        shown = {
            key: redacted(each) if isinstance(each, str) else each for key, each in facts.items()
        }
        line = json.dumps({"time": _now(), "event": event, **shown}, allow_nan=False)
        self._console.print(line, soft_wrap=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class LiveDisplay(Progress):
    """A few lines on a terminal that follow the stage and stay when it ends."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._lock = threading.Lock()  # Dask reports finished parts from its own thread
        self._phases: list[_Phase] = []
        self._awaited: tuple[str, float] | None = None  # what is waited for, and until when
        self._spinner = Spinner("line" if console.options.ascii_only else "dots")

    @contextmanager
    def running(self) -> Iterator[None]:
        """See Progress."""
        with Live(get_renderable=self._render, console=self._console, refresh_per_second=8):
            try:
                yield
            except BaseException:
                self._end("✗")
                raise
            self._end("✓")

    def phase(self, name: str, detail: str) -> None:
        """See Watcher."""
        super().phase(name, detail)
        self._end("✓")
        with self._lock:
            self._phases.append(_Phase(name, [detail], time.monotonic()))

    def detail(self, message: str) -> None:
        """See Watcher."""
        with self._lock:
            if self._phases:
                self._phases[-1].lines[0] += f"; {message}"

    def show_pass(
        self, record: Pass, settings: FitSettings, left: Forecast, seconds_left: float
    ) -> None:
        """See Progress."""
        which = f"{which_pass(record, settings)}, {rows_per_second(record):,} rows/s"
        self._say(which, reached(record, settings))
        with self._lock:
            if self._phases:
                self._phases[-1].how_sure = "about" if left.settles else "at most"
                self._phases[-1].until = time.monotonic() + seconds_left

    def progress(self, phase: str, done: int, of: int | None = None, note: str = "") -> None:
        """See Watcher."""
        with self._lock:
            if self._phases:
                self._phases[-1].under_way = (phase, done, of, note)

    def labelled(self, done: int, total: int) -> None:
        """See Watcher."""
        self._say(f"{done:,} of {text.numbered(total, 'part')}")

    def warn(self, message: str) -> None:
        """See Watcher."""
        self.told.append(message)
        print_line(self._console, f"Warning: {message}", "yellow")

    def waiting(self, what: str | None, seconds: float = 0.0) -> None:
        """See Watcher."""
        with self._lock:
            self._awaited = None if what is None else (what, time.monotonic() + seconds)

    def _say(self, *lines: str) -> None:
        with self._lock:
            if self._phases:
                self._phases[-1].lines[1:], self._phases[-1].under_way = lines, None

    def _end(self, mark: str) -> None:
        with self._lock:
            if self._phases and self._phases[-1].mark is None:
                self._phases[-1].mark, self._phases[-1].ended = mark, time.monotonic()

    def _render(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        now = time.monotonic()
        with self._lock:
            for phase in self._phases:
                mark = self._spinner if phase.mark is None else fit_text(phase.mark, self._console)
                lines, left = list(phase.lines), phase.until - now
                if phase.mark is None and phase.under_way is not None:
                    lines.append(in_words(*phase.under_way))
                if phase.mark is None and self._awaited is not None:
                    awaited, until = self._awaited
                    at_most = text.duration(max(0.0, until - now))
                    lines.append(f"waiting for {awaited}, at most {at_most}")
                elif phase.mark is None and 1 <= left < math.inf:
                    lines.append(f"{phase.how_sure} {text.duration(left)} left")
                taken = text.duration((phase.ended or now) - phase.begun)
                what = Text("\n").join(fit_text(line, self._console) for line in lines)
                grid.add_row(mark, fit_text(phase.name, self._console), what, Text(taken, "dim"))
        return grid


@dataclass
class _Phase:
    """A phase as the live display shows it: `mark` is None while it is under way."""

    name: str
    lines: list[str]
    begun: float
    ended: float | None = None
    mark: str | None = None
    until: float = math.inf
    how_sure: str = ""
    under_way: tuple[str, int, int | None, str] | None = None
