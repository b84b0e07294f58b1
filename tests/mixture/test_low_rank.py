"""Low-rank covariances against a plain mixture of factor analysers and against full covariances."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from gmm_dask import GaussianMixture, load_model, read_labels
from gmm_dask.errors import SettingsError
from gmm_dask.mixture import Parameters, SufficientStatistics, core, m_step, steps
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.stage.run import run
from tests.stage.conftest import settings_of_iris

Array = Any
K, D, Q = 3, 7, 2
ARITHMETIC = RowArithmetic.chosen("em")


class Factors(NamedTuple):
    """Arrays of a mixture of factor analysers."""

    weights: Array
    means: Array
    loadings: Array
    noise: Array

    @property
    def covariances(self) -> Array:
        noise = self.noise[:, :, None] * np.eye(D)
        return self.loadings @ self.loadings.swapaxes(1, 2) + noise

    @property
    def parameters(self) -> Parameters:
        packed = np.concatenate([self.loadings, self.noise[:, :, None]], axis=2)
        return Parameters.from_covariances(self.weights, self.means, packed, f"low_rank:{Q}")

    @property
    def full(self) -> Parameters:
        return Parameters.from_covariances(self.weights, self.means, self.covariances, "full")


@pytest.fixture
def factors() -> Factors:
    rng = np.random.default_rng(0)
    weights, means = np.array([0.5, 0.3, 0.2]), 3 * rng.normal(size=(K, D))
    return Factors(weights, means, rng.normal(size=(K, D, Q)), rng.uniform(0.2, 1, (K, D)))


@pytest.fixture
def rows(factors: Factors) -> Array:
    rng = np.random.default_rng(1)
    counts = (factors.weights * 600).astype(int)
    drawn = zip(factors.means, factors.covariances, counts, strict=True)
    return np.concatenate([rng.multivariate_normal(m, S, n) for m, S, n in drawn])


def plain_step(at: Factors, X: Array, weight: Array, reg_covar: float) -> tuple[Factors, float]:
    """EM with responsibilities and factors of all rows (Ghahramani and Hinton 1997)."""
    densities = [
        np.log(w) + multivariate_normal(m, S).logpdf(X)
        for w, m, S in zip(at.weights, at.means, at.covariances, strict=True)
    ]
    joint = np.stack(densities, axis=1)
    log_density = np.logaddexp.reduce(joint, axis=1)
    resp = np.exp(joint - log_density[:, None]) * weight[:, None]
    found = []
    for r, L, S in zip(resp.T, at.loadings, at.covariances, strict=True):
        rows = r.sum()
        mean = r @ X / rows
        deviations = X - mean
        gain = L.T @ np.linalg.inv(S)
        z = deviations @ gain.T
        second = rows * (np.eye(Q) - gain @ L) + (r[:, None] * z).T @ z
        crossed = (r[:, None] * deviations).T @ z
        loadings = crossed @ np.linalg.inv(second)
        squares = r @ deviations**2 - (loadings * crossed).sum(axis=1)
        found.append((rows / weight.sum(), mean, loadings, squares / rows + reg_covar))
    arrays = (np.array(each) for each in zip(*found, strict=True))
    return Factors(*arrays), float(weight @ log_density / weight.sum())


def test_densities_are_those_of_the_matrices(factors: Factors, rows: Array) -> None:
    found = ARITHMETIC.score(rows, factors.parameters)
    expected = ARITHMETIC.score(rows, factors.full)
    np.testing.assert_allclose(found.log_density, expected.log_density, rtol=1e-12)
    np.testing.assert_array_equal(found.labels, expected.labels)
    inverses = np.linalg.inv(factors.covariances)
    np.testing.assert_allclose(factors.parameters.precisions, inverses, atol=1e-12)


def test_trajectory_is_that_of_a_plain_implementation(factors: Factors, rows: Array) -> None:
    weight = np.random.default_rng(2).uniform(0, 2, len(rows))
    plain = factors._replace(means=factors.means + 0.3, loadings=factors.loadings / 2)
    parameters = plain.parameters
    for _ in range(30):
        statistics = ARITHMETIC.e_step(rows, parameters, weight)
        plain, bound = plain_step(plain, rows, weight, 1e-6)
        assert statistics.lower_bound == pytest.approx(bound, abs=1e-10)
        parameters = m_step(parameters, statistics, 1e-6)
    np.testing.assert_allclose(parameters.means, plain.means, atol=1e-8)
    np.testing.assert_allclose(parameters.family.loadings, plain.loadings, atol=1e-8)
    np.testing.assert_allclose(parameters.covariances[:, :, -1], plain.noise, atol=1e-8)


def some_mixture(d: int, q: int) -> Parameters:
    rng = np.random.default_rng(d)
    packed = np.concatenate([rng.normal(size=(K, d, q)), rng.uniform(0.2, 1, (K, d, 1))], axis=2)
    weights = np.array([0.5, 0.3, 0.2])
    return Parameters.from_covariances(weights, rng.normal(size=(K, d)), packed, f"low_rank:{q}")


def sums_at(
    level: str, X: Array, parameters: Parameters, weight: Array, patched: pytest.MonkeyPatch
) -> SufficientStatistics:
    patched.setenv("GMM_DASK_LEVEL", level)
    try:
        core.level_name()
    except SettingsError:
        pytest.skip(f"this processor does not run {level}")
    return RowArithmetic.chosen("error").e_step(X, parameters, weight)


SIZES = [(7, 2), (39, 7), (72, 13)]  # columns and factors: fewer and more than registers hold


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(("d", "q"), SIZES)
@pytest.mark.parametrize("level", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_kernels_agree(
    level: str, d: int, q: int, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters, rng = some_mixture(d, q), np.random.default_rng(2)
    X = rng.normal(scale=2.0, size=(603, d)).astype(kind)
    weight = rng.uniform(0, 2, len(X))
    found = sums_at(level, X, parameters, weight, monkeypatch)
    expected = steps.e_step(X, parameters, weight)
    assert found.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-12)
    for name in ("sum_resp", "sum_x", "sum_xx"):
        mine, other = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(mine, other, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize(("d", "q"), SIZES)
def test_levels_with_fused_multiply_add_give_the_same_bits(
    d: int, q: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters, rng = some_mixture(d, q), np.random.default_rng(2)
    X, weight = rng.normal(scale=2.0, size=(603, d)), rng.integers(0, 3, 603).astype(float)
    found, other = (
        sums_at(level, X, parameters, weight, monkeypatch) for level in ("x86-64-v3", "x86-64-v4")
    )
    assert found.log_likelihood == other.log_likelihood
    for name in ("sum_resp", "sum_x", "sum_xx"):
        np.testing.assert_array_equal(getattr(found, name), getattr(other, name))


def test_sums_lose_nothing_to_an_offset(factors: Factors, rows: Array) -> None:
    # By a power of two, so that the moved rows are the same numbers but for what rounding takes.
    moved = np.round(rows * 2**20) / 2**20
    here = ARITHMETIC.e_step(moved, factors._replace(means=np.round(factors.means)).parameters)
    away = factors._replace(means=np.round(factors.means) + 2**27)
    there = ARITHMETIC.e_step(moved + 2**27, away.parameters)
    np.testing.assert_array_equal(here.sum_xx, there.sum_xx)


def test_missing_values_are_completed_as_for_matrices(factors: Factors, rows: Array) -> None:
    X = np.where(np.random.default_rng(3).random(rows.shape) < 0.15, np.nan, rows)
    X[5] = np.nan
    parameters = factors.parameters
    found = ARITHMETIC.e_step(X, parameters)
    expected = ARITHMETIC.e_step(X, factors.full)
    assert found.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-12)
    np.testing.assert_allclose(found.sum_x, expected.sum_x, atol=1e-9)
    gains = parameters.precisions_cholesky[:, :, :-1]
    squares = np.einsum("kdd->kd", expected.sum_xx)
    np.testing.assert_allclose(found.sum_xx[:, :, :-1], expected.sum_xx @ gains, atol=1e-8)
    np.testing.assert_allclose(found.sum_xx[:, :, -1], squares, atol=1e-8)
    imputed = ARITHMETIC.impute(X, parameters)
    np.testing.assert_allclose(imputed, ARITHMETIC.impute(X, factors.full), atol=1e-10)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"acceleration": "anderson"},
        {"missing": "em"},
        {"covariance_prior": 0.1, "mean_precision_prior": 1.0, "weight_concentration_prior": 2.0},
    ],
    ids=["plain", "accelerated", "missing", "prior"],
)
def test_no_pass_makes_it_worse(rows: Array, settings: dict[str, Any]) -> None:
    if "missing" in settings:
        rows = np.where(np.random.default_rng(3).random(rows.shape) < 0.02, np.nan, rows)
    model = GaussianMixture(K, covariance_type=f"low_rank:{Q}", tol=1e-5, max_iter=200, **settings)
    model.fit(rows)
    assert np.diff(model.lower_bounds_).min() > -1e-10
    assert model.converged_


def test_class_finds_the_factors_on_any_chunks(factors: Factors, rows: Array) -> None:
    settings = {"covariance_type": f"low_rank:{Q}", "random_state": 0, "tol": 1e-6}
    model = GaussianMixture(K, max_iter=500, **settings).fit(rows)
    truth = ARITHMETIC.e_step(rows, factors.parameters).lower_bound
    assert model.lower_bound_ > truth
    full = GaussianMixture(K, random_state=0).fit(rows)
    assert model.bic(rows) < full.bic(rows)
    assert pickle.loads(pickle.dumps(model)).score(rows) == model.score(rows)
    chunks = GaussianMixture(K, max_iter=500, **settings).fit(da.from_array(rows, chunks=(97, D)))
    np.testing.assert_allclose(chunks.means_, model.means_, atol=1e-8)


def test_stage_publishes_it(tmp_path: Path) -> None:
    published = run(settings_of_iris(tmp_path / "out", fit={"covariance_type": "low_rank:1"}))
    model = load_model(str(tmp_path / "out"))
    assert model.parameters.covariance_type == "low_rank:1"
    assert model.parameters.family.loadings.shape == (3, 4, 1)
    assert len(read_labels(str(tmp_path / "out"))) == 150
    assert published.metrics["converged"]
    (path,) = (tmp_path / "out").rglob("model.json")
    assert json.loads(path.read_text())["covariance_type"] == "low_rank:1"


def test_factors_that_the_features_cannot_have_are_refused(rows: Array) -> None:
    for means in (None, rows[:K]):
        model = GaussianMixture(K, covariance_type=f"low_rank:{D}", means_init=means)
        with pytest.raises(SettingsError, match=f"{D} factors, for {D} features"):
            model.fit(rows)
    with pytest.raises(ValueError, match="low_rank"):
        GaussianMixture(K, covariance_type="low_rank:0").fit(rows)


def test_a_feature_that_factors_explain_whole_is_floored(rows: Array) -> None:
    copied = rows.copy()
    copied[:, 3] = copied[:, 1]
    model = GaussianMixture(K, covariance_type=f"low_rank:{Q}", reg_covar=0.0, max_iter=300)
    model.fit(copied)
    assert {event.cause for event in model.events_} == {"singular"}
    assert {name for event in model.events_ for name in event.columns} <= {1, 3}
    assert np.isfinite(model.score(copied))


def test_scikit_learn_has_no_such_mixture(rows: Array) -> None:
    model = GaussianMixture(K, covariance_type=f"low_rank:{Q}").fit(rows)
    with pytest.raises(SettingsError, match="scikit-learn's GaussianMixture has no"):
        model.to_sklearn()


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_a_start_by_search_leads_further_than_kmeans(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, labels = np.empty((500, 6)), rng.integers(0, 3, 500)
    for j in range(3):
        loadings, mean, mine = 2 * rng.normal(size=(6, 1)), 0.8 * rng.normal(size=6), labels == j
        noise = rng.normal(size=(mine.sum(), 6)) * rng.uniform(0.3, 1, 6)
        X[mine] = mean + rng.normal(size=(mine.sum(), 1)) @ loadings.T + noise
    settings = {"covariance_type": "low_rank:1", "max_iter": 200, "random_state": 0}
    found, plain = (
        GaussianMixture(3, init_params=each, **settings).fit(X).score(X)
        for each in ("auto", "kmeans")
    )
    assert found > plain
