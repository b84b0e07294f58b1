"""The compiled kernel against NumPy's: the same sums and scores, whatever the rows are like."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmm_dask.errors import DataError, SettingsError
from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters, SufficientStatistics, core, steps
from gmm_dask.mixture.core import explanations, groups, library
from gmm_dask.mixture.core.arguments import MATRICES, WHITE, in_double
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from tests.strategies import random_mixture

KINDS = list(COVARIANCE_FAMILIES)
NAMES = ("sum_weight", "log_likelihood", "sum_resp", "sum_x", "sum_xx")
SHAPES = [(1, 1), (3, 2), (4, 8), (5, 9), (4, 13), (3, 33), (40, 3)]


def rows_of(parameters: Parameters, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(scale=2.0, size=(n, parameters.n_features))


def assert_same(
    found: SufficientStatistics, expected: SufficientStatistics, rtol: float = 1e-12
) -> None:
    assert found.n_rows == expected.n_rows
    for name in NAMES:
        value = np.asarray(getattr(expected, name))
        size = np.abs(value).max(initial=0.0)
        np.testing.assert_allclose(
            getattr(found, name), value, rtol=rtol, atol=rtol * size, err_msg=name
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), SHAPES)
@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 1025])
def test_the_sums_are_those_of_numpy(kind: str, k: int, d: int, n: int) -> None:
    parameters = random_mixture(kind, k, d, 0)
    X, weight = rows_of(parameters, n), np.random.default_rng(1).integers(0, 4, n) * 0.5
    assert_same(core.e_step(X, parameters), steps.e_step(X, parameters))
    assert_same(core.e_step(X, parameters, weight), steps.e_step(X, parameters, weight))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_the_scores_are_those_of_numpy(kind: str, k: int, d: int) -> None:
    parameters = random_mixture(kind, k, d, 0)
    X = rows_of(parameters, 1500)
    found, expected = core.score_rows(X, parameters), steps.score_rows(X, parameters)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.log_density, expected.log_density, rtol=1e-13)
    np.testing.assert_allclose(found.max_responsibility, expected.max_responsibility, rtol=1e-12)
    shares = core.responsibilities(X, parameters)
    np.testing.assert_allclose(shares, steps.responsibilities(X, parameters), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(core.score_rows(X, parameters).labels, found.labels)
    np.testing.assert_array_equal(core.score_rows(X, parameters).log_density, found.log_density)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [3, 16])
def test_a_rows_scores_do_not_depend_on_the_rows_beside_it(kind: str, d: int) -> None:
    """Not by one bit: a row that stands alone goes through the same instructions."""
    parameters = random_mixture(kind, 5, d, 3)
    X = rows_of(parameters, 300)
    X[7] += 40.0
    whole = core.score_rows(X, parameters)
    shares = core.responsibilities(X, parameters)
    for part in (slice(7, 8), slice(0, 33), slice(100, 300)):
        found = core.score_rows(X[part], parameters)
        for each, of_all in zip(found, whole, strict=True):
            np.testing.assert_array_equal(each, of_all[part])
        np.testing.assert_array_equal(core.responsibilities(X[part], parameters), shares[part])


@pytest.mark.parametrize("kind", KINDS)
def test_any_layout_and_width_of_float_will_do(kind: str) -> None:
    parameters = random_mixture(kind, 3, 10, 0)
    X = rows_of(parameters, 40_000).astype(np.float32)
    expected = core.e_step(X.astype(np.float64), parameters)
    wide = np.zeros((len(X), 20), np.float32)
    wide[:, ::2] = X
    for same in (X, np.asfortranarray(X), wide[:, ::2], np.asfortranarray(X.astype(np.float64))):
        assert_same(core.e_step(same, parameters), expected, rtol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [2, 16])
@pytest.mark.parametrize(("offset", "scale"), [(1e9, 1.0), (0.0, 1e-100), (0.0, 1e100)])
def test_offsets_and_scales_lose_nothing(kind: str, d: int, offset: float, scale: float) -> None:
    start = random_mixture(kind, 3, d, 0)
    parameters = Parameters.from_covariances(
        start.weights, start.means * scale + offset, start.covariances * scale**2, kind
    )
    X = rows_of(start, 700) * scale + offset
    # Where numbers of 1e9 are subtracted, both kernels see the same rounded rows.
    assert_same(core.e_step(X, parameters), steps.e_step(X, parameters), rtol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [2, 16])
def test_clusters_however_far_apart(kind: str, d: int) -> None:
    k = 6
    means = np.arange(k)[:, None] * np.ones(d) * 1e8
    one = random_mixture(kind, k, d, 0)
    parameters = Parameters.from_covariances(one.weights, means, one.covariances, kind)
    rng = np.random.default_rng(0)
    X = means[rng.integers(0, k, 2000)] + rng.normal(size=(2000, d))
    assert_same(core.e_step(X, parameters), steps.e_step(X, parameters))


@pytest.mark.parametrize("d", [1, 5, 16])
@pytest.mark.parametrize(("apart", "form"), [(10.0, WHITE), (1e4, MATRICES)])
def test_rows_are_whitened_where_that_costs_no_digits(d: int, apart: float, form: int) -> None:
    one = random_mixture("tied", 5, d, 0)
    means = apart * np.sqrt(np.diag(one.covariances)) * np.arange(5)[:, None]
    parameters = Parameters.from_covariances(one.weights, means, one.covariances, "tied")
    rng = np.random.default_rng(0)
    X = (
        means[rng.integers(0, 5, 800)]
        + rng.normal(size=(800, d)) @ np.linalg.cholesky(one.covariances).T
    )
    assert in_double(parameters).form == form
    assert_same(core.e_step(X, parameters), steps.e_step(X, parameters))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [2, 16])
def test_far_rows_are_left_to_numpy(kind: str, d: int) -> None:
    """Near and far rows side by side; some so far that their distances are infinite or NaN."""
    parameters = random_mixture(kind, 4, d, 0)
    X = rows_of(parameters, 500)
    X[[3, 64, 65, 499]] *= [[1e20], [1e155], [1e200], [1e307]]
    expected = steps.score_rows(X, parameters)
    found = core.score_rows(X, parameters)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.log_density, expected.log_density, rtol=1e-12)
    np.testing.assert_allclose(core.responsibilities(X, parameters).sum(axis=1), 1.0, rtol=1e-12)
    finite = np.isfinite(expected.log_density)
    near = core.e_step(X[finite], parameters)
    assert_same(near, steps.e_step(X[finite], parameters))
    assert core.e_step(X, parameters).log_likelihood == -np.inf


def test_more_far_rows_than_are_noted() -> None:
    parameters = random_mixture("full", 3, 2, 0)
    X = rows_of(parameters, core.FAR_ROWS + 100) * 1e20
    assert_same(core.e_step(X, parameters), steps.e_step(X, parameters))
    found, expected = core.score_rows(X, parameters), steps.score_rows(X, parameters)
    np.testing.assert_array_equal(found.labels, expected.labels)


@pytest.mark.parametrize("d", [3, 16])
def test_an_outlier_weighs_what_it_weighs(d: int) -> None:
    """Its distance squared may make up for a responsibility that is nothing by itself."""
    parameters = random_mixture("full", 4, d, 0)
    X = rows_of(parameters, 300)
    X[5] = 1e7
    X[6] = -1e5
    assert_same(core.e_step(X, parameters), steps.e_step(X, parameters))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("power", [-300, 0, 300])
def test_the_scale_of_the_weights_drops_no_row(kind: str, power: int) -> None:
    parameters = random_mixture(kind, 3, 12, 0)
    X = rows_of(parameters, 400)
    weight = np.random.default_rng(0).uniform(0.5, 2.0, 400) * 10.0**power
    assert_same(core.e_step(X, parameters, weight), steps.e_step(X, parameters, weight), rtol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_a_component_of_weight_zero_and_equal_components(kind: str) -> None:
    parameters = random_mixture(kind, 4, 14, 0)
    empty = replace(parameters, weights=np.array([0.5, 0.0, 0.25, 0.25]))
    twins = parameters.take([0, 0, 1, 1])
    twins = replace(twins, weights=np.full(4, 0.25))
    X = rows_of(parameters, 500)
    for each in (empty, twins):
        assert_same(core.e_step(X, each), steps.e_step(X, each))
        found = core.score_rows(X, each).labels
        np.testing.assert_array_equal(found, steps.labels(X, each))
    assert 1 not in core.score_rows(X, empty).labels
    assert set(core.score_rows(X, twins).labels) <= {0, 2}  # ties go to the lowest index


@settings(max_examples=60)
@given(
    st.sampled_from(KINDS), st.integers(1, 6), st.integers(1, 20), st.integers(0, 200),
    st.floats(0.01, 30), st.integers(0, 10_000),
)  # fmt: skip
def test_any_mixture_and_rows(kind: str, k: int, d: int, n: int, spread: float, seed: int) -> None:
    parameters = random_mixture(kind, k, d, seed)
    X = np.random.default_rng(seed).normal(scale=spread, size=(n, d))
    assert_same(core.e_step(X, parameters), steps.e_step(X, parameters), rtol=1e-11)


def test_the_log_likelihood_is_summed_without_loss(rng: np.random.Generator) -> None:
    parameters = random_mixture("full", 3, 4, 0)
    X = rows_of(parameters, 50_000)
    exact = math.fsum(core.score_rows(X, parameters).log_density)
    assert core.e_step(X, parameters).log_likelihood == pytest.approx(exact, rel=1e-14)


def test_threads_and_processes_give_the_same_bits() -> None:
    parameters = random_mixture("full", 4, 16, 0)
    X = rows_of(parameters, 5000)

    def bits(_: int = 0) -> bytes:
        found = core.e_step(X, parameters)
        return b"".join(np.asarray(getattr(found, name)).tobytes() for name in NAMES)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(bits, range(16))) == {bits()}


PEAK = """
from pathlib import Path
import numpy as np
from gmm_dask.mixture import core
from tests.strategies import random_mixture

