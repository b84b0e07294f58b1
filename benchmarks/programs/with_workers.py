"""The whole stage on worker processes of limited memory, and what driver and workers took.

    python -m benchmarks.programs.with_workers JOB.json

The job names data, out, k, passes, workers, memory_limit and chunk_bytes. Printed are the peaks of
resident memory, what idle workers have once everything is imported, whether a worker was lost, and
after each pass what driver and workers hold: memory, open files, tasks that the scheduler knows.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from distributed import Scheduler

from benchmarks.programs.memory import resident_mib
from gmm_dask.engine import ClusterSpec, open_backend
from gmm_dask.fitting import Pass
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import FitSettings, settings_from
from gmm_dask.stage.watch import Watcher


@dataclass(frozen=True)
class Moment:
    """What is held after a pass; of the workers the most that one of them holds."""

    driver_mib: float
    driver_files: int
    worker_mib: float
    worker_files: int
    tasks: int


@dataclass
class Looking(Watcher):
    """Looks at all processes as the run goes on."""

    idle_mib: float
    workers: set[int] = field(default_factory=set)
    peak_mib: float = 0.0
    moments: list[Moment] = field(default_factory=list)

    def detail(self, message: str) -> None:
        self._look()

    def passed(self, record: Pass, settings: FitSettings) -> None:
        driver, workers = psutil.Process(), self._look()
        self.moments.append(
            Moment(
                resident_mib(),
                driver.num_fds(),
                max(each.memory_info().rss for each in workers) / 2**20,
                max(each.num_fds() for each in workers),
                sum(len(each.tasks) for each in Scheduler._instances),
            )
        )

    def labelled(self, done: int, total: int) -> None:
        self._look()

    def _look(self) -> list[psutil.Process]:
        found = worker_processes()
        self.workers.update(each.pid for each in found)
        self.peak_mib = max([self.peak_mib, *(peak_of(each.pid) for each in found)])
        return found


class Heard(logging.Handler):
    """Keeps what nannies warn of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def worker_processes() -> list[psutil.Process]:
    """Those that nannies of this process started."""
    children = psutil.Process().children(recursive=True)
    return [each for each in children if any("spawn_main" in word for word in _words(each))]


def peak_of(pid: int) -> float:
    """Peak of resident memory in MiB; nothing of a process that ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def imported() -> float:
    """Resident memory of this process, in MiB, with all that a worker imports."""
    import gmm_dask.roads.dataset
    import gmm_dask.stage.labels.labelling  # noqa: F401

    return resident_mib()


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    heard = Heard()
    logging.getLogger("distributed").addHandler(heard)
    cluster = {
        "kind": "processes", "workers": job["workers"], "memory_limit": job["memory_limit"]
    }  # fmt: skip
    with open_backend(ClusterSpec(**cluster)) as backend:
        looking = Looking(max(backend.everywhere(imported)))
    document = {
        "data": {"path": job["data"]},
        "fit": {"n_components": job["k"], "max_iter": job["passes"], "tol": 0} | job["fit"],
        "memory": {"chunk_bytes": job["chunk_bytes"], "held_bytes": job["held_bytes"]},
        "cluster": cluster,
        "output": {"path": job["out"]},
    }
    published = run(settings_from(document), looking)
    found = {
        "rows": published.metrics["n_rows"],
        "seconds": published.metrics["seconds"],
        "chunks_held": published.metrics["chunks_held"],
        "idle_mib": looking.idle_mib,
        "worker_peak_mib": looking.peak_mib,
        "workers_seen": len(looking.workers),
        "warnings": heard.lines,
        "driver_peak_mib": peak_of(os.getpid()),
        "moments": [asdict(each) for each in looking.moments],
    }
    print(json.dumps(found))


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def told(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the program says of the job, from a process of its own."""
    import subprocess

    folder.mkdir(parents=True, exist_ok=True)
    description = folder / "job.json"
    defaults = {
        "k": 4, "passes": 3, "workers": 2, "memory_limit": "1GiB", "chunk_bytes": 64 << 20,
        "held_bytes": None, "fit": {}, "out": str(folder / "out"),
    }  # fmt: skip
    description.write_text(json.dumps(defaults | job))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.programs.with_workers", str(description)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"with_workers failed: {done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
