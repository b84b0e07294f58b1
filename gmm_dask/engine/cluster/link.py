"""A connection to a cluster, and who is told what becomes of its workers."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

from gmm_dask.sections import ClusterSpec

logger = logging.getLogger("gmm_dask")


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

    timeout: float = ClusterSpec.timeout
    stuck_after: float = ClusterSpec.stuck_after
    retries: int = ClusterSpec.retries

    @classmethod
    def of(cls, spec: ClusterSpec) -> Limits:
        """The limits that a cluster was asked for with."""
        return cls(spec.timeout, spec.stuck_after, spec.retries)


class Listener(Protocol):
    """Hears what becomes of a cluster while work is under way."""

    @property
    def under_way(self) -> str:
        """What is being computed, in words such as "pass 141"."""

    def warn(self, message: str) -> None:
        """Something was lost, and the work goes on."""

    def waiting(self, what: str | None, seconds: float = 0.0) -> None:
        """Nothing goes on before this is there, for at most so many seconds; None: it is there."""


class Log:
    """Writes to the log of this package what becomes of a cluster."""

    under_way = "the work"

    def warn(self, message: str) -> None:
        """See Listener."""
        logger.warning("%s", message)

    def waiting(self, what: str | None, seconds: float = 0.0) -> None:
        """See Listener."""
        if what is not None:
            logger.warning("Cluster: waiting for %s, at most %.0f s.", what, seconds)


class Roll:
    """The workers of a cluster, and how many were lost since somebody was told.

    Who calls the roll asks the scheduler in the event loop; who tells of it does so elsewhere.
    """

    def __init__(self) -> None:
        self._there: frozenset[str] = frozenset()
        self._losses: deque[tuple[int, int]] = deque()

    async def call(self, scheduler: Any, there: Collection[str] | None = None) -> None:
        """See which workers are there; those that left in good order are no loss.

        Parameters
        ----------
        there : collection of str, optional
            Addresses of the workers; the scheduler is asked for them where they are not given.
        """
        now = frozenset(await scheduler.ncores() if there is None else there)
        gone, n_before, self._there = self._there - now, len(self._there), now
        if gone:
            events = (event for _, event in await scheduler.events(topic="all"))
            retired = {event.get("worker") for event in events if event.get("expected")}
            self._losses.append((len(gone - retired), n_before))

    def lost(self) -> tuple[int, int]:
        """How many workers were lost since this was asked before, and of how many."""
        n_lost = n_before = 0
        while self._losses:
            n, before = self._losses.popleft()
            n_lost, n_before = n_lost + n, max(n_before, before)
        return n_lost, n_before


@dataclass(frozen=True, eq=False)
class Link:
    """A connection to a cluster.

    Parameters
    ----------
    client : distributed.Client
    limits : Limits
    listener : Listener
        Is told of what is lost and waited for.
    roll : Roll or None
        None where the loss of a worker is not worth a word.
    """

    client: Any
    limits: Limits = field(default_factory=Limits)
    listener: Listener = field(default_factory=Log)
    roll: Roll | None = None

    def tell(self) -> None:
        """Tell the listener of workers that were lost since it was told before."""
        n_lost, n_before = (0, 0) if self.roll is None else self.roll.lost()
        if n_lost:
            self.listener.warn(_in_words(n_lost, n_before, self.listener.under_way))


def _in_words(n_lost: int, n_before: int, under_way: str) -> str:
    """What the loss of workers means for what is under way."""
    if n_lost >= n_before:
        gone = "the only worker is gone" if n_before == 1 else f"all {n_before} workers are gone"
        return f"Cluster: {gone}; {under_way} is repeated as soon as there is another."
    who, whose = ("one", "its") if n_lost == 1 else (str(n_lost), "their")
    gone = f"{who} of {n_before} workers {'is' if n_lost == 1 else 'are'} gone"
    return f"Cluster: {gone}; {whose} part of {under_way} is repeated."
