"""The whole stage on real data: the same numbers by every way, published once."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask import GaussianMixture, load_model, read_labels
from gmm_dask.errors import DataError, GmmDaskError, OutputError, SettingsError
from gmm_dask.fitting import Pass
from gmm_dask.mixture import labels as row_labels
from gmm_dask.mixture import log_density
from gmm_dask.stage.outputs import Published, label_parts, open_output
from gmm_dask.stage.run import run, score
from gmm_dask.stage.settings import FitSettings, ScoreSettings, settings_from
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage import list_versions, open_store, verify
from tests.stage.conftest import FEATURES, IRIS, MakeSettings

TIGHT = {"tol": 1e-9, "max_iter": 500}


def iris_rows() -> pd.DataFrame:
    parts = [pq.read_table(path).to_pandas() for path in sorted(IRIS.rglob("*.parquet"))]
    return pd.concat(parts, ignore_index=True)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_iris_ends_at_the_known_optimum(iris_settings: MakeSettings) -> None:
    published = run(iris_settings(fit=TIGHT))
    metrics = published.metrics
    assert published.new
    assert metrics["converged"]
    assert metrics["log_likelihood"] == pytest.approx(-180.1855, abs=5e-5)
    assert metrics["n_rows"] == metrics["n_used"] == sum(metrics["n_labelled"]) == 150
    assert outside_their_species(published) == 5


def test_the_default_tolerance_ends_close(iris_settings: MakeSettings) -> None:
    published = run(iris_settings())
    assert published.metrics["log_likelihood"] == pytest.approx(-180.1855, abs=0.02)
    assert outside_their_species(published) == 5


def outside_their_species(published: Published) -> int:
    labels = read_labels(published.folder.store.url).compute(scheduler="sync")
    species = labels["flower"].to_numpy() // 50
    counts = pd.crosstab(species, labels["label"].to_numpy()).to_numpy()
    assert counts.sum() == 150
    return int(150 - counts.max(axis=1).sum())


def test_the_estimator_finds_the_same_model(iris_settings: MakeSettings) -> None:
    published = run(iris_settings(fit=TIGHT))
    estimator = GaussianMixture(3, random_state=0, **TIGHT).fit(iris_rows()[FEATURES].to_numpy())
    found = published.model.parameters
    heaviest_first = np.argsort(-estimator.weights_)  # the class leaves them as EM does
    np.testing.assert_allclose(estimator.means_[heaviest_first], found.means, rtol=0, atol=1e-10)
    assert (np.diff(found.weights) <= 0).all()


def test_labels_are_those_of_the_model_one_per_row_in_order(iris_settings: MakeSettings) -> None:
    published = run(iris_settings(labels={"keep": "all", "responsibilities": True}))
    labels = read_labels(published.folder.store.url).compute(scheduler="sync")
    rows, parameters = iris_rows(), published.model.parameters
    X = rows[FEATURES].to_numpy()
    assert labels["row_id"].tolist() == list(range(150))
    np.testing.assert_array_equal(labels[FEATURES].to_numpy(), X)
    assert labels["species"].astype(str).nunique() == 3
    np.testing.assert_array_equal(labels["label"], row_labels(X, parameters))
    np.testing.assert_allclose(labels["log_density"], log_density(X, parameters), rtol=1e-12)
    resp = np.stack(labels["responsibilities"].to_list())
    np.testing.assert_allclose(resp.sum(axis=1), 1.0)
    np.testing.assert_allclose(resp.max(axis=1), labels["max_responsibility"])
    assert labels["reason"].isna().all()


def test_the_folder_holds_what_the_readme_says(iris_settings: MakeSettings) -> None:
    published = run(iris_settings(output={"checkpoint_seconds": 0}))
    folder = Path(published.path("folder"))
    names = {path.name for path in folder.iterdir()}
    assert {
        "attempt.json", "run.json", "contents.json", "model.json", "parameters.parquet",
        "metrics.json", "changes.json", "report.html", "labels", "receipts", "checkpoints",
        "MANIFEST.json",
    } == names  # fmt: skip
    assert len(label_parts(published.folder.store.url)) == len(list((folder / "labels").iterdir()))
    assert verify(published.folder.store, published.version) == []
    plan = json.loads((folder / "run.json").read_text())["plan"]
    assert sum(sum(part["row_groups"]) for part in plan["partitions"]) == 150
    assert "<html" in (folder / "report.html").read_text().lower()


def test_a_finished_run_done_again_writes_nothing(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    first = run(iris_settings())
    before = files(tmp_path / "out")
    second = run(iris_settings(cluster={"workers": 1}))
    assert not second.new
    assert second.version == first.version
    assert files(tmp_path / "out") == before


def test_other_settings_make_another_version(iris_settings: MakeSettings, tmp_path: Path) -> None:
    first, second = run(iris_settings()), run(iris_settings(fit={"n_components": 2}))
    assert (first.version.number, second.version.number) == (1, 2)
    out = str(tmp_path / "out")
    assert load_model(out).parameters.n_components == 2
    assert load_model(f"{out}@1").parameters.n_components == 3
    assert open_output(f"{out}@1").metrics == first.metrics
    with pytest.raises(OutputError, match="no version 7; published: 1, 2"):
        load_model(f"{out}@7")


@pytest.mark.parametrize(
    "cluster",
    [{"workers": 1}, {"workers": 2}, {"kind": "processes", "workers": 2}],
    ids=["one thread", "two threads", "two processes"],
)
def test_the_bits_do_not_depend_on_the_workers(
    iris_settings: MakeSettings, tmp_path: Path, cluster: dict[str, object]
) -> None:
    memory = {"chunk_bytes": 512}  # at most 16 rows
    reference = run(iris_settings(memory=memory, output={"path": str(tmp_path / "reference")}))
    other = run(iris_settings(memory=memory, cluster=cluster))
    assert other.run_id == reference.run_id
    names = [label.rpartition("/")[2] for label in label_parts(str(tmp_path / "reference"))]
    assert len(names) >= 8
    assert [label.rpartition("/")[2] for label in label_parts(str(tmp_path / "out"))] == names
    for name in ("model.json", "parameters.parquet", *(f"labels/{name}" for name in names)):
        assert other.folder.get(name) == reference.folder.get(name), name


def test_a_run_interrupted_anywhere_ends_the_same_when_run_again(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    class StopHere(Exception):  # noqa: N818
        pass

    class Interrupting(Watcher):
        def __init__(self, word: str) -> None:
            self.word = word

        def phase(self, name: str, detail: str) -> None:
            if name == self.word:
                raise StopHere

        def labelled(self, done: int, total: int) -> None:
            if self.word == "labelled":
                raise StopHere

    reference = run(iris_settings(output={"path": str(tmp_path / "reference")}))
    for word in ("fit", "label", "labelled", "publish"):
        with pytest.raises(StopHere):
            run(iris_settings(cluster={"workers": 1}), Interrupting(word))
        assert list_versions(open_store(str(tmp_path / "out"))) == []
    again = run(iris_settings())
    assert again.folder.get("model.json") == reference.folder.get("model.json")
    assert [Path(p).name for p in label_parts(str(tmp_path / "out"))] == [
        Path(p).name for p in label_parts(str(tmp_path / "reference"))
    ]


def test_a_model_alone_is_published_without_labels(iris_settings: MakeSettings) -> None:
    published = run(iris_settings(labels={"enabled": False}))
    assert published.metrics["log_likelihood"] == pytest.approx(-180.19, abs=0.02)
    assert label_parts(published.folder.store.url) == []
    with pytest.raises(OutputError, match="without labels"):
        read_labels(published.folder.store.url)


def test_other_data_is_scored_with_a_published_model(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    fitted = run(iris_settings())
    settings = settings_from(
        {
            "data": {"path": str(IRIS / "species=virginica"), "id_columns": ["flower"]},
            "model": str(tmp_path / "out"),
            "output": {"path": str(tmp_path / "scored")},
        },
        ScoreSettings,
    )
    scored = score(settings)
    assert scored.model.sha256 == fitted.model.sha256
    labels = read_labels(str(tmp_path / "scored")).compute(scheduler="sync")
    before = read_labels(str(tmp_path / "out")).compute(scheduler="sync")
    same = before[before["flower"].isin(labels["flower"])]
    assert len(labels) == 50
    np.testing.assert_array_equal(labels["label"], same["label"])
    assert not score(settings).new


def test_rows_with_missing_values_keep_their_place(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    rows = iris_rows()
    rows.loc[[3, 77], "petal_width"] = np.nan
    rows.to_parquet(tmp_path / "holes.parquet")
    path = str(tmp_path / "holes.parquet")
    with pytest.raises(DataError, match=r"holes\.parquet.*petal_width.*missing: drop"):
        run(iris_settings(data={"path": path}))
    published = run(iris_settings(data={"path": path, "missing": "drop"}))
    assert published.metrics["n_dropped"] == {"missing": 2}
    labels = read_labels(str(tmp_path / "out")).compute(scheduler="sync")
    dropped = labels[labels["label"] == -1]
    assert dropped["row_id"].tolist() == [3, 77]
    assert dropped["reason"].tolist() == ["missing"] * 2
    assert dropped["log_density"].isna().all()
    assert len(labels) == 150


def test_weights_come_from_a_column(iris_settings: MakeSettings, tmp_path: Path) -> None:
    rows = iris_rows()
    rows["count"] = np.where(rows["flower"] % 2, 2, 0)
    rows.to_parquet(tmp_path / "weighted.parquet")
    published = run(
        iris_settings(
            data={"path": str(tmp_path / "weighted.parquet"), "weight_column": "count"}, fit=TIGHT
        )
    )
    half = GaussianMixture(3, random_state=0, **TIGHT).fit(
        rows[FEATURES].to_numpy(), sample_weight=rows["count"].to_numpy()
    )
    np.testing.assert_allclose(published.model.parameters.means, half.means_, rtol=1e-9)
    assert published.metrics["n_rows"] == 150


def test_the_watcher_hears_every_phase_pass_and_part(iris_settings: MakeSettings) -> None:
    heard: list[str] = []

    class Listening(Watcher):
        def phase(self, name: str, detail: str) -> None:
            heard.append(name)

        def passed(self, record: Pass, settings: FitSettings) -> None:
            heard.append("pass")

        def labelled(self, done: int, total: int) -> None:
            heard.append(f"{done}/{total}")

        def warn(self, message: str) -> None:
            heard.append(message)

    published = run(iris_settings(fit={"max_iter": 2, "init_params": "kmeans"}), Listening())
    assert heard[:4] == ["plan", "fit", "pass", "pass"]
    assert any("max_iter" in word for word in heard)
    assert heard[-1] == "publish"
    assert "4/4" in heard
    assert published.metrics["outcome"] == "out_of_iterations"


BAD = {
    "a missing column": ({"data": {"features": ["sepal_length", "leaf"]}}, ["leaf", "sepal_width"]),
    "a key column of text": ({"data": {"features": ["species", "petal_width"]}}, ["species"]),
    "an empty folder": ({"data": {"path": "EMPTY"}}, ["EMPTY", "Parquet"]),
    "no such folder": ({"data": {"path": "/no/such/place"}}, ["/no/such/place"]),
    "a kept column that is not there": ({"labels": {"keep": ["leaf"]}}, ["leaf"]),
    "too few rows": ({"fit": {"n_components": 151}}, ["150", "151"]),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_one_clear_error_and_nothing_is_published(
    case: str, iris_settings: MakeSettings, tmp_path: Path
) -> None:
    sections, words = BAD[case]
    if case == "an empty folder":
        (tmp_path / "EMPTY").mkdir()
        sections = {"data": {"path": str(tmp_path / "EMPTY")}}
    with pytest.raises(GmmDaskError) as caught:
        run(iris_settings(**sections))
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert not (tmp_path / "out" / "versions").exists()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_values_are_named_by_file_row_group_and_column(
    bad: float, iris_settings: MakeSettings, tmp_path: Path
) -> None:
    rows = iris_rows()
    rows.loc[120, "petal_length"] = bad
    pq.write_table(
        pa.Table.from_pandas(rows, preserve_index=False), tmp_path / "bad.parquet",
        row_group_size=50, write_statistics=False,
    )  # fmt: skip
    with pytest.raises(DataError) as caught:
        run(iris_settings(data={"path": str(tmp_path / "bad.parquet")}))
    message = str(caught.value)
    for word in ("bad.parquet", "row group 2", "petal_length", "row 120"):
        assert word in message


def test_an_output_folder_that_cannot_be_written_is_named(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.geteuid() == 0:
        locked = Path("/proc")  # root may write anywhere but there
    with pytest.raises(OutputError, match=f"{locked}.*cannot be written"):
        run(iris_settings(output={"path": str(locked / "out")}))


def test_an_output_path_that_is_a_file_is_named(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("not a folder")
    with pytest.raises(OutputError, match="out"):
        run(iris_settings())


def test_features_that_are_not_the_models_are_refused(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    run(iris_settings())
    settings = settings_from(
        {
            "data": {"path": str(IRIS), "features": FEATURES[::-1]},
            "model": str(tmp_path / "out"),
            "output": {"path": str(tmp_path / "scored")},
        },
        ScoreSettings,
    )
    with pytest.raises(SettingsError, match="was fitted on sepal_length"):
        score(settings)


def test_weights_of_zero_are_named(iris_settings: MakeSettings, tmp_path: Path) -> None:
    rows = iris_rows().assign(count=0)
    rows.to_parquet(tmp_path / "zero.parquet")
    with pytest.raises(DataError, match=r"'count'.*add up to 0"):
        run(iris_settings(data={"path": str(tmp_path / "zero.parquet"), "weight_column": "count"}))


@pytest.mark.parametrize("out", ["data/out", "data", "linked/out"])
def test_an_output_among_the_data_is_refused_before_any_work(
    out: str, iris_settings: MakeSettings, tmp_path: Path
) -> None:
    shutil.copytree(IRIS, tmp_path / "data")
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    before = files(tmp_path)
    settings = {"data": {"path": str(tmp_path / "data")}, "output": {"path": str(tmp_path / out)}}
    with pytest.raises(SettingsError, match=r"lies inside of data\.path.*beside the data"):
        run(iris_settings(**settings))
    assert files(tmp_path) == before
