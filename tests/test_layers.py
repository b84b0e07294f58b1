"""Layers, sizes and names of modules; lower layers work without the packages of upper ones."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[1]
MODULES = [path for name in ("gmm_dask", "flows") for path in (ROOT / name).rglob("*.py")]
FACADES = ("gmm_dask", "gmm_dask.__main__", "gmm_dask.command")  # their modules are in layers

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


def test_no_function_is_longer_than_sixty_lines() -> None:
    functions = (
        (path.name, node.name, node.end_lineno - node.lineno + 1)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    )
    assert [each for each in functions if each[2] > 60] == []


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


def test_a_run_on_threads_imports_neither_pandas_nor_scikit_learn(tmp_path: Path) -> None:
    """They take as long to import as a fit of a million rows; so does what else is named.

    They are not blocked: where pandas cannot be imported, Arrow does without it in silence.
    """
    X = np.random.default_rng(0).normal(size=(100, 2))
    pq.write_table(pa.table({"x": X[:, 0], "y": X[:, 1]}), tmp_path / "a.parquet")
    settings = {
        "data": {"path": str(tmp_path / "a.parquet")},
        "fit": {"n_components": 2},
        "labels": {"reasons": "all", "anomaly": 0.9},
        "output": {"path": str(tmp_path / "out")},
    }
    run_blocked(
        (),
        "from gmm_dask.stage.run import run\n"
        "from gmm_dask.stage.settings import settings_from\n"
        f"run(settings_from({settings!r}))\n"
        "import sys\n"
        "heavy = {'pandas', 'sklearn', 'scipy', 'distributed', 'dask.array', 'prefect'}\n"
        "heavy = (heavy | {'asyncio', 'fsspec'}) & set(sys.modules)\n"
        "assert not heavy, heavy",
    )


def test_importing_the_package_imports_nothing_heavy() -> None:
    run_blocked(
        (),
        "import gmm_dask, sys\n"
        "heavy = {'dask', 'pandas', 'numpy', 'sklearn', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy",
    )


def test_no_two_modules_have_one_name() -> None:
    # Entry files are called by the names of their flows, which settings and commands have, too.
    inner = (path for path in MODULES if path.parent != ROOT / "flows")
    names = Counter(path.name for path in inner if path.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_no_folder_has_more_than_twelve_modules() -> None:
    folders = Counter(path.parent for path in MODULES)
    assert {str(folder): count for folder, count in folders.items() if count > 12} == {}


def test_every_module_is_in_the_contract_of_layers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    lines = next(each["layers"] for each in contracts["contracts"] if each["type"] == "layers")
    layers = {name.strip() for line in lines for name in line.split("|")}
    for path in MODULES:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        above = module.split(".")
        within = {".".join(above[:n]) for n in range(1, len(above) + 1)}
        assert within & layers or module in FACADES, module


def run_blocked(names: tuple[str, ...], code: str) -> None:
    program = BLOCKED.format(names=set(names), code=code)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
