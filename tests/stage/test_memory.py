"""Memory: workers hold chunks, the driver holds no rows, and nothing grows with the passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Scheduler

from benchmarks.programs.memory import resident_mib
from benchmarks.programs.with_workers import told, worker_processes
from gmm_dask.dataset import planned_rows
from gmm_dask.engine import ClusterSpec, expectation, open_backend
from gmm_dask.mixture import Parameters
from gmm_dask.storage import plan_dataset

MIB = 2**20
PER_PASS = 0.05  # MiB that a process may grow by


def write_rows(folder: Path, n_rows: int, d: int, n_files: int, rng: np.random.Generator) -> None:
    folder.mkdir()
    X = rng.normal(size=(n_rows // n_files, d))
    X[::3] += 2.5
    for i in range(n_files):
        columns = {f"x{j}": X[:, j] + 1e-6 * i for j in range(d)}
        pq.write_table(
            pa.table(columns), folder / f"part-{i:03d}.parquet",
            use_dictionary=False, compression="none", row_group_size=len(X),
        )  # fmt: skip


@pytest.mark.heavy
@pytest.mark.timeout(1500)
def test_ten_million_rows_pass_through_workers_of_one_gibibyte(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    k, d, peaks = 5, 8, {}  # so many that both sizes go through the compiled kernel
    for n_rows in (1_000_000, 10_000_000):
        data = tmp_path / f"data-{n_rows}"
        write_rows(data, n_rows, d, n_rows // 1_000_000, rng)
        found = told({"data": str(data), "k": k}, tmp_path / str(n_rows))
        assert found["rows"] == n_rows
        assert found["workers_seen"] == 2, found["warnings"]  # no nanny started another
        beyond = found["worker_peak_mib"] - found["idle_mib"]
        assert beyond <= 256 + 4 * 1_000_000 * (d + k) * 8 / MIB
        peaks[n_rows] = found["driver_peak_mib"]
        print(f"{n_rows} rows, MiB: driver {peaks[n_rows]:.0f}, a worker {beyond:.0f} beyond idle")
    assert peaks[10_000_000] - peaks[1_000_000] < 50


@pytest.mark.heavy
@pytest.mark.timeout(900)
@pytest.mark.parametrize("held_bytes", [0, None])
def test_two_hundred_passes_leave_nothing_behind(
    tmp_path: Path, rng: np.random.Generator, held_bytes: int | None
) -> None:
    write_rows(tmp_path / "data", 80_000, 4, 8, rng)
    job = {
        "data": str(tmp_path / "data"), "passes": 200, "held_bytes": held_bytes,
        "chunk_bytes": 10_000 * 32, "fit": {"sample_em": False, "acceleration": "none"},
    }  # fmt: skip
    moments = told(job, tmp_path)["moments"]
    assert len(moments) == 200
    half, last = moments[99], moments[199]
    for process in ("driver", "worker"):
        assert last[f"{process}_files"] == half[f"{process}_files"]
        grown = last[f"{process}_mib"] - half[f"{process}_mib"]
        print(f"{process}: {grown / 100:.3f} MiB a pass")
        assert grown < 100 * PER_PASS
    assert min(each["tasks"] for each in moments[150:]) <= min(
        each["tasks"] for each in moments[:50]
    )


def test_passes_on_workers_leave_no_file_and_no_task_behind(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_rows(tmp_path / "data", 4000, 4, 4, rng)
    chunks = planned_rows(plan_dataset(tmp_path / "data", chunk_bytes=700 * 32))
    start = Parameters.from_covariances(
        np.ones(2) / 2, rng.normal(size=(2, 4)), np.stack([np.eye(4)] * 2), "full"
    )
    earlier = set(Scheduler._instances)  # of backends that other tests share
    with open_backend(ClusterSpec("processes", workers=2)) as backend:
        run = expectation(chunks, backend)

        def after(n_passes: int) -> tuple[list[int], float]:
            for _ in range(n_passes):
                run(start)
            files = [each.num_fds() for each in [psutil.Process(), *worker_processes()]]
            return files, resident_mib()

        files, before = after(15)
        files_later, later = after(25)
        assert files_later == files
        assert later - before < 25 * 4 * PER_PASS  # the logs of a new scheduler fill up at first
        (scheduler,) = set(Scheduler._instances) - earlier
        for _ in range(50):
            if not scheduler.tasks:
                break
            backend.everywhere(resident_mib)  # a moment for what is released to be forgotten
        assert not scheduler.tasks
