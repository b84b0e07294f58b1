"""Sums of how surely rows are assigned: additive, and what they say of rows that are all there."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np
import pytest

from gmm_dask.mixture import Parameters, mixture_sample, responsibilities
from gmm_dask.mixture.classification import MOST_ROWS, Classification
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from tests.strategies import random_mixture

ARITHMETIC = RowArithmetic.chosen("error")


def of(X: np.ndarray, parameters: Parameters, weight: np.ndarray | None = None) -> Classification:
    return Classification.of(X, parameters, ARITHMETIC.score(X, parameters), ARITHMETIC, weight)


@pytest.fixture(scope="module")
def mixture() -> Parameters:
    return random_mixture("full", 4, 3, 1)


@pytest.fixture(scope="module")
def rows(mixture: Parameters) -> np.ndarray:
    return mixture_sample(mixture, 20_000, np.random.default_rng(0))[0]


def test_it_is_what_all_posterior_probabilities_say(mixture: Parameters, rows: np.ndarray) -> None:
    weight = np.random.default_rng(1).uniform(0, 3, len(rows))
    found, resp = of(rows, mixture, weight), responsibilities(rows, mixture)
    labels = resp.argmax(axis=1)
    table = np.array([(weight[:, None] * resp)[labels == j].sum(axis=0) for j in range(4)])
    entropy = -(resp * np.log(resp)).sum(axis=1) * weight
    assert np.allclose(found.table, table, rtol=1e-6, atol=1e-6 * len(rows))
    assert np.allclose(found.entropies, [entropy[labels == j].sum() for j in range(4)], rtol=1e-4)
    assert np.allclose(found.mean_posteriors.sum(axis=1), 1)
    assert (found.mean_posteriors.argmax(axis=1) == np.arange(4)).all()
    means = [entropy[labels == j].sum() / weight[labels == j].sum() for j in range(4)]
    assert np.allclose(found.mean_entropies, means, rtol=1e-4)
    expected = 1 - entropy.sum() / (weight.sum() * np.log(4))
    assert found.relative_entropy == pytest.approx(expected, abs=2e-5)


def test_it_adds_up_over_rows(mixture: Parameters, rows: np.ndarray) -> None:
    parts = [of(rows[i::3], mixture) for i in range(3)]
    found, whole = reduce(add, parts), of(rows, mixture)
    assert np.allclose(found.table, whole.table, rtol=1e-12)
    assert np.allclose(found.entropies, whole.entropies, rtol=1e-12)


def test_of_many_rows_some_stand_for_all(mixture: Parameters, rows: np.ndarray) -> None:
    many = np.tile(rows, (10, 1))
    weight = np.random.default_rng(1).uniform(0, 3, len(many))
    found, scores = of(many, mixture, weight), ARITHMETIC.score(many, mixture)
    exact = of(rows, mixture)
    sums = np.bincount(scores.labels, weight)
    assert np.allclose(found.table.sum(axis=1), sums, rtol=1e-6)
    assert np.allclose(found.mean_posteriors, exact.mean_posteriors, atol=0.01)
    assert found.relative_entropy == pytest.approx(exact.relative_entropy, abs=0.01)
    assert found == of(many, mixture, weight)


def test_of_a_block_as_many_stand_for_all_as_of_the_whole_chunk(
    mixture: Parameters, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = np.vstack([np.tile(rows, (10, 1)), 1e3 * np.eye(3)])
    scores, looked = ARITHMETIC.score(many, mixture), []
    labels = scores.labels.copy()
    labels[-3:] = 3
    labels[:-3][labels[:-3] == 3] = 2  # three rows alone have the last label
    take = RowArithmetic.responsibilities
    monkeypatch.setattr(
        RowArithmetic, "responsibilities",
        lambda self, X, p: looked.append(len(X)) or take(self, X, p),
    )  # fmt: skip
    scores = scores._replace(labels=labels)
    found = Classification.of(many, mixture, scores, ARITHMETIC, n_beside=9 * len(many))
    assert sum(looked) <= MOST_ROWS / 10 + 3
    assert np.allclose(found.table.sum(axis=1), np.bincount(labels), rtol=1e-6)


def test_rows_that_are_certain_have_no_entropy() -> None:
    apart = Parameters.from_covariances([0.5, 0.5], [[0.0], [1e3]], [[1.0], [1.0]], "diag")
    found = of(np.array([[0.0], [1e3], [1.0]]), apart)
    assert found.table.tolist() == [[2, 0], [0, 1]]
    assert found.entropies == (0, 0)
    assert found.relative_entropy == 1
    assert found.overlaps.tolist() == [[1, 0], [0, 1]]


def test_rows_that_nothing_can_be_said_of_have_all_of_it() -> None:
    same = Parameters.from_covariances([0.5, 0.5], [[0.0], [0.0]], [[1.0], [1.0]], "diag")
    found = of(np.zeros((10, 1)), same)
    assert found.relative_entropy == pytest.approx(0, abs=1e-12)
    assert found.mean_entropies == pytest.approx([np.log(2), 0])


def test_rows_without_a_label_are_left_out(mixture: Parameters, rows: np.ndarray) -> None:
    scores = ARITHMETIC.score(rows, mixture)
    labels = scores.labels.copy()
    labels[1::2] = -1
    found = Classification.of(rows, mixture, scores._replace(labels=labels), ARITHMETIC)
    assert np.allclose(found.table, of(rows[::2], mixture).table, rtol=1e-12)


def test_there_is_none_of_no_rows_or_no_choice(mixture: Parameters, rows: np.ndarray) -> None:
    nothing = of(rows[:0], mixture)
    assert nothing.relative_entropy is None
    assert not nothing.mean_posteriors.any()
    one = replace(mixture.take([0]), weights=np.ones(1))
    assert of(rows, one).relative_entropy is None


def test_where_some_rows_are_not_known_nothing_is(mixture: Parameters, rows: np.ndarray) -> None:
    assert of(rows, mixture) + Classification.none(0) == Classification.none(0)
    assert of(rows, mixture) + Classification.none(4) == of(rows, mixture)
