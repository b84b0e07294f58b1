"""The messages of a running stage to whoever watches it: a terminal, a log file or Prefect."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from gmm_dask.fitting import Pass
from gmm_dask.redaction import redacted
from gmm_dask.stage.settings import FitSettings


class Watcher:
    """Hears of every phase, pass and part; the methods of this base class do nothing."""

    @property
    def under_way(self) -> str:
        """The work under way in words, for messages about workers that were lost."""
        return "the work"

    def phase(self, name: str, detail: str) -> None:
        """One of "plan", "fit", "label", "publish" begins."""

    def detail(self, message: str) -> None:
        """Something was decided that is worth a line."""

    def progress(self, phase: str, done: int, of: int | None = None, note: str = "") -> None:
        """Something that may take more than a second came so far; see `fitting.Report`.

        What nobody counts has begun where it is told of, with 0 done.
        """

    def passed(self, record: Pass, settings: FitSettings) -> None:
        """One pass of EM over all rows ended."""

    def labelled(self, done: int, total: int) -> None:
        """At least `done` of `total` label parts are written."""

    def warn(self, message: str) -> None:
        """Something went another way than usual, and the run goes on."""

    def waiting(self, what: str | None, seconds: float = 0.0) -> None:
        """The stage waits for something, for at most so many seconds; None says that it came."""


@contextmanager
def traced(name: str, watcher: Watcher | None) -> Iterator[Watcher]:
    """The watcher, and a span of OpenTelemetry for all of the block, each phase and each pass.

    Spans are made where somebody configured OpenTelemetry, and so has imported it; nothing is
    imported here.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        yield watcher or Watcher()
        return
    tracer = trace.get_tracer("gmm_dask")
    with tracer.start_as_current_span(f"gmm_dask.{name}", **_NO_MESSAGE) as span:
        try:
            with ExitStack() as phase:
                yield cast(Watcher, _Traced(watcher or Watcher(), tracer, phase))
        except BaseException as error:
            span.set_status(trace.StatusCode.ERROR, redacted(str(error)))
            raise


# Of an error: OpenTelemetry would send it with what may be a secret.
_NO_MESSAGE: dict[str, Any] = {"record_exception": False, "set_status_on_exception": False}


class _Traced:
    """Hands all that it hears on to a watcher."""

    def __init__(self, watcher: Watcher, tracer: Any, phase: ExitStack) -> None:
        self._watcher, self._tracer, self._phase = watcher, tracer, phase

    def __getattr__(self, name: str) -> Any:
        return getattr(self._watcher, name)

    def phase(self, name: str, detail: str) -> None:
        """See Watcher."""
        self._phase.close()
        facts = {"gmm_dask.detail": redacted(detail)}
        span = self._tracer.start_as_current_span(
            f"gmm_dask.{name}", attributes=facts, **_NO_MESSAGE
        )
        self._phase.enter_context(span)
        self._watcher.phase(name, detail)

    def passed(self, record: Pass, settings: FitSettings) -> None:
        """See Watcher."""
        ended = time.time_ns()
        facts = {
            "gmm_dask.start": record.start,
            "gmm_dask.number": record.number,
            "gmm_dask.rows": record.n_rows,
            "gmm_dask.lower_bound": record.lower_bound,
            "gmm_dask.taken_back": record.taken_back,
        }
        if math.isfinite(record.change):
            facts["gmm_dask.change"] = record.change
        begun = ended - round(1e9 * record.seconds)
        self._tracer.start_span("gmm_dask.pass", start_time=begun, attributes=facts).end(ended)
        self._watcher.passed(record, settings)
