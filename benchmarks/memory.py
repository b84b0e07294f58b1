"""What driver and workers take of memory as the rows grow, on worker processes of 1 GiB each."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.programs.with_workers import told

D, K = 8, 5  # a million rows are enough for the compiled kernel, as more are
ROWS = 1_000_000  # of a file, which is a chunk of 64 MiB
BASE_MIB = 256  # beyond an idle worker, whatever the chunk


def measure(rows: int, quick: bool = False) -> dict[str, Any]:
    """A file's rows and `rows` of them: peaks in MiB, and what a worker may take."""
    per_file = 2000 if quick else ROWS
    allowed = BASE_MIB + 4 * per_file * (D + K) * 8 / 2**20
    entries = []
    for n_files in (1, 4 if quick else rows // ROWS):
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder, "data"), n_files, per_file, D)
            found = told({"data": str(Path(folder, "data")), "k": K}, Path(folder))
        entry = {
            "rows": found["rows"],
            "driver_mib": found["driver_peak_mib"],
            "worker_mib": found["worker_peak_mib"] - found["idle_mib"],
            "workers_seen": found["workers_seen"],
            "seconds": found["seconds"],
        }
        entries.append(entry)
        print(
            f"{entry['rows']} rows: driver {entry['driver_mib']:.0f} MiB, a worker "
            f"{entry['worker_mib']:.0f} MiB beyond an idle one, of {allowed:.0f} allowed",
            flush=True,
        )
    return {"d": D, "k": K, "allowed_mib": allowed, "workers": 2, "entries": entries}


def write_files(folder: Path, n_files: int, n_rows: int, d: int) -> None:
    """Files of one row group each; no two rows are equal, and the values are drawn but once."""
    folder.mkdir(parents=True)
    X = np.random.default_rng(0).normal(size=(n_rows, d))
    X[::3] += 2.5
    for i in range(n_files):
        columns = {f"x{j}": X[:, j] + 1e-6 * i for j in range(d)}
        pq.write_table(
            pa.table(columns), folder / f"part-{i:04d}.parquet",
            use_dictionary=False, compression="none", row_group_size=n_rows,
        )  # fmt: skip
