"""More rows than the budget holds: passes, with scratch too, against their parts alone."""

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
from benchmarks.stored import chunks_of, decode, em_pass, in_memory, in_scratch
from benchmarks.timing import seconds
from gmm_dask.engine import LocalBackend, release

SHAPES = ((8, 8), (16, 16))
TIMES = 10  # as large as the budget are the decoded rows
PASSES = 4
PARTS = ("pass", "pass with scratch", "decode", "compute")


def measure(quick: bool = False, patience: float = 0.0) -> dict[str, Any]:
    """For each shape seconds per pass, of its parts alone, and the peak of a process's memory."""
    entries = []
    for d, k in SHAPES:
        rows = (40_000 if quick else 64_000_000) // d
        with tempfile.TemporaryDirectory() as folder:
            write_parquet(Path(folder, "data"), rows, d, k)
            entry = {"d": d, "k": k, "rows": rows, "decoded_mib": rows * d * 8 / 2**20}
            entry |= _passes(Path(folder), d, k, 1 if quick else 5, patience)
            budget = rows * d * 8 // TIMES
            entry |= _process(Path(folder, "again"), Path(folder, "data"), budget, k)
            scratch = {"scratch": str(Path(folder, "scratch"))}
            of_scratch = _process(Path(folder, "once"), Path(folder, "data"), budget, k, **scratch)
            entry["with_scratch"] = of_scratch
        entry |= {"load": machine.load()}
        entries.append(entry)
        print(line(entry), flush=True)
    return {"threads": os.cpu_count(), "times_the_budget": TIMES, "entries": entries}


def line(entry: dict[str, Any]) -> str:
    """One entry for the eye."""
    parts = ", ".join(f"{name} {entry[name]['best']:.2f} s" for name in PARTS)
    return (
        f"d={entry['d']} k={entry['k']}, {entry['rows']} rows: {parts}, a pass is "
        f"{entry['overhead']:.2f} times the larger part, {entry['scratch_overhead']:.2f} with "
        f"scratch; peak {entry['peak_mib']:.0f} MiB, {entry['with_scratch']['peak_mib']:.0f} with "
        f"scratch, for {entry['decoded_mib']:.0f} MiB of rows"
    )


def _passes(folder: Path, d: int, k: int, rounds: int, patience: float) -> dict[str, Any]:
    """Nothing held; the parts in interleaved rounds, all threads."""
    backend, start = LocalBackend(os.cpu_count() or 1), mixture(d, k)
    chunks = chunks_of(folder / "data", folder / "unused")
    held = in_memory(chunks, backend)
    on_disk = in_scratch(chunks, backend, folder / "scratch")
    parts = {
        "pass": partial(em_pass, chunks, backend, start),
        "pass with scratch": partial(em_pass, on_disk, backend, start),
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
    for name, of in (("overhead", "pass"), ("scratch_overhead", "pass with scratch")):
        found[name] = _overhead(found, of, "best")
        found[f"{name}_of_medians"] = _overhead(found, of, "median")
    release(on_disk)
    return found


def _overhead(found: dict[str, Any], of: str, kind: str) -> float:
    return float(found[of][kind] / max(found["decode"][kind], found["compute"][kind]))


def _process(out: Path, data: Path, budget: int, k: int, **memory: Any) -> dict[str, Any]:
    """The whole stage in a process of its own that may hold `budget` bytes."""
    job = Job(
        data=str(data),
        out=str(out),
        k=k,
        tol=0,
        threads=os.cpu_count() or 1,
        fit={"max_iter": PASSES},
        memory={"held_bytes": budget, **memory},
    )
    found = carry_out("with_gmm_dask", job)
    return {
        "budget_mib": budget / 2**20,
        "peak_mib": found["peak_mib"],
        "held_mib": found["bytes_held"] / 2**20,
        "scratch_mib": found["bytes_in_scratch"] / 2**20,
        "stage_pass_seconds": found["seconds"]["passes"],
    }
