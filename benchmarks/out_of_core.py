"""More rows than the budget holds: a pass against decoding alone and computing alone."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.data import mixture, write_parquet
from benchmarks.programs.job import Job, carry_out
from benchmarks.stored import chunks_of, decode, em_pass, in_memory
from benchmarks.timing import seconds
from gmm_dask.engine import LocalBackend

SHAPES = ((8, 8), (16, 16))
TIMES = 8  # as large as the budget are the decoded rows
PASSES = 4
PARTS = ("pass", "decode", "compute")


def measure(quick: bool = False, patience: float = 0.0) -> dict[str, Any]:
    """For each shape seconds per pass, of its parts alone, and the peak of a process's memory."""
    entries = []
    for d, k in SHAPES:
        rows = (40_000 if quick else 64_000_000) // d
        with tempfile.TemporaryDirectory() as folder:
            write_parquet(Path(folder, "data"), rows, d, k)
            entry = {"d": d, "k": k, "rows": rows, "decoded_mib": rows * d * 8 / 2**20}
            entry |= _passes(Path(folder), d, k, 1 if quick else 5, patience)
            entry |= _process(Path(folder), rows * d * 8 // TIMES, k)
        entry |= {"load": machine.load()}
        entries.append(entry)
        print(line(entry), flush=True)
    return {"threads": os.cpu_count(), "times_the_budget": TIMES, "entries": entries}


def line(entry: dict[str, Any]) -> str:
    """One entry for the eye."""
    parts = ", ".join(f"{name} {entry[name]['best']:.2f} s" for name in PARTS)
    return (
        f"d={entry['d']} k={entry['k']}, {entry['rows']} rows: {parts}, a pass is "
        f"{entry['overhead']:.2f} times the larger part; peak {entry['peak_mib']:.0f} MiB "
        f"for {entry['decoded_mib']:.0f} MiB of rows"
    )


def _passes(folder: Path, d: int, k: int, rounds: int, patience: float) -> dict[str, Any]:
    """Nothing held; the parts in interleaved rounds, all threads."""
    backend, start = LocalBackend(os.cpu_count() or 1), mixture(d, k)
    chunks = chunks_of(folder / "data", folder / "unused")
    held = in_memory(chunks, backend)
    parts = {
        "pass": partial(em_pass, chunks, backend, start),
        "decode": partial(decode, chunks, backend),
        "compute": partial(em_pass, held, backend, start),
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for work in parts.values():
        work()
    for _ in range(rounds):
        if patience:
            machine.quiet_moment(patience)
        for name, work in parts.items():
            times[name].append(seconds(work))
    found: dict[str, Any] = {
        name: {"median": median(each), "best": min(each)} for name, each in times.items()
    }
    found["overhead"] = _overhead(found, "best")
    found["overhead_of_medians"] = _overhead(found, "median")
    return found


def _overhead(found: dict[str, Any], kind: str) -> float:
    return float(found["pass"][kind] / max(found["decode"][kind], found["compute"][kind]))


def _process(folder: Path, budget: int, k: int) -> dict[str, Any]:
    """The whole stage in a process of its own that may hold `budget` bytes."""
    job = Job(
        data=str(folder / "data"),
        out=str(folder / "out"),
        k=k,
        tol=0,
        threads=os.cpu_count() or 1,
        fit={"max_iter": PASSES},
        memory={"held_bytes": budget},
    )
    found = carry_out("with_gmm_dask", job)
    return {
        "budget_mib": budget / 2**20,
        "peak_mib": found["peak_mib"],
        "held_mib": found["bytes_held"] / 2**20,
        "stage_pass_seconds": found["seconds"]["passes"],
    }
