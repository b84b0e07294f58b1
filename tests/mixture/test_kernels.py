"""The compiled kernel against NumPy's: the same sums and scores, whatever the rows are like."""

from __future__ import annotations

import itertools
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
from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters, SufficientStatistics, kernels, steps
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
    assert_same(kernels.e_step(X, parameters), steps.e_step(X, parameters))
    assert_same(kernels.e_step(X, parameters, weight), steps.e_step(X, parameters, weight))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_the_scores_are_those_of_numpy(kind: str, k: int, d: int) -> None:
    parameters = random_mixture(kind, k, d, 0)
    X = rows_of(parameters, 1500)
    found, expected = kernels.score_rows(X, parameters), steps.score_rows(X, parameters)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.log_density, expected.log_density, rtol=1e-13)
    np.testing.assert_allclose(found.max_responsibility, expected.max_responsibility, rtol=1e-12)
    shares = kernels.responsibilities(X, parameters)
    np.testing.assert_allclose(shares, steps.responsibilities(X, parameters), rtol=0, atol=1e-13)
    np.testing.assert_array_equal(kernels.score_rows(X, parameters).labels, found.labels)
    np.testing.assert_array_equal(kernels.score_rows(X, parameters).log_density, found.log_density)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [3, 16])
def test_a_rows_scores_do_not_depend_on_the_rows_beside_it(kind: str, d: int) -> None:
    """Not by one bit: a row that stands alone goes through the same instructions."""
    parameters = random_mixture(kind, 5, d, 3)
    X = rows_of(parameters, 300)
    X[7] += 40.0
    whole = kernels.score_rows(X, parameters)
    shares = kernels.responsibilities(X, parameters)
    for part in (slice(7, 8), slice(0, 33), slice(100, 300)):
        found = kernels.score_rows(X[part], parameters)
        for each, of_all in zip(found, whole, strict=True):
            np.testing.assert_array_equal(each, of_all[part])
        np.testing.assert_array_equal(kernels.responsibilities(X[part], parameters), shares[part])


@pytest.mark.parametrize("kind", KINDS)
def test_any_layout_and_width_of_float_will_do(kind: str) -> None:
    parameters = random_mixture(kind, 3, 10, 0)
    X = rows_of(parameters, 40_000).astype(np.float32)
    expected = kernels.e_step(X.astype(np.float64), parameters)
    wide = np.zeros((len(X), 20), np.float32)
    wide[:, ::2] = X
    for same in (X, np.asfortranarray(X), wide[:, ::2], np.asfortranarray(X.astype(np.float64))):
        assert_same(kernels.e_step(same, parameters), expected, rtol=1e-13)


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
    assert_same(kernels.e_step(X, parameters), steps.e_step(X, parameters), rtol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [2, 16])
def test_clusters_however_far_apart(kind: str, d: int) -> None:
    k = 6
    means = np.arange(k)[:, None] * np.ones(d) * 1e8
    one = random_mixture(kind, k, d, 0)
    parameters = Parameters.from_covariances(one.weights, means, one.covariances, kind)
    rng = np.random.default_rng(0)
    X = means[rng.integers(0, k, 2000)] + rng.normal(size=(2000, d))
    assert_same(kernels.e_step(X, parameters), steps.e_step(X, parameters))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [2, 16])
def test_far_rows_are_left_to_numpy(kind: str, d: int) -> None:
    """Near and far rows side by side; some so far that their distances are infinite or NaN."""
    parameters = random_mixture(kind, 4, d, 0)
    X = rows_of(parameters, 500)
    X[[3, 64, 65, 499]] *= [[1e20], [1e155], [1e200], [1e307]]
    expected = steps.score_rows(X, parameters)
    found = kernels.score_rows(X, parameters)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.log_density, expected.log_density, rtol=1e-12)
    np.testing.assert_allclose(kernels.responsibilities(X, parameters).sum(axis=1), 1.0, rtol=1e-12)
    finite = np.isfinite(expected.log_density)
    near = kernels.e_step(X[finite], parameters)
    assert_same(near, steps.e_step(X[finite], parameters))
    assert kernels.e_step(X, parameters).log_likelihood == -np.inf


