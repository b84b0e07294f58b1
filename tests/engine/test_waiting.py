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

from gmm_dask.engine.cluster import waiting
from gmm_dask.engine.cluster.link import Limits, Link, Roll
from gmm_dask.engine.cluster.waiting import LostError, Vigil, asked, waited

LIMITS = Limits(timeout=60, stuck_after=30)

Worker = Callable[[], dict[str, Any]]


def worker(status: str = "running", beats: bool = True, **tasks: int) -> Worker:
    seen = itertools.count() if beats else itertools.repeat(0)
    return lambda: {"status": status, "last_seen": next(seen), "metrics": {"task_counts": tasks}}


class Scheduler:
    """Tells of workers that are as the test wants them."""

    def __init__(self, *workers: Worker, hangs: bool = False, given: str = "") -> None:
        self._workers, self.hangs, self.given = workers, hangs, given.split()
        self.restarted: list[str] = []

    async def identity(self) -> dict[str, Any]:
        return {"workers": {f"tcp://{i}": each() for i, each in enumerate(self._workers)}}

    async def processing(self, workers: list[str]) -> dict[str, list[str]]:
        return {address: self.given if address == "tcp://0" else [] for address in workers}

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


class Heard:
    """A listener that keeps what it hears."""

    under_way = "pass 7"

    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, message: str) -> None:
        self.said.append(message)

    def waiting(self, what: str | None, seconds: float = 0.0) -> None:
        self.said.append(f"waiting for {what}, {seconds:.0f} s")


def link_to(client: Any, heard: Heard | None = None, roll: Roll | None = None) -> Link:
    return Link(client, LIMITS, heard or Heard(), roll)


def vigil_at(
    scheduler: Scheduler, heard: Heard | None = None, idle_after: float | None = None
) -> Vigil:
    return Vigil(
        link_to(SimpleNamespace(scheduler=scheduler, status="running"), heard), {"ours"}, idle_after
    )


LOST = {
    "no worker": (Scheduler(), "no worker that can work for 60 s"),
    "all paused": (Scheduler(worker("paused", executing=1)), "no worker that can work for 60 s"),
    "no heartbeat": (Scheduler(worker(beats=False, executing=1)), "no worker that can work"),
    "hangs": (Scheduler(worker(executing=1), hangs=True), "scheduler did not answer for 60 s"),
    "nobody at work": (Scheduler(worker(memory=5, ready=1)), "no worker did anything for 60 s"),
    "only fits in tasks": (
        Scheduler(worker(**{"long-running": 4, "ready": 1}), given="theirs"),
        "no worker did anything for 60 s",
    ),
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


def test_what_has_to_begin_soon_is_given_up_soon_but_a_worker_is_waited_for(clock: Clock) -> None:
    at_work = worker(executing=1)
    clock.keep(vigil_at(Scheduler(at_work), idle_after=5), 600)
    clock.keep(vigil_at(Scheduler(), idle_after=5), 50)
    with pytest.raises(LostError, match="no worker did anything for 5 s"):
        clock.keep(vigil_at(Scheduler(worker(ready=1)), idle_after=5), 10)


def test_a_task_of_ours_that_left_its_pool_is_at_work(clock: Clock) -> None:
    scheduler = Scheduler(worker(**{"long-running": 1}), given="theirs ours")
    clock.keep(vigil_at(scheduler), 3600)


def test_that_workers_are_waited_for_is_said_once_and_that_it_is_over(clock: Clock) -> None:
    heard, status, at_work = Heard(), ["paused"], worker(executing=1)
    vigil = vigil_at(Scheduler(lambda: at_work() | {"status": status[0]}), heard)
    clock.keep(vigil, 30)
    (said,) = heard.said
    assert said.startswith("waiting for workers, 5")
    status[0] = "running"
    clock.keep(vigil, 30)
    vigil.end()
    assert heard.said[1:] == ["waiting for None, 0 s"]


class Ncores:
    """A scheduler that answers from a list which workers there are."""

    def __init__(self, *answers: str, retired: str = "") -> None:
        self._answers, self._retired = iter(answers), retired

    async def ncores(self) -> dict[str, int]:
        return dict.fromkeys(next(self._answers), 1)

    async def events(self, topic: str) -> list[tuple[float, dict[str, Any]]]:
        gone = {"action": "remove-worker", "expected": True}
        return [(0.0, gone | {"worker": worker}) for worker in self._retired]


@pytest.mark.parametrize(
    ("answers", "retired", "said"),
    [
        (("ab", "a"), "", "one of 2 workers is gone; its part of pass 7 is repeated"),
        (("ab", "bc"), "", "one of 2 workers is gone; its part of pass 7 is repeated"),
        (("abcd", "abc", "a"), "", "3 of 4 workers are gone; their part of pass 7 is repeated"),
        (("a", ""), "", "the only worker is gone; pass 7 is repeated as soon as there is another"),
        (("ab", "c"), "", "all 2 workers are gone; pass 7 is repeated as soon as there is another"),
        (("abc", "a"), "b", "one of 3 workers is gone; its part of pass 7 is repeated"),
        (("abc", "ab"), "c", None),
        (("a", "ab", "abc"), "", None),
    ],
)
def test_lost_workers_are_counted_in_words(
    answers: tuple[str, ...], retired: str, said: str | None
) -> None:
    heard, scheduler = Heard(), Ncores(*answers, retired=retired)
    link = link_to(None, heard, Roll())
    assert link.roll is not None
    for _ in answers:
        asyncio.run(link.roll.call(scheduler))
    link.tell()
    link.tell()
    assert heard.said == ([] if said is None else [f"Cluster: {said}."])


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
    link = link_to(client)
    assert waited(link, work) == asked(link, work) == "done"
    with pytest.raises(LostError, match="could not be asked: no such file"):
        asked(link, fails)
    with pytest.raises(OSError, match="no such file"):
        waited(link, fails)


@pytest.mark.parametrize("status", ["closed", "connecting"])
def test_a_client_without_a_connection_is_lost_at_once(client: Any, status: str) -> None:
    async def without_end() -> None:
        client.status = status
        await asyncio.sleep(60)

    for what in (without_end, work):
        with pytest.raises(LostError, match="the connection to its scheduler was lost"):
            waited(link_to(client), what)
