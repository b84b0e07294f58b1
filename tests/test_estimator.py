"""GaussianMixture: scikit-learn's interface, in memory and lazily."""

from __future__ import annotations

import re
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.estimator_checks import check_estimator

from gmm_dask import BayesianGaussianMixture as Inferred
from gmm_dask import GaussianMixture, GaussianMixtureSelector
from gmm_dask.errors import DataError, SettingsError, SingularCovarianceError
from gmm_dask.estimator.rows import user_rows
from gmm_dask.mixture import COVARIANCE_FAMILIES
from tests.conftest import Blobs

IRIS = load_iris()
POLICIES = ("reseed", "drop", "raise")


@pytest.mark.parametrize(
    "parameters",
    [{}, {"missing": "em"}, {"missing": "drop"}, *({"component_policy": p} for p in POLICIES)],
    ids=str,
)
def test_scikit_learns_checks_pass_without_an_exception(parameters: dict[str, Any]) -> None:
    # The check of array API input runs only where SCIPY_ARRAY_API is set.
    check_estimator(GaussianMixture(**parameters), on_skip=None)


def test_iris_has_the_known_optimum_and_five_flowers_apart() -> None:
    model = GaussianMixture(3, tol=1e-9, max_iter=500, random_state=0).fit(IRIS.data)
    assert model.converged_
    assert model.lower_bound_ * 150 == pytest.approx(-180.1855, abs=5e-5)
    assert outside(model.predict(IRIS.data)) == 5
    default = GaussianMixture(3, random_state=0).fit(IRIS.data)
    assert default.score(IRIS.data) * 150 == pytest.approx(-180.1855, abs=0.02)


def outside(labels: np.ndarray) -> int:
    """Flowers that are not in the component most of their species are in."""
    counts = np.array([np.bincount(labels[IRIS.target == s], minlength=3) for s in range(3)])
    return int(len(labels) - counts.max(axis=1).sum())


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_criteria_are_scikit_learns(covariance_type: str, blobs: Blobs) -> None:
    ours = GaussianMixture(3, covariance_type=covariance_type, random_state=0).fit(blobs.X)
    theirs = SklearnMixture(3, covariance_type=covariance_type)
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        setattr(theirs, name, getattr(ours, name))
    theirs.n_features_in_ = 4
    assert ours.score(blobs.X) == pytest.approx(theirs.score(blobs.X), rel=1e-12)
    assert ours.bic(blobs.X) == pytest.approx(theirs.bic(blobs.X), rel=1e-12)
    assert ours.aic(blobs.X) == pytest.approx(theirs.aic(blobs.X), rel=1e-12)


def test_integers_are_scored_like_the_same_numbers_in_float(blobs: Blobs) -> None:
    X = np.round(blobs.X * 10).astype(np.int64)
    model = GaussianMixture(3, random_state=0).fit(X)
    assert model.bic(X) == model.bic(X.astype(float))
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(X.astype(float)))


def test_weights_count_as_repeats(blobs: Blobs, rng: np.random.Generator) -> None:
    weight = rng.integers(0, 3, len(blobs.X))
    rows = np.repeat(blobs.X, weight, axis=0)
    start = GaussianMixture(3, random_state=0).fit(blobs.X)
    settings = {
        "weights_init": start.weights_,
        "means_init": start.means_,
        "precisions_init": start.precisions_,
        "tol": 1e-8,
    }
    weighted = GaussianMixture(3, **settings).fit(blobs.X, sample_weight=weight)
    repeated = GaussianMixture(3, **settings).fit(rows)
    np.testing.assert_allclose(weighted.covariances_, repeated.covariances_, rtol=1e-10)
    for name in ("score", "bic", "aic", "icl"):
        found = getattr(weighted, name)(blobs.X, sample_weight=weight)
        assert found == pytest.approx(getattr(weighted, name)(rows), rel=1e-12), name


@pytest.mark.parametrize("scale", [1e-3, 0.25, 1e3])
def test_the_scale_of_the_weights_changes_nothing_in_the_model(
    scale: float, blobs: Blobs, rng: np.random.Generator
) -> None:
    weight = rng.uniform(size=len(blobs.X))
    model = GaussianMixture(3, random_state=0).fit(blobs.X, sample_weight=weight)
    scaled = GaussianMixture(3, random_state=0).fit(blobs.X, sample_weight=weight * scale)
    assert scaled.n_iter_ == model.n_iter_
    np.testing.assert_allclose(scaled.weights_, model.weights_, rtol=1e-9)
    np.testing.assert_allclose(scaled.covariances_, model.covariances_, rtol=1e-9)
    assert scaled.lower_bound_ == pytest.approx(model.lower_bound_, rel=1e-12)
    assert model.score(blobs.X, sample_weight=weight * scale) == pytest.approx(
        model.score(blobs.X, sample_weight=weight), rel=1e-12
    )


