"""What to do where a cluster was lost: open it anew, find the task that kills workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from dask._task_spec import GraphNode

from gmm_dask.engine.cluster.link import Limits, Link, Listener
from gmm_dask.engine.cluster.waiting import LostError, loss
from gmm_dask.errors import ClusterError, DeadlyChunkError

FIRST_PAUSE = 0.5  # seconds before the cluster is opened anew, doubled each time
LONGEST_PAUSE = 15.0
MAX_NAMED = 5  # a list people can read
SMALLER_CHUNKS = "make chunks smaller (memory.chunk_bytes, or rechunk of a Dask array)"

# What to start again; a worker ends with its scheduler.
BOTH = "Workers end with their scheduler: start both again"
GOES_ON = (
    "run the same command or flow again: a fit goes on from its last checkpoint, and label parts "
    "that are written are kept"
)

T = TypeVar("T")


Alone = Callable[[Link, Any, Mapping[Any, GraphNode]], object]


class About(Protocol):
    """What is known of the tasks of a graph beside the graph."""

    def name(self, key: Any) -> str | None:
        """What a task works on, in words; None where that has no name."""

    def halves(self, key: Any) -> Mapping[Any, GraphNode]:
        """Tasks that do the work of a task in two parts; none where the task cannot be cut."""


@dataclass(frozen=True)
class ItemNames:
    """Names of items, the index of which is the second part of the keys.

    Parameters
    ----------
    names : sequence of str
    """

    names: Sequence[str] = ()

    def name(self, key: Any) -> str | None:
        """See About."""
        index = key[1] if isinstance(key, tuple) and len(key) > 1 else None
        if not isinstance(index, int) or not 0 <= index < len(self.names):
            return None
        return f"chunk {index}: {self.names[index]}"

    def halves(self, key: Any) -> Mapping[Any, GraphNode]:
        """See About; an item is one."""
        return {}


NOTHING = ItemNames()


class NoSchedulerError(ClusterError):
    """No scheduler answers.

    Parameters
    ----------
    what : str
        The scheduler that does not answer, and for how long it has not.
    remedy : str
        Where it never did.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what} {remedy}")
        self.what = what


class Session(Protocol):
    """The connection to use at present."""

    @property
    def link(self) -> Link:
        """With a client that was there when it was last looked at."""

    def renew(self, lost: LostError) -> None:
        """Have a client that works again; raises ClusterError where there is none in time."""


class Given:
    """A client that somebody else opened, and will close.

    Parameters
    ----------
    client : distributed.Client
    limits : Limits, optional
    another : callable, optional
        Gives the client that is open where this one was closed: in the process of a worker tasks
        find each other's.
    """

    def __init__(
        self,
        client: Any,
        limits: Limits | None = None,
        another: Callable[[], Any] | None = None,
    ) -> None:
        self.link, self._another = Link(client, limits or Limits()), another
        self._address = client.scheduler.address

    def renew(self, lost: LostError) -> None:
        """Wait until the client found its scheduler again, by itself."""
        client, limits = self.link.client, self.link.limits
        if client.status == "connecting":
            self.link.listener.waiting("the scheduler", limits.timeout)
        deadline = time.monotonic() + limits.timeout
        while client.status in ("connecting", "closing") and time.monotonic() < deadline:
            time.sleep(0.1)
        if client.status == "closed" and self._another is not None:
            client = self._another() or client
        if client.status != "running" or client.scheduler.address != self._address:
            raise ClusterError(
                f"The cluster of the open Dask client was lost: {lost}. {BOTH}, open a client, and "
                "call this again."
            )
        if lost.no_worker:
            raise ClusterError(
                f"The cluster of the open Dask client was lost: {lost}. Start workers, and call "
                "this again."
            )
        listener = self.link.listener
        listener.warn(_again(lost, listener))
        self.link = replace(self.link, client=client)


class Opened:
    """A connection of our own; where it is lost, another is opened in its place.

    Parameters
    ----------
    open_link : callable
        Gives a context manager whose value is a Link, and whose errors are ClusterError.
    brings_workers : bool
        Whether opening anew starts workers too.
    """

    def __init__(
        self, open_link: Callable[[], AbstractContextManager[Link]], *, brings_workers: bool
    ) -> None:
        self._open, self._brings_workers = open_link, brings_workers
        self._context = open_link()
        self.link = self._context.__enter__()

    def renew(self, lost: LostError) -> None:
        """Close what is left of the old one and open another, with pauses that grow."""
        if lost.no_worker and not self._brings_workers:
            raise ClusterError(f"The cluster was lost: {lost}. Start workers, and {GOES_ON}.")
        self.close()
        limits, listener = self.link.limits, self.link.listener
        listener.warn(_again(lost, listener, " as soon as it is there again"))
        listener.waiting("the scheduler", limits.timeout)
        try:
            self._open_again(lost, limits)
        finally:
            listener.waiting(None)

    def _open_again(self, lost: LostError, limits: Limits) -> None:
        begun, pause = time.monotonic(), FIRST_PAUSE
        for attempt in range(1 + limits.retries):
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                self._context = self._open()
                self.link = self._context.__enter__()
            except ClusterError as error:
                if attempt == limits.retries or time.monotonic() - begun > limits.timeout:
                    now = f"{error} Then {GOES_ON}."
                    if isinstance(error, NoSchedulerError):
                        now = f"{error.what} {BOTH}, and {GOES_ON}."
                    raise ClusterError(
                        f"The cluster was lost ({lost}), and is not there again: {now}"
                    ) from error
            else:
                return

    def close(self) -> None:
        """Close the client, and the cluster where we opened that too."""
        with suppress(Exception):  # what is dead cannot be closed in due form
            self._context.__exit__(None, None, None)


