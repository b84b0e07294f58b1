"""Drawn rows follow the mixture they are drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from gmm_dask.mixture import COVARIANCE_FAMILIES, mixture_sample
from tests.strategies import random_mixture


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_moments_of_the_sample_are_those_of_the_mixture(
    covariance_type: str, rng: np.random.Generator
) -> None:
    parameters = random_mixture(covariance_type, 2, 3, 11)
    X, component = mixture_sample(parameters, 60_000, rng)
    assert X.shape == (60_000, 3)
    for j, covariance in enumerate(parameters.dense_covariances()):
        mine = X[component == j]
        assert abs(len(mine) / len(X) - parameters.weights[j]) < 0.01
        np.testing.assert_allclose(mine.mean(axis=0), parameters.means[j], atol=0.06)
        np.testing.assert_allclose(np.cov(mine.T), covariance, atol=0.12)
