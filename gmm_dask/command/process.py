"""How our own commands set up their process: collection of garbage, signals, loggers, streams."""

from __future__ import annotations

import atexit
import errno
import gc
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from gmm_dask.command.under_way import UNDER_WAY

# Python's own 700 new objects are reached all the time while packages are imported, and every
# search goes through more of them: a tenth of the time of a run over 10 million rows.
NEW_OBJECTS = (50_000, 20, 20)
# Those that Dask gives a level of their own, and one that tells of failures in its event loop.
_LOGGERS = ("distributed", "distributed.client", "distributed.gc", "tornado.application", "asyncio")


def settle() -> None:
    """Set up the process of a command: losses of output are no errors, garbage is collected rarely.

    Until something is written, a line on the terminal says that the command is under way. Where
    `ulimit -v` or `-d` is set, Arrow takes memory as the system gives it: its own allocator
    reserves a gibibyte of address space, which would count. The last search for cycles is left
    out: it takes 0.7 s after a run over 10 million rows.
    """
    keep_streams()
    if _has_address_limit():
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    gc.set_threshold(*NEW_OBJECTS)
    atexit.register(gc.freeze)
    atexit.register(UNDER_WAY.end)
    UNDER_WAY.begin()


def _has_address_limit() -> bool:
    try:
        import resource
    except ImportError:  # Windows
        return False
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    return any(resource.getrlimit(kind)[0] != resource.RLIM_INFINITY for kind in kinds)


@contextmanager
def dask_in_our_words(kind: str) -> Iterator[None]:
    """Print nothing of what Dask's own loggers say: a watcher hears the same in words of ours.

    Loggers that the user configured (`logging` in Dask's configuration) are left as they are.

    Parameters
    ----------
    kind : str
        Kind of the cluster; without a cluster Dask has nothing to say.
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


class _LossyFile(io.FileIO):
    """A file whose writes never fail; `error` says why something was lost, if anything was."""

    def __init__(self, descriptor: int, error: OSError | None = None) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.error = error

    def write(self, data: Any, /) -> int:
        """All of the data, whatever becomes of them."""
        UNDER_WAY.end()
        try:
            written = super().write(data)
        except OSError as error:
            self.error, written = error, None
        if written is not None:
            return written
        self.error = self.error or _error(errno.EAGAIN)  # the stream is full, and does not wait
        return len(data)


def keep_streams() -> None:
    """Have standard streams that never fail; one that a caller put there stays as it is.

    A stream that is closed gets the null device. Its number would otherwise go to the next file
    that is opened, and into that file what a library prints.
    """
    if sys.stdin is None:
        _null_device()
    for name in ("stdout", "stderr"):
        stream, original = getattr(sys, name), getattr(sys, f"__{name}__")
        if stream is original:
            kept = _kept(stream)
            setattr(sys, name, kept)
            setattr(sys, f"__{name}__", kept)


def lost(stream: TextIO) -> OSError | None:
    """The reason why printed text did not reach the stream; None where all of it did."""
    stream.flush()
    file = _file_of(stream)
    return file.error if isinstance(file, _LossyFile) else None


def _file_of(stream: TextIO) -> Any:
    """The file that a text stream writes to, with or without a buffer between them."""
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def _kept(stream: io.TextIOWrapper | None) -> TextIO:
    if stream is None:
        closed = _LossyFile(_null_device(), _error(errno.EBADF))
        return io.TextIOWrapper(io.BufferedWriter(closed), "utf-8", "replace")
    if isinstance(_file_of(stream), _LossyFile):
        return stream
    with suppress(OSError):
        stream.flush()
    file = _LossyFile(stream.fileno())
    return io.TextIOWrapper(
        file if stream.write_through else io.BufferedWriter(file),
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _null_device() -> int:
    """A descriptor that the processes we start have, too; the lowest one, so a standard one."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    os.set_inheritable(descriptor, True)
    return descriptor


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
