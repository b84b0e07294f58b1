"""A line on the terminal of a command that has written nothing yet, so that none is silent.

Imports take seconds on a busy machine, and so does each answer of a slow object store. The line
goes with the first thing that anything else writes.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress

from gmm_dask.pace import in_words

PERIOD = 1.0  # seconds between two looks of the line
_ERASE = "\r\x1b[K"


class UnderWay:
    """The line of a command: what it does and for how long, renewed until something is written."""

    def __init__(self) -> None:
        self._ended, self._lock = threading.Event(), threading.Lock()
        self._terminal, self._is_shown = -1, False
        self._words = "under way"

    def begin(self) -> None:
        """Renew the line on stderr from now on, if that is a terminal that can take lines back."""
        self._ended, self._is_shown, self._words = threading.Event(), False, "under way"
        if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            self._terminal = sys.stderr.fileno()
            threading.Thread(target=self._renew, args=(self._ended,), daemon=True).start()

    def tell(self, done: int, of: int) -> None:
        """So many files are read, of so many."""
        self._words = in_words("reading files", done, of)

    def end(self) -> None:
        """Take the line away."""
        if not self._ended.is_set():
            with self._lock:
                self._ended.set()
                if self._is_shown:
                    self._write(_ERASE)

    def _renew(self, ended: threading.Event) -> None:
        begun = time.monotonic()
        while not ended.wait(PERIOD):
            with self._lock:
                if not ended.is_set():
                    self._is_shown = True
                    self._write(f"{_ERASE}{self._words}, {time.monotonic() - begun:.0f} s")

    def _write(self, line: str) -> None:
        with suppress(OSError):  # a terminal that is gone reads nothing
            os.write(self._terminal, line.encode())


UNDER_WAY = UnderWay()
