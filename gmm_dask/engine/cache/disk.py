"""Decoded chunks on a local disk, in a file without a name that is gone with its process."""

from __future__ import annotations

import errno
import logging
import os
import platform
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary, finalize, ref

import numpy as np
import numpy.typing as npt

from gmm_dask.engine.passes.units import Chunk, Read
from gmm_dask.errors import SettingsError

logger = logging.getLogger("gmm_dask")

BLOCK = 1 << 20  # bytes that a sum is of: they are summed while still in the processor's cache
ALIGNED = 64
PAGE = 4096  # some processors copy four times slower to the 16 bytes behind it that malloc gives
STAYS_FREE = 0.05  # of the disk: checkpoints and others write there too

Bytes = npt.NDArray[np.uint8]
Layout = Sequence[tuple[tuple[int, ...], str]]


def check_folder(folder: str) -> None:
    """Make the folder where it is missing, for this user alone, and see that it can be written.

    Raises
    ------
    SettingsError
        It cannot; its parent must be there, so that no disk is taken for one that is not mounted.
    """
    try:
        with suppress(FileExistsError):
            Path(folder).mkdir(0o700)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(b"\0")
    except OSError as error:
        raise SettingsError(
            f"memory.scratch: {folder} on {platform.node()} cannot be written ({error.strerror}). "
            "Name a folder on a local disk whose parent is there, or leave it out."
        ) from error


@dataclass(frozen=True, eq=False)
class Place:
    """Where arrays lie in the file, and what shape and type they have.

    Parameters
    ----------
    file : _File
    start : int
        Place of the block's first byte in the file, in bytes.
    layout : tuple of (shape, dtype)
        One after the other, each aligned.
    sums : tuple of int
        Checksum of each block of each array.
    """

    file: _File
    start: int
    layout: Layout
    sums: tuple[int, ...]

    def fill(self, room: Bytes) -> None:
        """Read all bytes; raises OSError where they are not those that were written."""
        for block, expected in zip(_blocks(self.layout), self.sums, strict=True):
            self.file.read(room[block], self.start + block.start)
            if _sum(room[block]) != expected:
                raise OSError(errno.EIO, "what was read is not what was written")

    def arrays(self, room: Bytes) -> list[Any]:
        """Views of the room."""
        return [
            room[span].view(dtype).reshape(shape)
            for span, (shape, dtype) in zip(_spans(self.layout), self.layout, strict=True)
        ]


class Disk:
    """The file in which this process keeps the arrays of one fit.

    Parameters
    ----------
    folder : str

    Attributes
    ----------
    places : dict
        Places of the blocks that are on the disk, by the number of the task that wrote them.
    troubles : dict
        Why something is not.
    is_over : bool
        Whether nothing is put there any more.
    """

    def __init__(self, folder: str) -> None:
        self.places: dict[int, tuple[Place, ...]] = {}
        self.troubles: dict[int, str] = {}
        self.is_over = False
        self._folder, self._process, self._lock = folder, os.getpid(), threading.Lock()
        self._file: _File | None = None
        self._rooms: list[Bytes] = []

    def reserve(self, n_bytes: int) -> Room:
        """Room for so many bytes; raises OSError where the disk has not so many."""
        if os.getpid() != self._process:
            raise OSError(errno.EBADF, "the file is of the process that this one was forked from")
        with self._lock:
            file = self._file = self._file or _File(self._folder)
            start = file.grow(n_bytes)
        return Room(file, start, start + n_bytes)

    def release(self) -> None:
        """Give all memory and disk back; whoever reads at this moment gets an OSError."""
        self.is_over = True
        self.places.clear()
        with self._lock:
            file, self._file = self._file, None
        if file is not None:
            file.empty()
        self.spare()

    def lent(self, place: Place) -> Iterator[list[Any]]:
        """The arrays, which can be taken once; raises OSError where they are gone.

        The memory of the arrays is used again for others, unless somebody keeps a view of it.
        """
        n_bytes = bytes_for(place.layout)
        memory = self._memory(n_bytes)
        room = np.frombuffer(memory.data, np.uint8, n_bytes)
        place.fill(room)
        # Every view of it, and every view of those, has `room` for its base.
        in_use, found = ref(room), [place.arrays(room)]
        del room
        try:
            yield found.pop()
        finally:
            if in_use() is None:
                self._rooms.append(memory)

    def spare(self) -> None:
        """Give back the memory that is kept for arrays to come."""
        self._rooms.clear()

    def _memory(self, n_bytes: int) -> Bytes:
        with suppress(IndexError):
            memory = self._rooms.pop()
            if len(memory) >= n_bytes:
                return memory
        raw = np.empty(n_bytes + PAGE, np.uint8)
        skip = -raw.ctypes.data % PAGE
        return raw[skip : skip + n_bytes]


