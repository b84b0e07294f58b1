"""Overlaps are the integrals that they say they are, and the assignment is the best there is."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters
from gmm_dask.mixture.matching import (
    SEPARATE,
    bhattacharyya_distances,
    match,
    matching_distances,
    overlaps,
)
from tests.strategies import covariance_types, mixtures, random_mixture, seeds

LIMIT = -math.log(SEPARATE)


def density(x: np.ndarray, parameters: Parameters, j: int) -> np.ndarray:
    covariance = parameters.dense_covariances()[j]
    away = x - parameters.means[j]
    squares = np.einsum("nd,de,ne->n", away, np.linalg.inv(covariance), away)
    return np.exp(-squares / 2) / np.sqrt(np.linalg.det(2 * np.pi * covariance))


@pytest.mark.parametrize("one", list(COVARIANCE_FAMILIES))
@pytest.mark.parametrize("other", list(COVARIANCE_FAMILIES))
def test_an_overlap_is_the_integral_of_the_root_of_the_product(one: str, other: str) -> None:
    first, second = random_mixture(one, 2, 2, 1), random_mixture(other, 3, 2, 2)
    axis = np.linspace(-14, 14, 281)
    x = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    area = (axis[1] - axis[0]) ** 2
    found = overlaps(first, second)
    for i, j in np.ndindex(2, 3):
        integral = np.sqrt(density(x, first, i) * density(x, second, j)).sum() * area
        assert found[i, j] == pytest.approx(integral, abs=1e-9)


@given(mixtures())
def test_a_mixture_overlaps_itself_alike_from_both_sides(parameters: Parameters) -> None:
    found = bhattacharyya_distances(parameters)
    np.testing.assert_array_equal(found, found.T)
    assert not np.diagonal(found).any()
    np.testing.assert_allclose(
        found, bhattacharyya_distances(parameters, parameters), rtol=1e-10, atol=1e-12
    )


@given(covariance_types, covariance_types, seeds, st.integers(1, 4))
def test_units_and_sides_do_not_count(one: str, other: str, seed: int, d: int) -> None:
    first, second = random_mixture(one, 2, d, seed), random_mixture(other, 3, d, seed + 1)
    scale = 10.0 ** np.random.default_rng(seed).uniform(-80, 80, d)
    expected = bhattacharyya_distances(first, second)
    tolerances = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(bhattacharyya_distances(second, first).T, expected, **tolerances)
    scaled = [
        Parameters.from_covariances(
            each.weights,
            each.means * scale,
            each.dense_covariances() * scale[:, None] * scale,
            "full",
        )
        for each in (first, second)
    ]
    np.testing.assert_allclose(bhattacharyya_distances(*scaled), expected, **tolerances)


def test_nearly_singular_and_far_components_have_distances() -> None:
    thin = np.array([[1.0, 1 - 1e-13], [1 - 1e-13, 1.0]])
    means = np.array([[1e8, 1e8], [1e8, 1e8 + 1], [-1e200, 1e200]])
    narrow = Parameters.from_covariances(np.full(3, 1 / 3), means, [thin] * 3, "full")
    broad = Parameters.from_covariances([1.0], [[1e8, 1e8]], [1e12], "spherical")
    found = bhattacharyya_distances(narrow)
    # Across the thin direction the variance is 1e-13, and (1, 0) has half of its square there.
    assert found[0, 1] == pytest.approx(0.5 / 1e-13 / 8, rel=1e-2)
    assert found[0, 2] == math.inf
    expected = 0.5 * math.log(0.25e24 / math.sqrt(2e-13 * 1e24))
    assert bhattacharyya_distances(narrow, broad)[0, 0] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("limit", [math.inf, LIMIT, 0.3])
@settings(max_examples=25)
@given(mixtures(5, 2), seeds, st.integers(1, 5))
def test_no_other_assignment_costs_less(limit: float, first: Parameters, seed: int, k: int) -> None:
    second = random_mixture("full", k, first.n_features, seed)
    found = match(first, second, limit)
    costs = np.minimum(matching_distances(first, second), limit)
    if len(costs) > len(costs[0]):
        costs = costs.T
    n, most = costs.shape
    best = min(
        math.fsum(costs[range(n), chosen]) for chosen in itertools.permutations(range(most), n)
    )
    lonely = n - len(found.pairs)
    paid = math.fsum(found.distances) + (lonely * limit if lonely else 0.0)
    assert paid == pytest.approx(best, rel=1e-12)
    assert all(distance < limit for distance in found.distances)
    for side, others in enumerate((found.only_first, found.only_second)):
        paired = [pair[side] for pair in found.pairs]
        assert sorted([*paired, *others]) == list(range((first, second)[side].n_components))


@given(mixtures(6, 4), st.randoms(use_true_random=False))
def test_an_order_is_found_again(parameters: Parameters, random: object) -> None:
    order = list(range(parameters.n_components))
    random.shuffle(order)  # type: ignore[attr-defined]
    found = match(parameters, parameters.take(order), LIMIT)
    assert found.pairs == tuple((i, order.index(i)) for i in range(len(order)))
    assert max(found.distances) < 1e-9


def line(means: list[float], weights: list[float] | None = None) -> Parameters:
    """A mixture on a line, of components with variance one."""
    k = len(means)
    shares = np.full(k, 1 / k) if weights is None else weights
    return Parameters.from_covariances(shares, np.reshape(means, (k, 1)), np.ones(k), "spherical")


def test_one_that_stays_is_not_shifted_so_that_one_that_goes_finds_a_partner() -> None:
    found = match(line([0.0, 4.0]), line([4.0, 8.0]), LIMIT)
    assert (found.pairs, found.only_first, found.only_second) == (((1, 0),), (0,), (1,))
    assert match(line([0.0, 9.0]), line([9.0, 18.0])).only_first == ()


def test_of_two_at_one_place_the_weights_say_which_is_which() -> None:
    first, second = line([0.0, 0.1], [0.9, 0.1]), line([0.1, 0.0], [0.9, 0.1])
    assert match(first, second, LIMIT).pairs == ((0, 0), (1, 1))


def test_what_is_infinitely_far_is_paired_only_without_a_limit() -> None:
    first, second = line([0.0, 1e200]), line([-1e200, 0.0])
    assert match(first, second).pairs == ((0, 1), (1, 0))
    assert match(first, second, LIMIT).pairs == ((0, 1),)
    empty = line([0.0, 5.0], [1.0, 0.0])
    assert match(empty, empty).distances == (0.0, 0.0)


def test_many_columns_do_not_part_what_estimation_alone_has_changed() -> None:
    rng = np.random.default_rng(0)
    d, n = 60, 300
    nights = []
    for _ in range(2):
        rows = [rng.normal(size=(n, d)) + shift for shift in (0.0, 1.5)]
        covariances = [np.cov(each.T) for each in rows]
        means = [each.mean(axis=0) for each in rows]
        nights.append(Parameters.from_covariances([0.5, 0.5], means, covariances, "full"))
    assert match(*nights, LIMIT).pairs == ((0, 0), (1, 1))


def test_mixtures_of_other_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="of 2 and of 3 features"):
        overlaps(random_mixture("full", 2, 2, 0), random_mixture("full", 2, 3, 0))