def peak():
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024

for kind in ("full", "diag"):
    parameters = random_mixture(kind, 16, 16, 0)
    X = np.random.default_rng(0).normal(size=(200_000, 16))
    core.e_step(X[:2000], parameters)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    core.e_step(X, parameters)
    assert peak() - before < 4 << 20, (kind, peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")
def test_an_e_step_takes_less_than_4_mib_beyond_the_chunk() -> None:
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", PEAK], cwd=root, check=True, timeout=250)


def test_bad_input_is_refused_as_by_numpy() -> None:
    parameters = random_mixture("full", 2, 3, 0)
    X = rows_of(parameters, 10)
    for bad in (np.full(10, np.nan), np.full(10, -1.0), np.ones(9)):
        with pytest.raises(DataError):
            core.e_step(X, parameters, bad)
    with pytest.raises(ValueError, match="features"):
        core.e_step(X[:, :2], parameters)
    with pytest.raises(ValueError, match="features"):
        core.score_rows(X[:, :2], parameters)


LEVEL_BITS = """
import hashlib, sys
import numpy as np
from gmm_dask.mixture import core
from gmm_dask.mixture.core.library import level_name
from tests.mixture.test_core import BIT_CASES, bits_of_case
assert level_name() == sys.argv[1], level_name()
digest = hashlib.sha256()
for case in BIT_CASES:
    digest.update(bits_of_case(*case))
print(len(BIT_CASES), digest.hexdigest())
"""
BIT_CASES = [
    (kind, d, k, way)
    for kind in KINDS
    for d, k in ((1, 2), (2, 3), (5, 2), (8, 8), (9, 3), (13, 5), (16, 16), (21, 4), (40, 6))
    for way in ("near", "over", "weights", "far", "float32 rows")
]


def bits_of_case(kind: str, d: int, k: int, way: str) -> bytes:
    """Everything that the core says of some rows of a mixture, in double and in single."""
    parameters = random_mixture(kind, k, d, d * k)
    rng = np.random.default_rng(d + k)
    spread = 4.0 if way == "over" else 1.0
    X = parameters.means[rng.integers(0, k, 700)] + spread * rng.normal(size=(700, d))
    weight = rng.integers(0, 3, 700).astype(float) if way == "weights" else None
    if way == "far":
        X[::50] *= 1e9
    if way == "float32 rows":
        X = X.astype(np.float32)
    found = []
    for precision in ("double", "single"):
        sums = core.e_step(X, parameters, weight, precision)
        found += [np.asarray(getattr(sums, name)) for name in NAMES]
    found += [*core.score_rows(X, parameters), core.responsibilities(X, parameters)]
    if way != "far":
        spread_of, keys = core.spread_and_keys(X, None, 3)
        found += [spread_of.mean, spread_of.scatter, keys]
        found += [groups.assigned(X, parameters.means, weight, 3)]
        found += [groups.seeds(X, k, 3, rng.uniform(size=1 + 3 * (k - 1)), weight)]
        found += [np.array(groups.variance_within(X[:, 0], None))]
    return b"".join([*(each.tobytes() for each in found), reasons_of_case(X, parameters, way)])


def reasons_of_case(X: np.ndarray, parameters: Parameters, way: str) -> bytes:
    """What is said of the rows of a case; where components overlap, values are missing."""
    if way == "over":
        X = np.where(np.random.default_rng(0).uniform(size=X.shape) < 0.2, np.nan, X)
    shares = np.where(np.isnan(X).any(axis=1, keepdims=True), 0.5, 1.0)
    shares = shares * core.responsibilities(np.nan_to_num(X), parameters)
    best, other = explanations.two_best(shares)
    of_rows, of_labels = explanations.explain(X, parameters, best, other, 3)
    assert of_labels is not None
    curve = np.linspace(0, 1, 50) ** 2, np.linspace(3, 2, 50)
    found = [*of_rows, *of_labels, explanations.interpolated(shares[:, 0], *curve)]
    return b"".join(each.tobytes() for each in found)


def digest_at(level: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", LEVEL_BITS, level], cwd=Path(__file__).parents[2], check=True,
        env=os.environ | {"GMM_DASK_LEVEL": level}, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    return done.stdout


@pytest.mark.skipif(
    library.level() < 4, reason="this processor has one level with fused operations"
)
def test_every_level_with_fused_multiply_add_gives_the_same_bits() -> None:
    assert len(BIT_CASES) >= 150
    assert digest_at("x86-64-v3") == digest_at("x86-64-v4")


@pytest.mark.skipif(library.level() < 3 or library.level() == 8, reason="it is of x86-64 alone")
@pytest.mark.parametrize("kind", KINDS)
def test_a_level_without_fused_multiply_add_gives_the_same_to_rounding(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = random_mixture(kind, 4, 6, 0)
    X = rows_of(parameters, 3000)
    expected, scores = core.e_step(X, parameters), core.score_rows(X, parameters)
    monkeypatch.setenv("GMM_DASK_LEVEL", "x86-64-v2")
    assert library.level_name() == "x86-64-v2"
    assert_same(core.e_step(X, parameters), expected)
    np.testing.assert_array_equal(core.score_rows(X, parameters).labels, scores.labels)


@pytest.mark.parametrize("asked", ["x86-64-v9", "avx2", "aarch64"])
def test_a_level_that_the_processor_has_not_is_refused(
    asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library.level_name() == asked:
        pytest.skip("it is this processor's own")
    monkeypatch.setenv("GMM_DASK_LEVEL", asked)
    with pytest.raises(SettingsError, match="this processor runs"):
        library.level()


def test_exp_and_log_are_right_to_two_units_in_the_last_place() -> None:
    x = -np.concatenate([np.linspace(0, 700, 3200), np.geomspace(1e-300, 1e6, 3200)])
    exps, logs = np.empty_like(x), np.empty_like(x)
    loaded = library.library()
    assert loaded is not None
    assert not loaded.gmm_exp_log(x.ctypes.data, exps.ctypes.data, logs.ctypes.data, len(x), 0)
    within = x >= -700
    np.testing.assert_allclose(exps[within], np.exp(x[within]), rtol=2 * np.finfo(float).eps)
    np.testing.assert_allclose(logs, np.log(1 - x), rtol=2 * np.finfo(float).eps, atol=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_that_lie_in_memory_in_any_way_have_the_same_bits(dtype: type) -> None:
    parameters = random_mixture("full", 3, 11, 0)
    X = rows_of(parameters, 300).astype(dtype)
    read_only = X.copy()
    read_only.flags.writeable = False
    apart = np.frombuffer(b" " + X.tobytes(), np.uint8)[1:].view(dtype).reshape(X.shape)
    assert not apart.flags.aligned
    expected = core.score_rows(X, parameters).log_density
    for rows in (read_only, apart, X.T.copy().T, np.repeat(X, 2, axis=0)[::2]):
        np.testing.assert_array_equal(core.score_rows(rows, parameters).log_density, expected)


def test_without_the_library_rows_go_through_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "library", lambda: None)
    assert RowArithmetic.chosen("error").kernel == "numpy"
    assert core.level_name() == "numpy"
    with pytest.raises(SettingsError, match="compiled core and this process has not"):
        core.e_step(np.zeros((1, 3)), random_mixture("full", 2, 3, 0))
