"""Column moments: numpy's, whatever the blocks, offsets and gaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.sampling import ColumnSpread
from gmm_dask.sampling.spread import BLOCK_VALUES, weight_unit
from tests.strategies import cuts, seeds


def gappy(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)) * [1.0, 1e3, 1e-6] + [0.0, 1e9, 1.0]
    X[rng.uniform(size=X.shape) < 0.2] = np.nan
    return X, rng.integers(0, 3, n).astype(float)


@given(st.data(), seeds, st.integers(1, 60))
def test_any_cut_gives_numpys_moments(data: st.DataObject, seed: int, n: int) -> None:
    X, weight = gappy(seed, n)
    X[0], weight[0] = [0.5, 1e9, 1.0], 1.0
    total, start = ColumnSpread.of(X[:0], weight[:0]), 0
    for length in data.draw(cuts(n)):
        rows = slice(start, start + length)
        total, start = total + ColumnSpread.of(X[rows], weight[rows]), start + length
    counted = np.where(np.isnan(X), 0.0, weight[:, None])
    mean = np.average(np.nan_to_num(X), axis=0, weights=counted)
    variance = np.average(np.nan_to_num(X - mean) ** 2, axis=0, weights=counted)
    np.testing.assert_allclose(total.weight * total.unit, counted.sum(axis=0))
    np.testing.assert_allclose(total.mean, mean, rtol=1e-14, atol=1e-12)
    np.testing.assert_allclose(total.variances, variance, rtol=1e-9, atol=1e-18)


def test_blocks_are_seamless() -> None:
    X, weight = gappy(1, 2 * BLOCK_VALUES + 17)
    parts = [ColumnSpread.of(X[i : i + 1000], weight[i : i + 1000]) for i in range(0, len(X), 1000)]
    total = sum(parts[1:], parts[0])
    np.testing.assert_allclose(ColumnSpread.of(X, weight).scatter, total.scatter, rtol=1e-10)


@pytest.mark.parametrize("value", [0.1, 1e9 + 0.1, -1e300])
def test_equal_values_have_no_variance_at_all(value: float) -> None:
    X = np.full((1000, 2), value)
    spread = ColumnSpread.of(X[:300]) + ColumnSpread.of(X[300:])
    assert spread.variances.tolist() == [0.0, 0.0]
    assert spread.mean.tolist() == [value, value]
    assert spread.constant.all()


@pytest.mark.parametrize("value", [5e-324, 1e-310, 1e-200])
def test_values_too_close_to_square_are_not_equal(value: float) -> None:
    X = np.array([[0.0, 1.0, np.nan], [value, 1.0, np.nan], [0.0, 1.0, 2.0]])
    parts = [ColumnSpread.of(X), ColumnSpread.of(X[:1]) + ColumnSpread.of(X[1:])]
    parts.append(ColumnSpread.of(X, np.ones(3)) + ColumnSpread.of(X[:0]))
    for spread in parts:
        assert spread.variances[0] == 0
        assert spread.constant.tolist() == [False, True, True]


def test_a_column_without_values_says_nothing() -> None:
    spread = ColumnSpread.of(np.array([[1.0, np.nan], [3.0, np.nan]]))
    assert spread.weight.tolist() == [2.0, 0.0]
    assert spread.variances.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("value", [1e12, 1e20, 1e200, -1.7e308])
def test_a_row_of_weight_zero_is_absent(value: float) -> None:
    X, weight = gappy(3, 50)
    X[7], weight[7] = value, 0.0
    X[0], weight[0] = value, 0.0
    kept = weight > 0
    expected = ColumnSpread.of(X[kept], weight[kept])
    merged = ColumnSpread.of(X[:1], weight[:1]) + ColumnSpread.of(X[1:], weight[1:])
    for found in (
        ColumnSpread.of(X, weight),
        merged,
        merged + ColumnSpread.of(X[7:8], weight[7:8]),
    ):
        for name in ("weight", "mean", "scatter", "unit", "least", "greatest"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@given(st.data(), seeds, st.integers(1, 60), st.integers(-1000, 1000))
def test_the_scale_of_the_weights_changes_no_bit(
    data: st.DataObject, seed: int, n: int, exponent: int
) -> None:
    X, weight = gappy(seed, n)
    X *= [1e-12, 1e150, 1.0]
    parts = {0: ColumnSpread.of(X[:0], weight[:0]), exponent: ColumnSpread.of(X[:0], weight[:0])}
    start = 0
    for length in data.draw(cuts(n)):
        rows = slice(start, start + length)
        for power in parts:
            parts[power] += ColumnSpread.of(X[rows], weight[rows] * 2.0**power)
        start += length
    plain, scaled = parts[0], parts[exponent]
    for name in ("weight", "mean", "scatter", "variances"):
        np.testing.assert_array_equal(getattr(scaled, name), getattr(plain, name))
    if weight.any():
        assert scaled.unit / plain.unit == 2.0**exponent


@pytest.mark.parametrize("largest", [5e-324, 1e-310, 1.0, 3.0, 1.7e308])
def test_the_unit_of_weights_is_a_power_of_two_just_below_the_largest(largest: float) -> None:
    unit = weight_unit(largest)
    assert 1 <= largest / unit < 2
    assert np.frexp(unit)[0] == 0.5
