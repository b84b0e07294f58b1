"""Fits that are tasks of Dask themselves: they end, with the same bits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dask
import dask.array as da
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster, get_client, secede, wait, worker_client
from distributed.threadpoolexecutor import thread_state

from gmm_dask import GaussianMixture
from gmm_dask.engine import Limits
from gmm_dask.engine.cluster import recovery
from gmm_dask.engine.cluster.in_task import beside_the_pool
from gmm_dask.errors import ClusterError
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import settings_from

IN_TIME = 100  # seconds after which something hangs
N, CHUNK = 300, 100

GO_ON = threading.Event()
X_ALL = np.random.default_rng(0).normal(size=(N, 2))


def lazy() -> da.Array:
    return da.from_array(X_ALL, chunks=(CHUNK, 2))


def fitted(X: Any, **more: Any) -> float:
    return float(GaussianMixture(2, random_state=0).fit(X, **more).lower_bound_)


def fit_alone(folder: str) -> float:
    return fitted(lazy())


def fit_with_the_workers_client(folder: str) -> float:
    get_client()
    return fitted(lazy())


def fit_in_worker_client(folder: str) -> float:
    with worker_client():
        return fitted(lazy())


def fit_with_a_client_of_its_own(folder: str) -> float:
    """As in prefect_dask's `get_dask_client`."""
    with Client(get_client().scheduler.address):
        return fitted(lazy())


def fit_after_secede(folder: str) -> float:
    get_client()
    secede()
    return fitted(lazy())


def fit_after_a_compute(folder: str) -> float:
    assert lazy().sum().compute() == pytest.approx(X_ALL.sum())
    return fitted(lazy())


def fit_in_a_task_of_a_task(folder: str) -> float:
    with worker_client() as client:
        return float(client.submit(fit_alone, folder, pure=False).result())


def fit_in_a_delayed_call(folder: str) -> float:
    return float(dask.delayed(fit_alone)(folder).compute())


def fit_of_files(folder: str) -> float:
    return fitted(f"{folder}/rows")


def fit_of_persisted_rows(folder: str) -> float:
    X = lazy().persist()
    return fitted(X)


def fit_of_rows_at_hand(folder: str) -> float:
    return fitted(X_ALL)


def fit_with_lazy_weights(folder: str) -> float:
    return fitted(X_ALL, sample_weight=da.ones(N, chunks=CHUNK))


def twice(folder: str) -> float:
    return max(fitted(lazy()), fitted(lazy()))


def labelled(folder: str) -> float:
    """What the labels of lazy rows leave of a fit's score."""
    model = GaussianMixture(2, random_state=0).fit(lazy())
    assert np.array_equal(model.predict(lazy()).compute(), model.predict(X_ALL))
    np.testing.assert_allclose(model.score(lazy()), model.score(X_ALL), rtol=1e-12)
    return float(model.lower_bound_)


TASKS = [
    fit_alone,
    fit_with_the_workers_client,
    fit_in_worker_client,
    fit_after_secede,
    fit_after_a_compute,
    fit_in_a_task_of_a_task,
    fit_in_a_delayed_call,
    fit_of_files,
    fit_of_persisted_rows,
    fit_of_rows_at_hand,
    fit_with_lazy_weights,
    twice,
    labelled,
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("files")
    (folder / "rows").mkdir()
    for i in range(3):
        x, y = X_ALL[CHUNK * i : CHUNK * (i + 1)].T
        pq.write_table(pa.table({"x": x, "y": y}), folder / "rows" / f"{i}.parquet")
    return str(folder)


def cluster_of(workers: int, threads: int, *, processes: bool) -> Any:
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=threads,
        processes=processes,
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
    )


@pytest.fixture(scope="module")
def one_thread() -> Iterator[Client]:
    """Of one worker process: a task that waits in it for others has taken it from them."""
    with cluster_of(1, 1, processes=True) as cluster, Client(cluster) as client:
        yield client


@pytest.fixture(scope="module")
def four_threads() -> Iterator[Client]:
    with cluster_of(2, 2, processes=False) as cluster, Client(cluster) as client:
        yield client


