"""Open the place where the work is done, and close what was opened."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gmm_dask.engine.backends import Backend, ClusterBackend, LocalBackend
from gmm_dask.errors import ClusterError, SettingsError

MIN_MEMORY = 256 << 20  # bytes of a worker process; its libraries alone take 200 MB

# A worker whose libraries alone fill most of its memory would pause for ever: let it end, by name.
_NO_PAUSE = {"distributed.worker.memory.pause": False}


@dataclass(frozen=True)
class ClusterSpec:
    """Which backend to open.

    Parameters
    ----------
    kind : {"threads", "processes", "address"}
    workers : int, optional
        Threads or processes; the cores this process may use where None.
    memory_limit : str, optional
        Of each worker process, such as "1GiB".
    address : str, optional
        Of the scheduler.
    tls_ca_file, tls_cert, tls_key : str, optional
        PEM files.
    timeout : float
        Seconds to wait for the scheduler and its first worker.
    """

    kind: Literal["threads", "processes", "address"] = "threads"
    workers: int | None = None
    memory_limit: str | None = None
    address: str | None = None
    tls_ca_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    timeout: float = 60.0


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
        else:
            opened = _processes(spec) if spec.kind == "processes" else _connected(spec)
            with opened as client:
                yield ClusterBackend(client)


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
    from distributed import Client, LocalCluster

    if spec.memory_limit is not None:
        check_memory_limit(spec.memory_limit)
    n_workers = spec.workers or available_cores()
    before = dict(os.environ)  # a nanny writes thread and malloc settings into it
    try:
        with (
            dask.config.set(_NO_PAUSE),
            LocalCluster(
                n_workers=0,  # they are started below, where there is a deadline
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                # A port of its own on loopback: None would listen on 8787 of every interface.
                dashboard_address="127.0.0.1:0",
                worker_dashboard_address="127.0.0.1:0",
                memory_limit=spec.memory_limit or "auto",
                silence_logs=logging.ERROR,
            ) as cluster,
            Client(cluster, timeout=spec.timeout, set_as_default=False) as client,
        ):
            cluster.scale(n_workers)
            _wait_for(client, n_workers, spec.timeout)
            yield client
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _wait_for(client: Any, n_workers: int, timeout: float) -> None:
    try:
        client.wait_for_workers(n_workers, timeout=timeout)
    except TimeoutError as error:
        raise ClusterError(
            f"The {n_workers} worker processes were not ready within {timeout:g} s. Use fewer "
            "(cluster.workers), raise cluster.timeout, or use cluster.kind: threads."
        ) from error


def check_certificates(ca_file: str | None, cert: str | None, key: str | None) -> None:
    """Raise SettingsError for files that are not there or are not what TLS needs of them."""
    files = {"tls_ca_file": ca_file, "tls_cert": cert, "tls_key": key}
    problems = [
        f"cluster.{name}: there is no file {path}. Relative paths start at the current folder."
        for name, path in files.items()
        if path is not None and not Path(path).is_file()
    ]
    if not problems and ca_file is not None and cert is not None:
        problems = [*_pem_problems(ca_file, cert, key)]
    if problems:
        raise SettingsError("\n".join(problems))


def _pem_problems(ca_file: str, cert: str, key: str | None) -> Iterator[str]:
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        yield f"cluster.tls_ca_file: {ca_file} is no readable PEM certificate ({error})."
    try:
        # A password is refused rather than asked for: nobody may be there to answer.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        yield (
            f"cluster.tls_cert, cluster.tls_key: {cert} and {key} are no readable pair of a PEM "
            f"certificate and its key without a password ({error})."
        )


@contextmanager
def _connected(spec: ClusterSpec) -> Iterator[Any]:
    from distributed import Client
    from distributed.security import Security

    security = None
    if spec.tls_ca_file is not None:
        check_certificates(spec.tls_ca_file, spec.tls_cert, spec.tls_key)
        security = Security(
            tls_ca_file=spec.tls_ca_file,
            tls_client_cert=spec.tls_cert,
            tls_client_key=spec.tls_key,
            require_encryption=True,
        )
    try:
        client = Client(spec.address, security=security, timeout=spec.timeout, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(
            f"No scheduler answers at {spec.address} within {spec.timeout:g} s ({error}). "
            "Start one with `dask scheduler`, or correct cluster.address and the certificates."
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=spec.timeout)
        except TimeoutError as error:
            raise ClusterError(
                f"The scheduler at {spec.address} had no worker within {spec.timeout:g} s. "
                f"Start one with `dask worker {spec.address}`."
            ) from error
        yield client
