"""The lower layers work, and stay quick, where the upper ones' packages are absent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

UPPER = (
    "dask",
    "distributed",
    "pandas",
    "prefect",
    "pyarrow",
    "fsspec",
    "pydantic",
    "sklearn",
    "scipy",
)

BLOCKED = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
{code}
"""


@pytest.mark.parametrize(
    "module", ["gmm_dask", "gmm_dask.sampling", "gmm_dask.mixture", "gmm_dask.fitting"]
)
def test_arithmetic_and_method_import_without_the_upper_layers(module: str) -> None:
    run_blocked(UPPER, f"import {module}")


def test_the_arithmetic_runs_with_numpy_alone() -> None:
    run_blocked(
        UPPER,
        "import numpy as np\n"
        "from gmm_dask.mixture import Parameters, e_step, m_step\n"
        "p = Parameters.from_covariances([1.0], [[0.0]], [[[1.0]]], 'full')\n"
        "assert m_step(p, e_step(np.ones((3, 1)), p), 1e-6).means[0, 0] == 1.0",
    )


def test_the_library_runs_without_prefect() -> None:
    run_blocked(
        ("prefect",),
        "from gmm_dask import GaussianMixture, load_model, read_labels\n"
        "import gmm_dask.command.cli, gmm_dask.stage.run",
    )


def test_a_run_on_threads_needs_neither_pandas_nor_scikit_learn(tmp_path: Path) -> None:
    """They take as long to import as a fit of a million rows; so does what else is blocked."""
    X = np.random.default_rng(0).normal(size=(100, 2))
    pq.write_table(pa.table({"x": X[:, 0], "y": X[:, 1]}), tmp_path / "a.parquet")
    settings = {
        "data": {"path": str(tmp_path / "a.parquet")},
        "fit": {"n_components": 2},
        "output": {"path": str(tmp_path / "out")},
    }
    run_blocked(
        ("pandas", "sklearn", "distributed", "dask.array", "prefect"),
        "from gmm_dask.stage.run import run\n"
        "from gmm_dask.stage.settings import settings_from\n"
        f"run(settings_from({settings!r}))",
    )


def test_importing_the_package_imports_nothing_heavy() -> None:
    run_blocked(
        (),
        "import gmm_dask, sys\n"
        "heavy = {'dask', 'pandas', 'numpy', 'sklearn', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy",
    )


def run_blocked(names: tuple[str, ...], code: str) -> None:
    program = BLOCKED.format(names=set(names), code=code)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
