"""The survey finds what is unusable and draws the same rows from any chunking."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from gmm_dask.engine import Backend, LocalBackend, expectations, row_chunks, survey
from gmm_dask.mixture import Parameters, SufficientStatistics
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.sampling import fewer

survey_module = import_module("gmm_dask.engine.passes.survey")

SEED = np.random.SeedSequence(9)
LARGER = 2048  # rows of a larger sample, of as many as make it cheap
MANY = LARGER * 32


def test_any_chunking_and_executor_draws_the_same_rows(backend: Backend) -> None:
    X = np.arange(3000.0).reshape(1000, 3)
    weight = np.arange(1000.0)
    one, _ = survey(row_chunks(X, weight), LocalBackend(1), sample_rows=50, seed=SEED)
    many, _ = survey(row_chunks(X, weight, 500), backend, sample_rows=50, seed=SEED)
    np.testing.assert_array_equal(one.sample, many.sample)
    np.testing.assert_array_equal(one.sample_weight, many.sample_weight)
    assert len(one.sample) == 50
    for name in ("weight", "mean", "scatter", "unit"):
        np.testing.assert_allclose(
            getattr(one.spread, name), getattr(many.spread, name), rtol=1e-12
        )
    assert one.n_rows == many.n_rows == 1000


def test_a_small_data_set_is_its_own_sample() -> None:
    X = np.random.default_rng(0).normal(size=(40, 2))
    found, _ = survey(row_chunks(X, chunk_bytes=100), LocalBackend(1), sample_rows=40, seed=SEED)
    np.testing.assert_array_equal(found.sample, X)


def test_the_pieces_of_a_chunk_are_surveyed_each_by_itself(backend: Backend) -> None:
    chunks = row_chunks(np.zeros((10, 2)), chunk_bytes=80)
    first, second = chunks.units
    chunks = replace(chunks, units=(replace(first, pieces=((2, 3),)), second))
    for sample_rows in (4, 100):
        found, _ = survey(chunks, backend, sample_rows=sample_rows, seed=SEED)
        assert [each.n_rows for each in found.chunks] == [2, 3, 5]


def test_unusable_values_are_counted_and_placed(backend: Backend) -> None:
    X = np.zeros((10, 2))
    X[3, 0] = X[5, 0] = np.nan
    X[7, 1] = -np.inf
    weight = np.ones(10)
    weight[8], weight[9] = -1.0, np.inf
    found, _ = survey(row_chunks(X, weight), backend, sample_rows=100, seed=SEED)
    (chunk,) = found.chunks
    assert chunk.n_missing.tolist() == [2, 0]
    assert chunk.first_missing.tolist() == [3, -1]
    assert chunk.n_infinite.tolist() == [0, 1]
    assert chunk.first_infinite.tolist() == [-1, 7]
    assert (chunk.n_bad_weights, chunk.first_bad_weight) == (2, 8)
    assert found.n_usable == 6
    assert not np.isnan(found.sample).any()


def test_a_value_that_cannot_be_used_is_told_apart_where_its_row_has_weight_zero() -> None:
    X, weight = np.zeros((10, 2)), np.ones(10)
    X[3, 0], X[7, 1], weight[[3, 7]] = np.nan, np.inf, 0.0
    for counted in (False, True):
        found, _ = survey(row_chunks(X, weight), LocalBackend(1), sample_rows=100, seed=SEED)
        (chunk,) = found.chunks
        assert (chunk.n_missing.tolist(), chunk.n_infinite.tolist()) == ([1, 0], [0, 1])
        assert chunk.has_missing.tolist() == [counted, False]
        assert chunk.has_infinite.tolist() == [False, counted]
        weight[[3, 7]] = 1e-300


def test_where_most_rows_cannot_be_used_another_look_finds_those_that_can(
    backend: Backend,
) -> None:
    X, weight = np.arange(6000.0).reshape(2000, 3), np.zeros(2000)
    weight[[3, 700, 1500, 1999]] = 1.0
    X[700, 1] = np.nan
    one, _ = survey(row_chunks(X, weight), LocalBackend(1), sample_rows=50, seed=SEED)
    many, _ = survey(row_chunks(X, weight, 500), backend, sample_rows=50, seed=SEED)
    for found in (one, many):
        assert (found.n_eligible, found.n_reads) == (3, 2)
        np.testing.assert_array_equal(np.sort(found.sample, axis=0), X[[3, 1500, 1999]])
    weight[700:] = 1.0
    most, _ = survey(row_chunks(X, weight, 500), backend, sample_rows=50, seed=SEED)
    assert (len(most.sample), most.n_reads) == (50, 1)


@pytest.mark.parametrize("copies", [1, 3])
def test_how_many_rows_there_are_of_each_different_one_is_known(
    backend: Backend, copies: int
) -> None:
    """Within five standard errors of the estimate, which knows the last of 1,001 keys."""
    X = np.tile(np.random.default_rng(5).normal(size=(30_000, 2)), (copies, 1))
    weight = np.random.default_rng(6).uniform(0.5, 2.0, len(X))
    weight[:1000] = 0.0
    for weights in (None, weight):
        found, _ = survey(row_chunks(X, weights, 50_000), backend, sample_rows=1000, seed=SEED)
        of_each = found.n_eligible / 30_000 if copies > 1 else 1.0
        assert found.copies == pytest.approx(of_each, rel=5 / np.sqrt(1000))
        one, _ = survey(row_chunks(X, weights), LocalBackend(1), sample_rows=1000, seed=SEED)
        assert one.copies == found.copies


def test_rows_that_are_all_there_are_counted_exactly() -> None:
    X = np.repeat(np.arange(40.0).reshape(20, 2), 50, axis=0)
    all_of_them, _ = survey(row_chunks(X), LocalBackend(1), sample_rows=1000, seed=SEED)
    assert (all_of_them.is_drawn, all_of_them.copies) == (False, 1.0)
    different, _ = survey(row_chunks(X), LocalBackend(1), sample_rows=100, seed=SEED)
    assert (different.replaces_rows, different.copies) == (True, 50.0)
    by_place, _ = survey(row_chunks(X), LocalBackend(1), sample_rows=100, seed=SEED, by_value=False)
    assert by_place.copies == pytest.approx(1.0, rel=5 / np.sqrt(100))


def test_without_a_row_to_start_from_there_is_no_copy_either() -> None:
    X = np.full((200, 2), np.nan)
    found, _ = survey(row_chunks(X), LocalBackend(1), sample_rows=10, seed=SEED, missing="drop")
    assert (found.n_eligible, len(found.sample), found.copies) == (0, 0, 0.0)


def test_a_sample_to_look_at_is_drawn_by_place(backend: Backend) -> None:
    X = np.repeat(np.arange(10.0)[:, None], 100, axis=0)
    for size in (500, 1 << 20):
        found, _ = survey(
            row_chunks(X, chunk_bytes=size), backend, sample_rows=200, seed=SEED, by_value=False
        )
        assert (len(found.sample), found.n_reads) == (200, 1)
        counts = np.bincount(found.sample[:, 0].astype(int), minlength=10)
        assert (np.abs(counts - 20) < 5 * np.sqrt(20)).all()


def test_rows_with_gaps_start_a_fit_unless_nothing_is_left_of_them(backend: Backend) -> None:
    X = np.arange(30.0).reshape(10, 3)
    X[2, 1], X[5] = np.nan, np.nan
    found, _ = survey(row_chunks(X), backend, sample_rows=10, seed=SEED, missing="em")
    assert (found.n_usable, found.n_eligible, len(found.sample)) == (10, 9, 9)
    np.testing.assert_allclose(found.spread.mean, np.nanmean(X, axis=0))


def test_unknown_lengths_become_known() -> None:
    import dask.array as da

    X = da.from_array(np.arange(20.0).reshape(10, 2), chunks=(4, 2))
    X = X[X[:, 0] > 5]
    found, chunks = survey(row_chunks(X), LocalBackend(1), sample_rows=3, seed=SEED)
    assert chunks.lengths == (1, 4, 2)
    assert found.sample.shape == (3, 2)


def many_rows() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(MANY, 2))


def test_a_larger_sample_is_the_sample_of_so_many_rows_for_any_chunking(backend: Backend) -> None:
    X, weight = many_rows(), np.random.default_rng(2).uniform(size=MANY)
    plain, _ = survey(row_chunks(X, weight), LocalBackend(1), sample_rows=LARGER, seed=SEED)
    larger, _ = survey(
        row_chunks(X, weight, 200_000), backend, sample_rows=1024, larger_rows=(LARGER,), seed=SEED
    )
    assert (len(larger.sample), larger.n_reads) == (LARGER, 1)
    np.testing.assert_array_equal(larger.sample, plain.sample)
    np.testing.assert_allclose(larger.sample_weight, plain.sample_weight, rtol=1e-12)


def test_a_sample_for_several_sizes_is_cut_to_what_each_would_have_been() -> None:
    chunks, here = row_chunks(many_rows(), chunk_bytes=200_000), LocalBackend(1)
    way: dict[str, Any] = {"sample_rows": 1024, "seed": SEED}
    shared, _ = survey(chunks, here, larger_rows=(LARGER - 900, LARGER, MANY), **way)
    assert len(shared.sample) == LARGER
    for asked in (LARGER - 900, LARGER, MANY, 0):
        alone, _ = survey(chunks, here, larger_rows=(asked,), **way)
        cut = shared.with_fewer(1024, asked)
        np.testing.assert_array_equal(cut.sample, alone.sample)
        np.testing.assert_allclose(cut.sample_weight, alone.sample_weight, rtol=1e-12)


def test_a_larger_sample_is_not_worth_another_look(backend: Backend) -> None:
    """A third of the rows equals another: enough keys for the small sample, not for the larger."""
    X = many_rows()
    X[1::3] = X[::3][: len(X[1::3])]
    chunks = row_chunks(X, chunk_bytes=200_000)
    small, _ = survey(chunks, backend, sample_rows=1024, seed=SEED)
    both, _ = survey(chunks, backend, sample_rows=1024, larger_rows=(LARGER,), seed=SEED)
    assert (len(both.sample), both.n_reads) == (1024, 1)
    np.testing.assert_array_equal(both.sample, small.sample)
    np.testing.assert_allclose(both.sample_weight, small.sample_weight, rtol=1e-12)


@pytest.mark.parametrize("why", ["few rows", "many bytes", "missing values"])
def test_a_larger_sample_is_left_out_where_it_is_dear(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = many_rows()
    way: dict[str, Any] = {"sample_rows": 1024, "larger_rows": (LARGER,), "seed": SEED}
    dear = X
    if why == "few rows":
        dear = X[1:]
    elif why == "missing values":
        way["missing"] = "em"
    else:
        monkeypatch.setattr(survey_module, "LARGEST_SAMPLE_BYTES", LARGER * 16 - 1)
    found, _ = survey(row_chunks(dear), LocalBackend(1), **way)
    assert len(found.sample) == 1024
    monkeypatch.undo()
    found, _ = survey(row_chunks(X), LocalBackend(1), **way | {"missing": "error"})
    assert len(found.sample) == LARGER


def test_starts_are_found_on_as_many_rows_as_were_asked_for_and_passes_are_over_either() -> None:
    X = many_rows()
    chunks, here = row_chunks(X, chunk_bytes=200_000), LocalBackend(1)
    way: dict[str, Any] = {
        "arithmetic": RowArithmetic(),
        "unit": 1.0,
        "sample_rows": 1024,
        "part_rows": 512,
    }
    parameters = Parameters.from_covariances([1.0], np.zeros((1, 2)), [1.0], "spherical")
    small, _ = survey(chunks, here, sample_rows=1024, seed=SEED)
    larger, _ = survey(chunks, here, sample_rows=1024, larger_rows=(LARGER,), seed=SEED)
    plain, both = (expectations(found, chunks, here, **way) for found in (small, larger))
    assert plain.on_larger is None
    assert larger.sample_weight is not None
    rows, weights = fewer(larger.sample, larger.sample_weight, 1024)
    np.testing.assert_array_equal(both.sample.X, rows)
    np.testing.assert_array_equal(both.sample.X, plain.sample.X)
    np.testing.assert_array_equal(both.sample.weight, weights)
    assert both.part is not None
    assert len(both.part.X) == 512

    def mean(statistics: SufficientStatistics) -> float:
        assert statistics.sum_weight == pytest.approx(MANY)
        return statistics.log_likelihood / MANY

    def by_hand(X: np.ndarray) -> float:
        return float(-np.log(2 * np.pi) - 0.5 * (X**2).sum(axis=1).mean())

    assert both.sample.expectation is not None
    assert both.on_larger is not None
    assert mean(both.sample.expectation(parameters)) == pytest.approx(by_hand(rows))
    assert mean(both.on_larger(parameters)) == pytest.approx(by_hand(larger.sample))
    assert mean(both.over_all(parameters)) == pytest.approx(by_hand(X))
