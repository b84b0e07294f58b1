"""Clusters out of components: the overlap that two Gaussians are known to have, and shapes."""

from __future__ import annotations

from math import erfc

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import adjusted_rand_score

from gmm_dask import GaussianMixture
from gmm_dask.mixture import MergeTree, Parameters, merge_tree
from gmm_dask.mixture.merging import classification_table, looked_up, overlaps_of, row_entropies

Array = npt.NDArray[np.float64]


def at(positions: list[float], weights: list[float] | None = None, d: int = 2) -> Parameters:
    """Gaussians of unit variance along a line."""
    k = len(positions)
    means = np.zeros((k, d))
    means[:, 0] = positions
    shares = np.full(k, 1 / k) if weights is None else np.array(weights)
    return Parameters.from_covariances(shares, means, np.ones((k, d)), "diag")


def banana(n: int, rng: np.random.Generator) -> Array:
    angle, radius = rng.uniform(-1.2, 1.2, n), rng.uniform(3, 5)
    r = radius + rng.normal(0, rng.uniform(0.25, 0.5), n)
    return np.c_[r * np.cos(angle) - 0.7 * radius, r * np.sin(angle)]


def ring(n: int, rng: np.random.Generator) -> Array:
    angle = rng.uniform(0, 2 * np.pi, n)
    r = rng.uniform(2.5, 4) + rng.normal(0, rng.uniform(0.2, 0.45), n)
    return np.c_[r * np.cos(angle), r * np.sin(angle)]


def cross(n: int, rng: np.random.Generator) -> Array:
    lies, spreads = rng.random(n) < 0.5, np.array([rng.uniform(1.5, 2.2), rng.uniform(0.2, 0.4)])
    return rng.normal(size=(n, 2)) * np.where(lies[:, None], spreads, spreads[::-1])


def shapes(seed: int) -> tuple[Array, npt.NDArray[np.int64], int]:
    """Rows of two to four shapes ten units apart, the truth, and six to twelve components."""
    rng = np.random.default_rng(seed)
    g = int(rng.integers(2, 5))
    k = int(rng.integers(max(6, 3 * g), 13))
    counts = np.maximum(rng.dirichlet(np.full(g, 8.0)) * 3000, 150).astype(int)
    while True:
        centres = rng.uniform(-11, 11, (g, 2))
        between = np.linalg.norm(centres[:, None] - centres, axis=2)
        if (between + 1e9 * np.eye(g)).min() > 10:
            break
    parts = []
    for count, centre in zip(counts, centres, strict=True):
        angle, make = rng.uniform(0, 2 * np.pi), (banana, ring, cross)[rng.integers(3)]
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        parts.append(make(int(count), rng) @ turn + centre)
    noise = rng.normal(size=(counts.sum(), int(rng.integers(0, 4))))
    return np.hstack([np.vstack(parts), noise]), np.repeat(np.arange(g), counts), k


def recovered(seed: int) -> float:
    X, truth, k = shapes(seed)
    found = GaussianMixture(k, random_state=seed, n_init=2).fit(X).predict_clusters(X)
    return float(adjusted_rand_score(truth, found))


@pytest.mark.parametrize("distance", [2.0, 3.0, 4.0, 5.0])
def test_the_overlap_of_two_equal_gaussians_is_the_share_that_is_misclassified(
    distance: float,
) -> None:
    tree = merge_tree(at([0.0, distance]))
    expected = erfc(distance / 2 / np.sqrt(2)) / 2
    assert tree.overlaps[0] == pytest.approx(expected, rel=0.15)
    assert tree.separations[0] == pytest.approx(distance, abs=0.2)


def test_clusters_are_what_is_five_standard_deviations_apart() -> None:
    tree = merge_tree(at([0, 4, 8, 14, 18, 30]))
    assert tree.clusters().tolist() == [0, 0, 0, 1, 1, 2]
    assert tree.n_clusters == 3
    assert tree.clusters(2).tolist() == [0, 0, 0, 0, 0, 1]
    assert tree.clusters(6).tolist() == tree.clusters(99).tolist() == [0, 1, 2, 3, 4, 5]
    assert tree.clusters(1).tolist() == [0] * 6


