"""Small Parquet datasets: written in a line, broken in another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from gmm_dask.errors import DataError
from gmm_dask.storage.input.parquet.reader import read_features
from gmm_dask.storage.input.plan import Plan
from gmm_dask.storage.input.planning import plan_dataset
from gmm_dask.storage.input.sources import sources
from tests.object_service import ObjectService
from tests.storage.delta_tables import rows
from tests.storage.lakes import BucketLake, FolderLake

Write = Callable[..., Path]


def write_file(path: Path, columns: Mapping[str, Any] | pa.Table, **options: Any) -> Path:
    """Write a table or a mapping of columns; the folders are made."""
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of the dataset `tmp_path / "data"` by its name."""

    def write(name: str, columns: Mapping[str, Any] | pa.Table, **options: Any) -> Path:
        return write_file(tmp_path / "data" / name, columns, **options)

    return write


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of the dataset."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def problems_of(path: Path | str, **arguments: Any) -> tuple[str, ...]:
    """The problems that planning finds; fails where there is none."""
    with pytest.raises(DataError) as caught:
        plan_dataset(path, **arguments)
    return caught.value.problems


def read_all(plan: Plan) -> np.ndarray:
    """All rows of a plan, chunk after chunk."""
    return np.concatenate(
        [read_features(source, plan.features, plan.dtype) for source in sources(plan)]
    )


@pytest.fixture(name="table")
def delta_table(tmp_path: Path) -> Path:
    """Version 0 has 1, 2, 3; an overwrite made that 4, 5, 6 and an append 7; then 5 was deleted."""
    place = tmp_path / "table"
    write_deltalake(place, rows(1, 2, 3))
    write_deltalake(place, rows(4, 5, 6), mode="overwrite")
    write_deltalake(place, rows(7), mode="append")
    DeltaTable(place).delete("x = 5")
    return place


@pytest.fixture
def bucket(service: ObjectService) -> BucketLake:
    return BucketLake(service.bucket())


@pytest.fixture(params=["folder", "bucket"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return request.getfixturevalue("bucket") if request.param == "bucket" else FolderLake(tmp_path)
