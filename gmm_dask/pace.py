"""How far something is: counted, in words, and in lines that grow fewer as it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

LEAST_SECONDS = 2.0  # between two lines
SHARE = 0.05  # of the time so far that passes between two lines: an hour has some hundred
_TOLD = ("1", "2", "3", "5")

T = TypeVar("T")
Count = Callable[[int, int], None]  # so many are done, of so many


def counted(items: Iterable[T], of: int, tell: Count | None) -> Iterator[T]:
    """The items; whoever listens is told how many of them are through."""
    for done, item in enumerate(items, start=1):
        yield item
        if tell is not None:
            tell(done, of)


def in_words(phase: str, done: int, of: int | None, note: str = "") -> str:
    """What is done and how far it is, as a line; what nobody counts has its words alone."""
    how_far = f": {done:,}" if of is None else f": {done:,} of {of:,}"
    is_counted = done > 0 or of is not None
    return ", ".join(filter(None, (phase + how_far * is_counted, note)))


def is_round(number: int) -> bool:
    """Whether a number is one of 1, 2, 3, 5, 10, 20, 30, 50, 100 and so on."""
    return str(number).rstrip("0") in _TOLD


class Pace:
    """When a line is due: every LEAST_SECONDS at first, and later by a SHARE of the time so far.

    Parameters
    ----------
    clock : callable
        Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """A phase begins, and was told of."""
        self._begun = self._last = self._clock()

    def told(self) -> None:
        """A line was written."""
        self._last = self._clock()

    @property
    def is_due(self) -> bool:
        """Whether it is time for a line."""
        now = self._clock()
        return now - self._last >= max(LEAST_SECONDS, SHARE * (now - self._begun))
