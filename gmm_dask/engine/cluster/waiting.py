"""Waiting for a cluster: as long as it works, and no longer than it may be away."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from gmm_dask.engine.cluster import in_task
from gmm_dask.engine.cluster.link import Link

TICK_SECONDS = 0.1
LOOK_SECONDS = 1.0  # between two looks at the workers, or a quarter of what they are looked at for
LONGEST_TICK = 2.0  # that counts: where this process was suspended itself, nobody else was late
RESTART_SECONDS = 10

T = TypeVar("T")


class LostError(Exception):
    """Why a cluster could not end what it was asked; asking once more may help.

    Parameters
    ----------
    message : str
    suspects : collection of keys
        Tasks that workers died on; empty where the cluster itself was lost.
    no_worker : bool
        Whether the scheduler was there, and waiting for workers was in vain.
    """

    def __init__(
        self, message: str, suspects: Collection[Any] = (), *, no_worker: bool = False
    ) -> None:
        super().__init__(message)
        self.suspects = tuple(suspects)
        self.no_worker = no_worker


def waited(
    link: Link,
    start: Callable[[], Awaitable[T]],
    *,
    tell: Callable[[], None] | None = None,
    tasks: Collection[Any] | None = None,
    idle_after: float | None = None,
) -> T:
    """What the coroutine returns that `start` makes in the client's event loop.

    Parameters
    ----------
    tell : callable, optional
        Called every now and then while it is waited for.
    tasks : collection, optional
        Names that the cluster knows the tasks by which it ends with: some worker must be at work.
    idle_after : float, optional
        Seconds that no worker may be at work; as long as the scheduler may be away by default.

    Raises
    ------
    LostError
        The scheduler or all workers were away for too long.
    """
    vigil = Vigil(link, tasks, idle_after)
    running = _submitted(link.client, start if tasks is None else partial(_and_roll, link, start))
    try:
        while not wait([running], TICK_SECONDS).done:
            if tell is not None:
                tell()
            vigil.tick()
        return running.result()
    finally:
        vigil.end()
        if tasks is None:  # what waits for futures ends with them, and quietly
            running.cancel()


async def _and_roll(link: Link, start: Callable[[], Awaitable[T]]) -> T:
    """Await the work, then call the roll, so that each loss is told of its own pass."""
    found = await start()
    if link.roll is not None:
        with suppress(OSError):  # whoever waits next will notice
            await link.roll.call(link.client.scheduler)
    return found


def asked(link: Link, start: Callable[[], Awaitable[T]]) -> T:
    """The answer to a question to the scheduler; raises LostError if it cannot be asked."""
    try:
        return waited(link, start)
    except (OSError, CancelledError) as error:
        unanswered = LostError(f"its scheduler could not be asked: {in_one_line(error)}")
        raise loss(error) or unanswered from error


def in_one_line(error: BaseException) -> str:
    """What the error says; others' messages have several lines, ours have one."""
    return " ".join(str(error).split())


def last_tasks(link: Link, among: Collection[Any], names: Mapping[Any, Any]) -> set[Any]:
    """Tasks that most of the workers which ended were at, if the scheduler still knows them."""
    try:
        events = asked(link, lambda: link.client.scheduler.events(topic="all"))
    except LostError:
        return set()
    keys = {names.get(key, key): key for key in among}
    counts = Counter(
        keys[name]
        for _, event in events
        if event.get("action") == "remove-worker" and not event.get("expected")
        for name in event.get("processing-tasks", ())
        if name in keys
    )
    most = max(counts.values(), default=0)
    return {key for key, count in counts.items() if count == most}


class _Seen(NamedTuple):
    """What the scheduler says of the tasks that are waited for.

    Parameters
    ----------
    workers : dict
        What it knows of each worker, by address.
    at_work : set of str
        Addresses of workers that get on with the tasks that are waited for, or with others'.
    """

    workers: dict[str, dict[str, Any]]
    at_work: set[str]


