"""Interleaved rounds: what disturbs the machine disturbs every contender."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import geometric_mean, median

from benchmarks.machine import quiet_moment

Run = Callable[[int], int]  # of a number of passes; those it did
LEAST, MOST = 3, 30  # passes that are timed


def per_pass(
    runs: Mapping[str, Run], rounds: int, least_seconds: float, patience: float = 0.0
) -> dict[str, dict[str, float]]:
    """Seconds per pass of each: the time of many passes less that of one, shared out.

    What a library does once, whatever the passes, so drops out. The many take `least_seconds` or
    are LEAST. Before each round the machine gets `patience` seconds to become quiet.
    """
    many = {name: 1 + _enough(run, least_seconds) for name, run in runs.items()}
    done = {name: run(many[name]) for name, run in runs.items()}
    short: dict[str, list[float]] = {name: [] for name in runs}
    long: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        if patience:
            quiet_moment(patience)
        for name, run in runs.items():
            short[name].append(seconds(run, 1))
            long[name].append(seconds(run, many[name]))
    return {name: _difference(short[name], long[name], max(2, done[name])) for name in runs}


def seconds(work: Callable[..., object], *arguments: object) -> float:
    """Wall time of a call."""
    begun = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - begun


def summary(ratios: list[float]) -> dict[str, float]:
    """Geometric mean and least of ratios."""
    return {"geometric_mean": geometric_mean(ratios), "least": min(ratios)}


def _enough(run: Run, least_seconds: float) -> int:
    """Passes that take so long; the first call compiles, loads and touches memory."""
    run(1)
    each = (seconds(run, LEAST) - seconds(run, 1)) / (LEAST - 1)
    return min(MOST, max(LEAST, round(least_seconds / max(each, 1e-6))))


def _difference(short: list[float], long: list[float], passes: int) -> dict[str, float]:
    """The median of rounds, and the least times of all rounds; all of it where noise is more."""
    each = [b - a if b > a else b for a, b in zip(short, long, strict=True)]
    best = min(long) - min(short)
    return {
        "median": median(each) / (passes - 1),
        "best": (best if best > 0 else min(long)) / (passes - 1),
    }
