"""Open the place where the work is done, and close what was opened."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Thread
from typing import Any

from gmm_dask.engine.address import check_address, check_certificates
from gmm_dask.engine.backends import Backend, ClusterBackend, LocalBackend
from gmm_dask.engine.factories import factory_named
from gmm_dask.engine.recovery import Opened
from gmm_dask.engine.waiting import Limits, LostError, asked
from gmm_dask.errors import ClusterError, SettingsError

MIN_MEMORY = 256 << 20  # bytes of a worker process; its libraries alone take 200 MB
CLOSE_SECONDS = 10  # for a client to say goodbye
GRACE_SECONDS = 1  # for a client to say itself that nobody answers
POLL_SECONDS = 0.05

_OWN_WORKERS = {
    # One whose libraries alone fill most of its memory would pause for ever: let it end, by name.
    "distributed.worker.memory.pause": False,
    # Both grow with time and passes, for developers of Dask: samples of stacks, and past messages.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.low-level-log-length": 50,
}


@dataclass(frozen=True)
class ClusterSpec:
    """Which backend to open.

    Parameters
    ----------
    kind : str
        "threads", "processes", "address", or the name of a registered factory.
    workers : int, optional
        Threads, processes or workers; the cores this process may use where None, or what a
        factory makes of it.
    memory_limit : str, optional
        Of each worker process, such as "1GiB".
    address : str, optional
        Of the scheduler.
    tls_ca_file, tls_cert, tls_key : str, optional
        PEM files.
    insecure : bool
        Whether tcp:// beyond this machine is allowed.
    timeout : float
        Seconds that the scheduler, or every worker, may be away: at the start and later.
    stuck_after : float
        Seconds without a sign of life after which a worker is given up.
    retries : int
        Times that a pass is repeated after a loss.
    options : mapping
        Of the factory.
    """

    kind: str = "threads"
    workers: int | None = None
    memory_limit: str | None = None
    address: str | None = None
    tls_ca_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    insecure: bool = False
    timeout: float = Limits.timeout
    stuck_after: float = Limits.stuck_after
    retries: int = Limits.retries
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def limits(self) -> Limits:
        """How long to wait for what is lost, and how often to try again."""
        return Limits(self.timeout, self.stuck_after, self.retries)


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def open_backend(spec: ClusterSpec) -> Iterator[Backend]:
    """A backend for the time of the block; clusters and clients opened here are closed here.

    BLAS and OpenMP run on one thread meanwhile: chunks are the parallelism, and the bits do not
    depend on the number of cores.

    Raises
    ------
    ClusterError
        No scheduler or no worker answered in time.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        if spec.kind == "threads":
            yield LocalBackend(spec.workers or available_cores())
            return
        session = Opened(partial(_opener(spec), spec), brings_workers=spec.kind != "address")
        try:
            yield ClusterBackend(session, spec.limits)
        finally:
            session.close()


def _opener(spec: ClusterSpec) -> Callable[[ClusterSpec], AbstractContextManager[Any]]:
    if spec.kind == "processes":
        return _processes
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
def _processes(spec: ClusterSpec) -> Iterator[Any]:
    import dask
    from distributed import LocalCluster

    if spec.memory_limit is not None:
        check_memory_limit(spec.memory_limit)
    n_workers = spec.workers or available_cores()
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
                memory_limit=spec.memory_limit or "auto",
                # A worker that misses its scheduler as all of them end would print a traceback.
                silence_logs=logging.CRITICAL,
            ) as cluster,
            _client(cluster, spec.timeout) as client,
        ):
            cluster.scale(n_workers)
            _wait_for(
                client,
                n_workers,
                spec,
                f"The {n_workers} worker processes were not ready within {spec.timeout:g} s. Use "
                "fewer (cluster.workers), raise cluster.timeout, or use cluster.kind: threads.",
            )
            yield client
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _connected(spec: ClusterSpec) -> Iterator[Any]:
    assert spec.address is not None
    check_address(spec.address, has_tls=spec.tls_ca_file is not None, insecure=spec.insecure)
    with _client(spec.address, spec.timeout, _security(spec)) as client:
        _wait_for(
            client,
            1,
            spec,
            f"The scheduler at {spec.address} had no worker within {spec.timeout:g} s. "
            f"Start one with `dask worker {spec.address}`.",
        )
        yield client


@contextmanager
def _made(spec: ClusterSpec) -> Iterator[Any]:
    """A client of a cluster that a registered factory makes."""
    with factory_named(spec.kind)(spec.options) as cluster:
        check_address(cluster.scheduler_address, has_tls=True, insecure=spec.insecure)
        if spec.workers is not None:
            cluster.scale(spec.workers)
        with _client(cluster, spec.timeout, _security(spec)) as client:
            _wait_for(
                client,
                1,
                spec,
                f"The cluster of cluster.kind: {spec.kind} had no worker within {spec.timeout:g} "
                "s. Raise cluster.timeout where workers wait in a queue, or ask for some with "
                "cluster.workers or cluster.options.",
            )
            yield client


@contextmanager
def _client(where: Any, timeout: float, security: Any = None) -> Iterator[Any]:
    """A client of the cluster or address; closed without waiting for what is dead."""
    try:
        client = _open_client(where, timeout, security)
    except (OSError, TimeoutError, ValueError) as error:
        address = getattr(where, "scheduler_address", where)
        raise ClusterError(
            f"No scheduler answers at {address} within {timeout:g} s ({error}). "
            "Start one with `dask scheduler`, or correct cluster.address and the certificates."
        ) from error
    try:
        yield client
    finally:
        _close(client)


def _open_client(where: Any, timeout: float, security: Any) -> Any:
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
    try:
        return opened.result(timeout + GRACE_SECONDS)
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


def _wait_for(client: Any, n_workers: int, spec: ClusterSpec, otherwise: str) -> None:
    """Return as soon as there are so many workers; raise ClusterError where it takes too long."""
    deadline = time.monotonic() + spec.timeout
    try:
        while len(asked(client, lambda: client.scheduler.ncores(), spec.limits)) < n_workers:
            if time.monotonic() > deadline:
                raise ClusterError(otherwise)
            time.sleep(POLL_SECONDS)
    except LostError as error:
        raise ClusterError(f"{otherwise} ({error})") from error