def all_at_once(client: Client, tasks: list[Callable[[str], float]], folder: str) -> list[float]:
    futures = [client.submit(task, folder, pure=False) for task in tasks]
    wait(futures, timeout=IN_TIME)
    return [float(future.result()) for future in futures]


def test_every_way_to_fit_in_a_task_ends_on_one_thread(one_thread: Client, files: str) -> None:
    assert all_at_once(one_thread, TASKS, files) == pytest.approx([fitted(X_ALL)] * len(TASKS))


def test_a_client_that_another_task_closes_is_replaced(one_thread: Client, files: str) -> None:
    """In the process of a worker tasks find each other's clients."""
    tasks = [fit_with_a_client_of_its_own, fit_alone] * 3
    assert all_at_once(one_thread, tasks, files) == [fitted(lazy())] * 6


def test_fits_that_take_all_threads_at_once_end(four_threads: Client, files: str) -> None:
    found = all_at_once(four_threads, [fit_with_the_workers_client] * 4, files)
    assert found == [fitted(lazy())] * 4


def test_a_run_of_the_stage_in_a_task_of_its_own_cluster_ends(
    one_thread: Client, files: str, tmp_path: Path
) -> None:
    document = {
        "data": {"path": f"{files}/rows"},
        "fit": {"n_components": 2},
        "cluster": {"kind": "address", "address": one_thread.scheduler.address},
        "output": {"path": str(tmp_path / "out")},
    }

    def stage(document: dict[str, Any]) -> int:
        return run(settings_from(document)).metrics["n_labelled"]

    found = one_thread.submit(stage, document)
    wait([found], timeout=IN_TIME)
    assert sum(found.result()) == N


def fit_in_a_thread_of_the_task(folder: str) -> str:
    """It cannot leave the pool for the task, which waits for it with the only thread."""
    get_client()
    quick = partial(Limits, timeout=1.0, retries=0)
    with patch.object(recovery, "Limits", quick), ThreadPoolExecutor(1) as pool:
        return str(pool.submit(fit_alone, folder).exception())


def test_what_can_never_be_done_ends_at_its_deadline(one_thread: Client, files: str) -> None:
    said = one_thread.submit(fit_in_a_thread_of_the_task, files).result(IN_TIME)
    assert "no worker did anything for 1 s, though there was work" in said


def test_in_an_event_loop_nothing_is_waited_for(one_thread: Client, files: str) -> None:
    async def in_a_coroutine() -> float:
        return fit_alone(files)

    found = one_thread.submit(in_a_coroutine)
    wait([found], timeout=IN_TIME)
    with pytest.raises(ClusterError, match=r"asynchronous=False.*client\.submit"):
        found.result()
    with pytest.raises(ClusterError, match=r"neither by client\.run"):
        one_thread.run(fit_alone, files)
    assert one_thread.run(fit_of_rows_at_hand, files)


def places() -> tuple[int, bool]:
    """Threads of this task's pool, and whether its own goes on there."""
    return len(thread_state.executor._threads), thread_state.proceed


def comes_back() -> list[tuple[int, bool]]:
    found = [places()]
    with beside_the_pool(10):
        found.append(places())
        with beside_the_pool(10):  # it is outside already
            pass
        found.append(places())
    return [*found, places()]


def stays_away() -> tuple[tuple[int, bool], int]:
    pool = thread_state.executor
    with beside_the_pool(0.2):
        others = [pool.submit(GO_ON.wait, IN_TIME) for _ in range(2)]
    found = places(), len(pool._rejoin_list)
    GO_ON.set()
    for other in others:
        other.result()
    return found


def test_who_left_the_pool_comes_back_or_stays_away_where_it_is_full(
    four_threads: Client,
) -> None:
    before, *aside, after = four_threads.submit(comes_back).result(IN_TIME)
    assert aside == [(before[0], False)] * 2
    assert after == before
    assert four_threads.submit(stays_away).result(IN_TIME) == ((before[0], False), 0)
