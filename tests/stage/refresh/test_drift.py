"""Drift from the sums of partitions: what moved is told, and what did not is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from gmm_dask.errors import DriftError, SettingsError
from gmm_dask.stage.refresh.drift import SCHEMA, divergence, stability_index
from gmm_dask.stage.refresh.drift import _Gaussian as Gaussian
from gmm_dask.stage.run import refresh
from gmm_dask.storage import list_versions, open_store
from tests.stage.refresh.nightly import Lake, kept, rows
from tests.undrawn import DRAWN


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(tmp_path / "lake", tmp_path / "out")
    for day in range(6):
        made.write(f"day={day:03d}", rows(day))
    return made


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmm_dask.stage.publish.render_report", lambda data: "<html></html>")


def table(published: Any) -> Any:
    return pq.read_table(published.path("folder") + "/drift.parquet")


def values(found: Any, **where: Any) -> list[float]:
    return [
        row["value"]
        for row in found.to_pylist()
        if all(row[name] == value for name, value in where.items())
    ]


def test_data_of_the_same_kind_do_not_drift_and_moved_data_do(lake: Lake) -> None:
    first = refresh(lake.settings())
    assert table(first).schema.remove_metadata() == SCHEMA
    lake.write("day=900", rows(900))
    steady = refresh(lake.settings())
    found = steady.metrics["refresh"]
    assert found["exceeded"] == []
    assert found["drift"]["psi"] < 0.05
    assert found["drift"]["severity_psi"] < 0.1
    X = rows(901)
    far = X[X[:, 0] > 1e6]  # the first component is gone
    lake.write("day=901", far)
    drifted = refresh(lake.settings())
    (exceeded,) = drifted.metrics["refresh"]["exceeded"]
    assert exceeded["metric"] == "psi"
    assert exceeded["value"] > exceeded["at_most"] == 0.25
    new = {"partition": "day=901.parquet", "window": "partition"}
    shares = values(table(drifted), **new, metric="share")
    exact = kept(drifted).sums[-1].statistics
    assert shares == pytest.approx((exact.sum_resp / exact.sum_weight).tolist())
    assert min(shares) < 0.01
    (against,) = values(table(drifted), **new, metric="divergence", baseline="previous")
    assert against == pytest.approx(jeffreys(far, rows(900)), rel=0.2)


def jeffreys(a: Any, b: Any) -> float:
    """Half the sum of both divergences of two Gaussians, by the textbook."""
    d = a.shape[1]
    (m, S), (n, T) = ((x.mean(0), np.cov(x.T, bias=True)) for x in (a, b))
    P, Q, delta = np.linalg.inv(S), np.linalg.inv(T), m - n
    return float((np.trace(Q @ S) + np.trace(P @ T) - 2 * d + delta @ (P + Q) @ delta) / 4)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
def test_the_summary_of_a_partition_is_its_mean_and_covariance(
    lake: Lake, covariance_type: str
) -> None:
    """From sums about the components' means, at an offset of a million."""
    published = refresh(lake.settings(fit={"covariance_type": covariance_type}))
    found, X = kept(published), rows(3)
    mean, covariance, weight = Gaussian.of(found.sums[3], found.parameters)
    expected = np.cov(X.T, bias=True)
    assert weight == pytest.approx(len(X), rel=1e-12)
    assert mean == pytest.approx(X.mean(axis=0), rel=1e-12)
    if covariance_type == "diag":
        expected = np.diag(np.diagonal(expected))
    assert covariance == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.heavy
def test_the_report_draws_drift_and_says_what_exceeds_a_limit(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("gmm_dask.stage.report.html.pictures", DRAWN)
    refresh(lake.settings())
    lake.write("day=900", rows(900, moved=5.0))
    found = refresh(lake.settings(refresh={"warn": {"divergence": 0.5}}))
    curves = found.metrics["refresh"]["curves"]
    assert len(curves["psi"]) == 7
    assert np.argmax(curves["divergence"]) == 6
    page = found.folder.get("report.html").decode()
    assert '<h2 id="h-drift">Drift</h2>' in page
    assert "Refreshed by one step from kept sums" in page
    assert "above the 0.5 of refresh.warn.divergence" in page


def test_a_limit_of_fail_publishes_nothing_and_says_what_to_do(lake: Lake) -> None:
    refresh(lake.settings())
    lake.write("day=900", rows(900, moved=5.0))
    limits = {"warn": {}, "fail": {"log_density_drop": 1.0, "divergence": 0.5}}
    with pytest.raises(
        DriftError, match=r"log_density_drop .* above the 1 of refresh\.fail"
    ) as told:
        refresh(lake.settings(refresh=limits))
    assert {each["metric"] for each in told.value.exceeded} == set(limits["fail"])
    store = open_store(str(lake.out))
    assert len(list_versions(store)) == 1
    accepted = refresh(lake.settings(refresh={"warn": {}, "fail": {"divergence": 1e6}}))
    assert accepted.version.number == 2
    with pytest.raises(SettingsError, match=r"refresh\.fail"):
        lake.settings(refresh={"fail": {"pzi": 1.0}})


def test_missing_values_drift_by_column(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake", tmp_path / "out", {"data": {"missing": "em"}})
    for day in range(3):
        lake.write(f"day={day:03d}", rows(day))
    refresh(lake.settings())
    X = rows(900)
    X[::4, 1] = np.nan
    lake.write("day=900", X)
    found = refresh(lake.settings(refresh={"warn": {"missing_share": 0.2}}))
    (exceeded,) = found.metrics["refresh"]["exceeded"]
    assert (exceeded["metric"], exceeded["column"], exceeded["value"]) == (
        "missing_share",
        "y",
        0.25,
    )
    assert values(table(found), window="new", metric="missing_share") == [0.0, 0.25]


def test_indices_are_zero_on_equal_data_and_as_the_books_say() -> None:
    assert stability_index(np.array([5.0, 5]), np.array([50.0, 50])) == 0.0
    assert stability_index(np.array([6.0, 4]), np.array([4.0, 6])) == pytest.approx(
        0.4 * np.log(1.5)
    )
    same = Gaussian(np.zeros(2), np.eye(2), 100.0)
    assert divergence(same, same) == pytest.approx(0.0, abs=1e-9)
