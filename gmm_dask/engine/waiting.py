"""Waiting for a cluster: as long as it works, and no longer than it may be away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

logger = logging.getLogger("gmm_dask")

TICK_SECONDS = 0.1
LOOK_SECONDS = 1.0  # between two looks at the workers, or a quarter of what they are looked at for
LONGEST_TICK = 2.0  # that counts: where this process was suspended itself, nobody else was late
RESTART_SECONDS = 10

# What a worker that is at work on a task counts it as; all else may be for ever.
_AT_WORK = ("executing", "long-running", "flight")

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """How long to wait for what is lost, and how often to try again.

    Parameters
    ----------
    timeout : float
        Seconds that the scheduler, or every worker, may be away.
    stuck_after : float
        Seconds without a sign of life after which a worker is given up.
    retries : int
        Times that a pass is repeated.
    """

    timeout: float = 60.0
    stuck_after: float = 60.0
    retries: int = 3


DEFAULT_LIMITS = Limits()


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
    client: Any,
    start: Callable[[], Awaitable[T]],
    limits: Limits,
    *,
    tell: Callable[[], None] | None = None,
    of_tasks: bool = False,
) -> T:
    """What the coroutine returns that `start` makes in the client's event loop.

    Parameters
    ----------
    tell : callable, optional
        Called every now and then while it is waited for.
    of_tasks : bool
        Whether it ends with tasks, so that a worker must be at work on one.

    Raises
    ------
    LostError
        The scheduler or all workers were away for too long.
    """
    vigil = Vigil(client, limits, of_tasks)
    running = _submitted(client, start)
    try:
        while not wait([running], TICK_SECONDS).done:
            if tell is not None:
                tell()
            vigil.tick()
        return running.result()
    finally:
        vigil.end()
        if not of_tasks:  # what waits for futures ends with them, and quietly
            running.cancel()


def asked(client: Any, start: Callable[[], Awaitable[T]], limits: Limits) -> T:
    """The same for a question to the scheduler, whose failure means that it is lost."""
    try:
        return waited(client, start, limits)
    except (OSError, CancelledError) as error:
        raise LostError(f"its scheduler could not be asked: {error}") from error


def last_tasks(
    client: Any, limits: Limits, among: Collection[Any], names: Mapping[Any, Any]
) -> set[Any]:
    """Those tasks that most of the workers which ended were at, if the scheduler still knows."""
    try:
        events = asked(client, lambda: client.scheduler.events(topic="all"), limits)
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


class Vigil:
    """Looks at the scheduler and the workers while something is waited for."""

    def __init__(self, client: Any, limits: Limits, of_tasks: bool = False) -> None:
        self._client, self._limits, self._of_tasks = client, limits, of_tasks
        self._every = min(LOOK_SECONDS, limits.timeout / 4, limits.stuck_after / 4)
        self._clock = time.monotonic()
        self._look: Future[Any] | None = None
        self._unheard = self._since_look = 0.0
        self._alone = self._idle = 0.0
        self._signs: dict[str, tuple[float, float]] = {}  # last seen, and seconds since then
        self._given_up: dict[str, Future[Any]] = {}

    def tick(self) -> None:
        """Count the seconds since the last call; raises LostError where they are too many."""
        now = time.monotonic()
        seconds = min(now - self._clock, LONGEST_TICK)
        self._clock = now
        self._unheard += seconds
        self._since_look += seconds
        if self._look is not None and self._look.done():
            self._hear(self._look)
            self._look = None
        elif self._look is None and self._since_look >= self._every:
            self._look = _submitted(self._client, lambda: self._client.scheduler.identity())
        self._check()

    def end(self) -> None:
        """Forget a question that is not answered yet."""
        if self._look is not None:
            self._look.cancel()

    def _check(self) -> None:
        limit = self._limits.timeout
        if self._unheard > limit:
            raise LostError(f"its scheduler did not answer for {limit:g} s")
        if self._alone > limit:
            raise LostError(f"it had no worker that can work for {limit:g} s", no_worker=True)
        if self._idle > limit:
            raise LostError(f"no worker did anything for {limit:g} s, though there was work")

    def _hear(self, look: Future[Any]) -> None:
        if look.cancelled() or look.exception() is not None:
            return  # the silence goes on
        seconds, self._since_look, self._unheard = self._since_look, 0.0, 0.0
        workers = look.result()["workers"]
        stuck = self._stuck(workers, seconds)
        for address in stuck - self._given_up.keys():
            self._give_up(address)
        able = [
            worker
            for address, worker in workers.items()
            if worker["status"] == "running" and address not in stuck
        ]
        self._alone = 0.0 if able else self._alone + seconds
        at_work = not able or not self._of_tasks or any(_is_at_work(worker) for worker in able)
        self._idle = 0.0 if at_work else self._idle + seconds

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
        logger.warning(
            "The worker at %s has sent no sign of life for %g s: it is given up, and restarted "
            "where it has a nanny.",
            address,
            self._limits.stuck_after,
        )
        self._given_up[address] = _submitted(
            self._client,
            lambda: self._client.scheduler.restart_workers(
                workers=[address],
                timeout=RESTART_SECONDS,
                wait_for_workers=False,
                on_error="return",
                stimulus_id=f"gmm-dask-stuck-{time.time()}",
            ),
        )


def _is_at_work(worker: dict[str, Any]) -> bool:
    counts = worker["metrics"].get("task_counts", {})
    return any(counts.get(state) for state in _AT_WORK)


def _submitted(client: Any, start: Callable[[], Awaitable[T]]) -> Future[T]:
    if client.status not in ("running", "connecting"):
        raise LostError("the connection to its scheduler is closed")

    async def run() -> T:
        return await start()

    return asyncio.run_coroutine_threadsafe(run(), client.loop.asyncio_loop)


def loss(
    error: BaseException, futures: Iterable[Any] = (), names: Mapping[Any, Any] | None = None
) -> LostError | None:
    """The error as a loss of the cluster, where it is one.

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
        return LostError(f"it had no worker ({error})", no_worker=True)
    cancelled = (FutureCancelledError, FuturesCancelledError, ClosedClientError, CommClosedError)
    if isinstance(error, cancelled):
        return LostError(f"the connection to it was lost ({error})")
    return None
