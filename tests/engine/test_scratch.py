"""Scratch: read once, the same bits, nothing left behind, and no disk can do harm."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmm_dask.engine import (
    Backend,
    LocalBackend,
    RowChunks,
    Unit,
    expectation,
    hold,
    release,
)
from gmm_dask.engine.cache import disk as disk_module
from gmm_dask.engine.cache.disk import Disk, Scratch
from gmm_dask.engine.passes.chunk_map import ChunkMap
from gmm_dask.errors import SettingsError
from tests.conftest import Blobs
from tests.engine.test_hold import EDGES, LENGTHS, Reader, chunks_of
from tests.engine.test_passes import bits

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks into /proc")


def read_together(reader: Reader, places: slice) -> Iterator[tuple[Any, Any]]:
    return ((reader(edges), None) for edges in EDGES[places])


def in_one_task(reader: Reader, chunks: RowChunks) -> RowChunks:
    """The last two chunks as one unit."""
    unit = Unit(partial(read_together, reader, slice(1, 3)), LENGTHS[1:])
    return replace(chunks, units=(chunks.units[0], unit))


def open_files(folder: Path) -> list[str]:
    """Descriptors of this process that are of files in the folder."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            where = link.readlink()
        except OSError:
            continue  # the one that lists them
        if str(where).startswith(str(folder)):
            found.append(link.name)
    return found


