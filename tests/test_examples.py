"""Data sets and settings that ship with the project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.datasets import load_iris

from gmm_dask.stage.settings import ScoreSettings, Settings, load_settings

ROOT = Path(__file__).parents[1]


def make(script: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / script), str(folder)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_iris_is_the_known_data_and_is_made_again_byte_by_byte(tmp_path: Path) -> None:
    make("make_iris.py", tmp_path / "iris")
    shipped = {
        p.relative_to(ROOT / "examples" / "iris"): p for p in _parquet(ROOT / "examples" / "iris")
    }
    made = {p.relative_to(tmp_path / "iris"): p for p in _parquet(tmp_path / "iris")}
    assert list(shipped) == list(made)
    assert all(shipped[name].read_bytes() == made[name].read_bytes() for name in made)
    rows = np.concatenate([
        np.column_stack([
            pq.ParquetFile(path).read()[name].to_numpy()
            for name in ("flower", "sepal_length", "sepal_width", "petal_length", "petal_width")
        ])
        for path in shipped.values()
    ])  # fmt: skip
    assert rows[:, 0].tolist() == list(range(150))
    np.testing.assert_array_equal(rows[:, 1:], load_iris().data)


def test_flights_are_complete_rows_by_month(tmp_path: Path) -> None:
    said = make("make_flights.py", tmp_path / "flights")
    files = _parquet(tmp_path / "flights")
    assert len({path.parent.name for path in files}) == 12
    settings = load_settings(ROOT / "config" / "flights.yaml")
    assert sum(pq.read_metadata(path).num_rows for path in files) == 327_346
    assert "327346" in said
    schema = pq.read_schema(files[0])
    assert set(settings.data.features) <= set(schema.names)
    assert pq.ParquetFile(files[0]).read(list(settings.data.features))[0].null_count == 0


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda p: p.name)
def test_every_settings_file_is_valid_and_every_key_explained(path: Path) -> None:
    schema = ScoreSettings if path.name == "label.yaml" else Settings
    load_settings(path, schema=schema)
    for line in path.read_text().splitlines():
        if line.startswith("  ") and not line.strip().startswith(("-", "#")):
            key = line.partition(":")[0].strip()
            explained = "#" in line or key in _explained_in_iris()
            assert explained, f"{path.name}: {key} is not explained"


def _explained_in_iris() -> set[str]:
    lines = (ROOT / "config" / "iris.yaml").read_text().splitlines()
    return {line.partition(":")[0].strip() for line in lines if "#" in line}


def test_iris_yaml_shows_every_key_of_the_schema() -> None:
    document = yaml.safe_load((ROOT / "config" / "iris.yaml").read_text())
    for name, field in Settings.model_fields.items():
        assert set(document[name]) == set(field.annotation.model_fields), name


def _parquet(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))
