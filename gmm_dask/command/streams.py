"""Standard streams that lose what cannot be printed, and so decide nothing."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO


class _LossyFile(io.FileIO):
    """A file that takes everything; `error` says why something was lost, if it was."""

    def __init__(self, descriptor: int, error: OSError | None = None) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.error = error

    def write(self, data: Any, /) -> int:
        """All of the data, whatever becomes of them."""
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
    """Why something that was printed is not in the stream; None where all of it is."""
    stream.flush()
    file = _file_of(stream)
    return file.error if isinstance(file, _LossyFile) else None


def _file_of(stream: TextIO) -> Any:
    """What the stream writes to; between the two there may be a buffer."""
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
