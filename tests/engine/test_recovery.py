"""Workers and schedulers die: the same bits, or a named error before its deadline; no hang."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from threading import Thread, Timer
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client

from gmm_dask.engine import (
    ClusterSpec,
    Given,
    LocalBackend,
    RowChunks,
    Unit,
    expectation,
    hold,
    open_backend,
    release,
)
from gmm_dask.engine.cluster.backends import Backend, ClusterBackend
from gmm_dask.engine.cluster.link import Limits
from gmm_dask.engine.passes import chunk_map
from gmm_dask.engine.passes.chunk_map import ChunkMap
from gmm_dask.errors import ClusterError, DeadlyChunkError
from gmm_dask.fitting import Maximisation, fit
from gmm_dask.mixture import Parameters
from tests.by_hand import ByHand, by_hand, wait_until
from tests.engine.test_scratch import open_files

N_CHUNKS, ROWS = 12, 100
EDGES = tuple(pairwise(range(0, (N_CHUNKS + 1) * ROWS, ROWS)))
NAMES = tuple(f"rows.parquet, rows {start} to {stop - 1}" for start, stop in EDGES)
SPEC = ClusterSpec("processes", workers=2, timeout=20, stuck_after=20)
QUICK = Limits(timeout=2, stuck_after=2, retries=2)


def load(edges: tuple[int, int]) -> np.ndarray:
    return np.sin(np.arange(*edges, dtype=float))[:, None]


def read_one(
    read: Callable[[tuple[int, int]], np.ndarray], edges: tuple[int, int]
) -> Iterator[Any]:
    yield read(edges), None


def chunks(read: Callable[[tuple[int, int]], np.ndarray] = load) -> RowChunks:
    units = tuple(Unit(partial(read_one, read, edges), (ROWS,)) for edges in EDGES)
    return RowChunks(units, 1, names=NAMES)


def total(common: Any, X: np.ndarray) -> float:
    """What every pass here does; `common` may make one chunk of it go wrong, once."""
    fault, token, start = common
    if fault is not None and X[0, 0] == np.sin(float(start)):
        try:
            os.close(os.open(token, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            fault()
    return float(X.sum())


def always(fault: Callable[[], object], start: int, common: Any, X: np.ndarray) -> float:
    """A chunk that kills its worker whenever it comes."""
    if X[0, 0] == np.sin(float(start)):
        fault()
    time.sleep(0.01)
    return float(X.sum())


def disturbed(
    rows: RowChunks,
    backend: Backend,
    fault: Callable[[], object] | None = None,
    token: Any = "",
    start: int = 500,
) -> list[float]:
    return ChunkMap(rows, backend)("total", total, (fault, str(token), start))


EXPECTED = disturbed(chunks(), LocalBackend(1))


def end(number: int) -> None:
    os.kill(os.getpid(), number)


def leave_in_good_order() -> None:
    from distributed import get_worker

    worker = get_worker()
    worker.loop.add_callback(worker.close_gracefully)


FAULTS = {
    "SIGKILL": partial(end, signal.SIGKILL),
    "os._exit": partial(os._exit, 1),
    "segfault": partial(end, signal.SIGSEGV),
    "retired": leave_in_good_order,
}


def held_by(backend: ClusterBackend) -> Counter[str]:
    """How many held chunks each worker has."""
    has_what = backend.session.link.client.has_what()
    return Counter(
        {
            worker: sum(isinstance(key, tuple) and key[0].startswith("held-") for key in keys)
            for worker, keys in has_what.items()
        }
    )


@pytest.mark.parametrize(
    "fault",
    [
        "SIGKILL",
        *(pytest.param(each, marks=pytest.mark.heavy) for each in FAULTS if "K" not in each),
    ],
)
def test_a_worker_that_ends_in_a_pass_changes_no_bit_and_its_chunks_are_spread_again(
    fault: str, tmp_path: Path
) -> None:
    with open_backend(SPEC) as backend:
        assert isinstance(backend, ClusterBackend)
        held = hold(chunks(), backend, 1 << 30)
        assert held.n_held == N_CHUNKS
        assert disturbed(held.chunks, backend, FAULTS[fault], tmp_path / "token") == EXPECTED
        assert (tmp_path / "token").exists()
        if fault == "retired":  # a nanny lets it go for good
            assert disturbed(held.chunks, backend) == EXPECTED
            return
        wait_until(lambda: backend.n_workers == 2)
        disturbed(held.chunks, backend)

        def is_even() -> bool:
            disturbed(held.chunks, backend)
            counts = held_by(backend)
            return len(counts) == 2 and min(counts.values()) >= N_CHUNKS // 2 - 1

        wait_until(is_even)
        # Dask keeps a task for its worker for ever, should all workers be lost at once.
        tasks = backend.session.link.client.cluster.scheduler.tasks.values()
        assert not any(task.worker_restrictions for task in tasks)


@pytest.mark.heavy
def test_a_worker_that_ends_takes_its_scratch_with_it_and_changes_no_bit(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    with open_backend(SPEC) as backend:
        held = hold(chunks(), backend, 0, str(scratch))
        assert held.n_scratch == N_CHUNKS
        killed = disturbed(held.chunks, backend, FAULTS["SIGKILL"], tmp_path / "token")
        assert killed == EXPECTED
        wait_until(lambda: backend.n_workers == 2)
        for _ in range(3):
            assert disturbed(held.chunks, backend) == EXPECTED
        assert list(scratch.iterdir()) == []
        look = partial(open_files, scratch)
        assert all(len(files) <= 1 for files in backend.everywhere(look))
        release(held.chunks)
        wait_until(lambda: not any(backend.everywhere(look)))


def test_all_workers_are_asked_once_the_first_is_there_and_none_is_waited_for_for_ever() -> None:
    with by_hand(0) as cluster, Client(cluster.address, set_as_default=False) as client:
        with pytest.raises(ClusterError, match="no worker that can work"):
            ClusterBackend(Given(client, QUICK)).everywhere(os.getpid)
        late = Timer(0.5, cluster.start_worker)
        late.start()
        try:
            asked = ClusterBackend(Given(client)).everywhere(os.getpid)
        finally:
            late.join()
        assert asked == [cluster.workers[0].pid]


def test_a_cluster_that_goes_on_has_nothing_of_a_driver_that_is_gone(tmp_path: Path) -> None:
    """As after a driver was killed: its connection ends, and nobody releases anything."""
    scratch = tmp_path / "scratch"
    with by_hand(1) as cluster, Client(cluster.address) as other:
        client = Client(cluster.address, set_as_default=False)
        held = hold(chunks(), ClusterBackend(Given(client)), 0, str(scratch))
        assert held.n_scratch == N_CHUNKS
        look = partial(open_files, scratch)
        assert [len(files) for files in other.run(look).values()] == [1]
        client.close()
        wait_until(lambda: not any(other.run(look).values()))


def test_a_worker_that_ends_in_a_pass_changes_no_bit_of_the_fit(tmp_path: Path) -> None:
    """The second time that the chunk is read, its worker is killed: chunks are held, and lost."""

    def read(edges: tuple[int, int]) -> np.ndarray:
        X, seen = load(edges), tmp_path / "seen"
        if where == "processes" and edges == EDGES[7]:
            if seen.exists() and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                end(signal.SIGKILL)
            seen.touch()
        return X

    found = {}
    start = Parameters.from_covariances([0.5, 0.5], [[-0.5], [0.5]], [[0.3], [0.3]], "diag")
    for where, spec in {"threads": ClusterSpec("threads", workers=1), "processes": SPEC}.items():
        with open_backend(spec) as backend:
            held = hold(chunks(read), backend, 4 * 8 * ROWS)
            whole = expectation(held.chunks, backend)
            found[where] = fit(whole, start, Maximisation(), tol=0, max_iter=3)
    assert (tmp_path / "killed").exists()
    assert found["processes"].lower_bounds == found["threads"].lower_bounds
    means = [each.parameters.means.tobytes() for each in found.values()]
    assert means[0] == means[1]


@pytest.mark.heavy
def test_workers_that_end_while_chunks_move_to_them_hold_nothing_up(tmp_path: Path) -> None:
    """Dask keeps what is to go to one of them for it, though all are lost and another is there."""
    gate, arrived = tmp_path / "gate", tmp_path / "arrived"

    def read(edges: tuple[int, int]) -> np.ndarray:
        while gate.exists():
            arrived.touch()
            time.sleep(0.01)
        return load(edges)

    with by_hand() as cluster, opened(cluster, timeout=60) as backend:
        held, before = hold(chunks(read), backend, 1 << 30), backend.session.link
        gate.touch()
        cluster.start_worker()
        wait_until(lambda: backend.n_workers == 2)

        def end_all() -> None:
            wait_until(arrived.exists)
            cluster.kill_workers()
            gate.unlink()
            cluster.start_worker()

        ending = Thread(target=end_all)
        ending.start()
        assert disturbed(held.chunks, backend) == EXPECTED
        ending.join()
        assert backend.session.link is before  # nobody had to wait until all was given up


@pytest.mark.heavy
def test_twenty_losses_in_twenty_passes_change_no_bit(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    ends = [fault for name, fault in FAULTS.items() if name != "retired"]
    with open_backend(SPEC) as backend:
        held = hold(chunks(), backend, 1 << 30)
        for number in range(20):
            token = tmp_path / str(number)
            chunk = int(rng.integers(N_CHUNKS))
            fault = ends[rng.integers(len(ends))]
            assert disturbed(held.chunks, backend, fault, token, chunk * ROWS) == EXPECTED
            assert token.exists()


@pytest.mark.heavy
def test_a_worker_that_hangs_is_given_up(tmp_path: Path) -> None:
    fault = partial(end, signal.SIGSTOP)
    spec = ClusterSpec("processes", workers=2, timeout=30, stuck_after=2)
    with open_backend(spec) as backend:
        held = hold(chunks(), backend, 1 << 30)
        assert disturbed(held.chunks, backend, fault, tmp_path / "token") == EXPECTED


@pytest.mark.parametrize("most_tasks", [pytest.param(1024, marks=pytest.mark.heavy), 4])
def test_a_chunk_that_kills_workers_is_named(
    most_tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is one of several that a task works through: that is tried in halves."""
    monkeypatch.setattr(chunk_map, "MOST_TASKS", most_tasks)
    poison = partial(always, partial(os._exit, 1), 300)
    # One death is enough to accuse, and one more to prove: the default is four each.
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        open_backend(SPEC) as backend,
    ):
        said = r"chunk 3: rows\.parquet, rows 300 to 399, also"
        with pytest.raises(DeadlyChunkError, match=said):
            ChunkMap(chunks(), backend)("total", poison, None)
        assert disturbed(chunks(), backend) == EXPECTED


