"""Memory: workers hold chunks, the driver holds no rows, and nothing grows with the passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed import Scheduler

from benchmarks import memory
from benchmarks.memory import write_files
from benchmarks.programs.memory import resident_mib
from benchmarks.programs.with_workers import told, worker_processes
from gmm_dask.engine import ClusterSpec, expectation, open_backend
from gmm_dask.mixture import Parameters
from gmm_dask.roads.dataset import planned_rows
from gmm_dask.storage import plan_dataset

PER_PASS = 0.05  # MiB that a process may grow by
CONNECTIONS = 4  # both ends of one to each worker, opened once: in a pass in which another is busy


@pytest.mark.heavy
@pytest.mark.timeout(1500)
def test_ten_million_rows_pass_through_workers_of_one_gibibyte() -> None:
    found = memory.measure(10_000_000)
    few, many = found["entries"]
    assert (few["rows"], many["rows"]) == (1_000_000, 10_000_000)
    assert many["driver_mib"] - few["driver_mib"] < 50
    for entry in (few, many):
        assert entry["workers_seen"] == found["workers"]  # no nanny had to start another
        assert entry["worker_mib"] <= found["allowed_mib"]


@pytest.mark.heavy
@pytest.mark.timeout(900)
@pytest.mark.parametrize("held_bytes", [0, None])
def test_two_hundred_passes_leave_nothing_behind(tmp_path: Path, held_bytes: int | None) -> None:
    write_files(tmp_path / "data", 8, 10_000, 4)
    job = {
        "data": str(tmp_path / "data"), "passes": 200, "held_bytes": held_bytes,
        "chunk_bytes": 10_000 * 32, "fit": {"sample_em": False, "acceleration": "none"},
    }  # fmt: skip
    moments = told(job, tmp_path)["moments"]
    assert len(moments) == 200
    half, last = moments[99], moments[199]

    def fewest_files(process: str, passes: slice) -> int:
        """In any of these passes: connections and logs are open for a moment now and then."""
        return int(min(each[f"{process}_files"] for each in moments[passes]))

    for process in ("driver", "worker"):
        files = [fewest_files(process, slice(i, i + 50)) for i in (50, 100, 150)]
        assert not files[0] < files[1] < files[2]  # what is left behind is so in every part
        assert files[2] - files[0] <= CONNECTIONS
        grown = last[f"{process}_mib"] - half[f"{process}_mib"]
        print(f"{process}: {grown / 100:.3f} MiB a pass")
        assert grown < 100 * PER_PASS
    assert min(each["tasks"] for each in moments[150:]) <= min(
        each["tasks"] for each in moments[:50]
    )


@pytest.mark.heavy
def test_passes_on_workers_leave_no_file_and_no_task_behind(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_files(tmp_path / "data", 4, 1000, 4)
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

        files_later, later = after(15)
        for _ in range(3):  # a connection that is opened once is not left behind by every pass
            (files, before), (files_later, later) = (files_later, later), after(25)
            if files_later == files:
                break
        assert files_later == files
        assert later - before < 25 * 4 * PER_PASS  # the logs of a new cluster fill up at first
        (scheduler,) = set(Scheduler._instances) - earlier
        for _ in range(50):
            if not scheduler.tasks:
                break
            backend.everywhere(resident_mib)  # a moment for what is released to be forgotten
        assert not scheduler.tasks
