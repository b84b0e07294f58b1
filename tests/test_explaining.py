"""Reasons, marginal and conditional mixtures through the class."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal
from sklearn.ensemble import IsolationForest

from gmm_dask import GaussianMixture
from gmm_dask.errors import DataError

FAMILIES = ["full", "tied", "diag", "spherical", "low_rank:1"]
NAMES = ["a", "b", "c", "d"]
RNG = np.random.default_rng(0)
ROOT = np.array([[1.0, 0.8, 0, 0], [0, 0.5, 0.3, 0], [0, 0, 1, 0.9], [0, 0, 0, 0.4]])
X = pd.DataFrame(RNG.normal(size=(400, 4)) @ ROOT, columns=NAMES)
X.iloc[:150] += [4.0, 0, -3, 0]


def assert_same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """The same table, whatever stands for what is absent: Dask makes text of objects."""
    frames = [each.astype(object).where(each.notna(), None) for each in (one, other)]
    pd.testing.assert_frame_equal(*frames)


def fitted(family: str = "full", **more: object) -> GaussianMixture:
    return GaussianMixture(2, covariance_type=family, random_state=0, **more).fit(X)


def log_density(model: GaussianMixture, rows: np.ndarray, columns: list[int]) -> np.ndarray:
    """By SciPy, of some of the columns."""
    covariances = model._parameters().dense_covariances()
    at = np.ix_(columns, columns)
    parts = zip(model.weights_, model.means_, covariances, strict=True)
    return np.log(sum(w * multivariate_normal(m[columns], c[at]).pdf(rows) for w, m, c in parts))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_marginal_mixture_has_the_density_of_some_columns(family: str) -> None:
    model = fitted(family)
    found = model.marginal(["d", "b"])
    rows = X[["b", "d"]].to_numpy()
    np.testing.assert_allclose(
        found.score_samples(X[["b", "d"]]), log_density(model, rows, [1, 3]), rtol=1e-9
    )
    assert list(found.feature_names_in_) == ["d", "b"]
    assert found.score(X[["d", "b"]]) == pytest.approx(log_density(model, rows, [1, 3]).mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_conditional_mixture_is_the_joint_density_over_that_of_what_is_given(
    family: str,
) -> None:
    model = fitted(family)
    given = {"c": 0.7, "a": -1.5}
    found = model.conditional(given=given)
    assert list(found.feature_names_in_) == ["b", "d"]
    rows = X.assign(**given)
    expected = log_density(model, rows.to_numpy(), [0, 1, 2, 3])
    expected -= log_density(model, np.array([[-1.5, 0.7]]), [0, 2])
    np.testing.assert_allclose(found.score_samples(X[["b", "d"]]), expected, rtol=1e-8)
    filled = GaussianMixture(2).fit(X)  # the value to be expected is what imputation takes
    filled.__dict__.update(vars(model))
    imputed = filled.impute(pd.DataFrame([{"a": -1.5, "b": np.nan, "c": 0.7, "d": np.nan}]))
    np.testing.assert_allclose(found.weights_ @ found.means_, imputed[0, [1, 3]], rtol=1e-8)
    assert found.sample(5)[0].shape == (5, 2)


def test_noise_goes_along_with_the_condition_and_is_explained() -> None:
    rows = pd.concat([X, pd.DataFrame(RNG.uniform(-20, 20, (60, 4)), columns=NAMES)])
    model = GaussianMixture(2, random_state=0, noise=True).fit(rows)
    assert model.noise_share_ > 0.05
    found = model.conditional(given={"c": 0.7, "a": -1.5})
    given = model.marginal(["a", "c"]).score_samples(pd.DataFrame([{"a": -1.5, "c": 0.7}]))
    joint = model.score_samples(X.assign(a=-1.5, c=0.7))
    np.testing.assert_allclose(found.score_samples(X[["b", "d"]]), joint - given, rtol=1e-8)
    reasons = model.reasons(rows)
    noise = reasons["label"] == -1
    assert noise.sum() > 20
    assert reasons.loc[noise, ["column_1", "label_column_1"]].notna().all(axis=None)


def test_an_offset_of_1e8_and_a_far_value_keep_the_conditional_mixture() -> None:
    offset = 2.0**27
    rows = (X * 1024).round() / 1024
    near = GaussianMixture(1, random_state=0).fit(rows)
    far = GaussianMixture(1, random_state=0).fit(rows + offset)
    a, b = near.conditional({"a": 0.25}), far.conditional({"a": 0.25 + offset})
    np.testing.assert_allclose(b.means_ - offset, a.means_, atol=1e-6)
    np.testing.assert_allclose(b.covariances_, a.covariances_, rtol=1e-7)
    assert fitted().conditional({"a": 1e150}).weights_.sum() == pytest.approx(1)


def test_features_that_are_not_there_are_named() -> None:
    model = fitted()
    with pytest.raises(DataError, match="no feature 'x'"):
        model.marginal(["a", "x"])
    with pytest.raises(DataError, match="'a' is named twice"):
        model.marginal(["a", "a"])
    with pytest.raises(DataError, match="no other one is left"):
        model.conditional(dict.fromkeys(NAMES, 0.0))
    for value in ("a", None, np.nan):
        with pytest.raises(DataError, match="Every given value must be finite"):
            model.conditional({"a": value})
    by_number = GaussianMixture(2, random_state=0).fit(X.to_numpy())
    assert by_number.conditional({3: 0.0}).n_features_in_ == 3


def test_reasons_have_the_form_of_the_rows(tmp_path: Path) -> None:
    model = fitted(missing="em")
    rows = X.copy()
    rows.index = rows.index[::-1]
    rows.iloc[3, 1] = rows.iloc[5] = np.nan
    found = model.reasons(rows, n_columns=2)
    assert found.index.equals(rows.index)
    np.testing.assert_array_equal(found["label"], model.predict(rows))
    assert found.iloc[5][["column_1", "label_column_2"]].isna().all()
    lazy = model.reasons(dd.from_pandas(rows, npartitions=3, sort=False), n_columns=2)
    assert_same(lazy.compute(scheduler="sync"), found)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        arrays = model.reasons(da.from_array(rows.to_numpy(), chunks=(150, 4)), n_columns=2)
    computed = arrays.compute(scheduler="sync").reset_index(drop=True)
    assert_same(computed, found.reset_index(drop=True))
    rows.to_parquet(tmp_path / "rows.parquet", index=False)
    of_path = model.reasons(str(tmp_path / "rows.parquet"), 2).compute(scheduler="sync")
    np.testing.assert_array_equal(of_path["z_1"], found["z_1"])
    unnamed = GaussianMixture(2, random_state=0).fit(X.to_numpy())
    assert_same(unnamed.reasons(X.to_numpy().tolist()), unnamed.reasons(X.to_numpy()))
    left_out = fitted(missing="drop").reasons(rows)
    assert list(np.flatnonzero(left_out["label"] == -1)) == [3, 5]
    assert left_out["column_1"].isna().sum() == 2


def test_rows_that_break_a_correlation_are_found_and_the_broken_column_is_named() -> None:
    """Each value of a broken row alone is ordinary: it is that of another row."""
    n, d, n_broken = 4000, 8, 40
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 3, n)
    factors = rng.normal(size=(n, 2)) * 2 + 4 * groups[:, None]
    loadings = rng.normal(size=(3, 2, d))
    rows = np.einsum("nf,nfd->nd", factors, loadings[groups]) + 0.15 * rng.normal(size=(n, d))
    broken = rng.choice(n, n_broken, replace=False)
    column = rng.integers(0, d, n_broken)
    for i, j in zip(broken, column, strict=True):
        rows[i, j] = rows[rng.choice(np.flatnonzero(groups == groups[i])), j]
    model = GaussianMixture(3, random_state=0, n_init=3).fit(rows)
    score = model.score_samples(rows)
    flagged = np.argsort(score)[:n_broken]  # an alert budget of one per cent
    moved = np.abs(rows[broken, column] - _without(model, rows[broken], column)) > 1.5
    found = np.isin(broken[moved], flagged).mean()
    forest = IsolationForest(random_state=0).fit(rows).score_samples(rows)
    theirs = np.isin(broken[moved], np.argsort(forest)[:n_broken]).mean()
    assert moved.mean() > 0.7
    assert found >= 0.9
    assert theirs < 0.5
    first = model.reasons(rows[broken[moved]])["column_1"]
    assert (first == column[moved]).mean() >= 0.95


def _without(model: GaussianMixture, rows: np.ndarray, column: np.ndarray) -> np.ndarray:
    """What the other columns let expect in the place of one value of each row."""
    lacking = rows.copy()
    lacking[np.arange(len(rows)), column] = np.nan
    return model.impute(lacking)[np.arange(len(rows)), column]
