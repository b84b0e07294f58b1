"""Scorers for others agree with ours, and the pages of formats are true."""

from __future__ import annotations

import json
import re
import resource
import sys
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from gmm_dask import load_model
from gmm_dask.command.cli import app
from gmm_dask.errors import SettingsError
from gmm_dask.export import SCHEMAS, to_onnx, to_sql
from gmm_dask.mixture import Parameters, responsibilities, score_rows
from gmm_dask.mixture.parameters import Noise
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import settings_from
from tests.by_hand import ROOT

RUNNER = CliRunner()
K, D = 3, 3
FAMILIES = ["full", "tied", "diag", "spherical", "low_rank:1"]
SCALES = [(1.0, 0.0), (1.0, 1e8), (1e-6, 0.0), (1e-120, 0.0)]


def mixture(family: str, scale: float, offset: float) -> Any:
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(K, D, D))
    full = (roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(D)) * scale**2
    low = np.concatenate([roots[:, :, :1] * scale, np.full((K, D, 1), scale**2)], axis=2)
    covariances = {
        "full": full,
        "tied": full[0],
        "diag": np.einsum("kdd->kd", full),
        "spherical": full[:, 0, 0],
        "low_rank:1": low,
    }[family]
    means = 2 * rng.normal(size=(K, D)) * scale + offset
    parameters = Parameters.from_covariances([0.5, 0.3, 0.2], means, covariances, family)
    return SimpleNamespace(parameters=parameters, feature_names=("a b", 'c"d', "e"))


def with_noise(family: str) -> Any:
    model = mixture(family, 1.0, 10.0)
    noise = Noise(0.1, np.array([0.0, 2, 4]), np.array([20.0, 19, 18]))
    model.parameters = replace(model.parameters, noise=noise)
    return model


def rows(scale: float, offset: float) -> np.ndarray:
    rng = np.random.default_rng(1)
    spread = np.repeat([3.0, 1e3, 1e5, 1e8], 50)[:, None]
    return rng.normal(size=(200, D)) * spread * scale + offset


def by_sql(model: Any, X: np.ndarray) -> dict[str, np.ndarray]:
    columns = {name: X[:, j] for j, name in enumerate(model.feature_names)}
    data = pa.table(columns | {"id": np.arange(len(X))})
    with duckdb.connect() as connection:
        connection.register("data", data)
        found = connection.execute(to_sql(model, "data", ["id"])).fetchnumpy()
    order = np.argsort(found["id"])
    return {name: values[order] for name, values in found.items()}


