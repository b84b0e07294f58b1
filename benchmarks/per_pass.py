"""Nanoseconds per row and EM pass: all libraries from the same start, in interleaved rounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import machine
from benchmarks.contenders import CONTENDERS, KERNELS, installed, quiet
from benchmarks.data import mixture, rows_of
from benchmarks.timing import per_pass, summary

GRID = ((2, 3), (8, 8), (16, 16), (32, 32), (64, 16))
FAMILIES = ("full", "tied", "diag", "spherical")
OURS, SKLEARN = "gmm_dask", "scikit-learn"
TWO = (OURS, SKLEARN)
KERNEL = "kernel"


def measure(quick: bool = False, patience: float = 0.0) -> dict[str, Any]:
    """Every table, and the summaries of their ratios."""
    scale = Scale(quick, patience)
    grid = [
        *_grid(scale, "near", 1, tuple(CONTENDERS)),
        *_grid(scale, "near", 2, tuple(CONTENDERS)),
    ]
    for spacing in ("far", "overlapping"):
        grid += _grid(scale, spacing, 1, TWO)
    families = [_entry(scale, 16, 16, "near", 1, TWO, family) for family in FAMILIES]
    missing = [name for name in CONTENDERS if not installed(name)]
    return {
        "grid": grid,
        "kernel": list(_grid(scale, "near", 1, tuple(KERNELS))),
        "families": families,
        "not_installed": missing,
        "ratios": list(_ratios(grid, families)),
    }


class Scale:
    """How many rows, passes and rounds: enough to say something, or `quick`."""

    def __init__(self, quick: bool, patience: float) -> None:
        self.patience = patience
        self.grid = GRID[:2] if quick else GRID
        self.bytes = (1 if quick else 32) << 20  # of float64 rows: half a chunk
        self.rounds = 1 if quick else 3
        self.seconds = 0.0 if quick else 0.4


def _grid(
    scale: Scale, spacing: str, threads: int, names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    for d, k in scale.grid:
        yield _entry(scale, d, k, spacing, threads, names)


def _entry(
    scale: Scale,
    d: int,
    k: int,
    spacing: str,
    threads: int,
    names: Sequence[str],
    family: str = "full",
) -> dict[str, Any]:
    """Nanoseconds per row of every contender that is installed."""
    n = scale.bytes // (8 * d)
    X = rows_of(mixture(d, k, spacing), n)
    start = mixture(d, k, spacing, family)
    with quiet(threads):
        rate = machine.dgemm_rate()
        makes = CONTENDERS | KERNELS
        runs = {name: makes[name](X, start, threads) for name in names if installed(name)}
        found = per_pass(runs, scale.rounds, scale.seconds, scale.patience)
    entry = {"d": d, "k": k, "rows": n, "spacing": spacing, "threads": threads, "family": family}
    entry |= {"dgemm_gflops": rate / 1e9, "dgemm_bound": machine.dense_bound(d, k, rate)}
    entry |= {"load": machine.load()}
    entry["ns"] = {
        name: {kind: value / n * 1e9 for kind, value in each.items()}
        for name, each in found.items()
    }
    print(line(entry), flush=True)
    return entry


def line(entry: dict[str, Any]) -> str:
    """One entry for the eye."""
    figures = "  ".join(f"{name} {ns['median']:.0f}" for name, ns in entry["ns"].items())
    where = f"d={entry['d']} k={entry['k']} {entry['family']} {entry['spacing']}"
    bound = f"dgemm {entry['dgemm_bound']:.0f}"
    return f"{where}, {entry['threads']} thread(s), ns/row: {figures}  {bound}"


def ratio(entry: dict[str, Any], peer: str, ours: str = OURS, kind: str = "median") -> float:
    """How many times as long the peer takes."""
    return float(entry["ns"][peer][kind] / entry["ns"][ours][kind])


def _ratios(grid: list[dict], families: list[dict]) -> Iterator[dict[str, Any]]:
    tables = {(e["spacing"], e["threads"]): [] for e in grid}
    for entry in grid:
        tables[entry["spacing"], entry["threads"]].append(entry)
    for (spacing, threads), entries in tables.items():
        for peer in entries[0]["ns"]:
            if peer != OURS:
                of = {"spacing": spacing, "threads": threads, "peer": peer}
                yield of | _summaries(entries, peer)
    yield {"spacing": "families", "threads": 1, "peer": SKLEARN} | _summaries(families, SKLEARN)


def _summaries(entries: list[dict[str, Any]], peer: str) -> dict[str, Any]:
    """Of ratios of medians, and of ratios of the best times."""
    return {
        kind: summary([ratio(entry, peer, kind=kind) for entry in entries])
        for kind in ("median", "best")
    }