@pytest.mark.parametrize("missing", ["error", "em", "drop"])
@pytest.mark.parametrize("weighted", [False, True])
def test_icl_is_the_bic_of_rows_with_their_labels(
    weighted: bool, missing: Any, blobs: Blobs, rng: np.random.Generator
) -> None:
    weight = rng.uniform(size=len(blobs.X)) if weighted else np.ones(len(blobs.X))
    X = blobs.X.copy()
    if missing != "error":
        X[rng.uniform(size=X.shape) < 0.05] = np.nan
    model = GaussianMixture(3, missing=missing, random_state=0).fit(X)
    used = ~np.isnan(X).any(axis=1) if missing == "drop" else np.ones(len(X), bool)
    each = model.score_samples(X) + np.log(model.predict_proba(X).max(axis=1))
    expected = model._n_parameters() * np.log(weight[used].sum()) - 2 * weight[used] @ each[used]
    given = {"sample_weight": weight} if weighted else {}
    assert model.icl(X, **given) == pytest.approx(expected, rel=1e-12)
    assert model.icl(X, **given) >= model.bic(X, **given) - 1e-9 * abs(expected)


@pytest.mark.parametrize("output", ["default", "pandas"])
def test_it_works_in_a_pipeline(output: str) -> None:
    X = pd.DataFrame(IRIS.data, columns=list("abcd"))
    with config_context(transform_output=output):
        pipeline = make_pipeline(StandardScaler(), GaussianMixture(3, random_state=0)).fit(X)
        assert outside(pipeline.predict(X)) == 5
        assert pipeline.score_samples(X).shape == (150,)
        assert hasattr(pipeline[-1], "feature_names_in_") == (output == "pandas")


def test_it_works_in_a_search_and_in_cross_validation() -> None:
    X = IRIS.data[np.random.default_rng(0).permutation(150)]
    model = GaussianMixture(random_state=0, max_iter=300)
    search = GridSearchCV(model, {"n_components": [1, 3], "missing": ["error", "em"]}, cv=3)
    assert search.fit(X).best_params_["n_components"] == 3
    scores = cross_val_score(model.set_params(n_components=3), X, cv=3)
    assert scores.mean() == pytest.approx(search.best_score_, rel=1e-12)
    weight = {"sample_weight": np.linspace(0.1, 2, 150)}
    with config_context(enable_metadata_routing=True):
        model.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        weighted = cross_val_score(model, X, cv=3, params=weight)
    assert np.isfinite(weighted).all()
    assert (weighted != scores).all()


def test_a_warm_start_goes_on_where_it_ended(blobs: Blobs) -> None:
    whole = GaussianMixture(3, tol=0, max_iter=6, random_state=0)
    halves = GaussianMixture(3, tol=0, max_iter=3, random_state=0, warm_start=True)
    with pytest.warns(ConvergenceWarning):
        whole.fit(blobs.X)
    with pytest.warns(ConvergenceWarning):
        first = halves.fit(blobs.X).lower_bounds_
    with pytest.warns(ConvergenceWarning):
        second = halves.fit(blobs.X).lower_bounds_
    assert [*first, *second] == whole.lower_bounds_
    np.testing.assert_array_equal(halves.means_, whole.means_)


def test_a_warm_start_of_a_settled_fit_ends_after_one_pass(blobs: Blobs) -> None:
    model = GaussianMixture(3, tol=1e-6, max_iter=500, random_state=0, warm_start=True)
    assert model.fit(blobs.X).n_iter_ == len(model.lower_bounds_) > 1
    assert model.fit(blobs.X).n_iter_ == len(model.lower_bounds_) == 1


@pytest.mark.parametrize("missing", ["em", "drop"])
def test_a_warm_start_goes_on_with_missing_values(
    missing: Any, blobs: Blobs, rng: np.random.Generator
) -> None:
    X = np.where(rng.uniform(size=blobs.X.shape) < 0.1, np.nan, blobs.X)
    settings = {"missing": missing, "tol": 0, "random_state": 0}
    whole = GaussianMixture(3, max_iter=4, **settings)
    halves = GaussianMixture(3, max_iter=2, warm_start=True, **settings)
    with pytest.warns(ConvergenceWarning):
        whole.fit(X)
    with pytest.warns(ConvergenceWarning):
        halves.fit(X)
    with pytest.warns(ConvergenceWarning):
        halves.fit(X)
    np.testing.assert_array_equal(halves.means_, whole.means_)


