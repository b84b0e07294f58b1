"""Searches of several numbers of components, each of which begins from its neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from gmm_dask.fitting import Maximisation
from gmm_dask.fitting.initial.initialize import prepare
from gmm_dask.fitting.search.ground import Candidate, Ground
from gmm_dask.fitting.search.ladder import joined, parted, searched
from gmm_dask.fitting.search.rounds import Search
from gmm_dask.mixture import core
from gmm_dask.mixture.core.climb import can_climb
from gmm_dask.sampling import ColumnSpread
from tests.fitting.test_search import blobs, candidate_of, ground_of

FAMILIES = ("full", "tied", "diag", "spherical")
SEED = np.random.SeedSequence(3)
pytestmark = pytest.mark.skipif(not can_climb("full"), reason="the core is not built")


def settled(X: np.ndarray, family: str, k: int) -> tuple[Ground, Candidate]:
    ground = ground_of(X, family)
    (found,) = ground.climb([candidate_of(ground, k)], 200)
    return ground, found


def likelihoods(
    X: np.ndarray, family: str, numbers: list[int], threads: int = 1
) -> dict[int, float]:
    guard = Maximisation(spread=ColumnSpread.of(X, None), sample=X)
    found = searched(prepare(X, 1), numbers, family, guard, [SEED], "medium", threads)
    return {k: core.e_step(X, one.start.parameters).log_likelihood for k, one in found.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_two_components_together_have_the_moments_of_both(family: str) -> None:
    X = blobs(k=5)
    ground, parent = settled(X, family, 4)
    mean = parent.weights @ parent.means
    made = joined(ground, parent, 6)
    assert len(made) == 6
    for each in made:
        assert each.means.shape == (3, 3)
        assert each.weights.sum() == pytest.approx(1.0, rel=1e-12)
    together = [each for each in made if np.allclose(each.weights @ each.means, mean, atol=1e-9)]
    assert len(together) == 3
    if family == "tied":
        return

    def spread(one: Candidate) -> float:
        """Trace of the covariance of all rows under a mixture."""
        D = one.means - one.weights @ one.means
        size = {"full": lambda S: np.trace(S, axis1=1, axis2=2), "diag": lambda S: S.sum(axis=1)}
        within = size.get(family, lambda S: 3 * S)(one.covariances)
        return float(one.weights @ (within + (D**2).sum(axis=1)))

    for each in together:
        assert spread(each) == pytest.approx(spread(parent), rel=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_component_in_two_parts_leads_higher(family: str) -> None:
    ground, parent = settled(blobs(k=5), family, 2)
    made = parted(ground, parent, 5)
    assert [each.means.shape for each in made] == [(3, 3)] * 5
    best = max(each.log_likelihood for each in ground.climb(made, 100))
    assert best > parent.log_likelihood + 10


@pytest.mark.parametrize("family", ["full", "diag"])
@pytest.mark.parametrize("without_starts", [{3, 4, 5}, {2, 3}])
def test_neighbours_lead_where_no_start_does(
    family: str, without_starts: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upwards by components in two parts, downwards by two that are put together."""
    X, numbers = blobs(n=600, k=4, seed=2), [2, 3, 4, 5]
    expected = likelihoods(X, family, numbers)
    starts = Search._starts

    def of_some(self: Search, number: int, begin: int, end: int) -> list[Candidate]:
        return [] if self.k in without_starts else starts(self, number, begin, end)

    monkeypatch.setattr(Search, "_starts", of_some)
    found = likelihoods(X, family, numbers)
    assert list(found) == numbers
    for k in numbers:
        assert found[k] > expected[k] - 0.5, k


def test_more_components_are_no_worse_and_threads_change_nothing() -> None:
    X = blobs(n=3000, d=8, k=6, seed=4)
    found = likelihoods(X, "full", [2, 3, 5, 6, 7])
    assert (np.diff([found[k] for k in sorted(found)]) > 0).all()
    assert likelihoods(X, "full", [2, 3, 5, 6, 7], threads=2) == found


def test_numbers_that_the_rows_cannot_bear_are_left_out() -> None:
    X = blobs(n=40, k=2)
    assert list(likelihoods(X, "full", [1, 2, 39, 40, 300])) == [2]
    assert likelihoods(X, "low_rank:1", [2]) == {}


def test_a_ladder_that_affords_too_few_rows_finds_nothing() -> None:
    """It would go over 5,000 of these rows, fewer than a fifth of one for each parameter."""
    assert likelihoods(blobs(n=9000, d=120, k=5), "full", [5]) == {}
