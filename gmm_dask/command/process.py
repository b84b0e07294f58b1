"""What the processes of our own commands set for themselves, and how they end."""

from __future__ import annotations

import atexit
import gc
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gmm_dask.command.streams import keep_streams

# Python's own 700 new objects are reached all the time while packages are imported, and every
# search goes through more of them: a tenth of the time of a run over 10 million rows.
NEW_OBJECTS = (50_000, 20, 20)
# A thread in Python code keeps others waiting for 5 ms. Those that label take the lock for a moment
# hundreds of times while another draws the report.
TURN = 3e-4  # seconds
# Those that Dask gives a level of their own, and one that tells of failures in its event loop.
_LOGGERS = ("distributed", "distributed.client", "distributed.gc", "tornado.application", "asyncio")


def settle() -> None:
    """Lose what cannot be printed; look for cycles of garbage rarely; let threads take short turns.

    The last search for cycles is left out: it takes 0.7 s after a run over 10 million rows.
    """
    keep_streams()
    gc.set_threshold(*NEW_OBJECTS)
    atexit.register(gc.freeze)
    sys.setswitchinterval(TURN)


@contextmanager
def dask_in_our_words(kind: str) -> Iterator[None]:
    """Print nothing of what Dask's own loggers say: a watcher hears the same in words of ours.

    Loggers that the user configured (`logging` in Dask's configuration) are left as they are.

    Parameters
    ----------
    kind : str
        Of the cluster; without one Dask has nothing to say.
    """
    import dask

    if kind == "threads" or dask.config.get("logging", None) is not None:
        yield
        return
    import distributed  # noqa: F401  (it sets the levels of its loggers)

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


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
