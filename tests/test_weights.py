"""Weights: their scale is nothing, an integer is so many rows, zero is no row, start included."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from gmm_dask import GaussianMixture
from gmm_dask.errors import DataError
from gmm_dask.fitting import INIT_METHODS
from gmm_dask.mixture import COVARIANCE_FAMILIES
from gmm_dask.sections import FitSettings
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import settings_from
from tests.strategies import covariance_types, seeds

N, SIZE = 400, 60  # rows, and how many of them a start is found on
SETTLED = 1e-7  # EM that settles on so small a sample lets differences of rounding grow
sizes = st.sampled_from([SIZE, 10 * N])
methods = st.sampled_from(sorted(INIT_METHODS))


def rows(seed: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Three groups, and integer weights, some 0."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, 2)) + 6.0 * rng.integers(0, 3, N)[:, None]
    return X * scale, rng.integers(0, 4, N).astype(float)


def fitted(X: Any, weight: Any = None, size: int = SIZE, **settings: Any) -> GaussianMixture:
    options = {"tol": 1e-4, "max_iter": 9, "reg_covar": 0.0, "random_state": 0} | settings
    model = GaussianMixture(3, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FitSettings.model_fields["init_rows"], "default", size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return model.fit(X, sample_weight=weight)


MODEL = ("weights_", "means_", "covariances_")


def same(
    one: GaussianMixture,
    other: GaussianMixture,
    rtol: float,
    names: tuple[str, ...] = (*MODEL, "lower_bounds_"),
) -> None:
    for name in names:
        found, expected = np.asarray(getattr(one, name)), np.asarray(getattr(other, name))
        unit = np.abs(expected).max() if rtol else 0.0
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * unit, err_msg=name)


@settings(max_examples=20)
@given(seeds, sizes, methods, covariance_types)
def test_an_integer_weight_is_so_many_rows_wherever_they_stand(
    seed: int, size: int, method: str, covariance_type: str
) -> None:
    X, weight = rows(seed)
    repeated = np.repeat(X, weight.astype(int), axis=0)
    settings = {"size": size, "init_params": method, "covariance_type": covariance_type}
    weighted = fitted(X, weight, **settings)
    in_any_order = np.random.default_rng(seed).permutation(repeated)
    same(fitted(in_any_order, **settings), weighted, SETTLED if size == SIZE else 1e-10)
    same(fitted(X[weight > 0], weight[weight > 0], **settings), weighted, 0.0)


@given(seeds, methods, covariance_types, st.sampled_from(["floor", "reseed", "drop"]))
def test_more_repeats_than_the_sample_has_room_for_end_as_the_weighted_rows(
    seed: int, method: str, covariance_type: str, policy: str
) -> None:
    X, weight = rows(seed)
    distinct = int((weight > 0).sum())
    repeated = np.repeat(X, weight.astype(int), axis=0)
    assert len(repeated) > N > distinct
    settings = {"init_params": method, "covariance_type": covariance_type}
    settings["component_policy"] = policy
    few = fitted(X, weight, size=10 * N, **settings)
    same(fitted(repeated, size=distinct, **settings), few, 1e-10)


@pytest.mark.parametrize("missing", ["drop", "em"])
def test_so_they_do_where_values_are_missing(missing: Any) -> None:
    X, weight = rows(0)
    X[np.random.default_rng(2).uniform(size=X.shape) < 0.1] = np.nan
    X[np.isnan(X).all(axis=1)] = 0.0
    repeated = np.repeat(X, weight.astype(int), axis=0)
    few = fitted(X, weight, size=10 * N, missing=missing)
    same(fitted(repeated, size=N, missing=missing), few, 1e-10)
    assert few.score(X, sample_weight=weight) == pytest.approx(few.score(repeated), rel=1e-12)


@pytest.mark.filterwarnings("ignore::gmm_dask.errors.FeatureWarning")
@pytest.mark.parametrize("policy", ["floor", "drop"])
def test_many_equal_rows_start_what_a_few_of_them_do(policy: str) -> None:
    X, weight = np.array([[0.0, 1.0], [5.0, 2.0]]), np.array([600, 400])
    settings = {"component_policy": policy, "reg_covar": 1e-3, "tol": 1e-3}
    few, many = (
        GaussianMixture(3, random_state=0, **settings).fit(np.repeat(X, n * weight, axis=0))
        for n in (1, 100)
    )
    same(many, few, 1e-10, MODEL)
    assert many.events_ == few.events_


@settings(max_examples=20)
@given(seeds, sizes, methods, covariance_types, st.floats(-300, 300), st.integers(-980, 980))
def test_the_scale_of_the_weights_changes_nothing(
    seed: int, size: int, method: str, covariance_type: str, power: float, exponent: int
) -> None:
    X, weight = rows(seed, scale=1e-12)
    weight *= np.random.default_rng(seed).uniform(0.5, 1, N)
    settings = {"size": size, "init_params": method, "covariance_type": covariance_type}
    plain = fitted(X, weight, **settings)
    rtol = SETTLED if size == SIZE else 1e-10
    same(fitted(X, weight * 10.0**power, **settings), plain, rtol)
    exact = weight * 2.0**exponent
    same(fitted(X, exact, **settings), plain, 0.0)
    assert plain.score(X, sample_weight=exact) == plain.score(X, sample_weight=weight)


@pytest.mark.parametrize("missing", ["drop", "em"])
@pytest.mark.parametrize("factor", [1e-300, 1e300])
def test_nor_does_it_where_values_are_missing(missing: Any, factor: float) -> None:
    X, weight = rows(1, scale=1e-12)
    X[np.random.default_rng(2).uniform(size=X.shape) < 0.1] = np.nan
    lazy = da.from_array(X, chunks=(70, 2)), da.from_array(weight * factor, chunks=70)
    for policy in ("floor", "reseed", "drop"):
        settings = {"missing": missing, "component_policy": policy}
        same(fitted(*lazy, **settings), fitted(X, weight, **settings), 1e-10)


def test_criteria_are_those_of_the_weights_as_they_are() -> None:
    X, weight = rows(3)
    model = fitted(X, weight)
    n_free, total = model._n_parameters(), weight @ model.score_samples(X)
    for factor in (1e-300, 1e-3, 1e300):
        given = {"sample_weight": weight * factor}
        size = np.log(weight.sum()) + np.log(factor)
        assert model.score(X, **given) == pytest.approx(total / weight.sum(), rel=1e-12)
        assert model.bic(X, **given) == pytest.approx(n_free * size - 2 * total * factor)
        assert model.aic(X, **given) == pytest.approx(2 * n_free - 2 * total * factor)
        assert model.icl(X, **given) >= model.bic(X, **given)


@pytest.mark.parametrize("lazy", [False, True])
def test_weights_whose_sum_is_beyond_float64_fit_and_score(lazy: bool) -> None:
    X, weight = rows(4)
    huge = np.where(weight > 0, 1e308, 0.0)
    given = da.from_array(huge, chunks=100) if lazy else huge
    data = da.from_array(X, chunks=(100, 2)) if lazy else X
    model = fitted(data, given)
    same(model, fitted(X, (weight > 0) * 1.0), 1e-10)
    assert model.score(data, sample_weight=given) == pytest.approx(model.score(X[weight > 0]))
    for criterion in (model.bic, model.aic, model.icl):
        with pytest.raises(DataError, match="Divide the weights by a number"):
            criterion(data, sample_weight=given)


PRIORS = {
    "weight_concentration_prior": 3.0,
    "mean_precision_prior": 2.0,
    "covariance_prior": 0.2,
    "degrees_of_freedom_prior": 9.0,
}


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_a_prior_counts_rows_of_weight_one_in_any_unit_of_the_weights(
    covariance_type: str, scale: float
) -> None:
    X, weight = rows(5, scale)
    settings = PRIORS | {"covariance_type": covariance_type}
    for times in (1, 4):
        repeated = np.repeat(X, times * weight.astype(int), axis=0)
        same(fitted(X, times * weight, **settings), fitted(repeated, **settings), 1e-10)
    without = fitted(X, weight, covariance_type=covariance_type)
    same(fitted(X, weight * 1e280, **settings), without, 1e-10)
    light = fitted(X, weight * 1e-280, **settings)
    same(fitted(X, weight * 1e-300, **settings), light, 1e-10, MODEL)
    np.testing.assert_allclose(light.weights_, 1 / 3)  # of so little weight nothing is learnt


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("missing", ["error", "drop", "em"])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_row_of_weight_zero_may_hold_anything(value: float, missing: Any, lazy: bool) -> None:
    X, weight = rows(6)
    X[weight == 0, 1] = value
    expected = fitted(X[weight > 0], weight[weight > 0], missing=missing)
    data, given = X, weight
    if lazy:
        data, given = da.from_array(X, chunks=(N, 2)), da.from_array(weight, chunks=N)
    model = fitted(data, given, missing=missing)
    same(model, expected, 0.0)
    for name in ("score", "bic", "aic", "icl"):
        found = getattr(model, name)(data, sample_weight=given)
        assert found == getattr(expected, name)(X[weight > 0], sample_weight=weight[weight > 0])
    weight[weight == 0] = 1e-300
    if missing == "error" and not np.isfinite(value):
        with pytest.raises(DataError, match=r"NaN|infinity"):
            GaussianMixture(3, missing=missing).fit(data, sample_weight=weight)
        with pytest.raises(DataError, match=r"NaN|infinity"):
            model.score(data, sample_weight=weight)


def published(folder: Path, frame: pd.DataFrame, fit: dict[str, Any]) -> Any:
    folder.mkdir()
    frame.to_parquet(folder / "rows.parquet", row_group_size=100)
    document = {
        "data": {"path": str(folder), "features": ["a", "b"]},
        "fit": {"n_components": 3, "init_rows": SIZE, "max_iter": 9, "tol": 1e-4, "reg_covar": 0.0},
        "output": {"path": f"{folder}-out"},
    }
    if "w" in frame:
        document["data"]["weight_column"] = "w"
    document["fit"] |= fit
    return run(settings_from(document))


@pytest.mark.parametrize("factor", [1e-300, 0.3, 1e300])
def test_the_stage_knows_no_scale_of_weights_either(factor: float, tmp_path: Path) -> None:
    X, weight = rows(7, scale=1e-12)
    frame = pd.DataFrame(X, columns=["a", "b"]).assign(w=weight)
    plain = published(tmp_path / "plain", frame, {})
    scaled = published(tmp_path / "scaled", frame.assign(w=weight * factor), {})
    for name in ("weights", "means", "covariances"):
        found = getattr(scaled.model.parameters, name)
        expected = getattr(plain.model.parameters, name)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=0)
    np.testing.assert_allclose(scaled.model.lower_bounds, plain.model.lower_bounds, rtol=1e-10)
    assert scaled.model.sum_weight == pytest.approx(weight.sum() * factor, rel=1e-12)
    total, per_row = scaled.metrics["log_likelihood"], scaled.metrics["log_likelihood_per_row"]
    assert total == pytest.approx(plain.metrics["log_likelihood"] * factor, rel=1e-10)
    assert per_row == pytest.approx(plain.metrics["log_likelihood_per_row"], rel=1e-10)


@pytest.mark.parametrize("init_rows", [SIZE, N])
def test_in_the_stage_a_weight_is_so_many_rows_above_the_size_of_the_sample(
    init_rows: int, tmp_path: Path
) -> None:
    X, weight = rows(8)
    frame = pd.DataFrame(X, columns=["a", "b"]).assign(w=weight)
    settings = {"init_rows": init_rows, "init_params": "random"}
    weighted = published(tmp_path / "weighted", frame, settings)
    repeats = frame.loc[frame.index.repeat(weight.astype(int)), ["a", "b"]]
    repeated = published(tmp_path / "repeated", repeats.sample(frac=1, random_state=0), settings)
    assert repeated.model.n_rows == len(repeats) == repeated.metrics["n_used"]
    assert repeated.model.sum_weight == weighted.model.sum_weight == weight.sum()
    if init_rows == N:  # where it holds all different rows, it is read in place of the data
        assert repeated.metrics["n_reads"] == 2 < repeated.metrics["n_passes"]
    for name in ("weights", "means", "covariances"):
        found = getattr(repeated.model.parameters, name)
        expected = getattr(weighted.model.parameters, name)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_in_the_stage_a_row_of_weight_zero_gets_a_label_so_its_values_are_asked_for(
    tmp_path: Path,
) -> None:
    X, weight = rows(10)
    X[weight == 0, 1] = np.nan
    frame = pd.DataFrame(X, columns=["a", "b"]).assign(w=weight)
    with pytest.raises(DataError, match=r"column 'b'.*missing"):
        published(tmp_path / "strict", frame, {})


@pytest.mark.parametrize(("weight", "words"), [(1e308, "add up to inf"), (4e305, "log-likelihood")])
def test_the_stage_names_weights_whose_sums_are_beyond_float64(
    weight: float, words: str, tmp_path: Path
) -> None:
    X, _ = rows(9, scale=1e50)
    frame = pd.DataFrame(X, columns=["a", "b"]).assign(w=weight)
    with pytest.raises(DataError, match=words):
        published(tmp_path / "huge", frame, {})
