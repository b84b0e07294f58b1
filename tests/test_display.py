"""Pictures of an estimator, and what a notebook shows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import dask.array as da
import matplotlib
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError

from gmm_dask import (
    BayesianGaussianMixture,
    GaussianMixture,
    GaussianMixtureSelector,
    MixtureDisplay,
    load_model,
)
from gmm_dask.errors import DataError, SettingsError
from gmm_dask.estimator.display import Kind
from gmm_dask.estimator.fitted import FittedMixture
from gmm_dask.pictures.measures import draw_curve
from gmm_dask.stage.report.figures import new_figure
from tests.stage.conftest import settings_of_iris

IRIS = load_iris(as_frame=True).data
matplotlib.use("Agg")


@pytest.fixture(scope="module")
def model() -> GaussianMixture:
    return GaussianMixture(3, random_state=0).fit(IRIS)


@pytest.mark.parametrize("kind", sorted(set(get_args(Kind)) - {"selection"}))
def test_each_kind_is_drawn_on_the_axes_that_are_given(kind: Any, model: GaussianMixture) -> None:
    figure = new_figure(400)
    ax = figure.subplots()
    display = MixtureDisplay.from_estimator(model, IRIS, kind=kind, ax=ax)
    assert display.figure_ is figure
    drawn = [each for each in np.ravel(display.ax_) if each is not None]
    assert all(each.figure is figure for each in drawn)
    assert len(drawn) == {"pairs": 10, "densities": 4}.get(kind, 1)
    assert all(each.has_data() for each in drawn)
    figure.canvas.draw()


def test_the_axes_show_the_mixture(model: GaussianMixture) -> None:
    ax = new_figure(400).subplots()
    MixtureDisplay.from_estimator(model, kind="curve", ax=ax)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), model.lower_bounds_)
    ax = new_figure(400).subplots()
    MixtureDisplay.from_estimator(model, IRIS, kind="uncertainty", ax=ax)
    highest = 1 - model.predict_proba(IRIS).max(axis=1).min()
    assert max(ax.lines[-1].get_ydata()) == pytest.approx(highest)


@pytest.mark.parametrize("level", [-180.1855, 0.0, 3e7])
def test_a_curve_that_rounding_moves_is_flat(level: float) -> None:
    ax = new_figure(400).subplots()
    draw_curve(ax, [level, level - 4 * np.spacing(level), level])
    lowest, highest = ax.get_ylim()
    assert highest - lowest == pytest.approx(1e-3, rel=1e-4)
    assert (lowest + highest) / 2 == pytest.approx(level, abs=1e-7)


def test_a_selector_shows_its_candidates() -> None:
    selector = GaussianMixtureSelector([1, 2, 3], random_state=0).fit(IRIS)
    ax = new_figure(400).subplots()
    display = MixtureDisplay.from_estimator(selector, kind="selection", ax=ax)
    assert display.ax_.lines[0].get_xdata().tolist() == [1, 2, 3]
    assert min(ax.lines[0].get_ydata()) == pytest.approx(selector.best_score_)


def test_what_cannot_be_drawn_is_refused_with_the_remedy(model: GaussianMixture) -> None:
    draw = MixtureDisplay.from_estimator
    with pytest.raises(DataError, match=r"from_estimator\(model, X\)"):
        draw(model, kind="uncertainty")
    with pytest.raises(DataError, match="in memory"):
        draw(model, da.from_array(IRIS.to_numpy(), chunks=50))
    with pytest.raises(SettingsError, match="components, pairs"):
        draw(model, kind="circles")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="Selector"):
        draw(model, kind="selection")
    with pytest.raises(NotFittedError):
        draw(GaussianMixture(2))
    with pytest.raises(ValueError, match="feature names"):
        draw(model, pd.DataFrame(IRIS.to_numpy(), columns=list("abcd")))


def test_clusters_are_those_of_the_estimator_and_of_an_inferred_mixture_too() -> None:
    axes = new_figure(400).subplots()
    inferred = BayesianGaussianMixture(n_components=3, random_state=0, n_clusters=2).fit(IRIS)
    MixtureDisplay.from_estimator(inferred, IRIS, kind="clusters", ax=axes)
    assert axes.get_title(loc="left") == "2 clusters of 3 components"
    one = GaussianMixture(2, random_state=0).fit(IRIS.iloc[:, :1])
    with pytest.raises(SettingsError, match="one feature"):
        MixtureDisplay.from_estimator(one, kind="clusters", ax=axes)


def test_a_version_is_drawn_by_its_reference(tmp_path: Path) -> None:
    from gmm_dask.stage.run import run

    run(settings_of_iris(tmp_path / "out"))
    ax = new_figure(400).subplots()
    display = MixtureDisplay.from_version(str(tmp_path / "out"), kind="profile", ax=ax)
    assert display.parameters.n_components == load_model(str(tmp_path / "out")).n_components
    assert next(label.get_text() for label in ax.get_xticklabels()) == "sepal_length"


def test_what_a_notebook_shows_is_there_already(model: GaussianMixture) -> None:
    def computes(*_: Any) -> None:
        raise AssertionError("something was computed")

    with patch.object(FittedMixture, "merge_tree_", property(computes)):
        page = model._repr_html_()
        assert "GaussianMixture" in GaussianMixture(2)._repr_html_()
    assert all(f">{name}<" in page for name in ("weights_", "means_", "converged_", "n_iter_"))
    assert ">merge_tree_<" not in page
