"""A run that was stopped after its third pass, with a checkpoint after each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask.fitting import Pass
from gmm_dask.stage import publish
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import FitSettings, Settings, settings_from
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage import read_manifest

FEATURES = ("x", "y")
PASSES = 3  # before the stop
OF_THE_ATTEMPT = {"seconds", "published", "n_resumed", "bytes_decoded"}

Make = Callable[..., Settings]


class Stopped(Exception):  # noqa: N818
    """Instead of a kill."""


class Watching(Watcher):
    """Remembers what it hears, and stops the run after so many passes."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after, self.passes = stop_after, 0
        self.details: list[str] = []
        self.warnings: list[str] = []

    def passed(self, record: Pass, settings: FitSettings) -> None:
        if self.passes == self.stop_after:
            raise Stopped  # the pass before was the last that was kept
        self.passes += 1

    def detail(self, message: str) -> None:
        self.details.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def assert_same_run(one: Published, other: Published) -> None:
    """Model, labels, what the report shows and every metric but times are the same."""
    assert one.run_id == other.run_id
    names = read_manifest(one.folder.store, one.version)["files"].keys()
    assert names == read_manifest(other.folder.store, other.version)["files"].keys()
    for name in names - {"run.json", "contents.json", "metrics.json"}:
        assert one.folder.get(name) == other.folder.get(name), name
    for name in one.metrics.keys() - OF_THE_ATTEMPT:
        assert one.metrics[name] == other.metrics[name], name
    assert len(one.metrics["seconds"]["passes"]) == len(other.metrics["seconds"]["passes"])


def write_rows(path: Path, seed: int) -> None:
    """Overlapping groups and their names, in chunks of 100 rows."""
    rng = np.random.default_rng(seed)
    X = np.concatenate([rng.normal(at, 1, (200, 2)) for at in (0, 2, 4)])
    kind = np.repeat(["near", "middle", "far"], 200).tolist()
    table = pa.table({name: X[:, i] for i, name in enumerate(FEATURES)} | {"kind": kind})
    pq.write_table(table, path, row_group_size=100)


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.parquet"
    write_rows(path, 0)
    return path


@pytest.fixture(scope="package")
def make(data: Path) -> Make:
    """Settings of a run of at least ten passes; keyword arguments replace sections' keys.

    The start is a plain one: a search ends so near the optimum that hardly a pass is left to stop.
    """

    def make(out: Path, **sections: dict[str, Any]) -> Settings:
        document: dict[str, dict[str, Any]] = {
            "data": {"path": str(data), "features": list(FEATURES)},
            "fit": {
                "n_components": 3,
                "init_params": "kmeans",
                "tol": 1e-6,
                "max_iter": 40,
                "acceleration": "anderson",
            },
            "memory": {"chunk_bytes": 1600},
            "cluster": {"workers": 1},
            "output": {"path": str(out), "checkpoint_seconds": 0},
        }
        for name, section in sections.items():
            document[name] = document.get(name, {}) | section
        return settings_from(document)

    return make


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report takes a second to draw; what it is drawn from is compared instead."""
    monkeypatch.setattr(
        publish,
        "render_report",
        lambda data: "".join(str(p.means.tobytes().hex()) for p in data.trajectory),
    )


@pytest.fixture(scope="package")
def stopped(tmp_path_factory: pytest.TempPathFactory, make: Make) -> Path:
    out = tmp_path_factory.mktemp("stopped") / "out"
    with pytest.raises(Stopped):
        run(make(out), Watching(PASSES))
    return out


@pytest.fixture
def out(tmp_path: Path, stopped: Path) -> Path:
    """A copy of that run's output."""
    shutil.copytree(stopped, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def checkpoint(out: Path) -> Path:
    """The newest of its checkpoints."""
    (folder,) = out.glob("runs/*/checkpoints")
    return max(folder.glob("0*.json"))
