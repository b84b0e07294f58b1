"""GaussianMixture: scikit-learn's interface, in memory and lazily."""

from __future__ import annotations

import copy

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from gmm_dask import GaussianMixture
from gmm_dask.errors import DataError, SingularCovarianceError
from gmm_dask.mixture import COVARIANCE_FAMILIES
from tests.conftest import Blobs

IRIS = load_iris()


def test_scikit_learns_checks_pass_without_an_exception() -> None:
    # The check of array API input runs only where SCIPY_ARRAY_API is set.
    check_estimator(GaussianMixture(), on_skip=None)


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


FORMS = {
    "numpy": lambda X: X,
    "pandas": lambda X: pd.DataFrame(X, columns=list("abcd")),
    "dask array": lambda X: da.from_array(X, chunks=(40, 2)),
    "dask array of unknown length": lambda X: (x := da.from_array(X, chunks=(40, 4)))[
        x[:, 0] > -1e9
    ],
    "dask dataframe": lambda X: dd.from_pandas(
        pd.DataFrame(X, columns=list("abcd")), npartitions=3
    ),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_of_the_rows_gives_the_same_model(form: str) -> None:
    reference = GaussianMixture(3, random_state=0).fit(IRIS.data)
    X = FORMS[form](IRIS.data)
    model = GaussianMixture(3, random_state=0).fit(X)
    np.testing.assert_allclose(model.means_, reference.means_, rtol=1e-10)
    labels, proba, density = model.predict(X), model.predict_proba(X), model.score_samples(X)
    if form.startswith("dask"):
        kinds = (dd.Series, dd.DataFrame) if form == "dask dataframe" else (da.Array,)
        assert all(isinstance(out, kinds) for out in (labels, proba, density))
        labels, proba, density = da.compute(labels, proba, density, scheduler="sync")
    np.testing.assert_array_equal(labels, reference.predict(IRIS.data))
    np.testing.assert_allclose(proba, reference.predict_proba(IRIS.data), atol=1e-9)
    np.testing.assert_allclose(density, reference.score_samples(IRIS.data), rtol=1e-9)
    assert model.bic(X) == pytest.approx(reference.bic(IRIS.data), rel=1e-10)


def test_predictions_on_dask_are_lazy_and_keep_the_chunks() -> None:
    model = GaussianMixture(2, random_state=0).fit(IRIS.data)
    computed: list[int] = []

    def block(X: np.ndarray) -> np.ndarray:
        computed.append(len(X))
        return X

    X = da.from_array(IRIS.data, chunks=(40, 4)).map_blocks(block, meta=np.empty((0, 4)))
    labels, proba = model.predict(X), model.predict_proba(X)
    assert computed == []
    assert labels.chunks == (X.chunks[0],)
    assert proba.chunks == (X.chunks[0], (2,))
    labels.compute(scheduler="sync")
    assert sorted(computed) == [30, 40, 40, 40]


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
    start = GaussianMixture(3, random_state=0).fit(blobs.X)
    given = {
        "weights_init": start.weights_,
        "means_init": start.means_,
        "precisions_init": start.precisions_,
    }
    weighted = GaussianMixture(3, tol=1e-8, **given).fit(blobs.X, sample_weight=weight)
    repeated = GaussianMixture(3, tol=1e-8, **given).fit(np.repeat(blobs.X, weight, axis=0))
    np.testing.assert_allclose(weighted.covariances_, repeated.covariances_, rtol=1e-10)
    scaled = GaussianMixture(3, tol=1e-8, **given).fit(blobs.X, sample_weight=weight * 0.25)
    np.testing.assert_allclose(scaled.covariances_, weighted.covariances_, rtol=1e-10)


def test_it_works_in_scikit_learns_tools() -> None:
    pipeline = make_pipeline(StandardScaler(), GaussianMixture(3, random_state=0)).fit(IRIS.data)
    assert outside(pipeline.predict(IRIS.data)) == 5
    search = GridSearchCV(
        GaussianMixture(random_state=0, max_iter=300), {"n_components": [1, 3]}, cv=3
    ).fit(IRIS.data[np.random.default_rng(0).permutation(150)])
    assert search.best_params_ == {"n_components": 3}
    model = GaussianMixture(3, random_state=0).fit(IRIS.data)
    assert clone(model).get_params() == model.get_params()
    np.testing.assert_array_equal(copy.deepcopy(model).predict(IRIS.data), model.predict(IRIS.data))


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


def test_every_start_is_another(blobs: Blobs, caplog: pytest.LogCaptureFixture) -> None:
    model = GaussianMixture(
        3, n_init=3, init_params="random_from_data", random_state=1, verbose=1, max_iter=200
    )
    with caplog.at_level("INFO", logger="gmm_dask"):
        model.fit(blobs.X)
    first = [r.args[2] for r in caplog.records if r.args[1] == 1]  # type: ignore[index]
    assert len(set(first)) == 3


@pytest.mark.parametrize(
    ("weight", "what"),
    [([1.0] * 149 + [-1.0], "negative, NaN or infinite"), ([np.inf] + [1.0] * 149, "negative, NaN or infinite"),
     ([0.0] * 150, "sum to zero")],
    ids=["negative", "infinite", "all zero"],
)  # fmt: skip
def test_weights_that_cannot_be_used_are_an_error(weight: list[float], what: str) -> None:
    with pytest.raises(DataError, match=what):
        GaussianMixture(2).fit(IRIS.data, sample_weight=weight)


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


@pytest.mark.parametrize(
    ("bad", "what"), [(np.nan, "missing values"), (np.inf, "infinity"), (-np.inf, "infinity")]
)
def test_unusable_values_are_named(bad: float, what: str) -> None:
    X = IRIS.data.copy()
    X[7, 2] = bad
    with pytest.raises(DataError, match=what):
        GaussianMixture(2).fit(da.from_array(X, chunks=40))
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        GaussianMixture(2).fit(X)


def test_features_must_be_those_of_the_fit() -> None:
    model = GaussianMixture(2, random_state=0).fit(IRIS.data)
    with pytest.raises(ValueError, match="expecting 4 features"):
        model.predict(da.from_array(IRIS.data[:, :3], chunks=40))
    named = GaussianMixture(2, random_state=0).fit(FORMS["dask dataframe"](IRIS.data))
    with pytest.raises(DataError, match="same order"):
        named.predict(dd.from_pandas(pd.DataFrame(IRIS.data, columns=list("dcba")), npartitions=1))


def test_equal_rows_name_the_remedy() -> None:
    with pytest.raises(SingularCovarianceError, match="reg_covar"):
        GaussianMixture(1, reg_covar=0).fit(np.ones((10, 2)))


def test_an_unfitted_mixture_says_so() -> None:
    with pytest.raises(NotFittedError):
        GaussianMixture().predict(IRIS.data)


def test_verbose_passes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="gmm_dask"):
        GaussianMixture(3, random_state=0, verbose=2, verbose_interval=1).fit(IRIS.data)
    assert "start 1 pass 1: log-likelihood per row" in caplog.text


def test_lazy_weights_are_paired_with_their_rows_whatever_their_chunks(
    blobs: Blobs, rng: np.random.Generator
) -> None:
    weight = rng.uniform(size=len(blobs.X))
    model = GaussianMixture(3, random_state=0).fit(blobs.X, sample_weight=weight)
    X = da.from_array(blobs.X, chunks=((700, 700, 600), (4,)))
    shifted = da.from_array(weight, chunks=((600, 700, 700),))
    assert model.score(X, sample_weight=shifted) == pytest.approx(
        model.score(blobs.X, sample_weight=weight), rel=1e-12
    )
    with pytest.raises(DataError, match="one value for each row"):
        model.score(X, sample_weight=da.ones(2001, chunks=667))
    with pytest.raises(DataError, match="weights were given for"):
        model.score(X[X[:, 0] > 0], sample_weight=shifted)
    with pytest.raises(DataError, match="one axis"):
        model.score(X, sample_weight=shifted[:, None])


def test_weights_beside_a_path_are_refused() -> None:
    with pytest.raises(DataError, match="weight_column"):
        GaussianMixture(2).fit("examples/iris", sample_weight=np.ones(150))