def repeated(
    session: Session,
    work: Callable[[Link], T],
    *,
    alone: Alone | None = None,
    about: About = NOTHING,
) -> T:
    """`work(link)`, repeated where the cluster was lost meanwhile.

    Parameters
    ----------
    alone : (link, key, tasks) -> object, optional
        Runs one task, which may be among further tasks, and what it needs, to see whether it is
        the one that workers die on.
    about : About, optional
        What the tasks are called, and how they can be cut.

    Raises
    ------
    ClusterError
        It was lost for good, or too often.
    DeadlyChunkError
        A task kills the workers: it is named.
    """
    limits = session.link.limits
    for attempt in range(1 + limits.retries):
        link = session.link
        try:
            return work(link)
        except Exception as error:
            lost = loss(error) or _closed_meanwhile(link.client, error)
            if lost is None:
                raise
            lost = _with_names(lost, about)
            if attempt == limits.retries:
                raise ClusterError(_too_often(lost, limits)) from error
            if lost.suspects and not lost.no_worker and alone is not None:
                link.listener.warn(_again(lost, link.listener))
                _try_each(link, lost, alone, about)
            else:
                session.renew(lost)
    raise AssertionError("unreachable")


def _again(lost: LostError, listener: Listener, when: str = "") -> str:
    """A loss, and that what is under way is repeated, in words."""
    return f"Cluster: {lost}; {listener.under_way} is repeated{when}."


def _closed_meanwhile(client: Any, error: Exception) -> LostError | None:
    """What a client that gave up under way fails with: parts of it are gone."""
    if isinstance(error, (AttributeError, RuntimeError)) and client.status == "closed":
        return LostError("the connection to its scheduler was closed")
    return None


def _try_each(link: Link, lost: LostError, alone: Alone, about: About) -> None:
    """Tasks that wait on a worker are blamed for its death too: so each is run by itself.

    One that can be cut is run in halves, and the half that workers die on again in halves.
    """
    for key in sorted(lost.suspects, key=str):
        found = _deadly(link, key, {}, alone, about)
        if found is None:
            continue
        deadly, error = found
        raise DeadlyChunkError(
            f"Workers die on {named(deadly, about)}, also where it runs by itself. The usual "
            f"cause is memory: give the workers more, or {SMALLER_CHUNKS}."
        ) from error


def _deadly(
    link: Link, key: Any, tasks: Mapping[Any, GraphNode], alone: Alone, about: About
) -> tuple[Any, Exception] | None:
    """The smallest part of a task that workers die on, and the error; None where there is none."""
    halves = about.halves(key)
    if halves:
        parts = (_deadly(link, half, halves, alone, about) for half in halves)
        return next((part for part in parts if part is not None), None)
    try:
        alone(link, key, tasks)
    except Exception as error:
        found = loss(error)
        # An error of another kind is left to the pass, which will tell.
        return None if found is None or key not in found.suspects else (key, error)
    return None


def _with_names(lost: LostError, about: About) -> LostError:
    """A copy of the loss that also says in words what the workers were at when they ended."""
    if not lost.suspects:
        return lost
    where = "; ".join(named(key, about) for key in sorted(lost.suspects, key=str)[:MAX_NAMED])
    message = f"{lost}; when workers ended they were at {where}"
    return LostError(message, lost.suspects, no_worker=lost.no_worker)


def _too_often(lost: LostError, limits: Limits) -> str:
    times = "time" if limits.retries == 1 else "times"
    return (
        f"The cluster was lost during a pass that was repeated {limits.retries} {times}: {lost}. "
        f"Give the workers more memory, or {SMALLER_CHUNKS}, and see in their logs why they ended. "
        "The stage repeats a pass more often where cluster.retries is more."
    )


def named(key: Any, about: About) -> str:
    """What a task works on, in words; or its key."""
    return about.name(key) or f"the task {key!r}"
