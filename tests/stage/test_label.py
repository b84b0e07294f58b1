"""Labels: parts of whole chunks, in row order, every row decoded once a column."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask.stage.labels import labelling
from gmm_dask.stage.run import run, score
from gmm_dask.stage.settings import ScoreSettings, settings_from
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage import verify

N_ROWS, CHUNK_ROWS = 3000, 400


def write(folder: Path, n_files: int) -> None:
    folder.mkdir()
    X = np.random.default_rng(0).normal(size=(N_ROWS, 2)) + 6 * (np.arange(N_ROWS) % 2)[:, None]
    ids = np.arange(N_ROWS)
    for i, part in enumerate(np.array_split(ids, n_files)):
        columns = {"x": X[part, 0], "y": X[part, 1], "id": part, "w": 1.0 + part % 3}
        pq.write_table(pa.table(columns), folder / f"{i:03}.parquet")


def published(data: Path, out: Path, watcher: Watcher | None = None) -> Any:
    document = {
        "data": {
            "path": str(data), "features": ["x", "y"], "id_columns": ["id"], "weight_column": "w"
        },
        "fit": {"n_components": 2},
        "cluster": {"kind": "threads", "workers": 2},
        "memory": {"chunk_bytes": CHUNK_ROWS * 16, "held_bytes": 0},
        "output": {"path": str(out)},
    }  # fmt: skip
    return run(settings_from(document), watcher)


@pytest.mark.parametrize("n_files", [1, 60])
def test_parts_are_of_one_file_and_in_row_order(
    tmp_path: Path, n_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: Counter[str] = Counter()
    real = pq.ParquetFile.iter_batches

    def iterate(self: Any, *arguments: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        for batch in real(self, *arguments, **options):
            decoded.update(dict.fromkeys(batch.schema.names, batch.num_rows))
            yield batch

    class Listening(Watcher):
        def phase(self, name: str, detail: str) -> None:
            if name == "label":
                assert detail == f"3,000 rows in {8 if n_files == 1 else 60} parts"
                decoded.clear()

        def labelled(self, done: int, total: int) -> None:
            heard.append((done, total))

    heard: list[tuple[int, int]] = []
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iterate)
    write(tmp_path / "data", n_files)
    found = published(tmp_path / "data", tmp_path / "out", Listening())
    assert dict(decoded) == dict.fromkeys(("x", "y", "id", "w"), N_ROWS)
    assert heard == sorted(set(heard))
    n_parts = 8 if n_files == 1 else 60
    assert heard[-1] == (n_parts, n_parts)
    parts = sorted(Path(found.folder.path("labels")).iterdir())
    assert len(parts) == n_parts
    tables = [pq.read_table(part) for part in parts]
    ids = pa.concat_tables(tables)
    assert ids["row_id"].to_pylist() == ids["id"].to_pylist() == list(range(N_ROWS))
    for table in tables:
        origin = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        first = int(origin["gmm_dask.first_row"])
        assert table["row_id"][0].as_py() == first
        in_file = first - int(origin["gmm_dask.start"])
        assert origin["gmm_dask.file"] == f"{in_file * n_files // N_ROWS:03}.parquet"


def test_small_files_share_parts_that_name_the_rows_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data", 60)
    alone = published(tmp_path / "data", tmp_path / "alone")
    monkeypatch.setattr(labelling, "MAX_PARTS", 3)
    shared = published(tmp_path / "data", tmp_path / "shared")
    assert shared.metrics["n_labelled"] == alone.metrics["n_labelled"]
    assert shared.metrics["log_likelihood"] == pytest.approx(
        alone.metrics["log_likelihood"], rel=1e-12
    )
    parts = sorted(Path(shared.folder.path("labels")).iterdir())
    assert len(parts) < 30
    tables = [pq.read_table(part) for part in parts]
    one, other = pa.concat_tables(tables), _labels_of(alone)
    assert one.equals(other)
    named: list[tuple[str, int]] = []
    for table in tables:
        origin = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        files = [[origin[f"gmm_dask.{name}"] for name in ("file", "start", "stop")]]
        files += json.loads(origin.get("gmm_dask.others", "[]"))
        named += [(file, int(stop) - int(start)) for file, start, stop in files]
        assert sum(n for _, n in named) == table["row_id"][-1].as_py() + 1
    assert named == [(f"{i:03}.parquet", 50) for i in range(60)]
    assert verify(shared.folder.store, shared.version) == []


def test_a_stopped_run_makes_no_shared_part_again_that_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopping(Watcher):
        def labelled(self, done: int, total: int) -> None:
            if done:
                raise KeyboardInterrupt

    monkeypatch.setattr(labelling, "MAX_PARTS", 3)
    write(tmp_path / "data", 60)
    published(tmp_path / "data", tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        published(tmp_path / "data", tmp_path / "out", Stopping())
    made = {part: part.stat().st_mtime_ns for part in (tmp_path / "out").rglob("part-*.parquet")}
    assert made
    damaged = min(made)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    found = published(tmp_path / "data", tmp_path / "out")
    assert all(part.stat().st_mtime_ns == made[part] for part in made.keys() - {damaged})
    assert verify(found.folder.store, found.version) == []
    assert _labels_of(found).equals(
        pa.concat_tables(map(pq.read_table, sorted((tmp_path / "whole").rglob("part-*.parquet"))))
    )


def _labels_of(published: Any) -> pa.Table:
    return pa.concat_tables(
        map(pq.read_table, sorted(Path(published.folder.path("labels")).iterdir()))
    )


def test_a_run_goes_on_in_the_middle_of_a_row_group(tmp_path: Path) -> None:
    class Stopping(Watcher):
        def labelled(self, done: int, total: int) -> None:
            if done:
                raise KeyboardInterrupt

    write(tmp_path / "data", 1)
    expected = published(tmp_path / "data", tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        published(tmp_path / "data", tmp_path / "out", Stopping())
    parts = sorted((tmp_path / "out").rglob("part-*.parquet"))
    assert len(parts) == 8
    for part in (parts[0], parts[3], parts[7]):
        part.unlink()
    published(tmp_path / "data", tmp_path / "out")
    names = {
        out: {part.name for part in (tmp_path / out).rglob("part-*.parquet")}
        for out in ("whole", "out")
    }
    assert names["out"] == names["whole"]
    assert expected.metrics["n_rows"] == N_ROWS


def test_labels_and_fits_that_share_an_output_are_cautioned_against(tmp_path: Path) -> None:
    class Listening(Watcher):
        def warn(self, message: str) -> None:
            heard.append(message)

    def labels(data: str, out: str) -> Any:
        document = {
            "data": {"path": str(tmp_path / data), "weight_column": "w"},
            "model": str(tmp_path / "out"),
            "output": {"path": str(tmp_path / out)},
        }
        return score(settings_from(document, ScoreSettings), Listening())

    heard: list[str] = []
    write(tmp_path / "data", 1)
    write(tmp_path / "more", 2)
    published(tmp_path / "data", tmp_path / "out", Listening())
    labels("data", "labels")
    labels("more", "labels")
    assert heard == []
    mixed = labels("data", "out")
    (said,) = heard
    assert f"latest version of {tmp_path / 'out'}, 1, is a fit, and labels of other data" in said
    assert mixed.metrics["caution"] == said
    published(tmp_path / "data", tmp_path / "labels", Listening())
    assert f"version of {tmp_path / 'labels'}, 2, is labels alone, and a fit will be" in heard[1]