class Room:
    """Bytes of a file that are reserved."""

    def __init__(self, file: _File, start: int, stop: int) -> None:
        self._file, self._next, self._stop = file, start, stop

    def write(self, arrays: Sequence[npt.NDArray[Any]]) -> Place:
        """The place of the arrays, after those before them; raises OSError."""
        layout = tuple((array.shape, array.dtype.str) for array in arrays)
        start, sums = self._next, []
        self._next += bytes_for(layout)
        if self._next > self._stop or not all(array.flags.c_contiguous for array in arrays):
            raise OSError(errno.EINVAL, "arrays of another size or order than was announced")
        for span, array in zip(_spans(layout), arrays, strict=True):
            data = array.reshape(-1).view(np.uint8)
            for block in _cut(span):
                part = data[block.start - span.start : block.stop - span.start]
                self._file.write(part, start + block.start)
                sums.append(_sum(part))
        return Place(self._file, start, layout, tuple(sums))


class Scratch:
    """The decoded chunks of one unit, on the disk of the process that has this object.

    A copy in another process gets its own as it reads them.

    Parameters
    ----------
    folder : str
    fit : str
        Name of the fit; units of one fit share a file.
    number : int
        Position of the unit among the units of the fit.
    n_chunks, n_bytes : int
        Chunks of the unit, and bytes that they take on the disk.
    """

    def __init__(self, folder: str, fit: str, number: int, n_chunks: int, n_bytes: int) -> None:
        self._about = (folder, fit, number, n_chunks, n_bytes)
        self._number, self._n_chunks, self._n_bytes = number, n_chunks, n_bytes
        self._disk = disk(folder, fit)

    def __reduce__(self) -> tuple[Any, ...]:
        return Scratch, self._about

    @property
    def is_filled(self) -> bool:
        """Whether the chunks are there."""
        return self._number in self._disk.places

    @property
    def trouble(self) -> str | None:
        """Why the chunks are not there."""
        return self._disk.troubles.get(self._number)

    def rows(self, read: Read) -> Iterator[Chunk]:
        """The chunks that `read` gives, from the disk once they were put there.

        Raises
        ------
        As `read` does; whatever the disk does, they are read.
        """
        given = 0
        for place in self._disk.places.get(self._number, ()):
            try:
                yield from map(_chunk_of, self._disk.lent(place))
            except OSError as error:
                self._fail(error)
                if not self._disk.is_over:
                    logger.warning(
                        "Scratch is damaged (%s): chunks are decoded again.", self.trouble
                    )
                break
            given += 1
        if given < self._n_chunks:
            self._disk.spare()  # its memory is needed for what is decoded
            yield from islice(map(partial(self._put, self._room(), []), read()), given, None)

    def release(self) -> None:
        """Give back all that the fit has in this process."""
        self._disk.release()

    def _room(self) -> Room | None:
        if self._disk.is_over or self.trouble:
            return None
        try:
            return self._disk.reserve(self._n_bytes)
        except OSError as error:
            self._fail(error)
            return None

    def _put(self, room: Room | None, places: list[Place], part: Chunk) -> Chunk:
        """The part that was put on the disk; once all parts are there, chunks are read from it."""
        try:
            if room is not None and not (self.trouble or self._disk.is_over):
                places.append(room.write([array for array in part if array is not None]))
        except OSError as error:
            self._fail(error)
        if len(places) == self._n_chunks and not self._disk.is_over:
            self._disk.places[self._number] = tuple(places)
        return part

    def _fail(self, error: OSError) -> None:
        self._disk.places.pop(self._number, None)
        self._disk.troubles[self._number] = error.strerror or str(error)


