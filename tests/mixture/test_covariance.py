"""Factors, determinants and distances against linear algebra written another way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from gmm_dask.errors import SettingsError, SingularCovarianceError
from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters
from gmm_dask.mixture.covariance import family
from tests.strategies import mixtures, random_mixture


@given(mixtures())
def test_factors_invert_the_covariances(parameters: Parameters) -> None:
    k, d = parameters.means.shape
    dense = parameters.dense_covariances()
    factors = np.stack([parameters.dense_factor(j) for j in range(k)])
    product = factors @ factors.swapaxes(1, 2) @ dense
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(d), (k, d, d)), atol=1e-9)


@given(mixtures())
def test_log_determinants_are_half_those_of_the_precisions(parameters: Parameters) -> None:
    found = parameters.family.log_determinants()
    expected = -0.5 * np.linalg.slogdet(parameters.dense_covariances())[1]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@given(mixtures())
def test_precisions_and_covariances_lead_to_the_same_factors(parameters: Parameters) -> None:
    again = Parameters.from_precisions(
        parameters.weights, parameters.means, parameters.precisions, parameters.covariance_type
    )
    np.testing.assert_allclose(
        again.precisions_cholesky, parameters.precisions_cholesky, rtol=1e-7, atol=1e-9
    )
    np.testing.assert_allclose(again.covariances, parameters.covariances, rtol=1e-7, atol=1e-9)


@given(mixtures())
def test_distances_are_those_of_the_inverse_covariance(parameters: Parameters) -> None:
    k, d = parameters.means.shape
    D = np.random.default_rng(0).normal(size=(5, d))
    work, out = np.empty_like(D), np.empty(5)
    for j in range(k):
        inverse = np.linalg.inv(parameters.dense_covariances()[j])
        parameters.family.squared_distances(D, j, work, out)
        np.testing.assert_allclose(out, np.einsum("ni,ij,nj->n", D, inverse, D), rtol=1e-8)


@pytest.mark.parametrize("scale", [1e-100, 1e-8, 1.0, 1e8, 1e100])
def test_scale_of_the_columns_does_not_matter(scale: float) -> None:
    parameters = random_mixture("full", 1, 3, seed=7)
    columns = np.array([1.0, scale, 1 / scale])
    stretched = parameters.covariances * np.outer(columns, columns)
    factor = Parameters.from_covariances(
        parameters.weights, parameters.means * columns, stretched, "full"
    ).precisions_cholesky
    expected = parameters.precisions_cholesky / columns[:, None]
    np.testing.assert_allclose(factor, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("covariance_type", "covariances"),
    [
        ("full", [np.eye(2), np.ones((2, 2))]),
        ("full", [np.eye(2), [[1.0, 0.0], [0.0, 0.0]]]),
        ("full", [np.eye(2), [[1.0, 0.0], [0.0, np.nan]]]),
        ("diag", [[1.0, 1.0], [1.0, 0.0]]),
        ("diag", [[1.0, 1.0], [-1.0, 1.0]]),
        ("spherical", [1.0, np.inf]),
    ],
)
def test_a_singular_covariance_names_its_component(
    covariance_type: str, covariances: list[object]
) -> None:
    with pytest.raises(SingularCovarianceError, match=r"[Cc]omponent 1") as caught:
        Parameters.from_covariances([0.5, 0.5], np.zeros((2, 2)), covariances, covariance_type)
    assert caught.value.component == 1


def test_a_tied_singular_covariance_is_named() -> None:
    with pytest.raises(SingularCovarianceError, match="linear combinations"):
        Parameters.from_covariances([1.0], np.zeros((1, 2)), np.ones((2, 2)), "tied")


@pytest.mark.parametrize("name", ["Full", "", "vvv"])
def test_an_unknown_family_names_the_known_ones(name: str) -> None:
    with pytest.raises(SettingsError, match="full, tied, diag, spherical"):
        family(name)


@pytest.mark.parametrize("name", list(COVARIANCE_FAMILIES))
def test_free_parameters_are_those_scikit_learn_counts(name: str) -> None:
    from sklearn.mixture import GaussianMixture

    k, d = 3, 5
    X = np.random.default_rng(0).normal(size=(60, d))
    sklearn_model = GaussianMixture(k, covariance_type=name, random_state=0).fit(X)
    assert random_mixture(name, k, d, 0).n_free_parameters == sklearn_model._n_parameters()
