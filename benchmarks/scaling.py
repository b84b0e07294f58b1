"""How time grows with rows, threads, processes and chunks, and memory with the chunk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.data import mixture, write_parquet
from benchmarks.per_pass import GRID
from benchmarks.stored import chunks_of, em_pass, in_memory
from benchmarks.timing import seconds
from gmm_dask.engine import ClusterSpec, LocalBackend, open_backend

D, K = 16, 16
ROWS = 1_000_000
CHUNK_MIB = (1, 4, 16, 64)


def measure(quick: bool = False, patience: float = 0.0) -> dict[str, Any]:
    """Every table; the median and the best of rounds."""
    rows, rounds = (20_000, 1) if quick else (ROWS, 5)
    timed = partial(_timed, rounds=rounds, patience=patience)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_parquet(folder / "data", rows, D, K)
        return {
            "d": D,
            "k": K,
            "rows": _rows(folder, rows, timed),
            "workers": _workers(folder, rows, timed),
            "chunks": _chunks(folder, rows, timed),
            "memory": [_memory(d, k, quick) for d, k in GRID],
            "load": machine.load(),
        }


Timed = Callable[[dict[Any, Callable[[], None]]], dict[Any, dict[str, float]]]


def _timed(
    works: dict[Any, Callable[[], None]], rounds: int, patience: float
) -> dict[Any, dict[str, float]]:
    """Seconds of each, in interleaved rounds after one that warms up."""
    times: dict[Any, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        if patience:
            machine.quiet_moment(patience)
        for name, work in works.items():
            times[name].append(seconds(work))
    return {name: {"median": median(each), "best": min(each)} for name, each in times.items()}


def _rows(folder: Path, rows: int, timed: Timed) -> list[dict[str, Any]]:
    """One thread, parts of the same rows in memory."""
    backend, start = LocalBackend(1), mixture(D, K)
    works = {}
    for part in (8, 4, 2, 1):
        data = folder / f"rows-{part}"
        write_parquet(data, rows // part, D, K)
        chunks = in_memory(chunks_of(data, folder / "unused"), backend)
        works[rows // part] = partial(em_pass, chunks, backend, start)
    return _told("rows", timed(works), rows_of=lambda n: n)


def _workers(folder: Path, rows: int, timed: Timed) -> list[dict[str, Any]]:
    """Threads and processes; the chunks are held where the work is done."""
    start, every = mixture(D, K), os.cpu_count() or 1
    chunks = chunks_of(folder / "data", folder / "unused", 8 << 20)
    with open_backend(ClusterSpec(kind="processes", workers=every)) as processes:
        backends = {f"{n} threads": LocalBackend(n) for n in sorted({1, 2, every})}
        backends[f"{every} processes"] = processes
        works = {}
        for name, backend in backends.items():
            works[name] = partial(em_pass, in_memory(chunks, backend), backend, start)
        return _told("workers", timed(works), rows_of=lambda _: rows)


def _chunks(folder: Path, rows: int, timed: Timed) -> list[dict[str, Any]]:
    """All threads, rows in memory, chunks of several sizes."""
    backend, start = LocalBackend(os.cpu_count() or 1), mixture(D, K)
    works = {}
    for mib in CHUNK_MIB:
        chunks = chunks_of(folder / "data", folder / "unused", mib << 20)
        works[mib] = partial(em_pass, in_memory(chunks, backend), backend, start)
    return _told("chunk_mib", timed(works), rows_of=lambda _: rows)


def _told(
    what: str, found: dict[Any, dict[str, float]], rows_of: Callable[[Any], int]
) -> list[dict[str, Any]]:
    entries = []
    for name, each in found.items():
        ns = {kind: value / rows_of(name) * 1e9 for kind, value in each.items()}
        entries.append({what: name, "seconds": each, "ns": ns})
        print(f"{what} {name}: {each['best']:.3f} s a pass, {ns['best']:.0f} ns a row", flush=True)
    return entries


def _memory(d: int, k: int, quick: bool) -> dict[str, Any]:
    """Of one E-step on one thread, in a process of its own."""
    n = 20_000 if quick else 400_000
    command = [sys.executable, "-m", "benchmarks.programs.memory", str(d), str(k), str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {"d": d, "k": k, "chunk_mib": n * d * 8 / 2**20, "beyond_mib": json.loads(done.stdout)}
    print(f"d={d} k={k}: {found['beyond_mib']:.2f} MiB beyond a chunk of {found['chunk_mib']:.0f}")
    return found
