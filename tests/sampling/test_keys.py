"""The first look at rows: keys that know values only, and the compiled look that finds the same."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.mixture import core
from gmm_dask.sampling import ColumnSpread, row_keys, spread_and_keys
from tests.strategies import seeds

MOMENTS = ("weight", "mean", "scatter", "least", "greatest", "unit")
LAST_KEY = 2**64 - 1


@given(seeds)
def test_every_value_is_as_likely_as_another(seed: int) -> None:
    salt = int(np.random.default_rng(seed).integers(2**63))
    grid = np.stack(np.meshgrid(np.arange(64.0), np.arange(64.0)), axis=-1).reshape(-1, 2)
    X = np.concatenate([grid, np.random.default_rng(seed).normal(size=(4096, 2))])
    keys = row_keys(X, salt)
    assert len(np.unique(keys)) == len(X)
    tenths = np.bincount((keys // np.uint64(LAST_KEY // 10 + 1)).astype(int), minlength=10)
    assert (np.abs(tenths - len(X) / 10) < 6 * np.sqrt(len(X) / 10)).all()
    whole = row_keys(grid.astype(np.float32), salt)
    np.testing.assert_array_equal(whole, keys[: len(grid)])
    np.testing.assert_array_equal(row_keys(-grid[:1], salt), keys[:1])  # -0 is 0


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rows": lambda X: X,
    "float32": lambda X: X.astype(np.float32),
    "whole numbers": lambda X: X.astype(np.int64),
    "columns": np.asfortranarray,
    "every other row": lambda X: np.repeat(X, 2, axis=0)[::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@given(seed=seeds, n=st.integers(1, 5000), d=st.sampled_from([1, 2, 3, 7, 8, 40, 129, 9000]))
def test_the_compiled_look_finds_the_same(layout: str, seed: int, n: int, d: int) -> None:
    n = max(1, min(n, 40_000 // d))
    rng = np.random.default_rng(seed)
    X = LAYOUTS[layout](rng.normal(size=(n, d)) * 10.0 ** rng.uniform(-3, 3, d) + 1.0)
    X[rng.uniform(size=X.shape) < 0.1] = -0.0
    expected, expected_keys = spread_and_keys(X, None, seed)
    found, keys = core.spread_and_keys(X, None, seed)
    np.testing.assert_array_equal(keys, expected_keys)
    np.testing.assert_array_equal(keys, row_keys(X, seed))
    scale = np.abs(X.astype(float)).max(axis=0)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=0, atol=1e-14 * scale.max())
    rounding = 4 * np.finfo(float).eps * scale * np.sqrt(n * expected.scatter)  # of the means
    assert (np.abs(found.scatter - expected.scatter) <= 1e-12 * expected.scatter + rounding).all()
    for name in ("weight", "least", "greatest", "unit"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert not len(core.spread_and_keys(X)[1])


@pytest.mark.parametrize("offset", [0.0, 1e6, -1e12])
@given(seed=seeds, n=st.integers(2, 3000))
def test_the_compiled_moments_are_those_of_exact_fractions(
    offset: float, seed: int, n: int
) -> None:
    x = np.random.default_rng(seed).normal(size=n) + offset
    spread, _ = core.spread_and_keys(np.stack([x, np.ones(n)], axis=1))
    exact = [Fraction(value) for value in x.tolist()]
    mean = sum(exact) / n
    scatter = sum((value - mean) ** 2 for value in exact)
    assert abs(Fraction(spread.mean[0]) - mean) <= Fraction(np.spacing(max(1, abs(offset))))
    assert abs(Fraction(spread.scatter[0]) - scatter) <= scatter * Fraction(1e-12)


@pytest.mark.parametrize("value", [0.1, 1e9 + 0.1, -1e300, 5e-324])
def test_equal_values_have_no_variance_at_all_in_the_compiled_look(value: float) -> None:
    spread, _ = core.spread_and_keys(np.full((5000, 3), value))
    assert spread.scatter.tolist() == [0.0] * 3
    assert spread.mean.tolist() == [value] * 3
    assert spread.constant.all()


def test_one_other_value_among_equal_ones_is_a_variance() -> None:
    X = np.full((4000, 1), 1e9)
    X[3000] = np.nextafter(1e9, 2e9)
    spread, _ = core.spread_and_keys(X)
    ulp = np.spacing(1e9)
    np.testing.assert_allclose(spread.scatter, [ulp**2 * (1 - 1 / 4000)], rtol=1e-12)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1.7e308])
def test_what_is_not_finite_is_left_to_numpy(odd: float) -> None:
    X = np.random.default_rng(0).normal(size=(500, 3))
    X[0, 1], X[78, 1] = odd, -odd  # 1.7e308: their difference is infinite
    _assert_equal(core.spread_and_keys(X, None, 5), spread_and_keys(X, None, 5))


def test_rows_with_weights_are_left_to_numpy() -> None:
    X, weight = np.random.default_rng(0).normal(size=(500, 3)), np.arange(500.0)
    _assert_equal(core.spread_and_keys(X, weight, 5), spread_and_keys(X, weight, 5))


def test_of_no_rows_nothing_is_known() -> None:
    X = np.zeros((0, 2))
    _assert_equal(core.spread_and_keys(X, None, 5), spread_and_keys(X, None, 5))


def _assert_equal(
    found: tuple[ColumnSpread, np.ndarray], expected: tuple[ColumnSpread, np.ndarray]
) -> None:
    np.testing.assert_array_equal(found[1], expected[1])
    for name in MOMENTS:
        np.testing.assert_array_equal(getattr(found[0], name), getattr(expected[0], name))
