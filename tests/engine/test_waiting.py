"""Who waits for a cluster ends in time when it is gone, and never while it works."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from gmm_dask.engine import waiting
from gmm_dask.engine.waiting import Limits, LostError, Vigil, asked, waited

LIMITS = Limits(timeout=60, stuck_after=30)

Worker = Callable[[], dict[str, Any]]


def worker(status: str = "running", beats: bool = True, **tasks: int) -> Worker:
    seen = itertools.count() if beats else itertools.repeat(0)
    return lambda: {"status": status, "last_seen": next(seen), "metrics": {"task_counts": tasks}}


class Scheduler:
    """Tells of workers that are as the test wants them."""

    def __init__(self, *workers: Worker, hangs: bool = False) -> None:
        self._workers, self.hangs = workers, hangs
        self.restarted: list[str] = []

    async def identity(self) -> dict[str, Any]:
        return {"workers": {f"tcp://{i}": each() for i, each in enumerate(self._workers)}}

    async def restart_workers(self, workers: list[str], **options: Any) -> None:
        self.restarted += workers


class Clock:
    """Keeps a vigil for some seconds of its own, in steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now = 0.0
        times = SimpleNamespace(monotonic=lambda: self._now, time=lambda: self._now)
        monkeypatch.setattr(waiting, "time", times)
        monkeypatch.setattr(waiting, "_submitted", self._answer)

    def keep(self, vigil: Vigil, seconds: float, step: float = 0.5) -> None:
        for _ in range(int(seconds / step)):
            self._now += step
            vigil.tick()

    @staticmethod
    def _answer(client: Any, start: Callable[[], Awaitable[Any]]) -> Future[Any]:
        async def run() -> Any:
            return await start()

        answer: Future[Any] = Future()
        if not client.scheduler.hangs:
            answer.set_result(asyncio.run(run()))
        return answer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def vigil_at(scheduler: Scheduler) -> Vigil:
    return Vigil(SimpleNamespace(scheduler=scheduler), LIMITS, of_tasks=True)


LOST = {
    "no worker": (Scheduler(), "no worker that can work for 60 s"),
    "all paused": (Scheduler(worker("paused", executing=1)), "no worker that can work for 60 s"),
    "no heartbeat": (Scheduler(worker(beats=False, executing=1)), "no worker that can work"),
    "hangs": (Scheduler(worker(executing=1), hangs=True), "scheduler did not answer for 60 s"),
    "nobody at work": (Scheduler(worker(memory=5, ready=1)), "no worker did anything for 60 s"),
}


@pytest.mark.parametrize("case", list(LOST))
def test_what_is_gone_is_named_after_its_limit_and_not_before(case: str, clock: Clock) -> None:
    scheduler, said = LOST[case]
    vigil = vigil_at(scheduler)
    clock.keep(vigil, 58)
    with pytest.raises(LostError, match=said):
        clock.keep(vigil, 64 + LIMITS.stuck_after - 58)


def test_an_honest_task_may_take_longer_than_any_limit(clock: Clock) -> None:
    others = worker("paused"), worker(memory=3)
    clock.keep(vigil_at(Scheduler(worker(executing=1), *others)), 3600)


def test_a_worker_without_heartbeats_is_restarted_once(clock: Clock) -> None:
    scheduler = Scheduler(worker(executing=1), worker(beats=False, executing=1))
    vigil = vigil_at(scheduler)
    clock.keep(vigil, LIMITS.stuck_after - 2)
    assert scheduler.restarted == []
    clock.keep(vigil, 600)
    assert scheduler.restarted == ["tcp://1"]


def test_time_in_which_this_process_was_suspended_does_not_count(clock: Clock) -> None:
    vigil = vigil_at(Scheduler(hangs=True))
    clock.keep(vigil, 20 * 3600, step=3600)
    with pytest.raises(LostError, match="did not answer"):
        clock.keep(vigil, 40)


@pytest.fixture
def client() -> Iterator[Any]:
    """A client whose event loop runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield SimpleNamespace(status="running", loop=SimpleNamespace(asyncio_loop=loop))
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


async def work() -> str:
    await asyncio.sleep(0.01)
    return "done"


async def fails() -> None:
    raise OSError("no such file")


def test_a_question_that_fails_is_a_loss_and_work_that_fails_is_not(client: Any) -> None:
    assert waited(client, work, LIMITS) == asked(client, work, LIMITS) == "done"
    with pytest.raises(LostError, match="could not be asked: no such file"):
        asked(client, fails, LIMITS)
    with pytest.raises(OSError, match="no such file"):
        waited(client, fails, LIMITS)


def test_a_closed_client_is_lost_at_once(client: Any) -> None:
    client.status = "closed"
    with pytest.raises(LostError, match="is closed"):
        waited(client, work, LIMITS)