def test_a_warm_start_needs_the_same_columns_and_covariances() -> None:
    model = GaussianMixture(2, warm_start=True, random_state=0).fit(IRIS.data)
    means = model.means_.copy()
    for X in (IRIS.data[:, :3], da.from_array(IRIS.data[:, :3])):
        with pytest.raises(ValueError, match="expecting 4 features"):
            model.fit(X)
    with pytest.raises(SettingsError, match="fit anew"):
        model.set_params(covariance_type="diag").fit(IRIS.data)
    assert model.n_features_in_ == 4
    np.testing.assert_array_equal(model.means_, means)
    assert model.set_params(warm_start=False).fit(IRIS.data[:, :3]).n_features_in_ == 3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_in_single_precision_a_fit_ends_where_it_ends_in_double(
    dtype: str, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = da.from_array((blobs.X + 1e3).astype(dtype), chunks=(170, 4))
    double = GaussianMixture(3, random_state=0, tol=1e-9, max_iter=500).fit(X)
    single = clone(double).set_params(arithmetic="single").fit(X)
    assert single.converged_
    assert single.lower_bounds_ != double.lower_bounds_
    assert single.lower_bound_ == pytest.approx(double.lower_bound_, abs=1e-7)
    assert single.score(X) == pytest.approx(single.lower_bound_, abs=1e-7)
    np.testing.assert_allclose(single.means_, double.means_, atol=1e-3)
    np.testing.assert_array_equal(single.predict(X), double.predict(X))
    again = clone(single).set_params(warm_start=True).fit(X)
    assert again.fit(X).n_iter_ < single.n_iter_


def test_every_start_is_another(blobs: Blobs, caplog: pytest.LogCaptureFixture) -> None:
    model = GaussianMixture(
        3, n_init=3, init_params="random_from_data", random_state=1, verbose=1, max_iter=200
    )
    with caplog.at_level("INFO", logger="gmm_dask"):
        model.fit(blobs.X)
    said = [record.getMessage() for record in caplog.records]
    first = [line.rpartition(" ")[2] for line in said if " pass 1: " in line]
    assert len(set(first)) == 3


def test_fewer_rows_than_components_is_an_error_with_both_numbers() -> None:
    with pytest.raises(DataError, match="n_components = 5, n_samples = 4"):
        GaussianMixture(5).fit(da.from_array(IRIS.data[:4], chunks=2))


def test_more_starts_never_end_lower(blobs: Blobs) -> None:
    bounds = [
        GaussianMixture(5, n_init=n, init_params="random_from_data", max_iter=300, random_state=1)
        .fit(blobs.X)
        .lower_bound_
        for n in (1, 4)
    ]
    assert bounds[1] >= bounds[0]


TWO_POINTS = np.repeat([[1.0] * 5, [0.0] * 5], 5, axis=0)
SCIKIT_LEARNS_WORDS = (
    "Fitting the mixture model failed because some components have ill-defined empirical "
    "covariance (for instance caused by singleton or collapsed samples). Try to decrease the "
    "number of components, increase reg_covar, or scale the input data."
)


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_collapse_is_an_error_in_scikit_learns_words_where_the_policy_is_to_raise(
    covariance_type: str,
) -> None:
    settings = {"reg_covar": 0, "covariance_type": covariance_type, "random_state": 0}
    with pytest.raises(ValueError, match=re.escape(SCIKIT_LEARNS_WORDS)):
        SklearnMixture(2, **settings).fit(TWO_POINTS)
    for k in (2, 10):
        with pytest.raises(SingularCovarianceError, match=re.escape(SCIKIT_LEARNS_WORDS)):
            GaussianMixture(k, component_policy="raise", **settings).fit(TWO_POINTS)
        model = GaussianMixture(k, **settings).fit(TWO_POINTS)
        assert model.events_
        assert len(set(model.predict(TWO_POINTS))) == 2
    with pytest.raises(SingularCovarianceError, match=r"all rows have the same value.*reg_covar"):
        GaussianMixture(1, **settings).fit(np.ones((10, 2)))


@pytest.mark.filterwarnings("ignore::gmm_dask.errors.FeatureWarning")
def test_a_component_that_was_dropped_is_gone_everywhere() -> None:
    model = GaussianMixture(4, component_policy="drop", random_state=0).fit(TWO_POINTS)
    assert len(model.weights_) == len(model.means_) == len(model.covariances_) == 2
    assert model.weights_.sum() == pytest.approx(1)
    assert [event.action for event in model.events_] == ["dropped"] * 2 + ["left as it was"] * 2
    X = da.from_array(TWO_POINTS, chunks=(3, 5))
    assert model.predict_proba(X).chunks == ((3, 3, 3, 1), (2,))
    np.testing.assert_array_equal(model.predict(X), model.predict(TWO_POINTS))
    assert set(model.predict(TWO_POINTS)) == set(model.sample(50)[1]) == {0, 1}
    assert model.to_sklearn().n_components == 2
    assert model.bic(X) == pytest.approx(model.to_sklearn().bic(TWO_POINTS))
    model.set_params(warm_start=True).fit(X)
    assert len(model.weights_) == 2


@pytest.mark.filterwarnings("ignore::gmm_dask.errors.FeatureWarning")
def test_events_are_those_of_the_start_that_was_kept(caplog: pytest.LogCaptureFixture) -> None:
    model = GaussianMixture(6, n_init=4, init_params="random_from_data", random_state=0)
    model.fit(TWO_POINTS)
    assert len({event.start for event in model.events_}) == 1
    emptied = {e.component for e in model.events_ if e.action == "kept as it was"}
    assert emptied == set(np.flatnonzero(model.weights_ == 0))
    for start in range(1, 5):
        assert f"start {start}: Component" in caplog.text


@pytest.mark.parametrize("call", ["fit", "fit_predict"])
def test_the_warning_points_at_the_users_line(call: str) -> None:
    with pytest.warns(ConvergenceWarning) as caught:
        getattr(GaussianMixture(3, max_iter=1, random_state=0), call)(IRIS.data)
    assert [warning.filename for warning in caught] == [__file__]


def test_warnings_point_past_scikit_learn_and_other_methods() -> None:
    model = GaussianMixture(3, max_iter=1, random_state=0)
    selector = GaussianMixtureSelector([3], estimator=model)
    inferred = Inferred(n_components=3, max_iter=1, random_state=0)
    for each in (make_pipeline(model), selector, inferred, make_pipeline(inferred)):
        with pytest.warns(ConvergenceWarning) as caught:
            each.fit_predict(IRIS.data)
        assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize("name", ["n_components", "max_iter", "n_init", "tol", "reg_covar"])
def test_true_is_no_number(name: str, blobs: Blobs) -> None:
    for value in (True, np.True_):
        with pytest.raises(ValueError, match=f"'{name}' parameter of GaussianMixture must be"):
            GaussianMixture(**{name: value}).fit(blobs.X)


def test_a_random_state_is_whatever_scikit_learn_takes() -> None:
    def drawn(random_state: Any) -> np.ndarray:
        model = GaussianMixture(3, init_params="random", tol=0.1, random_state=random_state)
        return np.concatenate([model.fit(IRIS.data).means_, model.sample(5)[0]])

    np.testing.assert_array_equal(drawn(7), drawn(np.int64(7)))
    shared = np.random.RandomState(7)
    first = drawn(shared)
    np.testing.assert_array_equal(first, drawn(np.random.RandomState(7)))
    assert (first != drawn(shared)).any()  # it moves on
    assert (drawn(None) != drawn(None)).any()
    of_all = check_random_state(None)  # what numpy.random.seed seeds
    state = of_all.get_state()
    of_all.seed(7)
    first = drawn(None), drawn(None)
    of_all.seed(7)
    np.testing.assert_array_equal(first, (drawn(None), drawn(None)))
    assert (first[0] != first[1]).any()
    of_all.set_state(state)
    with pytest.raises(InvalidParameterError, match="RandomState"):
        drawn(np.random.default_rng(7))


def test_verbose_passes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="gmm_dask"):
        GaussianMixture(3, random_state=0, verbose=2, verbose_interval=1).fit(IRIS.data)
    first, second, *_ = (record.getMessage() for record in caplog.records)
    assert first.startswith("start 1 pass 1: log-likelihood per row")
    assert "change" not in first  # there is none yet
    assert "change" in second


def test_where_nobody_reads_the_log_verbose_prints(capsys: pytest.CaptureFixture[str]) -> None:
    model = GaussianMixture(3, random_state=0, verbose=1, verbose_interval=5)
    model.set_params(init_params="random_from_data").fit(IRIS.data)
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("start 1 pass 1: log-likelihood per row")
    assert second.startswith("start 1 pass 5: log-likelihood per row")
    GaussianMixture(3, random_state=0).fit(IRIS.data)
    assert capsys.readouterr() == ("", "")


def test_predictions_on_all_threads_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the bit: what the core says of a row does not depend on the rows beside it."""
    X = np.random.default_rng(0).normal(size=(70_000, 3))
    model = GaussianMixture(2, random_state=0, tol=0.1).fit(X[:500])
    calls = [model.predict, model.predict_proba, model.score_samples]
    found = []
    for n_threads in (1, 3):
        monkeypatch.setattr(user_rows, "available_cores", lambda n=n_threads: n)
        found.append([call(X) for call in calls])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
