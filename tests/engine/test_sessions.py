"""How often lost work is repeated, and a lost cluster is opened anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gmm_dask.engine.cluster import recovery
from gmm_dask.engine.cluster.link import Limits, Link
from gmm_dask.engine.cluster.recovery import Opened, repeated
from gmm_dask.engine.cluster.waiting import LostError
from gmm_dask.errors import ClusterError, DataError

QUICK = Limits(timeout=2, stuck_after=2, retries=2)


class Sessions:
    """Counts how often another client was asked for."""

    link = Link(None, QUICK)

    def __init__(self) -> None:
        self.n = 0

    def renew(self, lost: LostError) -> None:
        self.n += 1


def test_a_pass_is_repeated_as_often_as_the_limit_says() -> None:
    sessions, attempts = Sessions(), []

    def work(link: Link) -> None:
        attempts.append(link)
        raise LostError("the network is down")

    with pytest.raises(ClusterError, match=r"repeated 2 times: the network is down.*retries"):
        repeated(sessions, work)
    assert (len(attempts), sessions.n) == (3, 2)


def test_what_tasks_raise_is_not_repeated() -> None:
    attempts = []

    def work(link: Link) -> None:
        attempts.append(link)
        raise DataError("no such rows")

    with pytest.raises(DataError, match="no such rows"):
        repeated(Sessions(), work)
    assert len(attempts) == 1


def test_a_cluster_is_opened_anew_until_the_limit_and_closed_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery, "FIRST_PAUSE", 0.0)
    open_now: list[int] = []
    tries: list[int] = []

    @contextmanager
    def link() -> Iterator[Link]:
        tries.append(len(tries))
        if len(tries) in (2, 5, 6, 7):
            raise ClusterError("no room")
        open_now.append(1)
        try:
            yield Link(f"client {len(tries)}", Limits(timeout=60, retries=1))
        finally:
            open_now.pop()

    session = Opened(link, brings_workers=True)
    session.renew(LostError("it burns"))  # the second try is in vain
    assert (session.link.client, len(tries), len(open_now)) == ("client 3", 3, 1)
    session.renew(LostError("it burns"))
    assert (session.link.client, len(open_now)) == ("client 4", 1)
    with pytest.raises(ClusterError, match=r"lost \(it burns\), and is not there again: no room"):
        session.renew(LostError("it burns"))
    assert len(tries) == 6
    session.close()
    assert open_now == []
