"""Rows that no EM can fit end in a mixture with events, or in an error that names columns."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import pytest

from gmm_dask import GaussianMixture
from gmm_dask.errors import GmmDaskError
from gmm_dask.fitting import Event
from tests.parity.small_fits import (
    FAMILIES,
    FAR,
    Rows,
    assert_agree,
    assert_is_a_mixture,
    clusters,
    collinear,
    mixture,
    narrow_or_not,
    of_every_family,
    one_component,
    parameters_of,
    reference,
)

COLUMNS = ["height", "width", "depth", "mass"]
# Rows (n, 4) from rows in two clusters, number of components, columns at fault, families in which
# no maximum of the likelihood exists.
DEGENERATE: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int, set[str], set[str]]] = {
    "duplicate columns": (
        lambda X: X[:, [0, 1, 2, 0]], 2, {"height", "mass"}, {"full", "tied"},
    ),
    "a constant column": (
        lambda X: np.where(np.arange(4) == 1, 0.1, X), 2, {"width"}, {"full", "tied", "diag"},
    ),
    "all rows equal": (lambda X: np.full_like(X, 0.1), 2, set(COLUMNS), set(FAMILIES)),
    "one row more than components": (lambda X: X[:5], 4, set(COLUMNS), set(FAMILIES)),
    "a component for each row": (lambda X: X[:4], 4, set(COLUMNS), set(FAMILIES)),
}  # fmt: skip


@narrow_or_not
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e8])
@pytest.mark.parametrize("reg_covar", [1e-6, 0.0])
@pytest.mark.parametrize("what", list(DEGENERATE))
@of_every_family
def test_what_has_no_maximum_ends_in_a_mixture_and_events_or_in_an_error_with_names(
    family: str, what: str, reg_covar: float, scale: float, rng: np.random.Generator
) -> None:
    make, k, guilty, without_maximum = DEGENERATE[what]
    X = pd.DataFrame(scale * make(clusters(rng, d=4)[0]), columns=COLUMNS)
    # EM's own guards are asked for here: a search tells of spurious components beside.
    rule = {"reg_covar": reg_covar, "random_state": 0, "init_params": "kmeans"}
    model = GaussianMixture(k, covariance_type=family, **rule)
    try:
        model.fit(X)
    except GmmDaskError as error:
        assert reg_covar == 0
        assert family in without_maximum
        assert_names(error, guilty)
        return
    assert_is_a_model(model, X)
    if reg_covar == 0:
        assert bool(model.events_) == (family in without_maximum)
    for event in model.events_:
        assert event.cause != "narrow" or reg_covar > 0
    for event in in_trouble(model):
        assert 0 <= event.pass_number <= event.until <= model.n_iter_
        shared = family == "tied" and event.cause != "starved"
        assert event.component is None if shared else event.component in range(k)
        assert event.action in ("floored", "kept as it was")
        assert set(event.columns) <= guilty
        assert event.columns or event.cause == "starved"


def in_trouble(model: GaussianMixture) -> list[Event]:
    """The events of components that were no densities; `reg_covar` may have made others."""
    return [event for event in model.events_ if event.cause != "narrow"]


def assert_names(error: GmmDaskError, columns: set[str]) -> None:
    """The message names these columns, no others, and what to do."""
    assert set(re.findall(r"'(\w+)'", str(error))) == columns
    assert re.search("reg_covar|[Ll]eave|rescale", str(error))


def assert_is_a_model(model: GaussianMixture, X: object) -> None:
    assert_is_a_mixture(parameters_of(model))
    assert np.isfinite(model.lower_bounds_).all()
    resp = model.predict_proba(X)
    assert np.isfinite(resp).all()
    np.testing.assert_allclose(resp.sum(axis=1), 1, rtol=1e-12)
    assert not np.isnan(model.score_samples(X)).any()


@narrow_or_not
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("reg_covar", [1e-6, 0.0])
@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("place", ["one row", "one value", "two rows opposite", "two halves"])
@of_every_family
def test_rows_far_away_end_in_a_mixture_or_in_an_error_with_names(
    family: str, place: str, far: float, reg_covar: float, rng: np.random.Generator
) -> None:
    X = clusters(rng)[0]
    where: dict[str, tuple[object, object]] = {
        "one row": (0, far),
        "one value": ((0, 0), far),
        "two rows opposite": (slice(2), [[far], [-far]]),
        "two halves": ((slice(None), 0), far * (-1.0) ** np.arange(len(X))),
    }
    X[where[place][0]] = where[place][1]
    frame = pd.DataFrame(X, columns=COLUMNS[:3])
    model = GaussianMixture(2, covariance_type=family, reg_covar=reg_covar, random_state=0)
    try:
        model.fit(frame)
    except GmmDaskError as error:
        assert far > 1e150
        shared = family == "spherical" or "row" in place
        assert_names(error, set(COLUMNS[:3]) if shared else {"height"})
        return
    assert_is_a_model(model, frame)


@pytest.mark.parametrize("value", [0.1, 1e10, 1e20, 1e200, 1.7e308])
@of_every_family
def test_a_constant_column_of_any_size_is_named_where_it_matters(
    family: str, value: float, rng: np.random.Generator
) -> None:
    frame = pd.DataFrame(clusters(rng)[0], columns=COLUMNS[:3])
    frame["height"] = value
    model = GaussianMixture(2, covariance_type=family, reg_covar=0, random_state=0)
    if family == "spherical":  # the other columns spread
        assert_is_a_model(model.fit(frame), frame)
        assert model.events_ == ()
    else:
        with pytest.raises(GmmDaskError) as caught:
            model.fit(frame)
        assert_names(caught.value, {"height"})


@narrow_or_not
@pytest.mark.parametrize("reg_covar", [1e-6, 0.0])
@pytest.mark.parametrize("far", [1e6, 1e10, 1e20, 1e100])
@of_every_family
def test_an_outlier_however_far_leaves_the_fit_of_the_other_rows_alone(
    family: str, far: float, reg_covar: float, rng: np.random.Generator
) -> None:
    X = clusters(rng, apart=0)[0]
    X[0] = far
    model = GaussianMixture(2, covariance_type=family, reg_covar=reg_covar, random_state=0).fit(X)
    assert_is_a_model(model, X)
    others = int(model.weights_.argmax())
    np.testing.assert_array_equal(model.means_[1 - others], X[0])
    alone = mixture([1.0], np.zeros((1, 3)), np.eye(3)[None], family)
    assert_agree(
        one_component(parameters_of(model), others, family, reg_covar), reference(X[1:], alone)
    )


@narrow_or_not
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("reg_covar", [1e-6, 0.0])
@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e-155, 1e-149, 1e-140, 1e152, 1e154, 1e200])
@pytest.mark.parametrize("make", [clusters, partial(collinear, noise=1e-6)], ids=["", "collinear"])
@of_every_family
def test_columns_whose_squares_leave_float64_end_in_a_mixture_or_in_an_error_with_names(
    family: str,
    make: Callable[[np.random.Generator], Rows],
    scale: float,
    reg_covar: float,
    rng: np.random.Generator,
) -> None:
    frame = pd.DataFrame(make(rng)[0] * [scale, scale, 1], columns=COLUMNS[:3])
    model = GaussianMixture(2, covariance_type=family, reg_covar=reg_covar, random_state=0)
    try:
        model.fit(frame)
    except GmmDaskError as error:
        assert scale < 1e-140 or scale > 1e152
        names = set(COLUMNS[:3]) if family == "spherical" else {"height", "width"}
        assert_names(error, names)
        return
    assert_is_a_model(model, frame)