class Vigil:
    """Looks at the scheduler and the workers while something is waited for."""

    def __init__(
        self,
        link: Link,
        tasks: Collection[Any] | None = None,
        idle_after: float | None = None,
    ) -> None:
        self._link, self._limits = link, link.limits
        self._idle_after = link.limits.timeout if idle_after is None else idle_after
        self._tasks = None if tasks is None else frozenset(tasks)
        self._every = min(LOOK_SECONDS, self._limits.timeout / 4, self._limits.stuck_after / 4)
        self._clock = time.monotonic()
        self._look: Future[_Seen] | None = None
        self._unheard = self._since_look = 0.0
        self._alone = self._idle = 0.0
        self._signs: dict[str, tuple[float, float]] = {}  # last seen, and seconds since then
        self._given_up: dict[str, Future[Any]] = {}
        self._is_told = False
        self._executing = in_task.executing_here()

    def tick(self) -> None:
        """Count the seconds since the last call; raises LostError where they are too many."""
        now = time.monotonic()
        seconds = min(now - self._clock, LONGEST_TICK)
        self._clock = now
        self._unheard += seconds
        self._since_look += seconds
        self._link.tell()
        if self._look is not None and self._look.done():
            self._hear(self._look)
            self._look = None
        elif self._look is None and self._since_look >= self._every:
            self._look = _submitted(self._link.client, self._seen)
        self._check()

    def end(self) -> None:
        """Forget a question that is not answered yet."""
        if self._look is not None:
            self._look.cancel()
        self._link.tell()
        self._tell_whether(False)

    def _check(self) -> None:
        limit = self._limits.timeout
        if self._link.client.status != "running":  # once more: what was asked for is cancelled
            raise _cancelled("scheduler-connection-lost")
        if self._unheard > limit:
            raise LostError(f"its scheduler did not answer for {limit:g} s")
        if self._alone > limit:
            raise LostError(f"it had no worker that can work for {limit:g} s", no_worker=True)
        if self._idle > self._idle_after:
            raise LostError(
                f"no worker did anything for {self._idle_after:g} s, though there was work"
            )

    async def _seen(self) -> _Seen:
        """Ask the scheduler."""
        scheduler = self._link.client.scheduler
        workers = (await scheduler.identity())["workers"]
        if self._link.roll is not None:
            await self._link.roll.call(scheduler, workers)
        counts = {address: Counter(_counts(each)) for address, each in workers.items()}
        at_work = {
            address for address, each in counts.items() if each["executing"] + each["flight"]
        }
        # A task that left the pool of its threads may only wait, as a fit in a task does.
        unsure = [address for address in counts.keys() - at_work if counts[address]["long-running"]]
        if unsure and self._tasks:
            given = await scheduler.processing(workers=unsure)
            at_work |= {at for at, names in given.items() if not self._tasks.isdisjoint(names)}
        for address, executing in self._executing.items():
            if self._tasks is not None and self._tasks.isdisjoint(executing()):
                at_work.discard(address)
        return _Seen(workers, at_work)

    def _hear(self, look: Future[_Seen]) -> None:
        if look.cancelled() or look.exception() is not None:
            return  # the silence goes on
        seconds, self._since_look, self._unheard = self._since_look, 0.0, 0.0
        workers, at_work = look.result()
        stuck = self._stuck(workers, seconds)
        for address in stuck - self._given_up.keys():
            self._give_up(address)
        able = {
            address
            for address, worker in workers.items()
            if worker["status"] == "running" and address not in stuck
        }
        self._alone = 0.0 if able else self._alone + seconds
        self._tell_whether(not able)
        is_idle = able and able.isdisjoint(at_work) and self._tasks is not None
        self._idle = self._idle + seconds if is_idle else 0.0

    def _tell_whether(self, is_alone: bool) -> None:
        """Tell as workers begin to be waited for, and as that ends."""
        if is_alone and not self._is_told:
            self._link.listener.waiting("workers", self._limits.timeout - self._alone)
        elif self._is_told and not is_alone:
            self._link.listener.waiting(None)
        self._is_told = is_alone

    def _stuck(self, workers: dict[str, Any], seconds: float) -> set[str]:
        """Workers that have sent no heartbeat for too long, by our own clock."""
        before, self._signs = self._signs, {}
        for address, worker in workers.items():
            seen, silent = before.get(address, (None, 0.0))
            same = seen == worker["last_seen"]
            self._signs[address] = (worker["last_seen"], silent + seconds if same else 0.0)
        limit = self._limits.stuck_after
        return {address for address, (_, silent) in self._signs.items() if silent > limit}

    def _give_up(self, address: str) -> None:
        self._link.listener.warn(
            f"Cluster: the worker at {address} has sent no sign of life for "
            f"{self._limits.stuck_after:g} s. It is given up, and restarted where it has a nanny."
        )
        scheduler = self._link.client.scheduler
        self._given_up[address] = _submitted(
            self._link.client,
            lambda: scheduler.restart_workers(
                workers=[address],
                timeout=RESTART_SECONDS,
                wait_for_workers=False,
                on_error="return",
                stimulus_id=f"gmm-dask-stuck-{time.time()}",
            ),
        )


def _counts(worker: dict[str, Any]) -> dict[str, int]:
    """How many tasks of each state a worker has."""
    found: dict[str, int] = worker["metrics"].get("task_counts", {})
    return found


def _submitted(client: Any, start: Callable[[], Awaitable[T]]) -> Future[T]:
    if client.status != "running":
        raise _cancelled("scheduler-connection-lost")
    import asyncio

    async def run() -> T:
        return await start()

    return asyncio.run_coroutine_threadsafe(run(), client.loop.asyncio_loop)


# Dask's reasons for a task that was cancelled, in words.
_CANCELLED = {
    "scheduler-connection-lost": "the connection to its scheduler was lost",
    "scheduler-restart": "its workers were restarted",
    "lost dependencies": "workers that held what others need are gone",
}


def loss(
    error: BaseException, futures: Iterable[Any] = (), names: Mapping[Any, Any] | None = None
) -> LostError | None:
    """The error as a loss of the cluster, where it is one, in our words: Dask's name raw keys.

    Parameters
    ----------
    futures : iterable of Future
        All that was asked for; those that failed with it name further suspects.
    names : mapping, optional
        What tasks were called for this attempt, by key.
    """
    from distributed.client import ClosedClientError, FutureCancelledError, FuturesCancelledError
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker, NoValidWorkerError, NoWorkerError

    if isinstance(error, LostError):
        return error
    if isinstance(error, KilledWorker):
        suspects = {error.task}
        for future in futures:
            found = future._state.exception if future.status == "error" else None
            suspects |= {found.task} if isinstance(found, KilledWorker) else set()
        keys = {name: key for key, name in (names or {}).items()}
        suspects = {keys.get(name, name) for name in suspects}
        return LostError("workers died on the same task again and again", suspects)
    if isinstance(error, (NoValidWorkerError, NoWorkerError)):
        return LostError("it had no worker that may run its tasks", no_worker=True)
    if isinstance(error, FuturesCancelledError):
        return _cancelled(error.error_groups[0].reason)
    if isinstance(error, FutureCancelledError):
        return _cancelled(error.reason)
    if isinstance(error, (ClosedClientError, CommClosedError)):
        return _cancelled("scheduler-connection-lost")
    return None


def _cancelled(reason: str) -> LostError:
    return LostError(_CANCELLED.get(reason, "what it was to compute was cancelled"))
