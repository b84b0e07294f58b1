"""How a command ends: SIGTERM is an exception, so that what was opened is closed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; like an interrupt from the keyboard it passes by all handlers of errors."""


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the block with Terminated; a second one ends the process at once."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is told of signals
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
