"""What a restart takes over of an earlier attempt: what is of the same model, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from gmm_dask import read_labels
from gmm_dask.errors import OutputError
from gmm_dask.mixture import Parameters, score_rows
from gmm_dask.stage import fit as fit_module
from gmm_dask.stage import publish as publish_module
from gmm_dask.stage.labels import chunk_labels as label_module
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import Settings
from gmm_dask.storage import (
    list_versions,
    open_store,
    verify,
)
from gmm_dask.storage.records.model_file import Model
from tests.stage.conftest import FEATURES, IRIS, MakeSettings


def stopped(settings: Settings, monkeypatch: pytest.MonkeyPatch, at: str) -> Path:
    """The folder of a run that was stopped when all was there but what is named and comes after."""

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(publish_module, at, stop)
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    (folder,) = (Path(settings.output.path) / "runs").iterdir()
    return folder


def with_other_software(monkeypatch: pytest.MonkeyPatch) -> None:
    """Software whose fit of the same run gives the components in another order."""
    of_result = fit_module.model_of

    def turned(*arguments: Any) -> Model:
        model = of_result(*arguments)
        old = model.parameters
        return replace(
            model,
            parameters=Parameters.from_covariances(
                old.weights[::-1], old.means[::-1], old.covariances[::-1], old.covariance_type
            ),
        )

    monkeypatch.setattr(fit_module, "model_of", turned)


@pytest.mark.parametrize("at", ["render_report", "write_manifest", "publish_version"])
def test_a_restart_without_its_model_publishes_nothing_of_the_lost_one(
    at: str, iris_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped(iris_settings(), monkeypatch, at)
    lost = json.loads((folder / "model.json").read_text())
    parts = set((folder / "labels").iterdir())
    for name in ("model.json", "MANIFEST.json"):
        (folder / name).unlink(missing_ok=True)
    with_other_software(monkeypatch)
    published = run(iris_settings())
    parameters = published.model.parameters
    np.testing.assert_array_equal(parameters.means[::-1], lost["means"])
    assert parts < set((folder / "labels").iterdir())  # what was written is not overwritten
    frame = read_labels(published.folder.store.url).compute(scheduler="sync")
    rows = pq.read_table(IRIS, columns=FEATURES).to_pandas().to_numpy()
    labels = score_rows(rows, parameters).labels
    np.testing.assert_array_equal(frame["label"], labels)
    assert published.metrics["n_labelled"] == np.bincount(labels).tolist()
    table = pq.read_table(folder / "parameters.parquet")
    for j, name in enumerate(FEATURES):
        np.testing.assert_array_equal(table[f"mean_{name}"], parameters.means[:, j])
    assert verify(published.folder.store, published.version) == []
    assert not run(iris_settings()).new


def test_parts_of_the_same_model_are_taken_over(
    iris_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped(iris_settings(), monkeypatch, "render_report")
    (folder / "model.json").unlink()

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("a part was made once more")

    monkeypatch.setattr(label_module, "label_table", fail)
    assert run(iris_settings()).new


def test_a_receipt_of_another_chunk_is_no_receipt(
    iris_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped(iris_settings(), monkeypatch, "render_report")
    one, two, *_ = sorted((folder / "receipts").iterdir())
    two.write_bytes(one.read_bytes())
    published = run(iris_settings())
    assert verify(published.folder.store, published.version) == []
    assert sum(published.metrics["n_labelled"]) == 150


def test_a_manifest_of_an_earlier_attempt_with_another_model_is_no_manifest_of_this_one(
    iris_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped(iris_settings(), monkeypatch, "publish_version")
    (folder / "model.json").unlink()
    with_other_software(monkeypatch)
    with pytest.raises(OutputError, match=r"(?s)metrics\.json is damaged.*move the run's folder"):
        run(iris_settings())
    assert list_versions(open_store(str(folder.parents[1]))) == []
