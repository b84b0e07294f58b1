"""Components that are narrower than what was added to their variances: found, and said."""

from __future__ import annotations

import warnings
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris

from gmm_dask import GaussianMixture
from gmm_dask.errors import FeatureWarning
from gmm_dask.fitting import FitResult, Maximisation, Outcome
from gmm_dask.fitting.events import Action
from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters
from gmm_dask.mixture.estimate import Cause
from gmm_dask.roads.cautions import narrow_events
from gmm_dask.sampling import ColumnSpread
from tests.test_cautions import N, clusters

of_every_family = pytest.mark.parametrize("family", list(COVARIANCE_FAMILIES))


def with_holes(X: np.ndarray) -> np.ndarray:
    holes = np.random.default_rng(1).random(X.shape) < 0.1
    return np.where(holes & ~holes.all(axis=1, keepdims=True), np.nan, X)


@pytest.mark.parametrize("scale", [1e-6, 1e-12])
@pytest.mark.parametrize(
    "settings",
    [{}, {"missing": "em"}, {"covariance_prior": 0.1}, {"mean_precision_prior": 0.01}],
    ids=["plain", "holes", "covariance prior", "mean prior"],
)
@of_every_family
def test_clusters_below_reg_covar_are_not_converged_in_silence(
    family: str, settings: dict[str, Any], scale: float
) -> None:
    X = with_holes(clusters(scale)) if settings.get("missing") == "em" else clusters(scale)
    model = GaussianMixture(3, covariance_type=family, random_state=0, **settings)
    weight = np.random.default_rng(2).uniform(0.5, 2, N)
    with pytest.warns(
        FeatureWarning, match=r"reg_covar adds.*Scale .*set reg_covar lower"
    ) as caught:
        model.fit(X, sample_weight=weight)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    narrow = [event for event in model.events_ if event.cause == "narrow"]
    expected = [None] if family == "tied" else [0, 1, 2]
    assert [event.component for event in narrow] == expected
    assert all(event.columns == (0, 1) for event in narrow)
    assert all(event.pass_number == event.until == model.n_iter_ for event in narrow)
    # What the warning advises helps.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rows, reg_covar in ((X / scale, 1e-6), (X, 1e-6 * scale**2)):
            model.set_params(reg_covar=reg_covar).fit(rows, sample_weight=weight)
            assert model.events_ == ()
            assert len(np.unique(model.predict(rows))) == 3


@of_every_family
def test_no_component_of_ordinary_rows_is_narrow(family: str) -> None:
    iris = load_iris().data
    for X in (iris, iris / iris.std(axis=0), clusters(1e-2), da.from_array(clusters(1.0), (50, 2))):
        for k in (1, 3):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert (
                    GaussianMixture(k, covariance_type=family, random_state=0).fit(X).events_ == ()
                )


def test_components_on_a_code_are_narrow_in_that_column_and_no_other() -> None:
    X = clusters(1.0)
    frame = pd.DataFrame(
        {"x": X[:, 0], "class": np.repeat([0, 1, 2], 100), "one": 1.0, "y": X[:, 1]}
    )
    model = GaussianMixture(3, random_state=0, init_params="kmeans")  # a search goes round it
    with pytest.warns(FeatureWarning, match="leave out a column of codes") as caught:
        model.fit(frame)
    assert [(e.component, e.columns) for e in model.events_] == [(j, ("class",)) for j in range(3)]
    assert str(caught[0].message).endswith("So it is with components 1, 2.")


def result_of(variances: Any, weights: Any, family: str) -> FitResult:
    k, d = len(weights), 2
    parameters = Parameters.from_covariances(weights, np.zeros((k, d)), variances, family)
    return FitResult(parameters, (-1.0,) * 7, Outcome.CONVERGED, (parameters,), N, N, start=2)


def covariances(a: float, b: float, family: str) -> Any:
    """Of two components; the first has these variances, the second large ones."""
    return {
        "full": [[[a, 0], [0, b]], [[1, 0], [0, 1]]], "tied": [[a, 0], [0, b]],
        "diag": [[a, b], [1, 1]], "spherical": [a, 1],
    }[family]  # fmt: skip


@of_every_family
def test_half_of_a_variance_is_the_border(family: str) -> None:
    reg_covar = 1e-3
    rows = np.random.default_rng(0).normal(size=(50, 2))
    guard = Maximisation(reg_covar, spread=ColumnSpread.of(rows), columns=("a", "b"))
    border = 2 * reg_covar
    above = float(np.nextafter(border, 1))
    component = None if family == "tied" else 0
    for a, b, columns in (
        (border, 1.0, ("a", "b") if family == "spherical" else ("a",)),
        (border, border, ("a", "b")),
        (above, 1.0, ()),
    ):
        found = narrow_events(result_of(covariances(a, b, family), [0.4, 0.6], family), guard)
        assert [event.columns for event in found] == ([columns] if columns else [])
        for event in found:
            assert (event.component, event.cause, event.action) == (
                component, Cause.NARROW, Action.LEFT,
            )  # fmt: skip
            assert (event.pass_number, event.until, event.start) == (7, 7, 2)
            assert event.to_dict()["kind"] == "narrow"
    flat = np.column_stack([np.full(50, 3.0), rows[:, 1]])
    constant = Maximisation(reg_covar, spread=ColumnSpread.of(flat), columns=("a", "b"))
    narrow = result_of(covariances(border, 1.0, family), [0.4, 0.6], family)
    columns = [("b",)] if family == "spherical" else []
    assert [event.columns for event in narrow_events(narrow, constant)] == columns
    nothing_added = Maximisation(0.0, spread=ColumnSpread.of(rows), columns=("a", "b"))
    assert narrow_events(narrow, nothing_added) == ()


def test_a_component_without_rows_is_not_narrow_beside() -> None:
    guard = Maximisation(1e-3, spread=ColumnSpread.of(np.eye(2)), columns=("a", "b"))
    of_family = covariances(1e-3, 1e-3, "full")
    assert len(narrow_events(result_of(of_family, [0.5, 0.5], "full"), guard)) == 1
    assert narrow_events(result_of(of_family, [0.0, 1.0], "full"), guard) == ()
