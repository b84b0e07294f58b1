"""A run by variational inference: its model, its words, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask import BayesianGaussianMixture, load_model
from gmm_dask.errors import SettingsError
from gmm_dask.stage.outputs import label_parts
from gmm_dask.stage.run import refresh, run
from gmm_dask.stage.settings import Settings, settings_from
from gmm_dask.stage.summary import measures

PROCESS = "dirichlet_process"


def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 9.0]])
    return centres[rng.integers(0, 3, 900)] + rng.normal(size=(900, 2))


def settings(folder: Path, **fit: Any) -> Settings:
    data = folder / "data"
    if not data.exists():
        data.mkdir()
        for i, part in enumerate(np.array_split(rows(), 3)):
            pq.write_table(pa.table({"x": part[:, 0], "y": part[:, 1]}), data / f"{i}.parquet")
    wanted = {"n_components": 6, "weight_concentration_prior_type": PROCESS, "random_state": 3}
    return settings_from(
        {
            "data": {"path": str(data), "features": ["x", "y"], "missing": "drop"},
            "fit": wanted | fit,
            "output": {"path": str(folder / "out"), "checkpoint_seconds": 0},
        }
    )


PRIORS: list[dict[str, Any]] = [
    {},
    {
        "weight_concentration_prior_type": "dirichlet_distribution",
        "covariance_type": "tied",
        "weight_concentration_prior": 0.01,
        "mean_precision_prior": 0.5,
        "degrees_of_freedom_prior": 4.0,
        "max_iter": 500,
    },
]


@pytest.mark.parametrize("prior", PRIORS)
def test_a_run_labels_rows_as_the_class_does(tmp_path: Path, prior: dict[str, Any]) -> None:
    published = run(settings(tmp_path, **prior))
    options = {"n_components": 6, "weight_concentration_prior_type": PROCESS} | prior
    X = pd.DataFrame(rows(), columns=["x", "y"])
    found = BayesianGaussianMixture(**options, random_state=3).fit(X)
    loaded = load_model(str(tmp_path / "out"))
    places = np.abs(found.means_[:, None] - loaded.means_).sum(axis=2).argmin(axis=1)
    used = found.weights_ > 0.01  # those of a run are numbered by weight
    expected = places[found.predict(X)]
    np.testing.assert_array_equal(loaded.predict(X), expected)
    shares = loaded.predict_proba(X)[:, places[used]]
    np.testing.assert_allclose(shares, found.predict_proba(X)[:, used], atol=1e-9)
    away = loaded.score_samples(X) - found.score_samples(X)
    assert np.ptp(away) < 1e-9
    labels = pa.concat_tables(map(pq.read_table, label_parts(str(tmp_path / "out"))))
    np.testing.assert_array_equal(labels["label"].to_numpy(), expected)
    metrics = published.metrics
    assert metrics["objective"] == "lower bound"
    assert metrics["lower_bounds"][-1] == pytest.approx(found.lower_bound_ / len(X))
    n_used = len(np.unique(expected))
    assert measures(metrics)["in use"] == f"{n_used} of 6 components"


def test_the_class_hands_over_the_mixture_that_it_labels_by(tmp_path: Path) -> None:
    found = BayesianGaussianMixture(n_components=6, random_state=3).fit(rows())
    found.save(tmp_path / "model.json")
    loaded = load_model(str(tmp_path / "model.json"))
    np.testing.assert_allclose(loaded.predict_proba(rows()), found.predict_proba(rows()), atol=1e-9)


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        ({"noise": True}, "no noise"),
        ({"covariance_type": "low_rank:1"}, "no covariance_type low_rank"),
        ({"n_components": [2, 3]}, "several"),
        ({"weight_concentration_prior_type": None, "weight_concentration_prior": 0.5}, "less than"),
    ],
)
def test_what_inference_does_not_know_is_refused(
    tmp_path: Path, fit: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        settings(tmp_path, **fit)


def test_a_refresh_makes_no_step_of_inference(tmp_path: Path) -> None:
    run(settings(tmp_path))
    with pytest.raises(SettingsError, match="variational inference"):
        refresh(settings(tmp_path))
