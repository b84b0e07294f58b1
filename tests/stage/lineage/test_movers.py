"""Who moved from one component to another is counted row by row, and rows stay where asked to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow import table

from gmm_dask.errors import NotPromotedError, SettingsError
from gmm_dask.mixture import labels, log_density, responsibilities
from gmm_dask.mixture.classification import NOT_COMPARED, Migration
from gmm_dask.mixture.steps import score_rows
from gmm_dask.stage import publish
from gmm_dask.stage.lineage.registry import promote_as
from gmm_dask.stage.outputs import Published, read_labels, resolve
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import ScoreSettings, Settings, settings_from


@pytest.fixture(autouse=True)
def plain_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "render_report", lambda data: "<html></html>")


def settings(folder: Path, name: str, **sections: dict) -> Settings:
    document: dict[str, dict] = {
        "data": {"path": str(folder / name), "features": ["x"]},
        "fit": {"n_components": 2},
        "memory": {"chunk_bytes": 1600},  # several chunks, whose counts add up
        "output": {"path": str(folder / "out")},
    }
    return settings_from(
        {key: document.get(key, {}) | sections.get(key, {}) for key in {*document, *sections}}
    )


def rows(folder: Path, name: str, gap: float) -> np.ndarray:
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.normal(0.0, 1.0, 600), rng.normal(gap, 1.0, 400)])
    (folder / name).mkdir()
    pq.write_table(table({"x": x}), folder / name / "part.parquet")
    return x[:, None]


def labelled(published: Published) -> np.ndarray:
    return read_labels(published.folder.store.url).compute(scheduler="sync")["label"].to_numpy()


def test_rows_are_counted_by_label_before_and_now(tmp_path: Path) -> None:
    rows(tmp_path, "one", 4.0)
    X = rows(tmp_path, "two", 3.0)
    first = run(settings(tmp_path, "one", labels={"compare": True}))
    assert first.changes is not None
    assert first.changes.migration is None  # it follows nothing
    second = run(settings(tmp_path, "two", labels={"compare": True}))
    before, now = (labels(X, each.model.parameters) for each in (first, second))
    expected = [[int(((before == i) & (now == j)).sum()) for j in (0, 1)] + [0] for i in (0, 1)]
    assert second.changes is not None
    assert second.changes.migration == (*map(tuple, expected), (0, 0, 0))
    moved = int((before != now).sum())
    assert 0 < moved == second.changes.n_movers
    said = second.metrics["before"]
    assert (said["version"], said["movers"]) == (1, moved / len(X))
    mean = log_density(X, first.model.parameters).mean()
    assert said["log_likelihood_per_row"] == pytest.approx(mean, rel=1e-12)
    assert labelled(second).tolist() == now.tolist()


def test_a_row_moves_only_for_a_gain_beyond_the_limit(tmp_path: Path) -> None:
    rows(tmp_path, "one", 4.0)
    X = rows(tmp_path, "two", 3.0)
    first = run(settings(tmp_path, "one"))
    second = run(settings(tmp_path, "two", labels={"sticky": 0.4}))
    before, now = (labels(X, each.model.parameters) for each in (first, second))
    resp = responsibilities(X, second.model.parameters)
    gain = np.abs(np.log(resp[:, 0] / resp[:, 1]))
    expected = np.where((before != now) & (gain <= 0.4), before, now)
    assert (expected != now).any()
    assert (expected != before).any()
    assert labelled(second).tolist() == expected.tolist()
    assert second.metrics["n_labelled"] == np.bincount(expected).tolist()
    assert second.changes is not None
    assert second.changes.n_movers == int((expected != before).sum())


def test_a_version_is_promoted_where_it_is_no_worse_on_its_own_rows(tmp_path: Path) -> None:
    rows(tmp_path, "one", 4.0)
    rows(tmp_path, "two", 3.0)
    limits = {"alias": "champion", "log_likelihood_loss": 0.0, "movers": 0.2}
    asked = {"labels": {"compare": True}, "promotion": limits}
    run(settings(tmp_path, "one", **asked))
    second = run(settings(tmp_path, "two", **asked))
    assert 0 < second.metrics["before"]["movers"] < 0.2
    assert resolve(f"{tmp_path / 'out'}@champion")[1].number == second.version.number
    rows(tmp_path, "three", 1.0)
    third = run(settings(tmp_path, "three", **asked | {"promotion": limits | {"movers": 1e-4}}))
    assert resolve(f"{tmp_path / 'out'}@champion")[1].number == second.version.number
    folder, version = resolve(str(tmp_path / "out"))
    assert version.run_id == third.run_id
    with pytest.raises(NotPromotedError, match=r"share of rows .* beyond the limit of 0\.0001"):
        promote_as(folder, version, "champion")


def test_rows_without_a_component_have_a_place_of_their_own() -> None:
    X = np.zeros((3, 1))
    from tests.strategies import random_mixture

    parameters = random_mixture("diag", 2, 1, 0)
    scores = score_rows(X, parameters)._replace(labels=np.array([-1, 0, 1], np.int32))
    found = Migration.of(scores, np.array([-1, 1, 1]), (2, 2), None)
    assert found.counts == ((0, 1, 0), (0, 1, 0), (0, 0, 1))
    assert NOT_COMPARED + found == found + NOT_COMPARED == found
    assert (found + found).counts == ((0, 2, 0), (0, 2, 0), (0, 0, 2))


def test_labels_alone_follow_nothing(tmp_path: Path) -> None:
    document = {
        "data": {"path": "x"},
        "model": "m",
        "labels": {"sticky": 0.7},
        "output": {"path": "o"},
    }
    with pytest.raises(SettingsError, match="of fits, which follow a version"):
        settings_from(document, ScoreSettings)
