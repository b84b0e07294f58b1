"""Neighbours and what tells components apart."""

from __future__ import annotations

import numpy as np
import pytest

from gmm_dask.mixture import Parameters
from gmm_dask.mixture.matching import neighbours


def distance(parameters: Parameters, i: int, j: int, columns: list[int]) -> float:
    at = np.ix_(columns, columns)
    covariances = parameters.dense_covariances()
    average = (covariances[i][at] + covariances[j][at]) / 2
    delta = (parameters.means[i] - parameters.means[j])[columns]
    return float(delta @ np.linalg.solve(average, delta))


@pytest.mark.parametrize("scale", [1.0, 1e-150, 1e8])
def test_a_share_is_what_the_distance_loses_without_the_column(scale: float) -> None:
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(3, 4, 4)) * scale
    means = np.array([[0, 0, 0, 0], [3, 0, 1, 0], [40, 40, 40, 40]]) * scale
    covariances = roots @ roots.swapaxes(1, 2)
    parameters = Parameters.from_covariances([0.3, 0.3, 0.4], means, covariances, "full")
    found = neighbours(parameters)
    assert [each.component for each in found][:2] == [1, 0]
    every = [0, 1, 2, 3]
    whole = distance(parameters, 0, 1, every)
    without = [distance(parameters, 0, 1, [c for c in every if c != j]) for j in every]
    np.testing.assert_allclose(found[0].shares, whole - np.array(without), rtol=1e-6, atol=1e-9)
    assert 0 < found[0].overlap < 1
    assert neighbours(parameters.take([0])) == ()


@pytest.mark.parametrize("family", ["tied", "diag", "spherical"])
def test_what_is_compared_is_what_differs(family: str) -> None:
    covariances = {"tied": np.eye(3), "diag": np.ones((2, 3)), "spherical": np.ones(2)}[family]
    means = np.array([[0.0, 0, 0], [0, 2, 0]])
    parameters = Parameters.from_covariances([0.5, 0.5], means, covariances, family)
    first, second = neighbours(parameters)
    np.testing.assert_allclose(first.shares, [0, 4, 0], atol=1e-12)
    np.testing.assert_allclose(second.shares, first.shares)
    assert first.overlap == pytest.approx(np.exp(-0.5))