def test_more_far_rows_than_are_noted() -> None:
    parameters = random_mixture("full", 3, 2, 0)
    X = rows_of(parameters, kernels.FAR_ROWS + 100) * 1e20
    assert_same(kernels.e_step(X, parameters), steps.e_step(X, parameters))
    found, expected = kernels.score_rows(X, parameters), steps.score_rows(X, parameters)
    np.testing.assert_array_equal(found.labels, expected.labels)


@pytest.mark.parametrize("d", [3, 16])
def test_an_outlier_weighs_what_it_weighs(d: int) -> None:
    """Its distance squared may make up for a responsibility that is nothing by itself."""
    parameters = random_mixture("full", 4, d, 0)
    X = rows_of(parameters, 300)
    X[5] = 1e7
    X[6] = -1e5
    assert_same(kernels.e_step(X, parameters), steps.e_step(X, parameters))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("power", [-300, 0, 300])
def test_the_scale_of_the_weights_drops_no_row(kind: str, power: int) -> None:
    parameters = random_mixture(kind, 3, 12, 0)
    X = rows_of(parameters, 400)
    weight = np.random.default_rng(0).uniform(0.5, 2.0, 400) * 10.0**power
    assert_same(
        kernels.e_step(X, parameters, weight), steps.e_step(X, parameters, weight), rtol=1e-11
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_component_of_weight_zero_and_equal_components(kind: str) -> None:
    parameters = random_mixture(kind, 4, 14, 0)
    empty = replace(parameters, weights=np.array([0.5, 0.0, 0.25, 0.25]))
    twins = parameters.take([0, 0, 1, 1])
    twins = replace(twins, weights=np.full(4, 0.25))
    X = rows_of(parameters, 500)
    for each in (empty, twins):
        assert_same(kernels.e_step(X, each), steps.e_step(X, each))
        found = kernels.score_rows(X, each).labels
        np.testing.assert_array_equal(found, steps.labels(X, each))
    assert 1 not in kernels.score_rows(X, empty).labels
    assert set(kernels.score_rows(X, twins).labels) <= {0, 2}  # ties go to the lowest index


@settings(max_examples=60)
@given(
    st.sampled_from(KINDS), st.integers(1, 6), st.integers(1, 20), st.integers(0, 200),
    st.floats(0.01, 30), st.integers(0, 10_000),
)  # fmt: skip
def test_any_mixture_and_rows(kind: str, k: int, d: int, n: int, spread: float, seed: int) -> None:
    parameters = random_mixture(kind, k, d, seed)
    X = np.random.default_rng(seed).normal(scale=spread, size=(n, d))
    assert_same(kernels.e_step(X, parameters), steps.e_step(X, parameters), rtol=1e-11)


def test_the_log_likelihood_is_summed_without_loss(rng: np.random.Generator) -> None:
    parameters = random_mixture("full", 3, 4, 0)
    X = rows_of(parameters, 50_000)
    exact = math.fsum(kernels.score_rows(X, parameters).log_density)
    assert kernels.e_step(X, parameters).log_likelihood == pytest.approx(exact, rel=1e-14)


def test_threads_and_processes_give_the_same_bits() -> None:
    parameters = random_mixture("full", 4, 16, 0)
    X = rows_of(parameters, 5000)

    def bits(_: int = 0) -> bytes:
        found = kernels.e_step(X, parameters)
        return b"".join(np.asarray(getattr(found, name)).tobytes() for name in NAMES)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(bits, range(16))) == {bits()}


