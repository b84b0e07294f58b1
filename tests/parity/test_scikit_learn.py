"""Pass by pass, the log-likelihood is scikit-learn's, for every family, chunking and offset."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from sklearn.datasets import load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture

from gmm_dask import GaussianMixture
from gmm_dask.mixture import COVARIANCE_FAMILIES

DATA = {"iris": load_iris().data, "wine": load_wine().data}
N_PASSES = 40


def reference(X: np.ndarray, covariance_type: str) -> tuple[dict[str, np.ndarray], list[float]]:
    """A start, and scikit-learn's trajectory from it."""
    model = SklearnMixture(3, covariance_type=covariance_type, max_iter=1, random_state=0)
    with pytest.warns(ConvergenceWarning):
        model.fit(X)
    start = {
        "weights_init": model.weights_,
        "means_init": model.means_,
        "precisions_init": model.precisions_,
    }
    model = SklearnMixture(3, covariance_type=covariance_type, tol=0, max_iter=N_PASSES, **start)
    with pytest.warns(ConvergenceWarning):
        model.fit(X)
    return start, model.lower_bounds_


@pytest.mark.parametrize("n_chunks", [1, 7, 100])
@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
@pytest.mark.parametrize("name", list(DATA))
@pytest.mark.parametrize(("offset", "within"), [(0.0, 1e-9), (1e6, 1e-7)])
def test_the_trajectory_is_scikit_learns(
    name: str, covariance_type: str, n_chunks: int, offset: float, within: float
) -> None:
    X = DATA[name]
    start, expected = reference(X, covariance_type)
    start = start | {"means_init": start["means_init"] + offset}
    lengths = tuple(len(part) for part in np.array_split(X, n_chunks))
    chunked = da.from_array(X + offset, chunks=(lengths, X.shape[1]))
    assert chunked.numblocks == (n_chunks, 1)
    ours = GaussianMixture(3, covariance_type=covariance_type, tol=0, max_iter=N_PASSES, **start)
    with pytest.warns(ConvergenceWarning):
        ours.fit(chunked)
    np.testing.assert_allclose(ours.lower_bounds_, expected, rtol=0, atol=within)
