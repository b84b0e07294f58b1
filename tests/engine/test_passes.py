"""A pass: one fused task a chunk, one read, the same bits on every executor."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import accumulate

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.engine import (
    Asked,
    Backend,
    Compared,
    LocalBackend,
    RowChunks,
    Unit,
    completed_log_likelihood,
    evaluated,
    expectation,
    hold,
    map_items,
    row_chunks,
)
from gmm_dask.engine.passes import chunk_map as passes_module
from gmm_dask.engine.passes.chunk_map import ChunkMap, runs_of
from gmm_dask.engine.passes.tree_sum import tree_sum
from gmm_dask.errors import DataError
from gmm_dask.fitting import Maximisation, fit
from gmm_dask.mixture import e_step, estimate_from_responsibilities, m_step
from gmm_dask.mixture import missing as incomplete
from gmm_dask.mixture.row_arithmetic import Missing, RowArithmetic
from gmm_dask.mixture.statistics import statistics_bytes
from gmm_dask.sampling import Fold, row_keys
from tests.conftest import Blobs

CHOSEN = RowArithmetic.chosen("error")

KNOWN: dict[str, bytes] = {}  # bits of the first executor that ran, by chunking


def bits(statistics) -> bytes:
    return b"".join(
        np.asarray(getattr(statistics, name)).tobytes()
        for name in ("sum_weight", "log_likelihood", "sum_resp", "sum_x", "sum_xx")
    )


@pytest.mark.parametrize("n_chunks", [1, 7, 100])
def test_every_executor_gives_the_same_bits(backend: Backend, blobs: Blobs, n_chunks: int) -> None:
    lengths = tuple(len(part) for part in np.array_split(blobs.X, n_chunks))
    X = da.from_array(blobs.X, chunks=(lengths, 4))
    found = expectation(row_chunks(X), backend)(blobs.truth)
    assert KNOWN.setdefault(str(n_chunks), bits(found)) == bits(found)
    whole = e_step(blobs.X, blobs.truth)
    np.testing.assert_allclose(found.log_likelihood, whole.log_likelihood, rtol=1e-12)
    np.testing.assert_allclose(found.sum_xx, whole.sum_xx, rtol=1e-10, atol=1e-8)


def test_sums_on_the_workers_have_the_same_bits(
    backend: Backend, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = row_chunks(da.from_array(blobs.X, chunks=(90, 4)))
    on_driver = expectation(chunks, backend)(blobs.truth)
    monkeypatch.setattr(passes_module, "GATHER_BYTES", 0)
    assert bits(expectation(chunks, backend)(blobs.truth)) == bits(on_driver)


def test_a_fit_is_the_same_on_every_executor_and_chunking(backend: Backend, blobs: Blobs) -> None:
    def final(chunks: RowChunks):
        return fit(
            expectation(chunks, backend), blobs.truth, Maximisation(1e-6), tol=0, max_iter=5
        ).parameters

    one, many = (final(row_chunks(blobs.X, chunk_bytes=size)) for size in (1 << 20, 1 << 11))
    for name in ("weights", "means", "covariances"):
        np.testing.assert_allclose(getattr(many, name), getattr(one, name), rtol=1e-10)
    key = "fit"
    found = many.means.tobytes() + many.covariances.tobytes()
    assert KNOWN.setdefault(key, found) == found


@pytest.mark.parametrize("accelerate", [False, True])
def test_a_fit_over_held_chunks_has_the_same_bits_on_every_executor(
    backend: Backend, blobs: Blobs, accelerate: bool
) -> None:
    chunks = row_chunks(blobs.X, chunk_bytes=1 << 12)
    whole = expectation(hold(chunks, backend, 1 << 15).chunks, backend)
    result = fit(
        whole,
        blobs.truth,
        Maximisation(1e-6),
        tol=0,
        max_iter=4,
        accelerate=accelerate,
    )
    found = np.array(result.lower_bounds).tobytes() + result.parameters.covariances.tobytes()
    assert KNOWN.setdefault(f"held {accelerate}", found) == found


def test_a_pass_in_single_precision_has_the_same_bits_on_every_executor(
    backend: Backend, blobs: Blobs
) -> None:
    whole = expectation(
        row_chunks(blobs.X, chunk_bytes=1 << 12),
        backend,
        arithmetic=RowArithmetic(kernel="compiled"),
    )
    single = whole.in_single()
    assert single is not None
    found = single(blobs.truth)
    assert KNOWN.setdefault("single", bits(found)) == bits(found)
    assert bits(found) != bits(whole(blobs.truth))
    np.testing.assert_allclose(found.sum_resp, whole(blobs.truth).sum_resp, rtol=1e-5)


def test_single_precision_is_the_compiled_kernels_for_complete_rows(blobs: Blobs) -> None:
    chunks = row_chunks(blobs.X)
    for way in ({"kernel": "numpy"}, {"kernel": "compiled", "missing": "em"}):
        passes = expectation(chunks, LocalBackend(1), arithmetic=RowArithmetic(**way))
        assert passes.in_single() is None


def units_of(X: np.ndarray, size: int, reads: list[int], weight: bool = False) -> RowChunks:
    """Rows that are read in so many units; each reading is noted."""

    def read(start: int):
        reads.append(start)
        part = X[start : start + size]
        yield part, np.ones(len(part)) if weight else None

    starts = range(0, len(X), size)
    units = tuple(Unit(partial(read, start), (len(X[start : start + size]),)) for start in starts)
    return RowChunks(units, X.shape[1], weight_dtype="float64" if weight else None)


@pytest.mark.parametrize("weight", [False, True])
@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_pass_reads_every_unit_once(blobs: Blobs, weight: bool, n_workers: int) -> None:
    reads: list[int] = []
    run = expectation(units_of(blobs.X, 100, reads, weight), LocalBackend(n_workers))
    run(blobs.truth)
    run(blobs.truth)
    assert sorted(reads) == sorted([*range(0, 2000, 100)] * 2)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("gather_bytes", [0, 1 << 30])
def test_tasks_stay_few_and_many_units_have_the_bits_of_the_tree(
    blobs: Blobs, size: int, gather_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes_module, "GATHER_BYTES", gather_bytes)
    asked: list[int] = []

    class Counting(LocalBackend):
        def compute(self, graph, keys, on_done=None, about=None):
            asked.append(len(graph))
            return super().compute(graph, keys, on_done, about)

    found = expectation(units_of(blobs.X, size, []), Counting(2))(blobs.truth)
    assert asked[0] <= 300
    parts = (blobs.X[i : i + size] for i in range(0, len(blobs.X), size))
    assert bits(found) == bits(tree_sum(e_step(part, blobs.truth) for part in parts))


@given(st.integers(1, 200_000), st.integers(0, 1 << 27))
def test_a_pass_is_about_a_thousand_tasks_at_any_size(n_units: int, n_rows: int) -> None:
    units = (Unit(len, (n_rows,)),) * n_units
    runs = runs_of(RowChunks(units, 1))
    assert len(runs) <= 1024
    assert [run.first for run in runs] == [*accumulate((r.n_chunks for r in runs[:-1]), initial=0)]
    assert sum(run.n_chunks for run in runs) == n_units
    of_one = [run for run in runs[:-1] if len(run.units) > 1]
    assert not of_one or len(runs) > 128


def test_rows_with_missing_values_count_as_absent(backend: Backend, blobs: Blobs) -> None:
    X = blobs.X.copy()
    X[::7, 1] = np.nan
    weight = np.linspace(0.5, 2.0, len(X))
    used = ~np.isnan(X).any(axis=1)
    found = expectation(row_chunks(X, weight, 1 << 12), backend, arithmetic=RowArithmetic("drop"))(
        blobs.truth
    )
    expected = e_step(X[used], blobs.truth, weight[used])
    assert found.n_rows == expected.n_rows
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-12)
    m_step(blobs.truth, found, 1e-6)


@pytest.mark.parametrize("missing", ["drop", "em"])
def test_missing_values_have_the_same_bits_everywhere(
    backend: Backend, blobs: Blobs, missing: Missing
) -> None:
    X, weight = blobs.X.copy(), np.linspace(0.5, 2.0, len(blobs.X))
    X[np.random.default_rng(3).uniform(size=X.shape) < 0.1] = np.nan
    chunks = row_chunks(X, weight, 1 << 12)
    found = expectation(chunks, backend, arithmetic=RowArithmetic(missing))(blobs.truth)
    assert KNOWN.setdefault(missing, bits(found)) == bits(found)
    reads_all = incomplete.e_step(X, blobs.truth, weight)
    complete = ~np.isnan(X).any(axis=1)
    reads_some = e_step(X[complete], blobs.truth, weight[complete])
    whole = reads_all if missing == "em" else reads_some
    assert found.n_rows == whole.n_rows
    np.testing.assert_allclose(found.sum_xx, whole.sum_xx, rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize("missing", ["error", "drop", "em"])
def test_the_completed_log_likelihood_is_that_of_rows_with_their_labels(
    backend: Backend, blobs: Blobs, missing: Missing
) -> None:
    X, weight = blobs.X.copy(), np.linspace(0.5, 2.0, len(blobs.X))
    if missing != "error":
        X[::9, 1] = np.nan
    used = np.ones(len(X), bool) if missing == "em" else ~np.isnan(X).any(axis=1)
    scores = incomplete.score_rows(X[used], blobs.truth)
    each = scores.log_density + np.log(scores.max_responsibility)
    chunks = row_chunks(X, weight, 1 << 12)
    found = completed_log_likelihood(chunks, backend, blobs.truth, missing)
    X[3], weight[3] = 1e200, 0.0  # a row of weight 0 is absent, however far
    expected = np.delete(used, 3)
    chunks = row_chunks(X, weight, 1 << 12)
    without = completed_log_likelihood(chunks, backend, blobs.truth, missing)
    kept = np.delete(weight, 3)[expected]
    np.testing.assert_allclose(without.weight * without.unit, kept.sum(), rtol=1e-12)
    assert np.isfinite(without.value)
    weight[3] = np.linspace(0.5, 2.0, len(X))[3]
    assert found.value == pytest.approx(weight[used] @ each, rel=1e-12)
    assert found.log_weight == pytest.approx(np.log(weight[used].sum()), rel=1e-12)


def test_shared_parts_of_a_users_graph_are_computed_once(blobs: Blobs) -> None:
    computed: list[int] = []

    @dask.delayed
    def shared() -> np.ndarray:
        computed.append(1)
        return blobs.X.mean(axis=0)

    X = da.from_array(blobs.X, chunks=(500, 4))
    mean = da.from_delayed(shared(), (4,), dtype=float)
    found = expectation(row_chunks(X - mean), LocalBackend(2))(blobs.truth)
    assert computed == [1]
    expected = e_step(blobs.X - blobs.X.mean(axis=0), blobs.truth)
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-10)


def test_items_are_mapped_in_order_and_counted(backend: Backend) -> None:
    done: list[None] = []
    found = map_items(
        "power", pow, [1, 2, 3, 4], backend, common=2, on_done=lambda: done.append(None)
    )
    assert found == [2, 4, 8, 16]
    assert len(done) == 4


def test_errors_of_a_task_keep_their_type_and_text(backend: Backend) -> None:
    with pytest.raises(DataError, match="first") as caught:
        map_items("fail", _fail, [1], backend)
    assert caught.value.problems == ("first", "second")


def _fail(common: None, item: int) -> None:
    raise DataError(["first", "second"])


def candidates(blobs: Blobs) -> list[Asked]:
    """Mixtures of several families and numbers of components, some on a part of the rows."""
    rng, found = np.random.default_rng(3), []
    for kind in ("full", "tied", "diag", "spherical"):
        for k in (1, 3, 6):
            resp = rng.dirichlet(np.ones(k), len(blobs.X))
            estimate = estimate_from_responsibilities(blobs.X, resp, kind, 1e-3)
            fold = Fold(11, 0.2, 1.0) if k == 3 else None
            found.append(Asked(estimate.factored(), is_rough=k == 6, fold=fold))
    return found


def test_mixtures_that_share_a_pass_have_the_bits_of_their_own(
    backend: Backend, blobs: Blobs
) -> None:
    asked = candidates(blobs)
    pass_ = expectation(row_chunks(blobs.X, chunk_bytes=1 << 13), backend, arithmetic=CHOSEN)
    for each, found in zip(asked, pass_.together(asked), strict=True):
        assert bits(pass_.together([each])[0]) == bits(found)
        assert each.is_rough or each.fold or bits(pass_(each.parameters)) == bits(found)


def test_a_fold_is_the_same_rows_in_every_chunk_order_and_the_rest_is_the_other_fold(
    blobs: Blobs,
) -> None:
    parts = [Fold(5, 0.0, 0.3), Fold(5, 0.3, 1.0)]
    pass_ = expectation(row_chunks(blobs.X, chunk_bytes=1 << 12), LocalBackend(2))
    few, many = pass_.together([Asked(blobs.truth, fold=fold) for fold in parts])
    assert abs(few.n_rows - 0.3 * len(blobs.X)) < 100
    assert few.n_rows + many.n_rows == len(blobs.X)
    shuffled = expectation(row_chunks(blobs.X[::-1].copy()), LocalBackend(1))
    again = shuffled.together([Asked(blobs.truth, fold=parts[0])])[0]
    assert again.n_rows == few.n_rows
    np.testing.assert_allclose(again.log_likelihood, few.log_likelihood, rtol=1e-12)


def test_sums_of_many_mixtures_take_no_more_memory_than_is_said(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = candidates(blobs)
    chunks = row_chunks(blobs.X, chunk_bytes=1 << 13)
    pass_, reads = expectation(chunks, LocalBackend(1), arithmetic=CHOSEN), []
    counted = replace(
        pass_,
        chunk_map=ChunkMap(chunks.through(lambda X, w, i: reads.append(i) or X), LocalBackend(1)),
    )
    in_one = counted.together(asked)
    assert len(reads) == chunks.n_chunks
    most = max(statistics_bytes(each.parameters) for each in asked)
    monkeypatch.setattr("gmm_dask.engine.passes.expectation.SHARED_BYTES", most)
    reads.clear()
    in_several = counted.together(asked)
    assert chunks.n_chunks < len(reads) < len(asked) * chunks.n_chunks
    assert list(map(bits, in_several)) == list(map(bits, in_one))
    assert pass_.together([]) == []


def test_criteria_of_several_mixtures_are_those_of_each(backend: Backend, blobs: Blobs) -> None:
    asked = candidates(blobs)
    weights = np.random.default_rng(0).integers(0, 3, len(blobs.X)) * 1.0
    chunks = row_chunks(blobs.X, weights, chunk_bytes=1 << 13)
    fold = Fold(5, 0.0, 0.5)
    compared = [Compared(asked[0].parameters, asked[2].parameters, fold)]
    pass_ = expectation(chunks, backend, arithmetic=CHOSEN)
    scores, (table,) = evaluated(pass_, asked, compared)
    for each, found in zip(asked, scores, strict=True):
        there = np.ones(len(blobs.X), bool)
        if each.fold is not None:
            there = each.fold.of(row_keys(blobs.X, each.fold.salt))
        part = row_chunks(blobs.X[there], weights[there])
        alone = completed_log_likelihood(part, LocalBackend(1), each.parameters)
        np.testing.assert_allclose(found.completed, alone.value, rtol=1e-11)
        assert found.weight == weights[there].sum()
    assert table.shape == (1, 6)
    there = fold.of(row_keys(blobs.X, 5))
    labels = CHOSEN.score(blobs.X[there], asked[2].parameters).labels
    np.testing.assert_array_equal(table[0], np.bincount(labels, weights[there], 6))
