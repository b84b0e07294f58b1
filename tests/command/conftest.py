"""The command line as its user calls it, in a process of its own or in that of the test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gmm_dask.command import cli

ROOT = Path(__file__).parents[2]


IRIS = ROOT / "examples" / "iris"


FEATURES = "sepal_length,sepal_width,petal_length,petal_width"


def call(
    *arguments: object, cwd: Path, module: str = "tests.undrawn", **environment: str
) -> subprocess.CompletedProcess[str]:
    """`gmm-dask ...` in a process of its own, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True, text=True, check=False, cwd=cwd, timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(cwd)} | environment,
    )  # fmt: skip


Called = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Called:
    """`gmm-dask ...` in this process and the test's folder, which takes a tenth of the time."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        done = CliRunner().invoke(cli.app, [*map(str, arguments)])
        return subprocess.CompletedProcess([], done.exit_code, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="module")
def fitted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted")
    done = call(
        "fit", IRIS, "--features", FEATURES, "--id-columns", "flower", "--n-components", 3,
        "--tol", 1e-9, "--max-iter", 500, "--init-params", "kmeans", "--out", "out", cwd=folder,
        module="gmm_dask",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Published version 1" in done.stdout
    assert "180.1855" in done.stdout
    told = [int(number) for number in re.findall(r"event=pass number=(\d+)", done.stderr)]
    assert told[:6] == [1, 2, 3, 5, 10, 20]  # fewer and fewer
    return folder


@pytest.fixture
def fitted(fitted_once: Path, tmp_path: Path) -> Path:
    """A copy for each test."""
    shutil.copytree(fitted_once, tmp_path, dirs_exist_ok=True)
    return tmp_path
