"""Parameters are immutable, checked and portable."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given

from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters, log_density, mixture_sample
from tests.strategies import mixtures, random_mixture


@given(mixtures())
def test_arrays_cannot_be_written(parameters: Parameters) -> None:
    with pytest.raises(ValueError, match="read-only"):
        parameters.means[0, 0] = 1.0


def test_the_arrays_given_are_not_shared() -> None:
    weights = np.array([1.0])
    parameters = Parameters.from_covariances(weights, [[0.0]], [[[1.0]]], "full")
    weights[0] = 5.0
    assert parameters.weights[0] == 1.0


@pytest.mark.parametrize("shape", [(3, 2), (2, 2), (2, 3, 2)])
def test_shapes_that_do_not_agree_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="2 components and 2 features"):
        Parameters.from_arrays([0.5, 0.5], np.zeros((2, 2)), np.ones(shape), np.ones(shape), "full")


@given(mixtures(max_components=4))
def test_reordered_components_are_the_same_mixture(parameters: Parameters) -> None:
    X = np.random.default_rng(1).normal(size=(7, parameters.n_features))
    order = np.arange(parameters.n_components)[::-1]
    np.testing.assert_allclose(
        log_density(X, parameters.take(order)), log_density(X, parameters), rtol=1e-12
    )


def test_copies_are_equal() -> None:
    parameters = random_mixture("tied", 2, 3, 0)
    again = copy.deepcopy(parameters)
    np.testing.assert_array_equal(again.covariances, parameters.covariances)
    assert again.covariance_type == "tied"


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
