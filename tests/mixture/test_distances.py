"""Distances of a block of rows, with as many sums at once as any processor has registers for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np
import pytest

from gmm_dask.mixture.kernels import distances
from gmm_dask.mixture.kernels.lanes import ROWS, rows
from gmm_dask.mixture.kernels.memory import store

pytestmark = [
    pytest.mark.parametrize("at_once", ["four", "two"]),
    pytest.mark.parametrize("dtype", [np.float64, np.float32]),
]
TWICE = {np.float64: 1, np.float32: 2}  # rows in a block, in units of ROWS


@cache
def of_matrix(at_once: str) -> Callable[..., None]:
    function = getattr(distances, f"of_matrix_by_{at_once}")

    @numba.njit
    def call(x: Any, mean: Any, factor: Any, limit: float, out: Any) -> None:
        store(out, 0, function(x, mean, factor, len(mean), rows(x, limit)))

    return call


@cache
def bound_of(at_once: str) -> Callable[..., None]:
    function = getattr(distances, f"bound_by_{at_once}")

    @numba.njit
    def call(y: Any, offset: Any, factor: Any, limit: float, out: Any) -> None:
        store(out, 0, function(y, offset, factor, rows(y, limit)))

    return call


def block(d: int, dtype: type) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows held transposed, a mean, a triangular factor."""
    rng = np.random.default_rng(d)
    x, mean = rng.normal(size=(d, ROWS * TWICE[dtype])), rng.normal(size=d)
    factor = np.triu(rng.normal(size=(d, d)))
    return x.astype(dtype), mean.astype(dtype), factor.astype(dtype)


@pytest.mark.parametrize("d", range(1, 11))
def test_distances_are_those_of_numpy(d: int, dtype: type, at_once: str) -> None:
    x, mean, factor = block(d, dtype)
    found = np.empty(x.shape[1], dtype)
    of_matrix(at_once)(x, mean, factor, np.inf, found)
    wide = [each.astype(np.float64) for each in (x, mean, factor)]
    expected = ((wide[2].T @ (wide[0] - wide[1][:, None])) ** 2).sum(axis=0)
    np.testing.assert_allclose(found, expected, rtol=50 * np.finfo(dtype).eps)


@pytest.mark.parametrize("d", [4, 8, 12])
def test_bounds_are_distances_of_what_is_projected(d: int, dtype: type, at_once: str) -> None:
    y, mean, factor = block(d, dtype)
    found = np.empty(y.shape[1], dtype)
    bound_of(at_once)(y, factor.T @ mean, factor, np.inf, found)
    wide = [each.astype(np.float64) for each in (y, mean, factor)]
    expected = ((wide[2].T @ (wide[0] - wide[1][:, None])) ** 2).sum(axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e3 * np.finfo(dtype).eps)


def test_what_is_out_of_reach_early_is_left_with_less_than_all(dtype: type, at_once: str) -> None:
    """The first columns alone: above the limit, and not above the distance."""
    x, mean, factor = block(12, dtype)
    x += 100 * np.sign(x)
    for function, at in ((of_matrix, mean), (bound_of, factor.T @ mean)):
        part, whole = np.empty((2, x.shape[1]), dtype)
        function(at_once)(x, at, factor, 1.0, part)
        function(at_once)(x, at, factor, np.inf, whole)
        assert (part > 1.0).all()
        assert (part < whole).all()
