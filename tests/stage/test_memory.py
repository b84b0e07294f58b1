"""Memory: workers hold chunks, the driver holds none; measured on ten million rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

PROGRAM = """
import json, resource, sys
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import settings_from

def main():
    data, out = sys.argv[1:]
    published = run(settings_from({
        "data": {"path": data},
        "fit": {"n_components": 4, "max_iter": 3, "tol": 0},
        "cluster": {"kind": "processes", "workers": 2, "memory_limit": "1GiB"},
        "output": {"path": out},
    }))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak": peak, "rows": published.metrics["n_rows"]}))

if __name__ == "__main__":
    main()
"""


def write_rows(folder: Path, n_rows: int, n_files: int, rng: np.random.Generator) -> None:
    folder.mkdir()
    for i in range(n_files):
        X = rng.normal(size=(n_rows // n_files, 8)) + 4 * (i % 3)
        columns = {f"x{j}": X[:, j] for j in range(8)}
        pq.write_table(
            pa.table(columns), folder / f"part-{i:03d}.parquet",
            use_dictionary=False, compression="none", row_group_size=200_000,
        )  # fmt: skip


@pytest.mark.heavy
@pytest.mark.timeout(1200)
def test_ten_million_rows_pass_through_workers_of_one_gibibyte(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    peaks = {}
    for n_rows in (1_000_000, 10_000_000):
        data = tmp_path / f"data-{n_rows}"
        write_rows(data, n_rows, 16, rng)
        done = subprocess.run(
            [sys.executable, str(program), str(data), str(tmp_path / f"out-{n_rows}")],
            capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["rows"] == n_rows
        peaks[n_rows] = found["peak"]
    print(f"peak memory of the driver, MiB: {peaks}")
    assert abs(peaks[10_000_000] - peaks[1_000_000]) < 50