def test_weights_that_differ_do_not_bring_components_together() -> None:
    assert merge_tree(at([0, 5.4], [0.95, 0.05])).n_clusters == 2
    assert merge_tree(at([0, 4.4], [0.95, 0.05])).n_clusters == 1


def test_a_component_that_has_no_rows_of_its_own_is_part_of_the_one_that_has_them() -> None:
    assert merge_tree(at([0, 0.5, 9], [0.5, 0.0, 0.5])).clusters().tolist() == [0, 0, 1]
    assert merge_tree(at([0, 0.5, 9], [0.5, 1e-7, 0.5 - 1e-7])).clusters().tolist() == [0, 0, 1]


def test_components_in_another_order_are_the_same_clusters() -> None:
    mixture, order = at([0, 4, 8, 14, 18, 30]), [4, 2, 0, 5, 1, 3]
    tree, other = merge_tree(mixture), merge_tree(mixture.take(order))
    assert sorted(other.overlaps) == pytest.approx(sorted(tree.overlaps), rel=1e-9)
    assert adjusted_rand_score(tree.clusters()[order], other.clusters()) == 1
    assert merge_tree(mixture) == tree


def test_entropies_fall_to_zero() -> None:
    tree = merge_tree(at([0, 3, 6, 20]))
    assert len(tree.entropies) == tree.n_components == 4
    assert list(tree.entropies) == sorted(tree.entropies, reverse=True)
    assert tree.entropies[0] > 0.1
    assert tree.entropies[-1] == 0
    assert tree.entropies[2] < 1e-6


def test_one_component_is_one_cluster() -> None:
    assert merge_tree(at([0.0])) == MergeTree((), (), (0.0,))
    assert merge_tree(at([0.0])).clusters().tolist() == [0]


def test_components_that_do_not_overlap_at_all_have_a_tree_too() -> None:
    tree = merge_tree(at([0, 1e5, 2e5]))
    assert tree.overlaps == (0.0, 0.0)
    assert tree.n_clusters == 3
    assert tree.clusters(1).tolist() == [0, 0, 0]


def test_the_table_adds_up_over_rows() -> None:
    rng = np.random.default_rng(0)
    resp = rng.dirichlet([1, 1, 1], 50)
    labels, weights = resp.argmax(axis=1).astype(np.int32), rng.uniform(0, 2, 50)
    whole = classification_table(resp, labels, weights)
    parts = [
        classification_table(*(each[i::2] for each in (resp, labels, weights))) for i in (0, 1)
    ]
    assert np.allclose(sum(parts), whole, rtol=1e-13)
    assert np.allclose(whole.sum(axis=0), weights @ resp)
    assert np.allclose(whole[1, 2], (weights * resp[:, 2])[labels == 1].sum())
    assert np.allclose(overlaps_of(whole), overlaps_of(whole).T)
    assert np.allclose(row_entropies(resp), -(resp * np.log(resp)).sum(axis=1))


def test_overlaps_of_components_without_rows_are_zero() -> None:
    assert overlaps_of(np.zeros((2, 2))).tolist() == [[1, 0], [0, 1]]


def test_rows_without_a_label_have_no_cluster() -> None:
    assert looked_up([0, 0, 1], np.array([2, -1, 0, 1])).tolist() == [1, -1, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_shapes_of_several_components_are_one_cluster_each(seed: int) -> None:
    assert recovered(seed) >= 0.95


@pytest.mark.heavy
def test_nearly_all_shapes_are_recovered() -> None:
    assert np.mean([recovered(seed) >= 0.95 for seed in range(200)]) >= 0.95


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_of_separated_gaussians_nothing_is_merged(covariance_type: str) -> None:
    rng = np.random.default_rng(len(covariance_type))
    for d, k in ((2, 4), (6, 8), (12, 3)):
        means = np.zeros((k, d))
        means[:, 0], means[:, 1] = 7 * np.arange(k), rng.uniform(-1, 1, k)
        shares = rng.dirichlet(np.full(k, 5.0))
        plain = Parameters.from_covariances(shares, means, np.ones(k), "spherical")
        covariances = plain.dense_covariances()
        shaped = {"full": covariances, "tied": covariances[0], "spherical": np.ones(k)}
        found = shaped.get(covariance_type, np.ones((k, d)))
        mixture = Parameters.from_covariances(shares, means, found, covariance_type)
        assert merge_tree(mixture).n_clusters == k