PEAK = """
from pathlib import Path
import numpy as np
from gmm_dask.mixture import kernels
from tests.strategies import random_mixture

def peak():
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024

for kind in ("full", "diag"):
    parameters = random_mixture(kind, 16, 16, 0)
    X = np.random.default_rng(0).normal(size=(200_000, 16))
    kernels.e_step(X[:2000], parameters)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    kernels.e_step(X, parameters)
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
            kernels.e_step(X, parameters, bad)
    with pytest.raises(ValueError, match="features"):
        kernels.e_step(X[:, :2], parameters)
    with pytest.raises(ValueError, match="features"):
        kernels.score_rows(X[:, :2], parameters)


def test_the_choice_depends_on_the_size_of_the_whole_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GMM_DASK_KERNEL", raising=False)
    assert kernels.choose(150, 3, 4) == "numpy"
    assert kernels.choose(10_000_000, 8, 8) == "compiled"
    monkeypatch.setenv("GMM_DASK_KERNEL", "compiled")
    assert kernels.choose(150, 3, 4) == "compiled"
    monkeypatch.setenv("GMM_DASK_KERNEL", "fortran")
    with pytest.raises(SettingsError, match="numpy, compiled"):
        kernels.choose(150, 3, 4)


ALONE = """
import sys
import numpy as np
import gmm_dask.mixture
from gmm_dask.mixture import kernels, steps
from tests.strategies import random_mixture
assert "numba" not in sys.modules
parameters = random_mixture("full", 2, 3, 0)
X = np.random.default_rng(0).normal(size=(100, 3))
a, b = kernels.e_step(X, parameters), steps.e_step(X, parameters)
np.testing.assert_allclose(a.sum_xx, b.sum_xx, rtol=1e-12)
assert "numba" in sys.modules
assert kernels.warm_up("float64") >= 0
"""


def test_numba_is_loaded_when_it_is_needed_and_reads_what_another_process_compiled() -> None:
    kernels.e_step(np.zeros((1, 3)), random_mixture("full", 2, 3, 0))  # it compiles, if none did
    read = "\nassert kernels._dense().add_expectation.stats.cache_hits.total() == 1"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", ALONE + read], cwd=root, check=True, timeout=250)


@pytest.mark.heavy
def test_what_numba_compiled_is_kept_where_its_variable_says(tmp_path: Path) -> None:
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "HOME": "/proc/nowhere"}
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", ALONE], cwd=root, env=env, check=True, timeout=250)
    assert list(tmp_path.rglob("*.nbc"))


def test_without_a_place_on_disk_it_compiles_in_every_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gmm_dask.mixture.kernels import compiling

    real = compiling.numba.njit

    def njit(*functions: object, **options: bool) -> object:
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return real(*functions, **options)

    monkeypatch.setattr(compiling.numba, "njit", njit)
    assert compiling.cached(lambda x: x + 1)(2) == 3


@pytest.mark.parametrize("kind", ["full", "diag"])
@pytest.mark.parametrize("d", [2, 13])
def test_what_the_loops_do_not_count_is_freed_all_the_same(kind: str, d: int) -> None:
    """Arrays that compiled code made are all gone, and those it was given are held by no one."""
    from numba.core.runtime import _nrt_python as runtime
    from numba.core.runtime import rtsys

    parameters = random_mixture(kind, 3, d, 0)
    X = rows_of(parameters, 3000)

    def all_of_it() -> list[int]:
        for arithmetic in ("double", "single"):
            kernels.e_step(X, parameters, arithmetic=arithmetic)
        kernels.score_rows(X, parameters)
        return [sys.getrefcount(each) for each in (X, parameters, parameters.means)]

    held = all_of_it()  # compiled, and what is kept of the mixture made
    runtime.memsys_enable_stats()
    try:
        before, still_held = rtsys.get_allocation_stats(), all_of_it()
        after = rtsys.get_allocation_stats()
    finally:
        runtime.memsys_disable_stats()
    assert after.alloc - before.alloc == after.free - before.free > 0
    assert still_held == held


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_and_mixtures_of_any_kind_go_through_functions_that_are_compiled_already(
    dtype: type,
) -> None:
    from gmm_dask.mixture.kernels import dense, look

    compiled = (dense.add_expectation, dense.write_scores, look.write_look)
    kernels.warm_up(np.dtype(dtype).name, "single")
    kernels.warm_up_look(np.dtype(dtype).name)
    before = [len(function.signatures) for function in compiled]
    for kind, d in itertools.product(KINDS, (4, 13)):
        parameters = random_mixture(kind, 3, d, 0)
        X, weight = rows_of(parameters, 100).astype(dtype), np.ones(100)
        X[7] *= 1e20  # too far for float32
        read_only, kept = X.copy(), weight.copy()
        read_only.flags.writeable = kept.flags.writeable = False
        apart = np.frombuffer(b" " + X.tobytes(), np.uint8)[1:].view(dtype).reshape(X.shape)
        assert not apart.flags.aligned
        for rows, weights in (
            (X, weight),
            (read_only, kept),
            (apart, weight),
            (X.T.copy().T, None),
        ):
            kernels.e_step(rows, parameters, weights)
            kernels.e_step(rows, parameters, weights, arithmetic="single")
            kernels.score_rows(rows, parameters)
            kernels.responsibilities(rows, parameters)
            kernels.spread_and_keys(rows, None, 5)
    assert [len(function.signatures) for function in compiled] == before