def test_reading_chunks_into_memory_is_repeated_until_the_chunk_that_kills_is_named(
    tmp_path: Path,
) -> None:
    def held_after(backend: Backend, n_deaths: int) -> RowChunks:
        """Chunk 3 kills as many workers that read it."""
        folder = tmp_path / f"{n_deaths} deaths"
        folder.mkdir()

        def read(edges: tuple[int, int]) -> np.ndarray:
            number = len(list(folder.iterdir()))
            if edges == EDGES[3] and number < n_deaths:
                (folder / str(number)).touch()
                end(signal.SIGKILL)
            return load(edges)

        return hold(chunks(read), backend, 1 << 30).chunks

    with (
        # A task is given up at its first death: once in the reading, once where it is alone.
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        open_backend(SPEC) as backend,
    ):
        assert disturbed(held_after(backend, 1), backend) == EXPECTED
        with pytest.raises(
            DeadlyChunkError, match=r"chunk 3: rows\.parquet, rows 300 to 399, also"
        ):
            held_after(backend, 99)


def test_what_is_gone_for_good_is_an_error_in_time_and_a_client_that_was_given_stays() -> None:
    poison = partial(always, partial(os._exit, 1), 300)
    patient = Limits(timeout=8, stuck_after=8, retries=2)  # a busy machine idles for seconds
    with (
        by_hand() as cluster,
        opened(cluster, patient.timeout) as ours,
        Client(cluster.address, timeout=60, set_as_default=False) as client,
    ):
        theirs = ClusterBackend(Given(client, patient))
        with pytest.raises(ClusterError, match=r"no worker .* for 8 s; .* at .*chunk 3: rows"):
            ChunkMap(chunks(), ours)("total", poison, None)
        cluster.start_worker()
        wait_until(lambda: client.nthreads())
        assert disturbed(chunks(), ours) == disturbed(chunks(), theirs) == EXPECTED
        cluster.kill(cluster.scheduler)
        with pytest.raises(ClusterError, match=r"The cluster was lost .* No scheduler answers"):
            disturbed(chunks(), ours)
        with pytest.raises(ClusterError, match="open Dask client was lost"):
            disturbed(chunks(), theirs)


