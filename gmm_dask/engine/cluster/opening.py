"""Open the place where the work is done, and close what was opened."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache, partial
from threading import Thread
from typing import Any

from gmm_dask.engine.cache.memory import tasks_at_once, tightest_limit, worker_limit
from gmm_dask.engine.cluster.address import check_address, check_certificates
from gmm_dask.engine.cluster.backends import Backend, ClusterBackend
from gmm_dask.engine.cluster.factories import factory_named
from gmm_dask.engine.cluster.in_task import beside_the_pool, open_client
from gmm_dask.engine.cluster.link import Limits, Link, Listener, Log, Roll
from gmm_dask.engine.cluster.recovery import Given, NoSchedulerError, Opened
from gmm_dask.engine.cluster.threads import LocalBackend
from gmm_dask.engine.cluster.waiting import LostError, asked, in_one_line
from gmm_dask.errors import ClusterError, SettingsError
from gmm_dask.sections import ClusterSpec

MIN_MEMORY = 256 << 20  # bytes of a worker process; its libraries alone take 200 MB
CLOSE_SECONDS = 10  # for a client to say goodbye
GRACE_SECONDS = 1  # for a client to say itself that nobody answers
POLL_SECONDS = 0.05
SOON = 2  # seconds that worker processes take to start: not worth a word

_OWN_WORKERS = {
    # One whose libraries alone fill most of its memory would pause for ever: let it end, by name.
    "distributed.worker.memory.pause": False,
    # Both grow with time and passes, for developers of Dask: samples of stacks, and past messages.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.low-level-log-length": 50,
}


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def blas_on_one_thread() -> Any:
    """A context in which BLAS and OpenMP run on one thread."""
    return _thread_pools().limit(limits=1)


@cache
def _thread_pools() -> Any:
    """The libraries that have thread pools; finding them takes longer than a fit of 1,000 rows."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def open_backend(
    spec: ClusterSpec, listener: Listener | None = None, chunk_bytes: int = 0
) -> Iterator[Backend]:
    """A backend for the time of the block; clusters and clients opened here are closed here.

    BLAS and OpenMP run on one thread meanwhile: chunks are the parallelism, and the bits do not
    depend on the number of cores.

    Parameters
    ----------
    listener : Listener, optional
        Is told what becomes of the cluster; the log where not given.
    chunk_bytes : int
        Decoded bytes of the largest chunk that a task reads: the limits of memory on this machine
        say how many tasks may run at once.

    Raises
    ------
    ClusterError
        No scheduler or no worker answered in time.
    MemoryLimitError
        The limits of memory on this machine leave too little for one task, or for the workers.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        if spec.kind == "threads":
            yield _threads(spec.workers or available_cores(), chunk_bytes, listener or Log())
            return
        open_link = partial(_opener(spec, chunk_bytes), spec, listener or Log())
        session = Opened(open_link, brings_workers=spec.kind != "address")
        try:
            with beside_the_pool(spec.timeout):
                yield ClusterBackend(session)
        finally:
            session.close()


def _threads(n_threads: int, chunk_bytes: int, listener: Listener) -> LocalBackend:
    """The number of threads whose chunks, decoded at once, fit the free memory."""
    if n_threads == 1 and not chunk_bytes:  # rows that are here already need no room
        return LocalBackend(1, 0)
    fitting = tasks_at_once(n_threads, chunk_bytes)
    if fitting < n_threads:
        listener.warn(
            f"Memory: {tightest_limit()}; {fitting} of {n_threads} threads read chunks at once."
        )
    return LocalBackend(fitting, chunk_bytes)


@contextmanager
def users_backend(n_threads: int, *, is_elsewhere: bool, chunk_bytes: int = 0) -> Iterator[Backend]:
    """A backend for the time of the block: the client that the user has open, or threads.

    BLAS and OpenMP run on one thread meanwhile.

    Parameters
    ----------
    n_threads : int
        At most, where there is no client.
    is_elsewhere : bool
        Whether the rows are not in this process; those that are go through threads in any case.
    chunk_bytes : int
        Decoded bytes of the largest chunk that a task reads.

    Raises
    ------
    ClusterError
        The client cannot be waited for here.
    MemoryLimitError
        The limits of memory leave too little for one task.
    """
    client = open_client() if is_elsewhere else None
    with blas_on_one_thread():
        if client is None:
            yield _threads(min(available_cores(), max(1, n_threads)), chunk_bytes, Log())
            return
        session = Given(client, another=open_client)
        with beside_the_pool(session.link.limits.timeout):
            yield ClusterBackend(session)


def _opener(
    spec: ClusterSpec, chunk_bytes: int
) -> Callable[[ClusterSpec, Listener], AbstractContextManager[Link]]:
    if spec.kind == "processes":
        return partial(_processes, chunk_bytes=chunk_bytes)
    return _connected if spec.kind == "address" else _made


def check_memory_limit(limit: str) -> None:
    """Raise SettingsError where this is no size, or too little for a worker's own libraries."""
    from dask.utils import parse_bytes

    try:
        n_bytes = parse_bytes(limit)
    except (ValueError, TypeError, OverflowError):
        raise SettingsError(f"{limit!r} is no size of memory: write 1GiB or 800MB") from None
    if n_bytes < MIN_MEMORY:
        raise SettingsError(
            f"{limit!r} is {n_bytes} bytes; a worker process takes 200 MB before it reads a row: "
            f"give it 256MiB or more"
        )


