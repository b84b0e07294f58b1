"""Open the place where the work is done, and close what was opened."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from gmm_dask.engine.backends import Backend, ClusterBackend, LocalBackend
from gmm_dask.errors import ClusterError


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


@contextmanager
def _processes(spec: ClusterSpec) -> Iterator[Any]:
    from distributed import Client, LocalCluster

    before = dict(os.environ)  # a nanny writes thread and malloc settings into it
    try:
        with (
            LocalCluster(
                n_workers=spec.workers or available_cores(),
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
            yield client
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _connected(spec: ClusterSpec) -> Iterator[Any]:
    from distributed import Client
    from distributed.security import Security

    security = None
    if spec.tls_ca_file is not None:
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