@pytest.mark.heavy
def test_a_scheduler_that_returns_is_found_and_what_was_held_is_read_again() -> None:
    with by_hand() as cluster, opened(cluster, timeout=30) as backend:
        held = hold(chunks(), backend, 1 << 30)
        assert disturbed(held.chunks, backend) == EXPECTED
        cluster.kill(cluster.scheduler)
        cluster.kill_workers()
        cluster.start_scheduler()
        cluster.start_worker()
        assert disturbed(held.chunks, backend) == EXPECTED


@pytest.mark.heavy
def test_a_scheduler_that_hangs_is_an_error_in_time() -> None:
    with by_hand() as cluster, opened(cluster) as backend:
        assert cluster.scheduler is not None
        cluster.scheduler.send_signal(signal.SIGSTOP)
        for said in ("did not answer for 2 s", "No scheduler answers"):
            with pytest.raises(ClusterError, match=said):
                disturbed(chunks(), backend)


@contextmanager
def opened(cluster: ByHand, timeout: float = QUICK.timeout) -> Iterator[ClusterBackend]:
    spec = ClusterSpec("address", address=cluster.address, timeout=60)
    with open_backend(spec) as backend:
        assert isinstance(backend, ClusterBackend)
        # A worker needs some seconds to start; what is measured is how its loss is noticed.
        quick = ClusterSpec("address", address=cluster.address, timeout=timeout)
        with open_backend(quick) as quick_backend:
            assert isinstance(quick_backend, ClusterBackend)
            yield quick_backend