def open_bytes(folder: Path) -> int:
    """What they take of the disk."""
    return sum(os.fstat(int(number)).st_blocks for number in open_files(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for scratch in which nobody ever finds anything, and nothing is left open."""
    folder = tmp_path / "scratch"
    yield folder
    assert list(folder.iterdir()) == []
    gc.collect()
    assert open_files(folder) == []


@pytest.fixture
def reader(blobs: Blobs, tmp_path: Path) -> Reader:
    (tmp_path / "log").mkdir()
    return Reader(blobs.X, tmp_path / "log")


@pytest.mark.parametrize("budget", [0, 500 * 32, 1 << 30])
@pytest.mark.parametrize("together", [False, True])
def test_every_executor_reads_once_and_finds_the_same_bits(
    backend: Backend, blobs: Blobs, reader: Reader, folder: Path, budget: int, together: bool
) -> None:
    chunks = chunks_of(reader)
    if together:
        chunks = in_one_task(reader, chunks)
    expected = bits(expectation(chunks, LocalBackend(1))(blobs.truth))
    before = reader.counts()
    held = hold(chunks, backend, budget, str(folder))
    assert (held.n_held + held.n_scratch, held.bytes_read, held.trouble) == (3, 0, None)
    assert held.n_held == (0 if budget == 0 else 1 if budget == 500 * 32 else 3)
    assert held.bytes_scratch == 2000 * 32 - held.bytes_held
    assert held.bytes_once == 2000 * 32
    run = expectation(held.chunks, backend)
    for _ in range(3):
        assert bits(run(blobs.truth)) == expected
        assert list(folder.iterdir()) == []
    reads = [after - b for after, b in zip(reader.counts(), before, strict=True)]
    if isinstance(backend, LocalBackend):
        assert reads == [1, 1, 1]
    else:  # an idle worker may take a task over; without scratch it would be 4 times 3
        assert sum(reads) <= 9
    release(held.chunks)


def test_weights_and_single_precision_are_kept_as_they_are(blobs: Blobs, folder: Path) -> None:
    X, w = blobs.X[:701, :3].astype(np.float32), np.linspace(0.5, 2, 701)
    scratch = Scratch(str(folder), "a fit", 0, 2, 2 * (701 * 12 + 701 * 8 + 128))
    folder.mkdir()
    parts = [(X, w), (X[::-1].copy(), w)]
    list(scratch.rows(lambda: iter(parts)))
    assert scratch.is_filled
    for found, expected in zip(scratch.rows(never), parts, strict=True):
        for a, b in zip(found, expected, strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert a.tobytes() == b.tobytes()
            assert a.flags.c_contiguous
    assert pickle.loads(pickle.dumps(scratch)).is_filled
    scratch.release()


def test_no_rows_take_no_trouble(folder: Path) -> None:
    folder.mkdir()
    none = np.empty((0, 3))
    scratch = Scratch(str(folder), "a fit", 0, 1, disk_module.bytes_for([((0, 3), "f8")]))
    list(scratch.rows(lambda: iter([(none, None)])))
    ((X, weights),) = scratch.rows(never)
    assert (X.shape, weights, scratch.trouble) == ((0, 3), None, None)
    scratch.release()


def never() -> Iterator[tuple[Any, Any]]:
    raise AssertionError("what is in scratch is not read again")


def test_one_file_is_open_however_many_chunks_there_are(blobs: Blobs, folder: Path) -> None:
    folder.mkdir()
    for _ in range(2):
        kept = [Scratch(str(folder), "a fit", i, 1, 4096) for i in range(50)]
        for each in kept:
            list(each.rows(lambda: iter([(blobs.X[:100], None)])))
        assert all(each.is_filled for each in kept)
        assert len(open_files(folder)) == 1
        del kept, each
        assert open_files(folder) == []


def test_rows_that_somebody_keeps_stay_as_they_are(
    blobs: Blobs, reader: Reader, folder: Path
) -> None:
    backend = LocalBackend(2)
    held = hold(chunks_of(reader), backend, 0, str(folder))
    chunk_map = ChunkMap(held.chunks, backend)
    kept = [chunk_map("keep", function, None) for function in (itself, tail)]
    expectation(held.chunks, backend)(blobs.truth)
    for found, (start, stop) in zip(zip(*kept, strict=True), EDGES, strict=True):
        np.testing.assert_array_equal(found[0], blobs.X[start:stop])
        np.testing.assert_array_equal(found[1], blobs.X[start + 10 : stop, 1])
    release(held.chunks)


def test_memory_is_used_again_where_nobody_keeps_the_rows(reader: Reader, folder: Path) -> None:
    backend = LocalBackend(1)
    held = hold(chunks_of(reader), backend, 0, str(folder))
    chunk_map = ChunkMap(held.chunks, backend)
    chunk_map("warm", address, None)
    first, second = (chunk_map("where", address, None) for _ in range(2))
    assert first == second == [first[0]] * 3
    release(held.chunks)


def test_rows_begin_a_page_where_copying_to_them_is_quick(reader: Reader, folder: Path) -> None:
    backend = LocalBackend(1)
    held = hold(chunks_of(reader), backend, 0, str(folder))
    found = ChunkMap(held.chunks, backend)("where", address, None)
    assert [place % 4096 for place in found] == [0, 0, 0]
    release(held.chunks)


def itself(common: None, X: np.ndarray) -> np.ndarray:
    return X


def tail(common: None, X: np.ndarray) -> np.ndarray:
    return X.T[1, 10:]


def address(common: None, X: np.ndarray) -> int:
    return X.ctypes.data


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
@pytest.mark.parametrize("together", [False, True])
def test_what_finds_no_room_is_read_in_every_pass_and_told(
    blobs: Blobs,
    reader: Reader,
    folder: Path,
    call: str,
    together: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chunks, backend = chunks_of(reader), LocalBackend(2)
    if together:
        chunks = in_one_task(reader, chunks)
    expected = bits(expectation(chunks, LocalBackend(1))(blobs.truth))
    real = getattr(os, call)

    def full(file: int, *what: Any) -> Any:
        if what[-2 if call == "posix_fallocate" else -1] > 0:  # the first chunk has room
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, *what)

    monkeypatch.setattr(os, call, full)
    held = hold(chunks, LocalBackend(1), 0, str(folder))
    before = reader.counts()
    assert held.n_scratch == 1
    assert (held.bytes_scratch, held.bytes_read) == (500 * 32, 1500 * 32)
    assert held.trouble == os.strerror(errno.ENOSPC)
    for n in (1, 2):
        assert bits(expectation(held.chunks, backend)(blobs.truth)) == expected
        assert [a - b for a, b in zip(reader.counts(), before, strict=True)] == [0, n, n]
    release(held.chunks)


def test_a_part_of_the_disk_stays_free(
    reader: Reader, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_module, "STAYS_FREE", 1.01)
    held = hold(chunks_of(reader), LocalBackend(1), 0, str(folder))
    assert held.n_scratch == 0
    assert "must stay free" in (held.trouble or "")
    release(held.chunks)


@pytest.mark.parametrize("harm", ["a bit", "the end"])
@pytest.mark.parametrize("together", [False, True])
def test_a_disk_that_forgets_changes_no_bit(
    blobs: Blobs,
    reader: Reader,
    folder: Path,
    harm: str,
    together: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    chunks, backend = chunks_of(reader), LocalBackend(1)
    if together:
        chunks = in_one_task(reader, chunks)
    expected = bits(expectation(chunks, backend)(blobs.truth))
    held = hold(chunks, backend, 0, str(folder))
    before = reader.counts()
    (number,) = open_files(folder)
    last = 1999 * 32  # within the last chunk, whatever aligns them before
    if harm == "a bit":
        (byte,) = os.pread(int(number), 1, last)
        os.pwrite(int(number), bytes([byte ^ 1]), last)
    else:
        os.truncate(f"/proc/self/fd/{number}", last)
    run = expectation(held.chunks, backend)
    for n in (1, 2):
        assert bits(run(blobs.truth)) == expected
        reads = [a - b for a, b in zip(reader.counts(), before, strict=True)]
        assert reads == [0, n if together else 0, n]
    assert sum("Scratch is damaged" in each.message for each in caplog.records) == 1
    release(held.chunks)


def test_a_pass_after_the_release_reads_the_files(
    blobs: Blobs, reader: Reader, folder: Path
) -> None:
    backend = LocalBackend(2)
    held = hold(chunks_of(reader), backend, 0, str(folder))
    run = expectation(held.chunks, backend)
    expected = bits(run(blobs.truth))
    release(held.chunks)
    assert open_files(folder) == []
    assert bits(run(blobs.truth)) == expected
    assert open_files(folder) == []


def test_rows_that_cannot_be_read_leave_nothing_while_the_error_is_kept(
    reader: Reader, folder: Path
) -> None:
    chunks = chunks_of(reader)
    broken = replace(chunks, units=(*chunks.units[:2], Unit(partial(_broken, reader), (800,))))
    with pytest.raises(RuntimeError, match="no such rows") as kept:
        hold(broken, LocalBackend(1), 0, str(folder))
    assert reader.counts()[:2] == [1, 1]
    assert open_bytes(folder) == 0
    assert kept.value.__traceback__ is not None


def test_a_pass_that_fails_leaves_nothing_while_the_error_is_kept(
    reader: Reader, folder: Path
) -> None:
    held = hold(chunks_of(reader), LocalBackend(1), 0, str(folder))
    with pytest.raises(ZeroDivisionError) as kept:
        ChunkMap(held.chunks, LocalBackend(1))("fail", failing, None)
    assert open_bytes(folder) > 0
    release(held.chunks)
    assert open_bytes(folder) == 0
    assert kept.value.__traceback__ is not None


def failing(common: None, X: np.ndarray) -> float:
    return 1 / 0


def _broken(reader: Reader) -> Iterator[Any]:
    raise RuntimeError("no such rows")
    yield


def refer_to_all() -> None:
    """As Dask's log of a worker does, to what was under way to another that ended."""
    # By type: what other tests left may stand for something that is gone.
    REFERRED.extend(each for each in gc.get_objects() if type(each) is Scratch)


REFERRED: list[Scratch] = []


@pytest.mark.parametrize("meanwhile", [list, refer_to_all])
def test_workers_give_it_back_when_it_is_released(
    backend: Backend, reader: Reader, folder: Path, meanwhile: Callable[[], object]
) -> None:
    held = hold(chunks_of(reader), backend, 0, str(folder))
    look = partial(open_files, folder)
    assert {len(each) for each in backend.everywhere(look)} <= {0, 1}
    assert any(backend.everywhere(look))
    backend.everywhere(meanwhile)
    release(held.chunks)
    deadline = time.monotonic() + 30
    while any(backend.everywhere(look)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(backend.everywhere(look))
    backend.everywhere(REFERRED.clear)


def test_a_forked_process_writes_into_no_file_of_its_parent(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    disk = Disk(str(folder))
    disk.reserve(100)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(OSError, match="forked"):
        disk.reserve(100)


KILLED = """
import os, signal, sys
import numpy as np
from gmm_dask.engine.cache.disk import Scratch
X = np.ones((1000, 4))
kept = [Scratch(sys.argv[1], "a fit", i, 1, X.nbytes) for i in range(3)]
for each in kept:
    list(each.rows(lambda: iter([(X, None)])))
assert all(each.is_filled for each in kept)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_is_killed_leaves_nothing(folder: Path) -> None:
    folder.mkdir()
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False)
    assert done.returncode == -signal.SIGKILL


def test_the_folder_is_made_for_this_user_alone_and_must_be_writable(tmp_path: Path) -> None:
    disk_module.check_folder(str(tmp_path / "new"))
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    disk_module.check_folder(str(tmp_path / "new"))
    (tmp_path / "file").touch()
    for name in ("file", "absent/new"):
        with pytest.raises(SettingsError, match=r"memory\.scratch: .*cannot be written"):
            disk_module.check_folder(str(tmp_path / name))


def test_a_worker_without_the_folder_is_an_error_at_once(
    backend: Backend, reader: Reader, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=r"memory\.scratch"):
        hold(chunks_of(reader), backend, 0, str(tmp_path / "absent" / "scratch"))
    assert reader.counts() == [0] * len(LENGTHS)
