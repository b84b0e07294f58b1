"""Clusters of a fitted class: of the mixture as it is, for rows in every form."""

from __future__ import annotations

import pickle

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_moons
from sklearn.exceptions import NotFittedError
from sklearn.metrics import adjusted_rand_score

from gmm_dask import GaussianMixture

X, TRUTH = make_moons(1500, noise=0.07, random_state=0)


@pytest.fixture(scope="module")
def moons() -> GaussianMixture:
    return GaussianMixture(8, random_state=0).fit(X)


def test_moons_are_two_clusters_of_eight_components(moons: GaussianMixture) -> None:
    assert moons.n_clusters_ == 2
    assert moons.clusters_[0] == 0
    assert adjusted_rand_score(TRUTH, moons.predict_clusters(X)) > 0.98
    assert (moons.predict_clusters(X) == moons.clusters_[moons.predict(X)]).all()


def test_every_form_of_rows_has_the_same_clusters(moons: GaussianMixture) -> None:
    expected = moons.predict_clusters(X)
    blocks = moons.predict_clusters(da.from_array(X, chunks=(400, 2)))
    assert isinstance(blocks, da.Array)
    assert blocks.dtype == expected.dtype
    assert (blocks.compute() == expected).all()
    frame = pd.DataFrame(X, index=np.arange(len(X)) + 7)
    series = moons.predict_clusters(dd.from_pandas(frame, npartitions=3))
    assert isinstance(series, dd.Series)
    assert series.compute().index.equals(frame.index)
    assert (series.compute() == expected).all()


def test_rows_without_a_label_have_no_cluster() -> None:
    holed = X.copy()
    holed[3, 1] = np.nan
    model = GaussianMixture(8, random_state=0, missing="drop").fit(holed)
    assert model.predict_clusters(holed[:6])[3] == -1


def test_as_many_clusters_as_are_asked_for(moons: GaussianMixture) -> None:
    asked = GaussianMixture(8, random_state=0, n_clusters=5).fit(X)
    assert asked.n_clusters_ == 5
    assert asked.merge_tree_ == moons.merge_tree_
    assert moons.set_params(n_clusters=3).n_clusters_ == 3
    moons.set_params(n_clusters=None)


def test_the_tree_is_that_of_the_arrays_as_they_are(moons: GaussianMixture) -> None:
    other = pickle.loads(pickle.dumps(moons))
    assert other.n_clusters_ == 2
    other.means_ = other.means_ * 100
    assert other.n_clusters_ == 8


def test_there_are_none_before_a_fit() -> None:
    with pytest.raises(NotFittedError):
        _ = GaussianMixture(2).clusters_
