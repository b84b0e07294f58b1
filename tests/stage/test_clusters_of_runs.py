"""Clusters and certainty of published labels: columns, metrics, and what people are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import entr
from sklearn.datasets import make_moons
from sklearn.metrics import adjusted_rand_score

from gmm_dask import GaussianMixture, load_model
from gmm_dask.errors import DataError, SettingsError
from gmm_dask.mixture import responsibilities
from gmm_dask.stage.job import plan
from gmm_dask.stage.outputs import Published, label_parts
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import settings_from
from gmm_dask.stage.summary import measures

X, TRUTH = make_moons(1200, noise=0.07, random_state=0)


@pytest.fixture(scope="module")
def moons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moons")
    weight = np.where(np.arange(len(X)) % 7 == 3, 0.0, 1.5)
    a = np.where(np.arange(len(X)) == 5, np.nan, X[:, 0])
    frame = pd.DataFrame({"a": a, "b": X[:, 1], "truth": TRUTH, "w": weight})
    for i in range(3):
        frame[i::3].to_parquet(folder / f"{i}.parquet")
    return folder


def published(moons: Path, out: Path, labels: dict[str, Any], **fit: Any) -> Published:
    data = {"path": str(moons), "features": ["a", "b"], "id_columns": ["truth"]}
    settings = {
        "data": data | {"missing": "drop", "weight_column": "w"},
        "fit": {"n_components": 8} | fit,
        "labels": labels,
        "output": {"path": str(out)},
    }
    return run(settings_from(settings))


@pytest.fixture(scope="module")
def found(moons: Path, tmp_path_factory: pytest.TempPathFactory) -> Published:
    asked = {"clusters": True, "entropy": True, "responsibilities": True}
    return published(moons, tmp_path_factory.mktemp("out"), asked)


def test_labels_have_the_cluster_and_the_entropy_that_are_asked_for(found: Published) -> None:
    parts = label_parts(found.folder.store.url)
    table = pa.concat_tables(pq.read_table(part) for part in parts).to_pandas()
    assert table.columns.tolist() == [
        *("row_id", "truth", "label", "log_density", "max_responsibility", "reason"),
        *("cluster", "entropy", "responsibilities"),
    ]
    labelled = table[table.label >= 0]
    assert (table.cluster[table.label < 0] == -1).all()
    assert table.entropy[table.label < 0].isna().all()
    assert (labelled.cluster == np.array(found.model.clusters)[labelled.label]).all()
    assert adjusted_rand_score(labelled.truth, labelled.cluster) > 0.98
    resp = np.stack(labelled.responsibilities)
    expected = entr(resp).sum(axis=1)
    assert np.allclose(labelled.entropy, expected, atol=1e-12)
    assert found.metrics["n_in_clusters"] == labelled.cluster.value_counts().sort_index().tolist()


def test_metrics_tell_how_surely_rows_are_labelled(moons: Path, found: Published) -> None:
    metrics, rows = found.metrics["classification"], pd.read_parquet(moons).dropna()
    resp = responsibilities(rows[["a", "b"]].to_numpy(), found.model.parameters)
    labels, weight = resp.argmax(axis=1), rows.w.to_numpy()[:, None]
    table = np.stack([(weight * resp)[labels == j].sum(axis=0) for j in range(8)])
    expected = table / table.sum(axis=1, keepdims=True)
    assert np.allclose(metrics["mean_posteriors"], expected, atol=1e-6)
    entropy = (weight * entr(resp)).sum() / (weight.sum() * np.log(8))
    assert metrics["relative_entropy"] == pytest.approx(1 - entropy, abs=2e-5)
    assert len(metrics["entropies"]) == 8
    assert np.allclose(metrics["overlaps"], np.transpose(metrics["overlaps"]))


def test_people_are_shown_which_components_are_one_cluster(found: Published) -> None:
    shown = measures(found.metrics)
    assert shown["clusters"].startswith("2 of 8 components: 0 + ")
    assert shown["certainty"].startswith(
        f"{found.metrics['classification']['relative_entropy']:.3f}"
    )
    of_earlier = {k: v for k, v in found.metrics.items() if k not in ("clusters", "classification")}
    assert not {"clusters", "certainty"} & measures(of_earlier).keys()


def test_the_report_shows_the_tree_where_components_are_merged(
    moons: Path, tmp_path: Path, drawn: None
) -> None:
    heading = "Which components are one cluster"
    for n, is_merged in ((8, True), (2, False)):
        out = tmp_path / str(n)
        fit = {"n_components": n, "n_clusters": 2, "init_params": "kmeans"}
        made = published(moons, out, {"enabled": False}, **fit)
        page = Path(made.path("report")).read_text()
        assert (heading in page, "2 clusters are left" in page) == (is_merged, is_merged)


def test_as_many_clusters_as_are_asked_for_in_model_and_class(moons: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = published(moons, out, {"enabled": False}, n_clusters=8)
    assert found.model.clusters == tuple(range(8))
    assert measures(found.metrics)["clusters"].startswith("8, one of each component")
    loaded = load_model(str(out))
    assert loaded.n_clusters == 8
    assert loaded.merge_tree == loaded.merge_tree_
    path = found.folder.path("model.json")
    assert load_model(path).clusters_.tolist() == list(range(8))


def test_a_column_that_is_called_like_one_of_ours_is_refused(moons: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    pd.read_parquet(moons).rename(columns={"truth": "cluster"}).to_parquet(folder / "x.parquet")
    labels: dict[str, Any] = {"keep": "all"}
    settings = {
        "data": {"path": str(folder), "features": ["b"]},
        "output": {"path": str(tmp_path / "out")},
    }
    plan(settings_from(settings | {"labels": labels}))
    with pytest.raises(DataError, match="'cluster' cannot be kept"):
        plan(settings_from(settings | {"labels": labels | {"clusters": True}}))


def test_more_clusters_than_components_are_refused() -> None:
    said = "n_clusters is 4; 3 components cannot be merged into more clusters"
    X = np.random.default_rng(0).normal(size=(60, 2))
    model = GaussianMixture(3, n_clusters=4, random_state=0).fit(X)
    with pytest.raises(SettingsError, match=said):
        model.predict_clusters(X)
    fit = {"n_components": 3, "n_clusters": 4}
    with pytest.raises(SettingsError, match=said):
        settings_from({"data": {"path": "x"}, "output": {"path": "y"}, "fit": fit})
