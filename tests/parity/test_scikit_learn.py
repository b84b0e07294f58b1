"""Pass by pass, the log-likelihood is scikit-learn's, for every family, chunking and offset."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

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


@cache
def reference(name: str, covariance_type: str) -> tuple[dict[str, np.ndarray], list[float]]:
    """A start, and scikit-learn's trajectory from it."""
    X = DATA[name]
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


@pytest.mark.parametrize(
    "cuts",
    [(), range(22, 150, 22), (1, 2, 3, 5, 9, 80, 149)],
    ids=["whole", "even chunks", "chunks of a row"],
)
@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
@pytest.mark.parametrize("name", list(DATA))
@pytest.mark.parametrize(("offset", "within"), [(0.0, 1e-9), (1e6, 1e-7)])
def test_the_trajectory_is_scikit_learns(
    name: str, covariance_type: str, cuts: Sequence[int], offset: float, within: float
) -> None:
    X = DATA[name]
    start, expected = reference(name, covariance_type)
    start = start | {"means_init": start["means_init"] + offset}
    lengths = tuple(stop - start for start, stop in pairwise((0, *cuts, len(X))))
    chunked = da.from_array(X + offset, chunks=(lengths, X.shape[1]))
    assert chunked.chunks == (lengths, (X.shape[1],))
    ours = GaussianMixture(3, covariance_type=covariance_type, tol=0, max_iter=N_PASSES, **start)
    with pytest.warns(ConvergenceWarning):
        ours.fit(chunked)
    np.testing.assert_allclose(ours.lower_bounds_, expected, rtol=0, atol=within)
