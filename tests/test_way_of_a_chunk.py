"""The rows of a chunk go through the modules that docs/architecture.md lists, and no others."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gmm_dask.engine import LocalBackend, expectation
from gmm_dask.mixture import Parameters
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.roads.dataset import planned_rows
from gmm_dask.storage import plan_dataset

N_ROWS = 1237  # that nothing else has as many of
DOCS = Path(__file__).parents[1] / "docs" / "architecture.md"


def holds_rows(value: Any) -> bool:
    """Whether a value is the rows, decoded or as Arrow has them, or a chunk with its weights."""
    if isinstance(value, tuple):
        return any(map(holds_rows, value))
    if isinstance(value, pa.RecordBatch | pa.Table):
        return value.num_rows == N_ROWS
    return isinstance(value, np.ndarray) and N_ROWS in value.shape


def test_rows_go_through_the_modules_that_the_docs_list(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(N_ROWS, 3))
    columns = dict(zip("abc", X.T, strict=True)) | {"w": np.ones(N_ROWS)}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    rows = planned_rows(plan_dataset(tmp_path, features=["a", "b", "c"], weight_column="w"))
    start = Parameters.from_covariances([1.0], [[0, 0, 0]], [np.eye(3)], "full")
    run = expectation(rows, LocalBackend(1), arithmetic=RowArithmetic.chosen("error"))
    seen: dict[str, None] = {}

    def note(frame: FrameType, event: str, argument: Any) -> None:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith("gmm_dask") or event not in ("call", "return"):
            return
        values = [argument] if event == "return" else [*frame.f_locals.values()]
        if any(map(holds_rows, values)):
            seen[module.removeprefix("gmm_dask.")] = None

    sys.setprofile(note)
    try:
        run(start)
    finally:
        sys.setprofile(None)
    text = DOCS.read_text().partition("The rows of a chunk pass through")[2].partition("\n\n")[0]
    listed = [path.replace("/", ".") for path in re.findall(r"`([\w/]+)\.py`", text)]
    assert sorted(seen) == sorted(each.removesuffix(".__init__") for each in listed)
    assert len(listed) <= 10
