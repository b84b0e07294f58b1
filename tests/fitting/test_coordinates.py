"""Mixtures as vectors: a chart that loses nothing and knows no units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.fitting.acceleration import Coordinates
from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters, e_step
from tests.mixture.test_laws import assert_same
from tests.strategies import random_mixture

KINDS = st.sampled_from(list(COVARIANCE_FAMILIES))
SEEDS = st.integers(0, 1000)


def pair(kind: str, seed: int) -> tuple[Parameters, Parameters]:
    return random_mixture(kind, 3, 4, seed), random_mixture(kind, 3, 4, seed + 5000)


@given(KINDS, SEEDS)
def test_a_mixture_survives_the_way_there_and_back(kind: str, seed: int) -> None:
    reference, other = pair(kind, seed)
    chart = Coordinates(reference)
    assert_same(chart.decode(chart.encode(other)), other, rtol=1e-9)


@given(KINDS, SEEDS)
def test_any_vector_is_a_mixture(kind: str, seed: int) -> None:
    chart = Coordinates(pair(kind, seed)[0])
    vector = np.random.default_rng(seed).normal(size=chart.scale.shape)
    found = chart.decode(vector)
    assert found.weights.min() > 0
    assert found.weights.sum() == pytest.approx(1)
    assert (found.family.variances > 0).all()
    # Weights have one number more than degrees of freedom: a shift of their logs.
    again = chart.encode(found)[3:]
    np.testing.assert_allclose(again, vector[3:], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", list(COVARIANCE_FAMILIES))
def test_the_reference_is_the_origin(kind: str) -> None:
    reference, _ = pair(kind, 0)
    np.testing.assert_allclose(Coordinates(reference).encode(reference), 0, atol=1e-12)


def rescaled(p: Parameters, scale: np.ndarray, shift: np.ndarray) -> Parameters:
    kind, covariances = p.covariance_type, p.covariances
    if kind in ("full", "tied"):
        covariances = covariances * np.outer(scale, scale)
    else:
        covariances = covariances * (scale**2 if kind == "diag" else scale[0] ** 2)
    return Parameters.from_covariances(p.weights, p.means * scale + shift, covariances, kind)


@given(KINDS, SEEDS)
def test_the_units_of_the_columns_do_not_matter(kind: str, seed: int) -> None:
    reference, other = pair(kind, seed)
    scale = 10.0 ** np.random.default_rng(seed).integers(-90, 90, 4)
    scale = np.full(4, scale[0]) if kind == "spherical" else scale
    expected = Coordinates(reference).encode(other)
    a, b = (rescaled(p, scale, np.zeros(4)) for p in (reference, other))
    np.testing.assert_allclose(Coordinates(a).encode(b), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", list(COVARIANCE_FAMILIES))
def test_a_step_of_one_costs_half_a_unit_of_log_likelihood(
    kind: str, rng: np.random.Generator
) -> None:
    """With components that do not overlap complete data are all there is: the Fisher metric."""
    k, d, n = 2, 3, 200_000
    far = np.array([[-1e3] * d, [1e3] * d])
    eye = {"full": [np.eye(d)] * k, "tied": np.eye(d), "diag": np.ones((k, d)), "spherical": [1, 1]}
    reference = Parameters.from_covariances([0.3, 0.7], far, eye[kind], kind)
    X = far[rng.choice(k, n, p=[0.3, 0.7])] + rng.normal(size=(n, d))
    chart = Coordinates(reference)
    step = 0.05 * rng.normal(size=chart.scale.shape)
    step[:k] -= chart.scale[:k] * (chart.scale[:k] @ step[:k])  # no shift of all log-weights
    there, back = (e_step(X, chart.decode(sign * step)).lower_bound for sign in (1, -1))
    here = e_step(X, reference).lower_bound
    assert 2 * here - there - back == pytest.approx(step @ step, rel=0.05)
