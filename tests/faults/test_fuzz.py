"""Damaged Parquet files are read right or refused; no process dies of one, and no row changes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import seeds

FUZZ = Path(__file__).with_name("fuzz.py")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("first", "count"),
    [
        (0, 400),
        *(pytest.param(at, 2000, marks=pytest.mark.heavy) for at in range(1000, 9000, 2000)),
    ],
)
def test_mutants_are_refused_or_read_right(first: int, count: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, FUZZ, tmp_path, str(*seeds([first])), str(count)],
        capture_output=True, text=True, check=False, timeout=240, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    last = tmp_path / "last"
    mutant = last.read_text() if last.exists() else "none"
    assert done.returncode == 0, (done.returncode, mutant, done.stdout, done.stderr[-2000:])
    outcomes = ast.literal_eval(done.stdout.splitlines()[-1])
    assert "silent" not in outcomes, done.stdout
    assert sum(outcomes.values()) == count
    assert outcomes["refused"] > count / 2
