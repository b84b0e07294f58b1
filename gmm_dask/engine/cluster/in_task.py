"""Work that is itself a task of a Dask worker: whose client it uses, and whose thread."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from gmm_dask.errors import ClusterError

T = TypeVar("T")


def open_client() -> Any:
    """The client that the user has open, in a task that of its worker; None where there is none.

    Raises
    ------
    ClusterError
        This is the thread of an event loop that a client or worker needs: waiting would end both.
    """
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        client = distributed.get_client()
        if client.status in ("closing", "closed"):  # a worker goes on giving it to its tasks
            distributed.get_worker()._client = None
            client = _with_no_current_client(distributed.get_client)
    except ValueError:
        return None
    if client.asynchronous or _is_loop_of_worker(distributed):
        raise ClusterError(
            "The open Dask client is asynchronous, and nothing can be waited for in its loop of "
            "events: open it with asynchronous=False. On a worker call this within a task "
            "(client.submit), neither by client.run nor in a coroutine."
        )
    return client


def _is_loop_of_worker(distributed: Any) -> bool:
    import asyncio

    try:
        loop = distributed.get_worker().loop.asyncio_loop
        return bool(loop is asyncio.get_running_loop())
    except (ValueError, RuntimeError):  # no worker, or no loop
        return False


@contextmanager
def beside_the_pool(seconds: float) -> Iterator[None]:
    """Leave the thread pool of the worker for the time of the block, if this is a task.

    Another task takes the place of this one, which only waits: otherwise tasks that wait for tasks
    would take all threads, and nothing would move. Dask's own `compute` does the same.

    Parameters
    ----------
    seconds : float
        Time to wait for a place in the pool afterwards. Where all are taken for longer, the task
        ends outside of it, as one does that never comes back.
    """
    has_left = _leave()
    try:
        yield
    finally:
        if has_left:
            _come_back(seconds)


def _leave() -> bool:
    """Leave the thread pool if this is a task, and say whether it is."""
    if "distributed" not in sys.modules:
        return False
    from distributed import secede
    from distributed.worker import thread_state

    if getattr(thread_state, "key", None) is None:
        return False
    try:
        # Tasks that the worker starts next have the context of this call, its client too.
        _with_no_current_client(secede)
    except (ValueError, KeyError, AttributeError):  # no thread of a pool, or one that left before
        return False
    return True


def executing_here() -> dict[str, Callable[[], set[Any]]]:
    """For each worker whose tasks may wait for this thread, by address, what it executes.

    A thread that a task started itself does not know of whom it is, and cannot leave the pool for
    it. The main thread is no task's, and one that is a task's own can leave.
    """
    distributed = sys.modules.get("distributed")
    if distributed is None or threading.current_thread() is threading.main_thread():
        return {}
    from distributed.worker import thread_state

    if getattr(thread_state, "key", None) is not None:
        return {}
    return {
        worker.address: partial(_executing, worker)
        for worker in distributed.Worker._instances
        if worker.status.name == "running"
    }


def _executing(worker: Any) -> set[Any]:
    return {task.key for task in [*worker.state.executing, *worker.state.long_running]}


def _with_no_current_client(function: Callable[[], T]) -> T:
    """Call the function where no client is entered by `with`, which come before all others."""
    from distributed.client import _current_client

    def call() -> T:
        _current_client.set(None)
        return function()

    return copy_context().run(call)


def _come_back(seconds: float) -> None:
    """Take a thread of the pool again, or stop waiting; distributed's `rejoin` waits for ever."""
    from distributed.threadpoolexecutor import thread_state

    pool, is_granted = thread_state.executor, threading.Event()
    place = (threading.current_thread(), is_granted)
    with pool._rejoin_lock:
        pool._rejoin_list.append(place)
    with suppress(RuntimeError):  # the worker is closing
        pool.submit(_nothing)  # have a thread that is idle look at the list
        is_granted.wait(seconds)
    with pool._rejoin_lock:
        if not is_granted.is_set():
            pool._rejoin_list.remove(place)
            return
    thread_state.proceed = True


def _nothing() -> None:
    pass
