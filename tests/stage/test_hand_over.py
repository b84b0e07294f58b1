"""A published mixture is the fitted estimator, and a fitted estimator can be published."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from gmm_dask import GaussianMixture, load_model, read_labels
from gmm_dask.errors import DataError, OutputError, SettingsError
from gmm_dask.stage.lineage.history import history
from gmm_dask.stage.outputs import open_output, read_model
from gmm_dask.stage.run import run, score
from gmm_dask.stage.settings import ScoreSettings, settings_from
from gmm_dask.storage import Version, open_store, verify
from tests.stage.conftest import FEATURES, IRIS, MakeSettings

X = np.random.default_rng(0).normal(size=(300, 2)) + np.array([1e8, 0])


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_a_loaded_mixture_says_what_the_labels_say(
    covariance_type: str, iris_settings: MakeSettings, tmp_path: Path
) -> None:
    fit = {"n_components": 3, "covariance_type": covariance_type, "tol": 1e-4}
    published = run(iris_settings(fit=fit, labels={"responsibilities": True}))
    model, labels = load_model(f"{tmp_path / 'out'}@1"), read_labels(str(tmp_path / "out"))
    rows, labels = pd.read_parquet(IRIS)[FEATURES], labels.compute(scheduler="sync")
    np.testing.assert_array_equal(model.predict(rows), labels["label"])
    np.testing.assert_array_equal(model.score_samples(rows), labels["log_density"])
    np.testing.assert_array_equal(
        model.predict_proba(rows[FEATURES[::-1]]), np.stack(labels["responsibilities"])
    )
    assert (model.tol, model.covariance_type) == (1e-4, covariance_type)
    assert model.log_likelihood == pytest.approx(150 * model.score(rows), rel=1e-12)
    facts = (model.version, model.run_id, model.published, model.n_rows)
    assert facts == (1, published.run_id, published.version.published, 150)
    for name, value in vars(read_model(str(tmp_path / "out"))).items():
        assert repr(getattr(model, name)) == repr(value), name
    assert list(model.feature_names_in_) == FEATURES
    assert model.sample(3)[0].shape == (3, 4)


def test_it_is_printed_in_eight_lines_and_is_another_when_it_is_fitted_anew(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    run(iris_settings())
    model = load_model(str(tmp_path / "out"))
    lines = str(model).split("\n")
    assert len(lines) == 8
    assert max(map(len, lines)) <= 100
    assert model.run_id in lines[1]
    assert str(pickle.loads(pickle.dumps(model))) == str(model)
    assert not hasattr(clone(model), "version")
    model.fit(X)
    assert not hasattr(model, "version")
    assert not hasattr(model, "sha256")
    assert str(model) == repr(model)


def test_a_file_that_is_loaded_and_saved_has_the_same_bytes(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    published = run(iris_settings())
    load_model(str(tmp_path / "out")).save(tmp_path / "model.json")
    assert (tmp_path / "model.json").read_bytes() == Path(published.path("model")).read_bytes()
    again = load_model(str(tmp_path / "model.json"))
    assert again.version is None
    assert len(str(again).split("\n")) == 8
    with pytest.raises(DataError, match=r"end with \.json"):
        again.save(tmp_path / "model")


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_a_fitted_mixture_can_be_published_and_used(covariance_type: str, tmp_path: Path) -> None:
    model = GaussianMixture(2, covariance_type=covariance_type, random_state=3).fit(X)
    out = str(tmp_path / "out")
    assert model.publish(out) == model.publish(out) == f"{out}@1"
    loaded = load_model(out)
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    assert not hasattr(loaded, "feature_names_in_")  # the rows of the fit had no names
    assert (loaded.n_rows, loaded.random_state) == (300, 3)
    assert loaded.publish(f"{out}2") == f"{out}2@1"
    assert load_model(f"{out}2").sha256 == loaded.sha256
    for place in ("", f"{out}@7"):
        with pytest.raises(SettingsError, match=r"output\.path"):
            loaded.publish(place)
    version = open_output(out).version
    assert isinstance(version, Version)
    assert verify(open_store(out), version) == []
    (listed,) = history(out)
    assert (listed.n_components, listed.problem) == (2, None)
    with pytest.raises(OutputError, match="without labels"):
        read_labels(out)


def test_the_stage_labels_with_a_mixture_that_was_given(tmp_path: Path) -> None:
    rows = pd.read_parquet(IRIS)[FEATURES]
    model = GaussianMixture(3, random_state=0).fit(rows)
    settings = {
        "data": {"path": str(IRIS)},
        "model": model.publish(str(tmp_path / "model")),
        "output": {"path": str(tmp_path / "labels")},
    }
    score(settings_from(settings, ScoreSettings))
    labels = read_labels(str(tmp_path / "labels")).compute(scheduler="sync")
    np.testing.assert_array_equal(labels["label"], model.predict(rows))
    assert load_model(str(tmp_path / "labels")).log_likelihood is not None


def test_a_mixture_of_scikit_learn_is_saved(tmp_path: Path) -> None:
    theirs = GaussianMixture(2, random_state=0).fit(X).to_sklearn()
    GaussianMixture.from_sklearn(theirs).save(tmp_path / "model.json")
    np.testing.assert_array_equal(load_model(tmp_path / "model.json").predict(X), theirs.predict(X))