@pytest.mark.parametrize(("scale", "offset"), SCALES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_query_scores_as_we_do(family: str, scale: float, offset: float) -> None:
    model, X = mixture(family, scale, offset), rows(scale, offset)
    found, scores = by_sql(model, X), score_rows(X, model.parameters)
    shares = np.stack([found[f"p{j}"] for j in range(K)], axis=1)
    np.testing.assert_allclose(shares, responsibilities(X, model.parameters), atol=1e-9)
    np.testing.assert_allclose(found["log_density"], scores.log_density, rtol=1e-9)
    np.testing.assert_array_equal(found["label"], scores.labels)


def test_a_query_reads_the_elements_of_a_list() -> None:
    model, X = mixture("full", 1.0, 0.0), rows(1.0, 0.0)
    model.feature_names = ("emb[0]", "emb[1]", "e")
    data = pa.table({"emb": X[:, :2].tolist(), "e": X[:, 2], "id": np.arange(len(X))})
    with duckdb.connect() as connection:
        connection.register("data", data)
        found = connection.execute(to_sql(model, "data", ["id"])).df().sort_values("id")
    scores = score_rows(X, model.parameters)
    np.testing.assert_allclose(found["log_density"], scores.log_density, rtol=1e-9)
    assert [*found][:3] == ["id", "emb", "e"]
    flat = to_sql(model, "data", first=None)
    assert '"emb[1]"' in flat
    assert '"emb"[2]' not in flat


@pytest.mark.parametrize(("scale", "offset"), SCALES)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_onnx_model_scores_as_we_do(family: str, scale: float, offset: float) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model, X = mixture(family, scale, offset), rows(scale, offset)
    session = onnxruntime.InferenceSession(to_onnx(model))
    assert session.get_modelmeta().custom_metadata_map["features"] == json.dumps(
        ["a b", 'c"d', "e"]
    )
    names = ["label", "probabilities", "log_density"]
    label, shares, density = session.run(names, {"X": X})
    scores = score_rows(X, model.parameters)
    np.testing.assert_allclose(shares, responsibilities(X, model.parameters), atol=1e-9)
    np.testing.assert_allclose(density, scores.log_density, rtol=1e-9)
    np.testing.assert_array_equal(label, scores.labels)


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_is_a_label_of_its_own(family: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = with_noise(family)
    far = 10 + np.multiply.outer([1e10, 1e100, 1e160, 1e300], [1.0, 1.0, -1.0])
    X = np.concatenate([rows(1.0, 10.0)[:100], far])
    arithmetic = RowArithmetic("error")
    scores = arithmetic.score(X, model.parameters)
    expected = arithmetic.responsibilities(X, model.parameters)
    found = by_sql(model, X)
    session = onnxruntime.InferenceSession(to_onnx(model))
    label, probabilities, density = session.run(None, {"X": X})
    shares = np.stack([found[f"p{j}"] for j in range(K)], axis=1)
    assert {-1, 0, 1, 2} >= set(scores.labels) >= {-1, 0}
    for one, other in ((found["label"], shares), (label, probabilities)):
        np.testing.assert_array_equal(one, scores.labels)
        np.testing.assert_allclose(other, expected, atol=1e-9)
    for one in (found["log_density"], density):
        np.testing.assert_allclose(one, scores.log_density, rtol=1e-9)


def test_rows_with_a_missing_value_get_nulls_and_one_component_is_enough() -> None:
    for family in ("full", "tied"):
        model = mixture(family, 1.0, 0.0)
        one = SimpleNamespace(
            parameters=model.parameters.take([0]), feature_names=model.feature_names
        )
        columns = {name: [1.0, None] for name in model.feature_names}
        with duckdb.connect() as connection:
            connection.register("data", pa.table(columns))
            for each in (model, one):
                found = connection.execute(to_sql(each)).df()
                assert found[["label", "log_density", "p0"]].isna().sum(axis=1).tolist() == [0, 3]


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_cannot_be_scored_have_no_label(family: str) -> None:
    """The squares of 1e160 are beyond float64: such rows were of component 0, at shares of NaN."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = mixture(family, 1.0, 0.0)
    X = np.array(
        [[1e160, 1e160, -1e160], [np.inf, 0, 0], [1.7e308, 0, 0], [np.nan, 0, 0], [0, 0, 0]]
    )
    found = by_sql(model, X[[0, 1, 2, 4]])
    assert found["label"].mask.tolist() == [True, True, True, False]
    assert found["log_density"].mask.tolist() == found["p0"].mask.tolist() == [True] * 3 + [False]
    label, shares, _ = onnxruntime.InferenceSession(to_onnx(model)).run(None, {"X": X})
    assert label[:4].tolist() == [-1] * 4
    assert label[4] == score_rows(X[4:], model.parameters).labels
    assert np.isnan(shares[1:4]).all()
    assert np.isfinite(shares[4]).all()


@pytest.mark.parametrize(
    ("features", "keep", "named"),
    [
        (("a", "A", "e"), (), "'a' and 'A' differ in upper and lower case alone"),
        (("a", "b", "e"), ("B",), "'B' and 'b' differ"),
        (("a", "p2", "e"), (), "a column p2 of its own"),
        (("a", "b", "e"), ("Label",), "a column label of its own"),
        (("a", "b", "gmm_d0_0"), (), "a column gmm_d0_0 of its own"),
    ],
)
def test_names_that_a_database_would_confuse_are_refused(
    features: tuple[str, ...], keep: tuple[str, ...], named: str
) -> None:
    model = mixture("full", 1.0, 0.0)
    model.feature_names = features
    with pytest.raises(SettingsError, match=named):
        to_sql(model, "data", keep)
    model.feature_names = ("a", "p3", "labels")
    assert '"p3"' in to_sql(model, "data")


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("formats") / "out"
    data = {
        "path": str(ROOT / "examples" / "iris"),
        "features": ["sepal_length", "sepal_width", "petal_length", "petal_width"],
        "id_columns": ["flower"],
    }
    document = {"data": data, "fit": {"n_components": 3}, "output": {"path": str(out)}}
    document["output"]["checkpoint_seconds"] = 0
    run(
        settings_from(
            document | {"labels": {"anomaly": 0.9, "reasons": "all", "keep": ["species"]}}
        )
    )
    return out


def test_every_file_is_as_its_schema_says(iris: Path, tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    seen = set()
    for path in iris.rglob("*.json"):
        name = path.relative_to(iris).as_posix()
        (pattern,) = [each for each in SCHEMAS if fnmatch(name, each)]
        jsonschema.Draft202012Validator.check_schema(SCHEMAS[pattern])
        jsonschema.validate(json.loads(path.read_text()), SCHEMAS[pattern])
        seen.add(pattern)
    assert set(SCHEMAS) - seen <= {"runs/*/statistics.json"}  # of refreshes alone
    fit = {"n_components": [1, 2], "init_params": "kmeans"}
    data = {"path": str(ROOT / "examples" / "iris")}
    chosen = run(settings_from({"data": data, "fit": fit, "output": {"path": str(tmp_path)}}))
    assert len(chosen.metrics["selection"]["table"]["n_components"]) == 2
    jsonschema.validate(chosen.metrics, SCHEMAS["runs/*/metrics.json"])
    spoilt = json.loads(next(iris.rglob("model.json")).read_text()) | {"means": "code"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spoilt, SCHEMAS["runs/*/model.json"])


def test_the_example_of_the_page_of_formats_scores_a_row(iris: Path) -> None:
    page = (ROOT / "docs" / "formats.md").read_text()
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block.replace('"OUT"', repr(str(iris))), names)
    model = load_model(str(iris))
    row = pd.DataFrame([[5.1, 3.5, 1.4, 0.2]], columns=model.feature_names_in_)
    assert names["label"] == model.predict(row)[0]
    assert names["log_density"] == pytest.approx(model.score_samples(row)[0], rel=1e-12)
    np.testing.assert_allclose(names["probabilities"], model.predict_proba(row)[0], atol=1e-12)
    columns = set(pd.read_parquet(next(iris.rglob("part-*.parquet"))).columns)
    told = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert columns - {"flower", "species"} <= told


def test_the_command_prints_a_query_and_writes_a_model(iris: Path, tmp_path: Path) -> None:
    data = f"read_parquet('{ROOT}/examples/iris/*/*.parquet')"
    call = ["export", str(iris), "--format", "sql", "--table", data, "--keep", "flower"]
    done = RUNNER.invoke(app, call)
    assert done.exit_code == 0, done.output
    labels = duckdb.sql(done.stdout).df().set_index("flower").sort_index()
    model = load_model(str(iris))
    rows = pd.read_parquet(ROOT / "examples" / "iris").set_index("flower").sort_index()
    np.testing.assert_array_equal(labels["label"], model.predict(rows[list(model.feature_names)]))
    onnx = tmp_path / "model.onnx"
    assert (
        RUNNER.invoke(app, ["export", str(iris), "--format", "onnx", "--to", str(onnx)]).exit_code
        == 0
    )
    assert onnx.stat().st_size > 500
    assert RUNNER.invoke(app, ["export", str(iris), "--format", "onnx"]).exit_code == 2
    for more in (["sql", "--first", "2"], ["schema", "--keep", "flower"]):
        assert RUNNER.invoke(app, ["export", str(iris), "--format", *more]).exit_code == 2
    printed = RUNNER.invoke(app, ["export", str(iris), "--format", "schema"])
    assert json.loads(printed.stdout) == SCHEMAS


def test_a_file_that_cannot_be_written_is_as_it_was(iris: Path, tmp_path: Path) -> None:
    query, page = tmp_path / "query.sql", tmp_path / "page.html"
    export = ["export", str(iris), "--format", "sql", "--to", str(query)]
    compare = ["compare", str(iris), str(iris), "--html", str(page)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for before in (None, "precious"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            failed = [RUNNER.invoke(app, call) for call in (export, compare)]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        for done, file in zip(failed, (query, page), strict=True):
            assert done.exit_code == 1
            assert f"{file} cannot be written: File too large" in " ".join(done.stderr.split())
            assert (file.read_text() if file.exists() else None) == before
            file.write_text("precious")
        assert sorted(tmp_path.iterdir()) == [page, query]
    link = tmp_path / "link.sql"
    link.symlink_to(query)
    assert RUNNER.invoke(app, [*export[:-1], str(link)]).exit_code == 0
    assert link.is_symlink()
    assert query.read_text().startswith("WITH")
    assert RUNNER.invoke(app, [*export[:-1], "/dev/null"]).exit_code == 0
    assert Path("/dev/null").is_char_device()


@pytest.mark.filterwarnings("default")  # MLflow has its own
def test_a_version_is_a_model_of_mlflow(
    iris: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With parameters, measures and report in a run of its own."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    printed = RUNNER.invoke(app, ["export", str(iris), "--format", "mlflow"])
    assert printed.exit_code == 0, printed.output
    uri = printed.stdout.strip().splitlines()[-1]
    model = load_model(str(iris))
    rows = pd.read_parquet(ROOT / "examples" / "iris")[list(model.feature_names)]
    found = mlflow.pyfunc.load_model(uri).predict(rows[::-1])
    np.testing.assert_array_equal(found["label"][::-1], model.predict(rows))
    np.testing.assert_array_equal(found["log_density"][::-1], model.score_samples(rows))
    np.testing.assert_array_equal(found[["p0", "p1", "p2"]][::-1], model.predict_proba(rows))
    (run,) = mlflow.MlflowClient().search_runs(["0"])
    assert run.data.params["n_components"] == "3"
    assert run.data.metrics["bic"] == model.metrics["bic"]
    assert run.data.tags["gmm_dask.version"] == "1"
    names = {each.path for each in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert names >= {"report.html", "metrics.json", "model.json"}


def test_without_mlflow_it_is_said_how_to_get_it(
    iris: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setitem(sys.modules, "mlflow.pyfunc", None)
    with pytest.raises(SettingsError, match=r"pip install 'gmm-dask\[mlflow\]'"):
        load_model(str(iris)).to_mlflow()