def disk(folder: str, fit: str) -> Disk:
    """The disk of this process for the fit; it lives as long as somebody refers to it."""
    with _lock:
        return _disks.setdefault((os.getpid(), folder, fit), Disk(folder))


def give_back(folder: str, fit: str) -> None:
    """Release the disk of this process for the fit, if there is one, even while it is referred to.

    Dask keeps the last lines of a worker's log, and with an error what it went through: of a
    transfer that failed because a worker ended, the chunks that were under way.
    """
    with _lock:
        found = _disks.get((os.getpid(), folder, fit))
    if found is not None:
        found.release()


_disks: WeakValueDictionary[tuple[int, str, str], Disk] = WeakValueDictionary()
_lock = threading.Lock()


def bytes_for(layout: Layout) -> int:
    """Bytes that arrays take on the disk."""
    return _aligned(max(1, _spans(layout)[-1].stop))


def _chunk_of(arrays: list[Any]) -> Chunk:
    return arrays[0], arrays[1] if len(arrays) > 1 else None


class _File:
    """A file without a name; the system removes it however the process ends."""

    def __init__(self, folder: str) -> None:
        file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._number, self.size = file.fileno(), 0
        finalize(self, file.close)

    def grow(self, n_bytes: int) -> int:
        """Take so many bytes of the disk, behind all others."""
        disk, start = os.fstatvfs(self._number), self.size
        if disk.f_bavail * disk.f_frsize - n_bytes < STAYS_FREE * disk.f_blocks * disk.f_frsize:
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} but what must stay free")
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._number, start, n_bytes)
        except OSError as error:
            os.ftruncate(self._number, start)  # what it took before it failed
            if error.errno != errno.EOPNOTSUPP:
                raise
        self.size += n_bytes
        return start

    def empty(self) -> None:
        """Give the room back; an error that is kept may refer to the file for long."""
        with suppress(OSError):
            os.ftruncate(self._number, 0)

    def write(self, data: Bytes, start: int) -> None:
        """All of the data; raises OSError."""
        view = data.data
        while len(view):
            n = os.pwrite(self._number, view, start)
            view, start = view[n:], start + n

    def read(self, data: Bytes, start: int) -> None:
        """Fill the data from the file; raises OSError, where a mapped file would kill us."""
        view = data.data
        while len(view):
            n = os.preadv(self._number, [view], start)
            if n == 0:
                raise OSError(errno.EIO, "the file ends too early")
            view, start = view[n:], start + n


def _spans(layout: Layout) -> list[slice]:
    """The bytes of each array."""
    spans, start = [], 0
    for shape, dtype in layout:
        stop = start + prod(shape) * np.dtype(dtype).itemsize
        spans.append(slice(start, stop))
        start = _aligned(stop)
    return spans


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNED) * ALIGNED


def _blocks(layout: Layout) -> Iterator[slice]:
    for span in _spans(layout):
        yield from _cut(span)


def _cut(span: slice) -> Iterator[slice]:
    for start in range(span.start, span.stop, BLOCK):
        yield slice(start, min(start + BLOCK, span.stop))


def _sum(data: Bytes) -> int:
    """Wrapping sum of the words of the data: as quick as memory, and different if one bit is."""
    whole = len(data) // 8 * 8
    rest = int.from_bytes(data[whole:].tobytes(), "little")
    return int(np.add.reduce(data[:whole].view(np.uint64))) + rest
