"""A small run of the stage as it is, on a store of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask.stage import job, publish
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import Settings, settings_from
from gmm_dask.storage import Store

ROWS = 16  # in four chunks
Drive = Callable[..., Published]


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report takes a second to draw, and is not what these tests are about."""
    monkeypatch.setattr(publish, "render_report", lambda data: f"<html>{data.run_id}</html>")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=8), rng.normal(9, 1, 8)])
    table = pa.table({"x": x, "id": np.arange(ROWS)})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=4)
    return settings_from(
        {
            "data": {"path": str(tmp_path / "rows.parquet"), "features": ["x"]},
            "fit": {"n_components": 2, "max_iter": 3},
            "memory": {"chunk_bytes": 8 * 4},
            "cluster": {"workers": 1},  # one thread: the operations come in one order
            "output": {"path": "out", "checkpoint_seconds": 0},
        }
    )


@pytest.fixture
def drive(settings: Settings, monkeypatch: pytest.MonkeyPatch, no_pictures: None) -> Drive:
    """Run the stage on a store; a run's content is its own, whatever the version before."""
    stores: dict[str, Store] = {}
    monkeypatch.setattr(job, "open_store", lambda url, **_: stores[url])

    def drive(store: Store, name: str = "out", **fit: Any) -> Published:
        stores[name] = store
        changed = settings.model_copy(
            update={
                "output": settings.output.model_copy(update={"path": name, "follows": "none"}),
                "fit": settings.fit.model_copy(update=fit),
            }
        )
        return run(changed)

    return drive
