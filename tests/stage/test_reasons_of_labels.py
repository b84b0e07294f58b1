"""Labels say how unusual a row is, which columns make it so, and why it has its label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask import load_model, read_labels
from gmm_dask.errors import DataError, SettingsError
from gmm_dask.mixture import Parameters, score_rows
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.stage.labels.severity import LEVELS, Severities
from gmm_dask.stage.outputs import open_output
from gmm_dask.stage.run import run, score
from gmm_dask.stage.settings import ScoreSettings, settings_from
from gmm_dask.stage.settings.output_settings import REASONS
from gmm_dask.stage.summary import Summary
from tests.stage.conftest import FEATURES, IRIS, MakeSettings


def written(rows: np.ndarray, path: Path) -> str:
    path.parent.mkdir(exist_ok=True)
    table = {f"c{j}": pa.array(rows[:, j], from_pandas=True) for j in range(rows.shape[1])}
    pq.write_table(pa.table(table), path)
    return str(path)


def labels_of(out: Path) -> pd.DataFrame:
    return read_labels(str(out)).compute(scheduler="sync").reset_index(drop=True)


def score_with(model: str, data: str, out: Path, **labels: Any) -> pd.DataFrame:
    document = {"data": {"path": data}, "model": model, "labels": labels}
    score(settings_from(document | {"output": {"path": str(out)}}, ScoreSettings))
    return labels_of(out)


def test_flagged_rows_are_explained_and_others_are_not(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    published = run(iris_settings(labels={"anomaly": 0.95, "reasons": "flagged"}))
    labels, model = labels_of(tmp_path / "out"), load_model(str(tmp_path / "out"))
    density = labels["log_density"]
    denser = [100 * (density > each).mean() for each in density]
    np.testing.assert_allclose(labels["severity"], denser, atol=1.0)
    flagged = labels["anomaly"]
    assert list(flagged) == list(labels["severity"] > 95)
    assert published.metrics["n_anomalies"] == flagged.sum() == 7
    assert labels.loc[~flagged, list(REASONS)].isna().all(axis=None)
    rows = pd.read_parquet(IRIS)[FEATURES]
    precisions = model.precisions_
    for i in np.flatnonzero(flagged):
        row = labels.loc[i]
        P = precisions[row["label"]]
        v = P @ (rows.loc[i].to_numpy() - model.means_[row["label"]])
        shares = v**2 / np.diag(P)
        first = [FEATURES.index(name) for name in row["reason_columns"]]
        assert first == list(np.argsort(-shares)[:3])
        np.testing.assert_allclose(row["reason_scores"], (v / np.sqrt(np.diag(P)))[first])
        expected = (rows.loc[i].to_numpy() - v / np.diag(P))[first]
        np.testing.assert_allclose(row["reason_expected"], expected)
        odds = model.predict_proba(rows.loc[[i]])[0]
        assert row["next_label"] == np.argsort(-odds)[1]
        assert len(row["label_columns"]) == len(row["label_evidence"]) == 3


def test_other_rows_are_compared_with_the_training_data_of_the_version(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    run(iris_settings(labels={"enabled": False}))
    out = str(tmp_path / "out")
    here = score_with(out, str(IRIS), tmp_path / "here", severity=True, reasons="all")
    assert here[list(REASONS)].notna().all(axis=None)
    assert "anomaly" not in here
    far = pd.read_parquet(IRIS)[FEATURES].to_numpy() + 9.0
    pq.write_table(pa.table(dict(zip(FEATURES, far.T, strict=True))), tmp_path / "far.parquet")
    far = score_with(f"{out}@1", str(tmp_path / "far.parquet"), tmp_path / "far", severity=True)
    assert (far["severity"] == 100).all()
    again = score_with(str(tmp_path / "here"), str(IRIS), tmp_path / "again", severity=True)
    np.testing.assert_array_equal(again["severity"], here["severity"])
    load_model(out).save(tmp_path / "model.json")


def test_a_model_file_alone_has_the_severity_of_rows_drawn_from_its_mixture(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    """As exactly as their number allows: of such rows severity is uniform."""
    run(iris_settings(labels={"enabled": False}))
    model = load_model(str(tmp_path / "out"))
    model.save(tmp_path / "model.json")
    drawn = model.set_params(random_state=1).sample(5000)[0]
    names = dict(zip(FEATURES, drawn.T, strict=True))
    pq.write_table(pa.table(names), tmp_path / "drawn.parquet")
    model_file, data = str(tmp_path / "model.json"), str(tmp_path / "drawn.parquet")
    found = score_with(model_file, data, tmp_path / "scored", severity=True)["severity"]
    np.testing.assert_allclose(found.quantile([0.1, 0.5, 0.9, 0.99]), [10, 50, 90, 99], atol=2.5)
    caution = open_output(str(tmp_path / "scored")).metrics["caution"]
    assert "severity compares rows with 65,536 that are drawn from the mixture" in caution


def test_rows_with_missing_values_are_explained_by_what_they_hold(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(400, 3)) @ np.array(
        [[1, 1, 0], [0, 0.1, 0], [0, 0, 1]]
    )
    X[::5, 2], X[1::7, 0] = np.nan, np.nan
    X[10] = np.nan
    document = {
        "data": {"path": written(X, tmp_path / "data" / "a.parquet"), "missing": "em"},
        "fit": {"n_components": 1},
        "labels": {"reasons": "all"},
        "output": {"path": str(tmp_path / "out")},
    }
    run(settings_from(document))
    labels = labels_of(tmp_path / "out")
    there = [3 - np.isnan(row).sum() for row in X]
    assert [len(names) for names in labels["reason_columns"]] == there
    for row, names in zip(X, labels["reason_columns"], strict=True):
        assert {f"c{j}" for j in np.flatnonzero(~np.isnan(row))} == set(names)
    assert labels["next_label"].isna().all()  # there is no other component
    document["data"]["missing"], document["output"]["path"] = "drop", str(tmp_path / "drop")
    run(settings_from(document | {"labels": {"reasons": "all", "severity": True}}))
    dropped = labels_of(tmp_path / "drop")
    absent = np.isnan(X).any(axis=1)
    np.testing.assert_array_equal(dropped["severity"].isna(), absent)
    np.testing.assert_array_equal(dropped["reason_columns"].isna(), absent)


def test_severity_is_the_share_by_weight_that_is_denser() -> None:
    rng = np.random.default_rng(0)
    X, weight = rng.normal(size=(50_000, 1)), rng.integers(1, 4, 50_000).astype(float)
    parameters = Parameters.from_covariances([1.0], [[0.0]], [[[1.0]]], "full")
    found = Severities.of_sample(X, weight, parameters, RowArithmetic.chosen("error"))
    assert found is not None
    density = score_rows(X, parameters).log_density
    for at in (0.1, 1.0, 2.0, 3.5):
        own = score_rows(np.array([[at]]), parameters).log_density
        exact = 100 * weight[density > own[0]].sum() / weight.sum()
        assert found.of(own, RowArithmetic())[0] == pytest.approx(exact, abs=0.05)
    assert sorted(LEVELS) == list(LEVELS)
    assert len(set(LEVELS)) == len(LEVELS)
    assert (np.diff(found.log_density) <= 0).all()
    assert Severities.noted({"severity": found.to_dict()}, "x") is not None


def test_a_batch_without_rows_or_usable_rows_has_the_same_columns(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    run(iris_settings(labels={"enabled": False}))
    out, rows = str(tmp_path / "out"), pd.read_parquet(IRIS)[FEATURES]
    asked = {"anomaly": 0.99, "reasons": "all"}
    whole = score_with(out, str(IRIS), tmp_path / "whole", **asked)
    for name, batch in (("empty", rows[:0]), ("absent", rows.assign(petal_width=np.nan))):
        batch.to_parquet(tmp_path / f"{name}.parquet")
        document = {
            "data": {"path": str(tmp_path / f"{name}.parquet"), "missing": "drop"},
            "model": out,
            "labels": asked,
            "output": {"path": str(tmp_path / name)},
        }
        score(settings_from(document, ScoreSettings))
        found = labels_of(tmp_path / name)
        assert list(found) == list(whole.columns.drop("flower", errors="ignore"))
        assert found[list(REASONS)].isna().all(axis=None)


def test_columns_of_ours_are_refused_where_they_are_asked_for(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    rows = pd.read_parquet(IRIS).rename(columns={"flower": "severity"})[[*FEATURES, "severity"]]
    rows.to_parquet(tmp_path / "rows.parquet")
    data = {"path": str(tmp_path / "rows.parquet"), "id_columns": ["severity"]}
    with pytest.raises(DataError, match="'severity' cannot be kept"):
        run(iris_settings(data=data, labels={"severity": True}))
    run(iris_settings(data=data))
    none = {"enabled": False, "reasons": "all", "anomaly": 0.9, "severity": True}
    with pytest.raises(SettingsError, match="severity, anomaly, reasons need labels, and enabled"):
        iris_settings(labels=none)
    with pytest.raises(SettingsError, match="reasons: flagged needs anomaly"):
        iris_settings(labels={"reasons": "flagged"})


def test_profiles_say_what_components_are_known_by(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    published = run(iris_settings())
    profiles = published.metrics["profiles"]
    model = load_model(str(tmp_path / "out"))
    rows = pd.read_parquet(IRIS)[FEATURES]
    assert [each["component"] for each in profiles] == [0, 1, 2]
    for j, each in enumerate(profiles):
        first = each["differences"][0]
        column = FEATURES.index(first["column"])
        assert first["mean"] == model.means_[j, column]
        assert first["whole"] == pytest.approx(rows[first["column"]].mean(), rel=1e-4)
        spread = rows[first["column"]].std(ddof=0)
        apart = (first["mean"] - first["whole"]) / spread
        assert first["deviations"] == pytest.approx(apart, rel=1e-3)
        sizes = [abs(other["deviations"]) for other in each["differences"]]
        assert sizes == sorted(sizes, reverse=True)
    setosa = int(np.argmin(model.means_[:, 2]))
    others = {0, 1, 2} - {setosa}
    for j in others:  # the two kinds that overlap are nearest to each other
        assert {profiles[j]["nearest"]["component"]} == others - {j}
    lines = Summary.of(published.model, published.metrics).profiles
    assert "low petal_length" in lines[setosa]
    assert "told from it by" in lines[setosa]
