"""Mixtures copied, pickled, and taken to scikit-learn's form and back."""

from __future__ import annotations

import copy
import io
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.mixture import BayesianGaussianMixture

from gmm_dask import GaussianMixture
from gmm_dask.errors import DataError
from gmm_dask.mixture import COVARIANCE_FAMILIES

IRIS = load_iris()
COPIES = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "joblib": lambda model: through_joblib(model),
    "deepcopy": copy.deepcopy,
}


def through_joblib(model: GaussianMixture) -> GaussianMixture:
    with io.BytesIO() as file:
        joblib.dump(model, file)
        file.seek(0)
        return joblib.load(file)


@pytest.mark.parametrize("way", list(COPIES))
def test_a_copy_is_the_same_model(way: str) -> None:
    X = pd.DataFrame(IRIS.data, columns=list("abcd"))
    model = GaussianMixture(5, random_state=0, missing="em", component_policy="drop").fit(X)
    copied = COPIES[way](model)
    assert copied.get_params() == model.get_params() == clone(model).get_params()
    np.testing.assert_array_equal(copied.predict_proba(X), model.predict_proba(X))
    assert copied.events_ == model.events_
    assert not hasattr(clone(model), "means_")
    copied.means_[:] = 0
    assert model.means_.any()


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_a_mixture_is_the_same_in_scikit_learn_and_back(covariance_type: str) -> None:
    X = pd.DataFrame(IRIS.data, columns=list("abcd"))
    settings = {"covariance_type": covariance_type, "tol": 0.01, "random_state": 3}
    ours = GaussianMixture(3, missing="em", **settings).fit(X)
    theirs, again = ours.to_sklearn(), GaussianMixture.from_sklearn(ours.to_sklearn())
    for name, value in theirs.get_params().items():
        wanted = "kmeans" if name == "init_params" else getattr(ours, name)  # theirs do not search
        assert value == wanted == getattr(again, name), name
    np.testing.assert_allclose(theirs.predict_proba(X), ours.predict_proba(X), atol=1e-12)
    np.testing.assert_allclose(theirs.score_samples(X), ours.score_samples(X), rtol=1e-10)
    assert theirs.bic(X) == pytest.approx(ours.bic(X), rel=1e-12)
    np.testing.assert_array_equal(again.predict_proba(X), ours.predict_proba(X))
    np.testing.assert_array_equal(again.score_samples(X), ours.score_samples(X))
    for name in ("precisions_", "lower_bounds_", "n_iter_", "converged_", "feature_names_in_"):
        np.testing.assert_array_equal(getattr(again, name), getattr(ours, name))
    for copied in (theirs, again):
        copied.means_[:] = 0
    assert ours.means_.any()


def test_an_unfitted_mixture_is_unfitted_in_scikit_learn_and_back() -> None:
    ours = GaussianMixture(4, covariance_type="diag", means_init=np.zeros((4, 2)), max_iter=7)
    theirs = ours.to_sklearn()
    again = GaussianMixture.from_sklearn(theirs)
    assert again.get_params() == ours.get_params() | {"init_params": "kmeans"}
    for model in (theirs, again):
        with pytest.raises(NotFittedError):
            model.predict(IRIS.data)
    with pytest.raises(DataError, match=r"sklearn\.mixture\.GaussianMixture"):
        GaussianMixture.from_sklearn(BayesianGaussianMixture())


def test_a_pickle_of_an_earlier_version_is_as_by_default_where_it_says_nothing() -> None:
    model = GaussianMixture(3, tol=0.02, random_state=0).fit(IRIS.data)
    state = dict(model.__getstate__())
    for name in ("missing", "component_policy", "covariance_prior", "events_"):
        del state[name]
    old = GaussianMixture.__new__(GaussianMixture)
    old.__setstate__(state)
    assert old.get_params() == model.get_params()
    assert old.events_ == ()
    np.testing.assert_array_equal(old.predict_proba(IRIS.data), model.predict_proba(IRIS.data))
    unfitted = GaussianMixture.__new__(GaussianMixture)
    unfitted.__setstate__({"n_components": 2})
    assert not hasattr(unfitted, "events_")
    assert clone(unfitted).fit(IRIS.data).n_components == 2


def test_scikit_learns_form_of_a_fit_that_lost_a_component_can_be_fitted_again() -> None:
    X = np.concatenate([np.random.default_rng(0).normal(size=(60, 1)), np.full((5, 1), 50.0)])
    starts = {"means_init": [[0.0], [50.0]], "weights_init": [0.9, 0.1]}
    ours = GaussianMixture(2, reg_covar=0, component_policy="drop", random_state=0, **starts).fit(X)
    theirs = ours.to_sklearn()
    assert theirs.n_components == 1
    assert theirs.set_params(reg_covar=1e-6).fit(X).means_.shape == (1, 1)
    assert GaussianMixture.from_sklearn(theirs).events_ == ()
