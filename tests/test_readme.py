"""The commands of the README do what it says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from gmm_dask import read_labels
from tests.by_hand import ROOT, free_port


def commands(heading: str) -> list[list[str]]:
    """Those of the first block below the heading, one for each terminal."""
    section = (ROOT / "README.md").read_text().split(f"\n## {heading}\n")[1]
    block = section.split("```sh\n")[1].split("```")[0].replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in block.strip().splitlines()]


def test_three_commands_start_a_cluster_and_run_the_stage_on_it(tmp_path: Path) -> None:
    port, programs = str(free_port()), {"dask": "dask", "gmm-dask": "gmm_dask"}
    lines = [
        [sys.executable, "-m", programs[program]]
        + [re.sub(r"\b8786\b", port, argument) for argument in arguments]
        for program, *arguments in commands("On a cluster")
    ]
    scheduler, worker, stage = lines
    assert "out/iris-cluster" in stage[-1]
    stage[-1] = f"output.path={tmp_path / 'out'}"
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [subprocess.Popen(line, **quiet) for line in (scheduler, worker)]  # type: ignore[call-overload]
    try:
        done = subprocess.run(
            stage, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
        )
    finally:
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            process.wait(30)
    assert done.returncode == 0, done.stderr
    assert len(read_labels(str(tmp_path / "out"))) == 150
