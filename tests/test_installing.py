"""What is installed: the versions that it says, the map of its code, and its wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

import gmm_dask
from gmm_dask.mixture.core import library

ROOT = Path(__file__).parents[1]
LEVEL = """
from gmm_dask import GaussianMixture, show_versions
from gmm_dask.mixture import core
import numpy as np
assert "site-packages" in core.__file__, core.__file__
GaussianMixture(2, random_state=0).fit(np.random.default_rng(0).normal(size=(100, 2)))
show_versions()
"""


def test_show_versions_names_the_level_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    gmm_dask.show_versions()
    told = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert told["compiled core"] == library.level_name()
    assert {"python", "numpy", "gmm-dask"} <= told.keys()


def test_every_file_of_the_map_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    places = (ROOT, ROOT / "gmm_dask", ROOT / "tests" / "engine", ROOT / "docs")
    named = set(re.findall(r"[\w./]+\.(?:py|md|yaml|toml)\b", text))
    assert len(named) > 40
    lost = [name for name in named if not any((place / name).exists() for place in places)]
    assert not lost


def build_hook() -> ModuleType:
    spec = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_build_names_the_library_as_the_package_looks_for_it() -> None:
    hook = build_hook()
    assert hook.TARGETS[hook.native()].library == library.library_name()
    assert len({target.tag for target in hook.TARGETS.values()}) == len(hook.TARGETS) == 7


@pytest.mark.heavy
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("target", ["native", *build_hook().TARGETS])
def test_a_wheel_has_the_core_and_runs_where_it_was_made_for(target: str, tmp_path: Path) -> None:
    """It is made without a home folder, and installed into an environment of its own."""
    env = {name: value for name, value in os.environ.items() if name not in ("HOME", "PYTHONPATH")}
    hook = build_hook()
    name = hook.native() if target == "native" else target
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"),
            *("--no-index", "-w", str(tmp_path), str(ROOT)),
        ],
        env=env | {"GMM_DASK_TARGET": name, "HOME": "/nowhere"}, check=True, timeout=1700,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 1_000_000
    names = zipfile.ZipFile(wheel).namelist()
    assert f"gmm_dask/mixture/core/{hook.TARGETS[name].library}" in names
    assert not [each for each in names if each.endswith((".cpp", ".hpp"))]
    if target != "native":
        return
    folder = tmp_path / "site-packages"
    zipfile.ZipFile(wheel).extractall(folder)
    done = subprocess.run(
        [sys.executable, "-c", LEVEL], cwd=tmp_path, env=env | {"PYTHONPATH": str(folder)},
        check=True, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert f"compiled core: {library.level_name()}" in done.stdout