@contextmanager
def _processes(spec: ClusterSpec, listener: Listener, chunk_bytes: int) -> Iterator[Link]:
    import dask
    from distributed import LocalCluster

    if spec.memory_limit is not None:
        check_memory_limit(spec.memory_limit)
    n_workers = spec.workers or available_cores()
    memory_limit = spec.memory_limit or worker_limit(n_workers, chunk_bytes)
    before = dict(os.environ)  # a nanny writes thread and malloc settings into it
    try:
        with (
            dask.config.set(_OWN_WORKERS),
            LocalCluster(
                n_workers=0,  # they are started below, where there is a deadline
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                # A port of its own on loopback: None would listen on 8787 of every interface.
                dashboard_address="127.0.0.1:0",
                worker_dashboard_address="127.0.0.1:0",
                memory_limit=memory_limit,
                # A worker that misses its scheduler as all of them end would print a traceback.
                silence_logs=logging.CRITICAL,
            ) as cluster,
            _linked(cluster, spec, listener) as link,
        ):
            cluster.scale(n_workers)
            _wait_for(
                link,
                n_workers,
                f"The {n_workers} worker processes were not ready within {spec.timeout:g} s. Use "
                "fewer (cluster.workers), raise cluster.timeout, or use cluster.kind: threads.",
            )
            yield link
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _connected(spec: ClusterSpec, listener: Listener) -> Iterator[Link]:
    assert spec.address is not None
    check_address(spec.address, has_tls=spec.tls_ca_file is not None, insecure=spec.insecure)
    with _linked(spec.address, spec, listener, _security(spec)) as link:
        _wait_for(
            link,
            1,
            f"The scheduler at {spec.address} had no worker within {spec.timeout:g} s. "
            f"Start one with `dask worker {spec.address}`.",
        )
        yield link


@contextmanager
def _made(spec: ClusterSpec, listener: Listener) -> Iterator[Link]:
    """A client of a cluster that a registered factory makes."""
    with factory_named(spec.kind)(spec.options) as cluster:
        check_address(cluster.scheduler_address, has_tls=True, insecure=spec.insecure)
        if spec.workers is not None:
            cluster.scale(spec.workers)
        with _linked(cluster, spec, listener, _security(spec)) as link:
            _wait_for(
                link,
                1,
                f"The cluster of cluster.kind: {spec.kind} had no worker within {spec.timeout:g} "
                "s. Raise cluster.timeout where workers wait in a queue, or ask for some with "
                "cluster.workers or cluster.options.",
            )
            yield link


@contextmanager
def _linked(
    where: Any, spec: ClusterSpec, listener: Listener, security: Any = None
) -> Iterator[Link]:
    """A client of the cluster or address; closed without waiting for what is dead."""
    try:
        client = _open_client(where, spec.timeout, security, listener)
    except (OSError, TimeoutError, ValueError) as error:
        address = getattr(where, "scheduler_address", where)
        raise NoSchedulerError(
            f"No scheduler answers at {address} within {spec.timeout:g} s ({in_one_line(error)}).",
            "Start one with `dask scheduler`, or correct cluster.address and the certificates.",
        ) from error
    try:
        yield Link(client, Limits.of(spec), listener, Roll())
    finally:
        _close(client)


def _open_client(where: Any, timeout: float, security: Any, listener: Listener) -> Any:
    """A client, or an error: of itself it would wait for ever for a scheduler that hangs."""
    from distributed import Client

    opened: Future[Any] = Future()

    def open_it() -> None:
        try:
            client = Client(where, security=security, timeout=timeout, set_as_default=False)
        except BaseException as error:
            opened.set_exception(error)
        else:
            opened.set_result(client)

    Thread(target=open_it, daemon=True).start()
    soon = min(SOON, timeout)
    try:
        if not wait([opened], soon).done:
            listener.waiting("the scheduler", timeout - soon)
            wait([opened], timeout - soon + GRACE_SECONDS)
            listener.waiting(None)
        return opened.result(0)
    finally:
        if not opened.done():
            opened.add_done_callback(_close_late)


def _close_late(opened: Future[Any]) -> None:
    if opened.exception() is None:
        _close(opened.result())


def _close(client: Any) -> None:
    with suppress(OSError, TimeoutError):
        client.close(timeout=CLOSE_SECONDS)


def _security(spec: ClusterSpec) -> Any:
    """What the certificates say; None where there are none, or the cluster brings its own."""
    from distributed.security import Security

    if spec.tls_ca_file is None:
        return None
    check_certificates(spec.tls_ca_file, spec.tls_cert, spec.tls_key)
    return Security(
        tls_ca_file=spec.tls_ca_file,
        tls_client_cert=spec.tls_cert,
        tls_client_key=spec.tls_key,
        require_encryption=True,
    )


def _wait_for(link: Link, n_workers: int, otherwise: str) -> None:
    """Return as soon as there are so many workers; raise ClusterError where it takes too long."""
    begun, limit, is_told = time.monotonic(), link.limits.timeout, False
    try:
        while len(asked(link, lambda: link.client.scheduler.ncores())) < n_workers:
            waited = time.monotonic() - begun
            if waited > limit:
                raise ClusterError(otherwise)
            if waited > SOON and not is_told:
                is_told = True
                link.listener.waiting("workers", limit - waited)
            time.sleep(POLL_SECONDS)
    except LostError as error:
        raise ClusterError(f"{otherwise} ({error})") from error
    finally:
        if is_told:
            link.listener.waiting(None)
