"""A run whose settings name candidates: one choice, its table wherever a version is shown."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from gmm_dask import GaussianMixtureSelector
from gmm_dask.command.results import print_published
from gmm_dask.engine import Survey
from gmm_dask.errors import SettingsError
from gmm_dask.stage.fit import ANEW
from gmm_dask.stage.outputs import open_output
from gmm_dask.stage.report.figures import selection_figure
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import Settings, settings_from
from gmm_dask.stage.watch import Watcher

RANGE = {"from": 2, "to": 4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(8)
    X = rng.normal(size=(600, 2)) + np.array([[0, 0], [8, 0], [0, 8]])[rng.integers(0, 3, 600)]
    (tmp_path / "data").mkdir()
    for i, part in enumerate(np.array_split(X, 3)):
        table = pa.table({"x": part[:, 0], "y": part[:, 1]})
        pq.write_table(table, tmp_path / "data" / f"{i}.parquet")
    return tmp_path


def settings(folder: Path, fit: dict[str, Any], **others: Any) -> Settings:
    data = {"path": str(folder / "data"), "features": ["x", "y"]}
    output = {"path": str(folder / "out"), "checkpoint_seconds": 0}
    return settings_from({"data": data, "fit": fit, "output": output} | others)


class Told(Watcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.details: list[str] = []

    def detail(self, message: str) -> None:
        self.details.append(message)


def test_a_run_publishes_the_choice_and_its_table(folder: Path) -> None:
    asked = settings(folder, {"n_components": RANGE, "covariance_type": ["full", "diag"]})
    published = run(asked)
    selection, model = published.metrics["selection"], published.model
    assert selection["heading"] == "BIC (lower is better)"
    assert len(selection["table"]["rank"]) == 6
    assert model.parameters.n_components == selection["table"]["n_components"][0] == 3
    np.testing.assert_allclose(published.metrics["bic"], selection["table"]["bic"][0], rtol=1e-12)
    np.testing.assert_allclose(published.metrics["icl"], selection["table"]["icl"][0], rtol=1e-12)
    grid = GaussianMixtureSelector(
        range(2, 5), covariance_types=["full", "diag"], random_state=0
    ).fit(str(folder / "data"))
    np.testing.assert_array_equal(grid.results_["bic"], selection["table"]["bic"])
    assert grid.reason_ == selection["reason"]
    shown = io.StringIO()
    print_published(open_output(str(folder / "out")), Console(file=shown, width=100))
    assert "Candidates by BIC (lower is better):" in shown.getvalue()
    report = published.folder.get("report.html").decode()
    for sentence in selection["reason"]:
        assert sentence in shown.getvalue().replace("\n", " ")
        assert sentence in report
    assert "How many components" in report
    assert run(asked).version == published.version


def test_the_picture_is_the_same_for_the_same_table(folder: Path) -> None:
    table = {
        "n_components": [2, 3, 2], "covariance_type": ["full", "full", "diag"],
        "bic": [10.0, 11.0, None], "log_likelihood": [-4.0, -3.0, -9.0],
    }  # fmt: skip
    selection = {"criterion": "bic", "heading": "BIC (lower is better)", "table": table, "elbow": 2}
    assert selection_figure(selection) == selection_figure(selection)


def test_a_stopped_grid_keeps_its_survey_and_says_that_passes_begin_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmm_dask.stage.checkpoints.keeper.is_worth_keeping", lambda surveyed: True)
    asked = settings(folder, {"n_components": [2, 3]})

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("gmm_dask.roads.grid_run._Running.selection", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(asked)
    looked: list[Survey] = []
    monkeypatch.setattr("gmm_dask.engine.survey", looked.append)
    told = Told()
    published = run(asked, told)
    assert ANEW in told.details
    assert not looked
    assert published.metrics["selection"]["table"]["n_components"][0] == 3


@pytest.mark.parametrize(
    ("fit", "select", "numbers", "families"),
    [
        ({"n_components": RANGE}, {}, [2, 3, 4], ["full"]),
        ({"n_components": [4, 2]}, {"criterion": "icl"}, [2, 4], ["full"]),
        ({"n_components": 2, "covariance_type": ["diag", "full"]}, {}, [2], ["diag", "full"]),
        ({}, {"n_components": [1, 5]}, [1, 5], ["full"]),
        ({"n_components": 3}, {}, [3], ["full"]),
    ],
)
def test_ranges_and_lists_are_candidates_and_survive_being_stored(
    folder: Path, fit: Any, select: Any, numbers: list[int], families: list[str]
) -> None:
    read = settings(folder, fit, select=select)
    assert read.candidates == [(n, each) for each in families for n in numbers]
    assert read.fit.n_components == max(numbers)
    for stored in (read.model_dump(mode="json"), read.model_dump(mode="json", exclude_unset=True)):
        assert settings_from(stored) == read


@pytest.mark.parametrize(
    ("fit", "select", "said"),
    [
        ({"n_components": {"from": 4, "to": 2}}, {}, r"fit.n_components: a range such as"),
        ({"n_components": {"from": 1, "to": 10**9}}, {}, "more than 1000 candidates"),
        ({"n_components": {"from": 1}}, {}, "fit.n_components"),
        ({"n_components": [1, "2"]}, {}, r"fit.n_components: a list of whole numbers"),
        ({"covariance_type": ["full", "round"]}, {}, r"fit.covariance_type: a list of families"),
        ({"covariance_type": []}, {}, r"fit.covariance_type: a list of families"),
        ({"n_components": [1, 2]}, {"n_components": [3]}, "leave one out"),
        ({"n_components": 4}, {"n_components": [3]}, "leave one of the two out"),
    ],
)
def test_what_names_no_candidates_is_refused_in_its_place(
    folder: Path, fit: Any, select: Any, said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        settings(folder, fit, select=select)
