"""What to do where a cluster was lost: open it anew, find the task that kills workers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol, TypeVar

from gmm_dask.engine.waiting import Limits, LostError, loss
from gmm_dask.errors import ClusterError, DeadlyChunkError

logger = logging.getLogger("gmm_dask")

FIRST_PAUSE = 0.5  # seconds before the cluster is opened anew, doubled each time
LONGEST_PAUSE = 15.0
MAX_NAMED = 5  # a list people can read

T = TypeVar("T")


class Session(Protocol):
    """The client to use at present."""

    @property
    def client(self) -> Any:
        """A distributed.Client."""

    def renew(self, lost: LostError, limits: Limits) -> None:
        """Have a client that works again; raises ClusterError where there is none in time."""


class Given:
    """A client that somebody else opened, and will close."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def renew(self, lost: LostError, limits: Limits) -> None:
        """Wait until the client found its scheduler again, by itself."""
        deadline = time.monotonic() + limits.timeout
        while self.client.status == "connecting" and time.monotonic() < deadline:
            time.sleep(0.1)
        if self.client.status != "running" or lost.no_worker:
            raise ClusterError(f"The cluster of the open Dask client was lost: {lost}. {REMEDY}")


class Opened:
    """A client of our own; where it is lost, another is opened in its place.

    Parameters
    ----------
    open_client : callable
        Gives a context manager whose value is the client.
    brings_workers : bool
        Whether opening anew starts workers too.
    """

    def __init__(
        self, open_client: Callable[[], AbstractContextManager[Any]], *, brings_workers: bool
    ) -> None:
        self._open, self._brings_workers = open_client, brings_workers
        self._context = open_client()
        self.client = self._context.__enter__()

    def renew(self, lost: LostError, limits: Limits) -> None:
        """Close what is left of the old one and open another, with pauses that grow."""
        if lost.no_worker and not self._brings_workers:
            raise ClusterError(f"The cluster was lost: {lost}. {REMEDY}")
        self.close()
        begun, pause = time.monotonic(), FIRST_PAUSE
        for attempt in range(1 + limits.retries):
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                self._context = self._open()
                self.client = self._context.__enter__()
            except ClusterError as error:
                if attempt == limits.retries or time.monotonic() - begun > limits.timeout:
                    raise ClusterError(
                        f"The cluster was lost ({lost}), and is not there again: {error}"
                    ) from error
            else:
                return

    def close(self) -> None:
        """Close the client, and the cluster where we opened that too."""
        with suppress(Exception):  # what is dead cannot be closed in due form
            self._context.__exit__(None, None, None)


REMEDY = "Start its workers again, and run once more: what is already stored is kept."


def repeated(
    session: Session,
    limits: Limits,
    work: Callable[[Any], T],
    *,
    alone: Callable[[Any, Any], object] | None = None,
    names: Sequence[str] | None = None,
) -> T:
    """`work(client)`, repeated where the cluster was lost meanwhile.

    Parameters
    ----------
    alone : (client, key) -> object, optional
        Runs one task and what it needs, to see whether it is the one that workers die on.
    names : sequence of str, optional
        What each chunk is called in messages.

    Raises
    ------
    ClusterError
        It was lost for good, or too often.
    DeadlyChunkError
        A task kills the workers: it is named.
    """
    for attempt in range(1 + limits.retries):
        try:
            return work(session.client)
        except Exception as error:
            lost = loss(error) or _closed_meanwhile(session.client, error)
            if lost is None:
                raise
            lost = _with_names(lost, names)
            if attempt == limits.retries:
                raise ClusterError(_too_often(lost, limits)) from error
            logger.warning("The cluster was lost during a pass: %s. The pass is repeated.", lost)
            if lost.suspects and not lost.no_worker and alone is not None:
                _try_each(session, lost, alone, names)
            else:
                session.renew(lost, limits)
    raise AssertionError("unreachable")


def _closed_meanwhile(client: Any, error: Exception) -> LostError | None:
    """What a client that gave up under way fails with: parts of it are gone."""
    if isinstance(error, (AttributeError, RuntimeError)) and client.status == "closed":
        return LostError(f"the connection to its scheduler was closed ({error})")
    return None


def _try_each(
    session: Session,
    lost: LostError,
    alone: Callable[[Any, Any], object],
    names: Sequence[str] | None,
) -> None:
    """Tasks that wait on a worker are blamed for its death too: so each is run by itself."""
    for key in sorted(lost.suspects, key=str):
        try:
            alone(session.client, key)
        except Exception as error:
            found = loss(error)
            if found is None or key not in found.suspects:
                continue  # of another kind: the pass will tell
            raise DeadlyChunkError(
                f"Workers die on {named(key, names)}, also where it runs by itself. The usual "
                "cause is memory: lower memory.chunk_bytes or give the workers more."
            ) from error


def _with_names(lost: LostError, names: Sequence[str] | None) -> LostError:
    """The same with what the workers were at when they ended, in words."""
    if not lost.suspects:
        return lost
    where = "; ".join(named(key, names) for key in sorted(lost.suspects, key=str)[:MAX_NAMED])
    message = f"{lost}; when workers ended they were at {where}"
    return LostError(message, lost.suspects, no_worker=lost.no_worker)


def _too_often(lost: LostError, limits: Limits) -> str:
    times = "time" if limits.retries == 1 else "times"
    return (
        f"The cluster was lost during a pass that was repeated {limits.retries} {times}: {lost}. "
        "Give the workers more memory (or lower memory.chunk_bytes), see in their logs why they "
        "ended, or raise cluster.retries."
    )


def named(key: Any, names: Sequence[str] | None) -> str:
    """The chunk of a task, whose key has its index in the second place; or the key."""
    index = key[1] if isinstance(key, tuple) and len(key) > 1 else None
    if names is None or not isinstance(index, int) or not 0 <= index < len(names):
        return f"the task {key!r}"
    return f"chunk {index}: {names[index]}"
