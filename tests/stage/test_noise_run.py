"""A run with a noise component: labels, metrics, model file and words, and one that is resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask import load_model
from gmm_dask.fitting import Pass
from gmm_dask.roads.cautions import LACKS_NOISE
from gmm_dask.sections import FitSettings
from gmm_dask.stage.outputs import label_parts
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import Settings, settings_from
from gmm_dask.stage.summary import rows_used, told_apart
from gmm_dask.stage.watch import Watcher

N_ROWS, N_NOISE = 1500, 180


def settings(folder: Path, out: str, **fit: Any) -> Settings:
    data = folder / "data"
    if not data.exists():
        rng = np.random.default_rng(0)
        labels = np.arange(N_ROWS) % 3
        X = rng.normal(size=(N_ROWS, 2)) + np.array([[0, 0], [8, 0], [0, 8]])[labels]
        X[:N_NOISE] = rng.uniform(-25, 35, size=(N_NOISE, 2))
        X[-20:, 1] = np.nan
        data.mkdir()
        names = {"x": X[:, 0], "y": X[:, 1], "w": 1.0 + labels}
        for i, part in enumerate(np.array_split(np.arange(N_ROWS), 3)):
            table = pa.table({name: values[part] for name, values in names.items()})
            pq.write_table(table, data / f"{i}.parquet")
    return settings_from(
        {
            "data": {
                "path": str(data),
                "features": ["x", "y"],
                "missing": "drop",
                "weight_column": "w",
            },
            "fit": {"n_components": 3, "noise": True, "tol": 1e-6, **fit},
            "labels": {"responsibilities": True, "reasons": "all"},
            "output": {"path": str(folder / out), "checkpoint_seconds": 0},
        }
    )


def labels_of(folder: Path, out: str) -> pa.Table:
    return pa.concat_tables(map(pq.read_table, label_parts(str(folder / out))))


def test_noise_has_its_reason_and_is_counted(tmp_path: Path) -> None:
    published = run(settings(tmp_path, "out"))
    model, metrics = published.model, published.metrics
    noise = model.parameters.noise
    assert noise is not None
    assert noise.share == pytest.approx(N_NOISE / N_ROWS, abs=0.02)
    found = labels_of(tmp_path, "out").to_pandas()
    assert found["reason"].value_counts().to_dict() == {
        "noise": metrics["n_noise"],
        "missing": 20,
    }
    assert (found["label"] < 0).sum() == metrics["n_noise"] + 20
    assert sum(metrics["n_labelled"]) + metrics["n_noise"] == N_ROWS - 20
    assert metrics["n_noise"] == pytest.approx(N_NOISE, abs=20)
    is_noise = found["reason"] == "noise"
    assert found.loc[is_noise, "log_density"].notna().all()
    assert found.loc[is_noise, "next_label"].between(0, 2).all()  # explained by the nearest one
    sums = np.stack(found.loc[found["label"] >= 0, "responsibilities"]).sum(axis=1)
    assert (sums > 0.5).all()
    assert f"{metrics['n_noise']} of them noise with the label -1" in rows_used(metrics)
    n_free = 3 * 2 + 3 * 3 + 2 + 1
    weights = np.where(found["reason"] == "missing", 0, 1.0 + np.arange(N_ROWS) % 3)
    bic = n_free * np.log(weights.sum()) - 2 * metrics["log_likelihood"]
    assert metrics["bic"] == pytest.approx(bic)
    report = published.folder.get("report.html").decode()
    assert "noise, with the label -1" in report


def test_a_published_mixture_keeps_its_noise(tmp_path: Path) -> None:
    published = run(settings(tmp_path, "out"))
    model = load_model(str(tmp_path / "out"))
    table = labels_of(tmp_path, "out").to_pandas()
    X = pa.concat_tables(map(pq.read_table, sorted((tmp_path / "data").iterdir()))).to_pandas()
    used = table["reason"] != "missing"
    np.testing.assert_array_equal(model.predict(X.loc[used, ["x", "y"]]), table.loc[used, "label"])
    model.save(tmp_path / "model.json")
    again = load_model(str(tmp_path / "model.json"))
    assert again.noise_share_ == published.model.parameters.noise.share
    np.testing.assert_array_equal(again.noise_box_, model.noise_box_)
    document = json.loads((tmp_path / "model.json").read_text())
    assert set(document["noise"]) == {"share", "lower", "upper"}


def test_a_run_that_was_stopped_ends_with_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    class StopHere(Exception):  # noqa: N818
        pass

    class Interrupting(Watcher):
        def passed(self, record: Pass, settings: FitSettings) -> None:
            if record.number == 3:
                raise StopHere

    passes: list[int] = []

    class Counting(Watcher):
        def passed(self, record: Pass, settings: FitSettings) -> None:
            passes.append(record.number)

    reference = run(settings(tmp_path, "reference"))
    with pytest.raises(StopHere):
        run(settings(tmp_path, "out"), Interrupting())
    assert list(tmp_path.glob("out/runs/*/checkpoints/00002.json"))
    again = run(settings(tmp_path, "out"), Counting())
    assert passes[0] == 3
    assert again.folder.get("model.json") == reference.folder.get("model.json")


def test_a_run_without_it_proposes_noise_where_rows_look_like_it(tmp_path: Path) -> None:
    metrics = run(settings(tmp_path, "plain", noise=False)).metrics
    (told,) = (each for each in metrics["events"] if each["kind"] == LACKS_NOISE)
    assert "Set noise to true" in told["message"]
    assert told["message"] in told_apart(metrics["events"])[0]
    events = run(settings(tmp_path, "with_noise")).metrics["events"]
    assert LACKS_NOISE not in [each["kind"] for each in events]
