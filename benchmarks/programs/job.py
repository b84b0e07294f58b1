"""What a program is told, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.programs.memory import peak_mib


@dataclass(frozen=True)
class Job:
    """Data to cluster and the folder for the results."""

    data: str
    out: str
    k: int
    tol: float = 1e-3
    threads: int = 1
    spark_memory: str = "8g"
    fit: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)

    def finish(
        self, weights: Any, means: Any, covariances: Any, passes: int, more: dict[str, Any]
    ) -> None:
        """Leave the parameters, the number of passes and the peak of memory."""
        np.savez(Path(self.out, "model.npz"), weights=weights, means=means, covariances=covariances)
        found = {"passes": int(passes), "peak_mib": peak_mib()} | more
        Path(self.out, "found.json").write_text(json.dumps(found))


def main(fit_and_label: Callable[[Job], None]) -> None:
    """Carry out the job that is named on the command line."""
    fit_and_label(Job(**json.loads(Path(sys.argv[1]).read_text())))


def carry_out(program: str, job: Job, limit: float | None = None) -> dict[str, Any]:
    """What a fresh process found, and the seconds from its start to its end.

    One that is not done after `limit` seconds is stopped, and found nothing.
    """
    out = Path(job.out)
    out.mkdir(parents=True)
    description = out / "job.json"
    description.write_text(json.dumps(asdict(job)))
    command = [sys.executable, "-m", f"benchmarks.programs.{program}", str(description)]
    begun = time.perf_counter()
    with (out / "errors.txt").open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
        )
        try:
            failed = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
            process.wait()
            return {"wall": time.perf_counter() - begun, "stopped": True}
    seconds = time.perf_counter() - begun
    if failed:
        raise RuntimeError(f"{program} failed: {(out / 'errors.txt').read_text()[-2000:]}")
    found = json.loads((out / "found.json").read_text())
    return {"wall": seconds, "stopped": False} | found
