"""The Bayesian class: rows in every form, weights, missing values, warm starts, samples."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from gmm_dask import BayesianGaussianMixture, load_model
from gmm_dask.errors import DataError, SettingsError

CENTRES = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 9.0]])


def rows(n: int = 900, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return CENTRES[rng.integers(0, 3, n)] + rng.normal(size=(n, 2))


def model(**options: Any) -> BayesianGaussianMixture:
    return BayesianGaussianMixture(
        **{"n_components": 6, "random_state": 0, "max_iter": 500} | options
    )


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_as_many_components_are_used_as_there_are(kind: str) -> None:
    low = {"weight_concentration_prior": 1e-3}
    found = model(covariance_type=kind, **low).fit(rows())
    used = found.weights_ > 0.01
    assert used.sum() == 3
    order = np.lexsort(np.round(found.means_[used]).T)
    np.testing.assert_allclose(found.means_[used][order], CENTRES, atol=0.2)
    assert found.weights_.sum() == pytest.approx(1)
    assert np.diff(found.lower_bounds_).min() > -1e-9 * abs(found.lower_bound_)


def test_every_form_of_rows_has_the_same_result(tmp_path: Path) -> None:
    X = rows()
    expected = model().fit(X)
    frame = pd.DataFrame(X, columns=["a", "b"])
    frame.to_parquet(tmp_path / "x.parquet")
    for form in (da.from_array(X, chunks=(200, 2)), frame, str(tmp_path)):
        found = model().fit(form)
        np.testing.assert_allclose(found.means_, expected.means_, rtol=1e-9, atol=1e-9)
        assert found.lower_bound_ == pytest.approx(expected.lower_bound_, rel=1e-9)
        assert (np.asarray(found.predict(form)) == expected.predict(X)).all()


def test_a_row_of_weight_two_is_two_rows() -> None:
    X, weight = rows(), np.random.default_rng(1).integers(0, 4, 900)
    one = model(n_components=4).fit(X, sample_weight=weight)
    other = model(n_components=4).fit(np.repeat(X, weight, axis=0))
    np.testing.assert_allclose(one.means_, other.means_, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(one.covariance_prior_, other.covariance_prior_, rtol=1e-9)
    assert one.lower_bound_ == pytest.approx(other.lower_bound_, rel=1e-9)


def test_rows_with_a_missing_value_are_refused_or_left_out() -> None:
    X = rows()
    X[5, 1] = np.nan
    with pytest.raises(DataError, match="NaN"):
        model().fit(X)
    found = model(missing="drop").fit(X)
    np.testing.assert_allclose(found.means_, model().fit(np.delete(X, 5, 0)).means_, atol=1e-9)
    assert found.predict(X)[5] == -1


def test_a_warm_start_goes_on_where_the_last_fit_ended() -> None:
    X, whole = rows(), model(max_iter=30, tol=0)
    with pytest.warns(ConvergenceWarning):
        whole.fit(X)
    step = model(max_iter=1, tol=0, warm_start=True)
    bounds = []
    for _ in range(30):
        with pytest.warns(ConvergenceWarning):
            bounds += step.fit(X).lower_bounds_
    np.testing.assert_allclose(bounds, whole.lower_bounds_, rtol=1e-12)
    np.testing.assert_allclose(step.means_, whole.means_, rtol=1e-9, atol=1e-12)


def test_of_many_rows_few_passes_are_made_after_the_sample() -> None:
    rng = np.random.default_rng(0)
    X = CENTRES[rng.integers(0, 3, 300_000)] + rng.normal(size=(300_000, 2))
    found = model(n_components=3).fit(X)
    assert found.converged_
    assert found.n_iter_ <= 5
    order = np.lexsort(np.round(found.means_).T)
    np.testing.assert_allclose(found.means_[order], CENTRES, atol=0.02)
    assert found.mean_precision_.sum() == pytest.approx(300_000 + 3)


def test_clusters_draws_and_files_are_of_the_expected_mixture(tmp_path: Path) -> None:
    X = rows()
    found = model(n_components=3).fit(X)
    assert found.n_clusters_ == 3
    assert (found.predict_clusters(X) == found.predict(X)).all()
    drawn, component = found.sample(2000)
    assert np.bincount(component, minlength=3) / 2000 == pytest.approx(found.weights_, abs=0.05)
    assert drawn.mean(axis=0) == pytest.approx(found.weights_ @ found.means_, abs=0.5)
    found.save(tmp_path / "model.json")
    loaded = load_model(str(tmp_path / "model.json"))
    np.testing.assert_array_equal(loaded.means_, found.means_)
    assert loaded.lower_bound_ == pytest.approx(found.lower_bound_ / len(X))
    assert found.marginal([0]).weights_ == pytest.approx(found.weights_)
    assert (loaded.predict(X) == found.predict(X)).mean() > 0.999
    again = pickle.loads(pickle.dumps(found))
    assert again.score(X) == found.score(X)


def test_more_starts_end_no_lower() -> None:
    X = rows(300)
    options = {"n_components": 4, "init_params": "random", "tol": 1e-6}
    assert model(n_init=4, **options).fit(X).lower_bound_ >= model(**options).fit(X).lower_bound_


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean_prior": [1.0]}, "means"),
        ({"covariance_prior": np.eye(3)}, "full covariance_prior"),
        ({"covariance_prior": -np.eye(2)}, "full covariance_prior"),
        ({"covariance_type": "diag", "covariance_prior": [1.0, 0.0]}, "diag covariance_prior"),
        ({"degrees_of_freedom_prior": 1.0}, "degrees_of_freedom_prior"),
    ],
)
def test_a_prior_that_is_none_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        model(**options).fit(rows())


def test_it_can_be_cloned_and_has_scikit_learns_parameters_and_missing_values() -> None:
    from sklearn.mixture import BayesianGaussianMixture as Theirs

    ours = clone(model(n_components=3)).get_params()
    assert Theirs().get_params().keys() <= ours.keys()
    assert ours.keys() - Theirs().get_params().keys() == {"missing", "n_clusters"}
    defaults = BayesianGaussianMixture().get_params()
    assert {name: defaults[name] for name in Theirs().get_params()} == Theirs().get_params()
