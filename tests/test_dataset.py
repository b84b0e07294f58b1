"""Planned rows: a pass decodes every row once and holds one chunk, however files are cut."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask.engine import Backend, LocalBackend, expectation, hold, row_chunks, survey
from gmm_dask.engine.passes import chunk_map as passes_module
from gmm_dask.engine.passes.chunk_map import ChunkMap
from gmm_dask.errors import DataError
from gmm_dask.mixture import Parameters
from gmm_dask.roads.dataset import planned_array, planned_rows
from gmm_dask.stage.labels.row_checks import check_survey
from gmm_dask.storage.input.parquet import reader
from gmm_dask.storage.input.plan import Plan
from gmm_dask.storage.input.planning import plan_dataset
from tests.engine.test_passes import bits

N_ROWS, D = 20_000, 3
ROW_BYTES = 8 * D
NAMES = tuple("abc")
LARGE, SMALL = "one large row group", "many small files"
CHUNKS = {LARGE: N_ROWS // 7 * ROW_BYTES, SMALL: 4096 * ROW_BYTES}


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    X = np.random.default_rng(1).normal(size=(N_ROWS, D))
    X[::3] += 5
    return X


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, rows: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    write(folder / LARGE, rows, 1)
    write(folder / SMALL, rows, 160)
    return folder


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every batch that this process decodes."""
    found: list[int] = []
    real = pq.ParquetFile.iter_batches

    def iterate(self: Any, *arguments: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        for batch in real(self, *arguments, **options):
            found.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iterate)
    return found


def write(folder: Path, X: np.ndarray, n_files: int) -> None:
    folder.mkdir()
    for i, part in enumerate(np.array_split(X, n_files)):
        columns = dict(zip(NAMES, part.T, strict=True)) | {"w": np.linspace(1, 2, len(part))}
        pq.write_table(pa.table(columns), folder / f"{i:03}.parquet")


def n_files(layout: str) -> int:
    return 1 if layout == LARGE else 160


def planned(folder: Path, layout: str, weight: str | None = None) -> Plan:
    return plan_dataset(
        folder / layout, features=NAMES, weight_column=weight, chunk_bytes=CHUNKS[layout]
    )


def start(rows: np.ndarray) -> Parameters:
    covariances = np.stack([np.cov(rows.T)] * 2)
    return Parameters.from_covariances(np.ones(2) / 2, rows[:2], covariances, "full")


@pytest.mark.parametrize("layout", [LARGE, SMALL])
@pytest.mark.parametrize("weight", [None, "w"])
def test_a_pass_is_the_same_however_it_is_read(
    folder: Path,
    rows: np.ndarray,
    backend: Backend,
    layout: str,
    weight: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chunks, parameters = planned_rows(planned(folder, layout, weight)), start(rows)
    array = planned_array(planned(folder, layout))
    weights = np.concatenate(
        [np.linspace(1, 2, len(part)) for part in np.array_split(rows, n_files(layout))]
    )
    alone = row_chunks(array, None if weight is None else weights)
    expected = bits(expectation(alone, LocalBackend(1))(parameters))
    for budget in (0, 12_000 * (ROW_BYTES + 8), 1 << 30):
        held = hold(chunks, backend, budget)
        assert (held.n_held > 0) == (budget == 1 << 30 or (budget > 0 and layout == SMALL))
        assert bits(expectation(held.chunks, backend)(parameters)) == expected
    monkeypatch.setattr(passes_module, "GATHER_BYTES", 0)
    assert bits(expectation(chunks, backend)(parameters)) == expected


@pytest.mark.parametrize("layout", [LARGE, SMALL])
def test_every_row_is_decoded_once_a_pass(
    folder: Path, rows: np.ndarray, decoded: list[int], layout: str
) -> None:
    plan = planned(folder, layout)
    assert (len(plan.chunks) > plan.n_arrays) == (layout == SMALL)
    chunks = planned_rows(plan)
    for n_workers in (1, 2):
        decoded.clear()
        expectation(chunks, LocalBackend(n_workers))(start(rows))
        assert sum(decoded) == N_ROWS
        held = hold(chunks, LocalBackend(n_workers), 1 << 30)
        assert sum(decoded) == 2 * N_ROWS
        expectation(held.chunks, LocalBackend(n_workers))(start(rows))
        assert sum(decoded) == 2 * N_ROWS


def test_units_follow_the_rows_not_the_files(folder: Path) -> None:
    for layout, n_units in ((LARGE, 1), (SMALL, 5)):
        assert len(planned_rows(planned(folder, layout)).units) == n_units


def test_a_part_of_a_row_group_is_gone_before_the_next_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []
    real = reader._rows

    def noting(*arguments: Any) -> tuple[np.ndarray, None]:
        alive.append(sum(part() is not None for part in parts))
        X, _ = real(*arguments)
        parts.append(weakref.ref(X))
        return X, None

    monkeypatch.setattr(reader, "_rows", noting)
    chunks = planned_rows(planned(folder, LARGE))
    lengths = ChunkMap(chunks, LocalBackend(1))("look", lambda _, X: len(X), None)
    assert tuple(lengths) == chunks.lengths
    assert alive == [0] * 8


@pytest.mark.parametrize("layout", [LARGE, SMALL])
def test_a_value_that_cannot_be_used_is_told_with_its_file_and_row(
    tmp_path: Path, rows: np.ndarray, layout: str
) -> None:
    X = rows.copy()
    X[[500, 9_000, 19_999], 1] = np.nan
    write(tmp_path / layout, X, 1 if layout == LARGE else 160)
    plan = planned(tmp_path, layout)
    found, _ = survey(
        planned_rows(plan), LocalBackend(1), sample_rows=10, seed=np.random.SeedSequence(0)
    )
    with pytest.raises(DataError, match="1 missing values") as caught:
        check_survey(found, plan, missing="error", at_least=1)
    lines = str(caught.value).splitlines()
    for row in (500, 9_000, 19_999):
        file, at = ("000", row) if layout == LARGE else (f"{row // 125:03}", row % 125)
        where = f"{file}.parquet, row group 0, column 'b', first at row {at}: 1 missing"
        assert sum(where in line for line in lines) == 1


def test_what_a_task_reads_is_named_whole(folder: Path) -> None:
    large = planned_rows(planned(folder, LARGE)).names or ()
    assert large[0] == (
        "000.parquet, row group 0, rows 0 to 19999 (in 8 parts, each 60000 bytes in memory)"
    )
    assert large[1] == "000.parquet, row group 0, rows 2500 to 4999 (60000 bytes in memory)"
    small = planned_rows(planned(folder, SMALL)).names or ()
    assert small[0] == (
        "000.parquet, row group 0, to 031.parquet, row group 0: 4000 rows of 32 files "
        "(96000 bytes in memory)"
    )
