"""A running phase as Prefect shows it: a progress bar, and a line in the log for each pass."""

from __future__ import annotations

import math
import time
from contextvars import copy_context
from threading import Lock
from types import TracebackType
from typing import Self
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)

from gmm_dask.command.progress import Forecast, Progress, in_text, pass_facts, reached, which_pass
from gmm_dask.errors import shown
from gmm_dask.fitting import Pass
from gmm_dask.redaction import redacted
from gmm_dask.stage import text
from gmm_dask.stage.settings import FitSettings

INTERVAL = 1.0  # seconds between two updates of a bar: each is a request to the server
SHARE = 10  # an update that took a second is followed by ten without one
# A server that is away would hold up the phase for a minute, each time it is asked again and again.
_ONCE = {PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: 10.0}


class FlowWatcher(Progress):
    """Tells Prefect how a phase goes; a bar that cannot be shown never stops the phase.

    Parameters
    ----------
    key : str
        Key of the progress artifact.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key
        self._logger = get_run_logger()
        # A Dask client reports from its own thread, which knows nothing of this task run.
        self._context = copy_context()
        self._lock = Lock()
        self._artifact: UUID | None = None
        self._next = -math.inf
        self._percent = 0.0
        self._passes = 0
        self._reached = ""  # by the last pass, in words

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._artifact is None:
            return
        if error is None:
            self._show(100.0, "Done.", now=True)
        else:  # a time left of what goes on no more would stay for ever
            self._show(self._percent, f"Stopped. {self._reached}".rstrip(), now=True)

    def phase(self, name: str, detail: str) -> None:
        """See Watcher."""
        super().phase(name, detail)
        self._logger.info("%s: %s", name, shown(detail))
        self._show(0.0, f"{name}: {detail}", now=True)

    def detail(self, message: str) -> None:
        """See Watcher."""
        self._logger.info("%s", shown(message))

    def show_pass(
        self, record: Pass, settings: FitSettings, left: Forecast, seconds_left: float
    ) -> None:
        """See Progress."""
        if self.is_worth_a_line(record):
            values = in_text(pass_facts(record, settings, seconds_left))
            line = " ".join(f"{name}={value}" for name, value in values.items())
            self._logger.info("pass %s", line)
        self._passes += 1
        self._reached = f"{which_pass(record, settings)}: {reached(record, settings)}"
        self._show(
            100.0 * self._passes / (self._passes + left.passes),
            f"{self._reached}; "
            f"{'about' if left.settles else 'at most'} {text.duration(seconds_left)} left.",
        )

    def labelled(self, done: int, total: int) -> None:
        """See Watcher."""
        self._show(100.0 * done / max(total, 1), f"{done} of {total} parts are written.")

    def warn(self, message: str) -> None:
        """See Watcher."""
        self._logger.warning("%s", shown(message))

    def waiting(self, what: str | None, seconds: float = 0.0) -> None:
        """See Watcher."""
        if what is not None:
            self._logger.info("waiting for %s, at most %s", shown(what), text.duration(seconds))

    def _show(self, percent: float, words: str, *, now: bool = False) -> None:
        with self._lock:
            self._percent = max(self._percent, min(percent, 100.0))  # a bar never goes back
            begun = time.monotonic()
            if not now and begun < self._next:
                return
            try:
                self._context.run(self._send, self._percent, words)
            except Exception as error:  # the server's trouble is not the phase's
                self._logger.warning("The progress could not be shown: %s", error)
            ended = time.monotonic()
            self._next = ended + max(INTERVAL, SHARE * (ended - begun))

    def _send(self, percent: float, words: str) -> None:
        words = shown(redacted(words))
        with temporary_settings(_ONCE):
            if self._artifact is None:
                artifact = create_progress_artifact(percent, key=self._key, description=words)
                assert isinstance(artifact, UUID)
                self._artifact = artifact
            else:
                update_progress_artifact(self._artifact, percent, description=words)
