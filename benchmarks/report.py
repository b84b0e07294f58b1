"""What the report costs: its size, and the CPU seconds that its drawing takes."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gmm_dask.stage.run import run
from gmm_dask.stage.settings import settings_from
from gmm_dask.stage.watch import Watcher

CASES = (  # columns, components, family, rows
    (500, 64, "tied", 10_000),
    (5000, 3, "diag", 5000),
)
QUICK = ((20, 4, "full", 500),)
DRAWING = "drawing the report"


class Clock(Watcher):
    """Notes when each thing began that is told of."""

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}

    def progress(self, phase: str, done: int, of: int | None = None, note: str = "") -> None:
        """See Watcher."""
        self.begun.setdefault(phase, time.process_time())


def measure(quick: bool = False) -> dict[str, Any]:
    """Megabytes of the report, and CPU seconds of drawing it and of the whole run."""
    entries = []
    run_once(*QUICK[0])  # else the first has matplotlib's import and caches in it
    for case in QUICK if quick else CASES:
        entries.append(run_once(*case))
        print("{d} columns, K = {k}, {family}: {megabytes:.2f} MB, {drawing:.2f} of "
              "{seconds:.1f} s".format(**entries[-1]), flush=True)  # fmt: skip
    return {"entries": entries}


def run_once(d: int, k: int, family: str, n: int) -> dict[str, Any]:
    """Two passes over rows around `k` centres, and the report of them."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d)) + 3.0 * rng.normal(size=(k, d))[rng.integers(k, size=n)]
    with tempfile.TemporaryDirectory() as folder:
        columns = {f"column_{j}": X[:, j] for j in range(d)}
        pq.write_table(pa.table(columns), Path(folder, "rows.parquet"))
        fit = {"n_components": k, "covariance_type": family, "init_params": "random_from_data"}
        settings = settings_from(
            {
                "data": {"path": str(Path(folder, "rows.parquet")), "features": list(columns)},
                "fit": fit | {"max_iter": 2},
                "output": {"path": str(Path(folder, "out"))},
            }
        )
        clock, begun = Clock(), time.process_time()
        published = run(settings, clock)
        seconds = time.process_time() - begun
        size = Path(published.path("report")).stat().st_size
    drawing = clock.begun["reading back"] - clock.begun[DRAWING]
    return {
        "d": d, "k": k, "family": family, "rows": n,
        "megabytes": size / 1e6, "drawing": drawing, "seconds": seconds,
    }  # fmt: skip
