"""Ugly data through the whole stage: holes, weights, priors, components in trouble, far rows."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask import GaussianMixture, read_labels
from gmm_dask.errors import (
    DataError,
    GmmDaskError,
    SettingsError,
    SingularCovarianceError,
    StarvedComponentError,
)
from gmm_dask.mixture import missing, score_rows
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.run import run, score
from gmm_dask.stage.settings import ScoreSettings, settings_from
from gmm_dask.stage.watch import Watcher

N = 240
SMALL = {"chunk_bytes": 2048}  # several chunks, each with rows of several patterns

Columns = dict[str, Any]
Stage = Callable[..., Published]


def told(event: dict[str, Any]) -> str:
    """The message as it was when the event began."""
    return str(event["message"]).replace(f", and on to pass {event['until']}", "")


class Hearing(Watcher):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Writes columns as Parquet and runs the stage on them."""

    def carry_out(columns: Columns, watcher: Watcher | None = None, **sections: Any) -> Published:
        write(columns, tmp_path / "data")
        features = [name for name in columns if name != "weight"]
        document: dict[str, Any] = {
            "data": {"path": str(tmp_path / "data"), "features": features},
            "fit": {"n_components": 2},
            "output": {"path": str(tmp_path / "out")},
        }
        for name, section in sections.items():
            document[name] = document.get(name, {}) | section
        return run(settings_from(document), watcher)

    return carry_out


