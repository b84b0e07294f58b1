"""Inverses of triangles: exact zeros below, and as near to the inverse as LAPACK's own routine."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg.lapack import dtrtri

from gmm_dask.mixture.covariance.factors import inverse_triangular


@pytest.mark.parametrize("d", [1, 2, 15, 16, 17, 33, 64, 100])
@pytest.mark.parametrize("spread", [0.0, 6.0])
def test_an_upper_triangle_is_inverted_as_lapack_does(
    rng: np.random.Generator, d: int, spread: float
) -> None:
    roots = rng.normal(size=(3, d, 2 * d)) * np.logspace(0, -spread, d)[:, None]
    upper = np.linalg.cholesky(roots @ roots.swapaxes(1, 2)).swapaxes(1, 2)
    found = inverse_triangular(upper)
    assert (np.tril(found, -1) == 0).all()
    for each, inverse in zip(upper, found, strict=True):
        expected = dtrtri(each)[0]
        # Higham, 14.2: the residual is bounded by |X| |U|, whatever the condition.
        bound = 4 * d * np.finfo(float).eps * (np.abs(inverse) @ np.abs(each)).max()
        assert np.abs(inverse @ each - np.eye(d)).max() <= bound
        scale = np.abs(expected).max(axis=1, keepdims=True)
        assert np.abs((inverse - expected) / scale).max() < 1e-10
