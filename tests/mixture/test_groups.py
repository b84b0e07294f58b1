"""Groups about centres and columns in order, as the core finds them, are those of NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.mixture.core import groups


@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (33, 2, 3), (700, 8, 5), (100, 40, 9)])
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_are_assigned_to_the_first_nearest_centre(
    n: int, d: int, k: int, weighted: bool
) -> None:
    rng = np.random.default_rng(n + d)
    X, weight = rng.normal(size=(n, d)), rng.uniform(size=n) if weighted else None
    centres = rng.normal(size=(k, d))
    found = groups.assigned(X, np.concatenate([centres, centres]), weight)
    expected = ((X[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(found, expected)


@given(st.lists(st.floats(), max_size=80))
def test_columns_are_put_in_the_order_of_numpy(values: list[float]) -> None:
    column = np.array(values + values[::2], dtype=float)
    np.testing.assert_array_equal(groups.order_of(column), np.argsort(column, kind="stable"))


@pytest.mark.parametrize("weighted", [False, True])
def test_the_variance_within_is_the_least_about_two_means(weighted: bool) -> None:
    rng = np.random.default_rng(5)
    x = np.round(rng.normal(size=60) + 9.0 * rng.integers(0, 2, 60), 1)
    w = rng.uniform(0.1, 1.0, 60) if weighted else np.ones(60)
    order = np.argsort(x)
    parts = [(order[:i], order[i:]) for i in range(1, 60)]
    about = [
        sum(w[each] @ (x[each] - np.average(x[each], weights=w[each])) ** 2 for each in two)
        for two in parts
    ]
    found = groups.variance_within(x, w if weighted else None)
    assert found == pytest.approx(min(about) / w.sum(), rel=1e-12)