def write(columns: Columns, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    half = len(next(iter(columns.values()))) // 2
    for i, rows in enumerate((slice(None, half), slice(half, None))):
        part = {name: values[rows] for name, values in columns.items()}
        pq.write_table(pa.table(part), folder / f"part-{i}.parquet", row_group_size=50)


def groups(seed: int = 0) -> Columns:
    """Two groups of rows in three columns."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, 3)) + 6.0 * rng.integers(2, size=N)[:, None]
    return dict(zip("abc", X.T, strict=True))


def with_holes() -> Columns:
    """The groups with nulls in `a`, NaN in `b` and `c`, and a row without any value."""
    columns, rng = groups(), np.random.default_rng(1)
    nulls = rng.random(N) < 0.1
    for name in "bc":
        columns[name][rng.random(N) < 0.2] = np.nan
        columns[name][7] = np.nan
    nulls[7] = True
    return columns | {"a": pa.array(columns["a"], mask=nulls)}


def with_point(n: int = 5) -> Columns:
    """One wide group, and rows that are all the same."""
    X = np.vstack([np.random.default_rng(0).normal(size=(N - n, 2)), np.full((n, 2), 50.0)])
    return dict(zip("xy", X.T, strict=True))


def rows_of(columns: Columns) -> np.ndarray:
    return pd.DataFrame({name: np.asarray(values) for name, values in columns.items()}).to_numpy(
        np.float64
    )


def labels_of(published: Published) -> pd.DataFrame:
    return read_labels(published.folder.store.url).compute(scheduler="sync")


def report_of(published: Published) -> str:
    """What the report says, without its tags."""
    page = published.folder.get("report.html").decode()
    page = re.sub(r"<(script|style)\b.*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(page).split())


def assert_same_model(published: Published, estimator: GaussianMixture, rtol: float) -> None:
    found = published.model.parameters
    np.testing.assert_allclose(found.weights, estimator.weights_, rtol=rtol)
    np.testing.assert_allclose(found.means, estimator.means_, rtol=rtol)
    np.testing.assert_allclose(found.covariances, estimator.covariances_, rtol=rtol, atol=1e-12)


# Missing values


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_em_uses_and_labels_every_row(stage: Stage, covariance_type: str) -> None:
    columns = with_holes()
    published = stage(
        columns,
        data={"missing": "em"},
        fit={"covariance_type": covariance_type},
        labels={"responsibilities": True},
        memory=SMALL,
    )
    X = rows_of(columns)
    estimator = GaussianMixture(
        2, covariance_type=covariance_type, missing="em", random_state=0
    ).fit(X)
    assert_same_model(published, estimator, rtol=1e-9)
    labels, metrics = labels_of(published), published.metrics
    np.testing.assert_array_equal(labels["label"], estimator.predict(X))
    np.testing.assert_allclose(labels["log_density"], estimator.score_samples(X), atol=1e-8)
    resp = np.stack(labels["responsibilities"].to_list())
    np.testing.assert_allclose(resp, estimator.predict_proba(X), atol=1e-9)
    assert labels["reason"].isna().all()
    assert labels["label"].to_numpy()[7] == published.model.parameters.weights.argmax()
    assert metrics["n_incomplete"] == np.isnan(X).any(axis=1).sum()
    assert metrics["n_used"] == metrics["n_rows"] == sum(metrics["n_labelled"]) == N
    assert metrics["n_dropped"] == {"missing": 0}
    said = report_of(published)
    assert f"all that were read; {metrics['n_incomplete']} incomplete" in said
    assert f"all {N - metrics['n_incomplete']} complete rows" in said


def test_em_on_whole_rows_is_the_plain_fit_bit_for_bit(stage: Stage) -> None:
    strict = stage(groups(), memory=SMALL)
    em = stage(groups(), data={"missing": "em"}, memory=SMALL)
    assert em.run_id != strict.run_id
    for name in ("weights", "means", "covariances", "precisions_cholesky"):
        found, expected = (getattr(each.model.parameters, name) for each in (em, strict))
        np.testing.assert_array_equal(found, expected)
    assert em.metrics["lower_bounds"] == strict.metrics["lower_bounds"]
    assert em.metrics["n_incomplete"] == 0


def test_em_takes_weights(stage: Stage) -> None:
    weight = np.random.default_rng(3).integers(0, 3, size=N)
    columns = with_holes()
    published = stage(
        columns | {"weight": weight},
        data={"missing": "em", "weight_column": "weight"},
        memory=SMALL,
    )
    X = rows_of(columns)
    estimator = GaussianMixture(2, missing="em", random_state=0).fit(X, sample_weight=weight)
    assert_same_model(published, estimator, rtol=1e-9)
    np.testing.assert_array_equal(labels_of(published)["label"], estimator.predict(X))
    total = float(weight @ estimator.score_samples(X))
    assert published.metrics["log_likelihood"] == pytest.approx(total)


def test_a_column_without_any_value_is_named(stage: Stage) -> None:
    columns = groups() | {"c": pa.array([None] * N, pa.float64())}
    with pytest.raises(DataError, match=r"'c': it has no value in any row"):
        stage(columns, data={"missing": "em"})
    with pytest.raises(DataError, match=r"none of the 240 rows.*'c'; leave it out"):
        stage(columns, data={"missing": "drop"})


def test_labels_of_other_rows_use_what_they_hold(stage: Stage, tmp_path: Path) -> None:
    fitted = stage(groups())
    write(with_holes(), tmp_path / "other")
    document = {
        "data": {"path": str(tmp_path / "other"), "missing": "em"},
        "model": str(tmp_path / "out"),
        "output": {"path": str(tmp_path / "scored")},
    }
    scored = score(settings_from(document, ScoreSettings))
    X, parameters = rows_of(with_holes()), fitted.model.parameters
    np.testing.assert_array_equal(
        labels_of(scored)["label"], missing.score_rows(X, parameters).labels
    )
    assert scored.metrics["n_incomplete"] == np.isnan(X).any(axis=1).sum()
    assert scored.metrics["model_from"] == str(tmp_path / "out")
    with pytest.raises(DataError, match=r"'a': .*data\.missing: drop or em"):
        score(settings_from(document | {"data": {"path": document["data"]["path"]}}, ScoreSettings))


def test_the_report_of_a_label_run_speaks_of_no_fit(stage: Stage, tmp_path: Path) -> None:
    stage(groups())
    document = {
        "data": {"path": str(tmp_path / "data")},
        "model": str(tmp_path / "out@1"),
        "output": {"path": str(tmp_path / "scored")},
    }
    scored = score(settings_from(document, ScoreSettings))
    said = report_of(scored)
    assert f"The model is that of {tmp_path / 'out@1'}, fitted to 240 rows; converged" in said
    assert "labelled by 2 components of a Gaussian mixture on 3 features that was fitted" in said
    for word in ("0 passes", "After 0", "Size", "changed by less than tol"):
        assert word not in said
    assert 'alt="Log-likelihood per row by pass"' not in scored.folder.get("report.html").decode()


# Components in trouble


def _but_number(message: str) -> str:
    """The message as a fit under way tells it, before its components have their numbers."""
    return re.sub(r"Component \d+ ", "A component ", message)


def test_the_floor_is_the_default_and_is_told(stage: Stage) -> None:
    hearing = Hearing()
    published = stage(with_point(), hearing, fit={"n_components": 3, "reg_covar": 0})
    (event,) = published.metrics["events"]
    assert (event["cause"], event["action"], event["columns"]) == (
        "collapsed",
        "floored",
        ["x", "y"],
    )
    assert _but_number(told(event)) in hearing.warnings
    assert event["message"] in report_of(published)
    j = event["component"]
    assert published.metrics["n_labelled"][j] == 5
    variances = np.diagonal(published.model.parameters.covariances[j])
    np.testing.assert_allclose(variances, 1e-6 * rows_of(with_point()).var(axis=0), rtol=1e-6)


@pytest.mark.parametrize("policy", ["reseed", "drop"])
def test_other_policies_end_in_a_model_too(stage: Stage, policy: str) -> None:
    hearing = Hearing()
    fit = {"n_components": 3, "reg_covar": 0, "component_policy": policy}
    published = stage(with_point(), hearing, fit=fit)
    metrics, parameters = published.metrics, published.model.parameters
    actions = [event["action"] for event in metrics["events"]]
    dropped = actions.count("dropped")
    assert ("reseeded" if policy == "reseed" else "dropped") in actions
    assert parameters.n_components == len(metrics["n_labelled"]) == 3 - dropped
    assert sum(metrics["n_labelled"]) == N
    assert set(labels_of(published)["label"]) <= set(range(parameters.n_components))
    said = report_of(published)
    for event in metrics["events"]:
        assert _but_number(told(event)) in hearing.warnings
        assert event["message"] in said
    drops = [event["pass"] for event in metrics["events"] if event["action"] == "dropped"]
    assert ("until then there were other components" in said) is any(drops)


def test_raise_names_the_columns_and_publishes_nothing(stage: Stage, tmp_path: Path) -> None:
    fit = {"reg_covar": 0, "component_policy": "raise"}
    twins = groups() | {"twin": 2 * groups()["b"]}
    with pytest.raises(SingularCovarianceError, match="depend on each other: columns 'b', 'twin'"):
        stage(twins, fit=fit)
    with pytest.raises(SingularCovarianceError, match="no spread left in columns 'x', 'y'"):
        stage(with_point(), fit=fit | {"n_components": 3})
    with pytest.raises(StarvedComponentError, match="Component 1 held no rows"):
        stage({"x": np.ones(N)}, fit={"component_policy": "raise"})
    assert not (tmp_path / "out" / "versions").exists()


@pytest.mark.parametrize("policy", ["floor", "reseed", "drop", "raise"])
def test_a_constant_column_is_named_whatever_the_policy(stage: Stage, policy: str) -> None:
    columns = groups() | {"still": np.full(N, 5.0)}
    with pytest.raises(SingularCovarianceError, match="Column 'still': all rows have the same"):
        stage(columns, fit={"reg_covar": 0, "component_policy": policy})


def test_with_reg_covar_a_constant_column_is_no_trouble(stage: Stage) -> None:
    columns = groups() | {"still": np.full(N, 5.0)}
    published = stage(columns, fit={"component_policy": "raise"})
    assert published.metrics["events"] == []


def test_values_beyond_float64_are_named(stage: Stage) -> None:
    columns = groups() | {"huge": np.where(np.arange(N) % 2, 1e308, -1e308)}
    with pytest.raises(GmmDaskError, match=r"Column 'huge'.*beyond float64"):
        stage(columns)


def test_a_row_far_from_all_others_is_fitted_and_shown(stage: Stage) -> None:
    columns = groups()
    columns["a"][3] = 1e150
    published = stage(columns)
    assert 1 in published.metrics["n_labelled"]
    assert np.isfinite(published.metrics["log_likelihood"])


def test_a_row_too_far_to_be_scored_is_named(stage: Stage, tmp_path: Path) -> None:
    stage(groups())
    columns = groups(seed=2)
    columns["b"][N // 2 + 30 : N // 2 + 33] = 1e160
    write(columns, tmp_path / "far")
    document = {
        "data": {"path": str(tmp_path / "far")},
        "model": str(tmp_path / "out"),
        "output": {"path": str(tmp_path / "scored")},
    }
    with pytest.raises(DataError, match=r"part-1\.parquet, row 30 and 2 more rows.*1e154"):
        score(settings_from(document, ScoreSettings))
    assert not (tmp_path / "scored" / "versions").exists()


# Priors and starts


PRIORS = {
    "weight_concentration_prior": 5.0,
    "mean_precision_prior": 10.0,
    "covariance_prior": 0.2,
    "degrees_of_freedom_prior": 9.0,
}


def test_priors_change_the_model_as_the_estimators_do(stage: Stage) -> None:
    plain, published = stage(groups()), stage(groups(), fit=PRIORS)
    estimator = GaussianMixture(2, random_state=0, **PRIORS).fit(rows_of(groups()))
    assert_same_model(published, estimator, rtol=1e-9)
    assert np.abs(published.model.parameters.means - plain.model.parameters.means).max() > 1e-3
    np.testing.assert_allclose(published.metrics["lower_bounds"], estimator.lower_bounds_)
    assert plain.metrics["objective"] == "log-likelihood"
    assert published.metrics["objective"] == "log-posterior"
    densities = score_rows(rows_of(groups()), published.model.parameters).log_density
    assert published.metrics["log_likelihood"] == pytest.approx(densities.sum())
    assert "Log-posterior per row" in report_of(published)


@pytest.mark.parametrize(
    ("fit", "words"),
    [
        ({"degrees_of_freedom_prior": 9.0}, "covariance_prior"),
        ({"degrees_of_freedom_prior": 1.0, "covariance_prior": 1.0}, "more than 2"),
        ({"weight_concentration_prior": 0.5}, "fit.weight_concentration_prior"),
        ({"mean_precision_prior": 0}, "fit.mean_precision_prior"),
    ],
)
def test_a_prior_that_is_none_is_refused(stage: Stage, fit: dict[str, float], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        stage(groups(), fit=fit)


def test_all_starts_are_counted(stage: Stage) -> None:
    published = stage(groups(), fit={"n_init": 3, "init_params": "random"})
    metrics = published.metrics
    assert metrics["n_starts"] == 3
    assert metrics["n_reads"] >= metrics["n_passes"] + 2 + 2  # survey, labels, two more starts
    said = report_of(published)
    assert "the best of 3 starts" in said
    assert f"Times all rows were read {metrics['n_reads']}" in said


def test_one_component_is_not_plural(stage: Stage) -> None:
    said = report_of(stage(groups(), fit={"n_components": 1}))
    assert "1 component in" in said
    assert "1 components" not in said
