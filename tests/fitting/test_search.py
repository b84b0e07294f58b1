"""The search: EM in the core, marks of spurious components, moves, and what all of it finds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from benchmarks.quality.marks import Judge as IndependentJudge
from benchmarks.quality.plain_em import Mixtures
from gmm_dask import GaussianMixture
from gmm_dask.errors import FeatureWarning
from gmm_dask.fitting import Maximisation, SearchRecord
from gmm_dask.fitting.initial.initialize import prepare
from gmm_dask.fitting.search import best_start as searching
from gmm_dask.fitting.search import ground as climbing
from gmm_dask.fitting.search.best_start import best_start
from gmm_dask.fitting.search.ground import Candidate, Frame, Ground
from gmm_dask.fitting.search.marks import Judge, Mark
from gmm_dask.fitting.search.moves import Swaps, crossings, leaving, with_twins
from gmm_dask.fitting.search.rounds import GLANCED
from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters, core, m_step
from gmm_dask.mixture.core.climb import can_climb
from gmm_dask.sampling import ColumnSpread

FAMILIES = ("full", "tied", "diag", "spherical")
SEED = np.random.SeedSequence(5)
needs_core = pytest.mark.skipif(not can_climb("full"), reason="the core is not built")


def pancakes(n: int, d: int, seed: int, share: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two parallel flat clusters, turned at random, with the identity as covariance."""
    rng = np.random.default_rng(seed)
    side = rng.uniform(size=n) < share
    X = rng.normal(size=(n, d))
    X[:, 0] = np.where(side, 3.0, -3.0) + rng.normal(size=n)
    X[:, 0] /= X[:, 0].std()
    turn, _ = np.linalg.qr(rng.normal(size=(d, d)))
    return X @ turn, side


def blobs(n: int = 400, d: int = 3, k: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + 4 * rng.normal(size=(k, d))[rng.integers(0, k, n)]


def ground_of(X: np.ndarray, family: str, **guard: Any) -> Ground:
    ready = prepare(X, 1)
    frame = Frame.of(ready.sample, None, family)
    made = Maximisation(spread=ColumnSpread.of(X, None), **guard)
    return Ground(ready.sample, None, family, made, frame)


def candidate_of(ground: Ground, k: int) -> Candidate:
    """Components at the first rows, as wide as all rows."""
    d = ground.X.shape[1]
    family = COVARIANCE_FAMILIES[ground.covariance_type].diagonal(k, ground.X.var(axis=0))
    means = ground.X[np.linspace(0, len(ground.X) - 1, k).astype(int)]
    assert means.shape == (k, d)
    return ground.candidate(Parameters(np.full(k, 1 / k), means, family), line=0)


@needs_core
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("d", [3, 11])
def test_a_climb_is_em_with_its_m_step(family: str, d: int) -> None:
    ground = ground_of(blobs(d=d), family, reg_covar=1e-3)
    start = candidate_of(ground, 3)
    (found,) = ground.climb([start], 5)
    parameters = ground.parameters(start)
    for _ in range(5):
        statistics = core.e_step(ground.X, parameters)
        parameters = m_step(parameters, statistics, 1e-3)
    shift = len(ground.X) * np.log(abs(np.linalg.det(ground.frame.T)))
    assert found.log_likelihood + shift == pytest.approx(statistics.log_likelihood, rel=1e-9)
    ended = ground.parameters(found)
    np.testing.assert_allclose(ended.means, parameters.means, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(ended.covariances, parameters.covariances, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(ended.weights, parameters.weights, rtol=1e-8)


@needs_core
@pytest.mark.parametrize("family", FAMILIES)
def test_an_accelerated_climb_ends_no_lower_and_where_em_does_not_move(family: str) -> None:
    ground = ground_of(blobs(k=4), family)
    start = candidate_of(ground, 4)
    (plain,) = ground.climb([start], 40)
    (found,) = ground.climb([start], 2000, tol=1e-6, accelerate=True)
    assert found.converged
    assert found.log_likelihood >= plain.log_likelihood - 1e-6
    (on,) = ground.climb([found], 3)
    assert on.log_likelihood == pytest.approx(found.log_likelihood, abs=1e-3)


@needs_core
def test_a_component_without_density_ends_a_climb() -> None:
    ground = ground_of(blobs(), "full")
    start = candidate_of(ground, 3)
    far = start.means.copy()
    far[0] += 1e9
    assert ground.climb([replace(start, means=far)], 5) == []


def test_each_mark_of_a_spurious_component_is_told() -> None:
    X = blobs(n=200, d=2, k=2)
    ground = ground_of(X, "full")
    _, d = X.shape
    wide = np.cov(X.T)

    def marks(covariance: Any, rows: list[float], of: Ground = ground) -> list[Any]:
        parameters = Parameters.from_covariances(
            [0.5, 0.5], X[:2], np.stack([covariance, wide]), "full"
        )
        found = replace(of.candidate(parameters, 0), rows=np.array(rows))
        return Judge(of).marks(found)

    assert marks(wide, [100.0, 100.0]) == []
    assert marks(wide, [d + 1.2, 196.8]) == [(0, Mark.ROWS)]
    thin = wide * 1e-4
    assert marks(thin, [8.0, 192.0]) == [(0, Mark.THIN)]
    assert marks(thin, [100.0, 100.0]) == []  # so many rows carry it
    assert marks(np.diag([1e-6, 1.0]) + 1e-9, [100.0, 100.0]) == [(0, Mark.FLOOR)]
    whole = ground_of(np.round(X), "full")
    assert marks(np.diag([0.05, 1.0]), [100.0, 100.0], whole) == [(0, Mark.TIE)]


@pytest.mark.parametrize("family", FAMILIES)
def test_candidates_are_judged_together_as_each_alone(family: str) -> None:
    X = np.repeat(np.round(blobs(n=60, d=2, k=3), 1), 2, axis=0)
    ground = ground_of(np.unique(X, axis=0), family)
    ground = replace(ground, weight=np.linspace(1, 3, len(ground.X)))
    parent = candidate_of(ground, 3)
    rows = ([1.0, 20.0, 39.0], [20.0, 20.0, 20.0], None)
    scales = (1e-9, 1.0, 0.3)
    several = [
        replace(
            parent,
            covariances=parent.covariances * scale,
            rows=None if held is None else np.array(held),
        )
        for scale in scales
        for held in rows
    ]
    judge = Judge(ground)
    judge.look_at(several)
    for each in several:
        assert judge.n_marked(each) == len(Judge(ground).marks(each))
    assert len({judge.n_marked(each) for each in several}) > 1


@needs_core
@pytest.mark.parametrize("share", [0.5, 0.2])
def test_turned_pancakes_are_found(share: float) -> None:
    X, side = pancakes(1500, 15, 3, share)
    labels = GaussianMixture(2, random_state=0).fit_predict(X)
    assert max((labels == side).mean(), (labels != side).mean()) > 0.98


@needs_core
def test_a_linear_map_of_the_rows_changes_no_partition() -> None:
    X = blobs(n=500, d=4, k=4, seed=2)
    rng = np.random.default_rng(1)
    left, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    mapped = X @ (left * np.geomspace(1, 1000, 4)) + 7
    one, other = (
        GaussianMixture(4, random_state=0, reg_covar=0).fit_predict(each) for each in (X, mapped)
    )
    pairs = len(np.unique(np.stack([one, other]), axis=1).T)
    assert pairs == 4


@needs_core
def test_the_search_is_the_same_in_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(climbing, "WORTH_A_THREAD", 1)
    ready, X = prepare(blobs(n=900, d=6, k=5), 5), blobs(n=900, d=6, k=5)
    guard = Maximisation(spread=ColumnSpread.of(X, None))
    found = [best_start(ready, 5, "full", guard, SEED, "medium", threads) for threads in (1, 4)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].record == found[1].record
    for name in ("weights", "means", "covariances"):
        arrays = [getattr(each.start.parameters, name) for each in found if each is not None]
        np.testing.assert_array_equal(*arrays)


@needs_core
def test_a_swap_takes_one_component_and_parts_another() -> None:
    ground = ground_of(blobs(n=600, d=3, k=4), "full")
    (parent,) = ground.climb([candidate_of(ground, 4)], 30)
    ways = Swaps(ground, parent, [], np.random.default_rng(0))
    tried = ways.next(8)
    assert tried
    assert all(len(each.weights) == 4 for each in tried)
    for each in tried:
        assert each.weights.sum() == pytest.approx(1)
        kept = (np.abs(each.means[:, None] - parent.means).max(axis=2) == 0).any(axis=0)
        assert kept.sum() == 2
    moved = replace(parent, means=parent.means[::-1] + 0.01, weights=parent.weights[::-1])
    back = replace(moved, covariances=parent.covariances[::-1])
    assert leaving(ground, parent, [back, tried[0]]) == [tried[0]]
    (child, *_) = crossings(ground, (parent, tried[0]), 2, np.random.default_rng(0))
    assert len(child.weights) == 4


@needs_core
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_are_plainly_parted_need_few_starts(family: str) -> None:
    rng = np.random.default_rng(1)
    means = 6 * rng.normal(size=(5, 6))
    X = rng.normal(size=(800, 6)) + means[rng.integers(0, 5, 800)]
    model = GaussianMixture(5, covariance_type=family, random_state=0).fit(X)
    assert model.n_starts_ == GLANCED
    assert model.n_replicated_ >= 2
    assert np.linalg.norm(means[:, None] - model.means_, axis=2).min(axis=1).max() < 0.5
    uniform = rng.uniform(size=(800, 6))  # nothing is parted there
    other = GaussianMixture(5, covariance_type=family, random_state=0).fit(uniform)
    assert other.n_starts_ > GLANCED


@needs_core
@pytest.mark.parametrize("family", FAMILIES)
def test_components_that_hold_two_clusters_are_no_place_to_end_early(family: str) -> None:
    rng = np.random.default_rng(1)
    means = 6 * rng.normal(size=(5, 6))
    X = rng.normal(size=(800, 6)) + means[rng.integers(0, 5, 800)]
    fits = [GaussianMixture(4, covariance_type=family, random_state=seed).fit(X) for seed in (0, 1)]
    assert all(model.n_starts_ > GLANCED for model in fits)
    assert fits[0].lower_bound_ == pytest.approx(fits[1].lower_bound_, abs=0.5 / len(X))


@pytest.mark.parametrize("family", ["full", "tied", "diag"])
def test_a_constant_column_changes_neither_search_nor_partition(family: str) -> None:
    X = blobs(n=600)
    told = GaussianMixture(3, covariance_type=family, random_state=0)
    without, beside = told.fit(X).predict(X), np.column_stack([X, np.full(len(X), 7.0)])
    assert told.fit(beside).n_starts_ is not None
    np.testing.assert_array_equal(told.predict(beside), without)


@needs_core
def test_twins_say_what_fewer_components_say_and_rest() -> None:
    ground = ground_of(blobs(n=300, d=2, k=3), "diag")
    (three,) = ground.climb([candidate_of(ground, 3)], 200, tol=1e-9)
    weights = np.append(three.weights, 0.01)
    more = replace(
        three,
        weights=weights / weights.sum(),
        means=np.concatenate([three.means, three.means[:1]]),
        covariances=np.concatenate([three.covariances, three.covariances[:1] * 1e-6]),
    )
    twins = with_twins(more, [3])
    assert twins is not None
    (rested,) = ground.climb([twins], 3)
    assert rested.log_likelihood == pytest.approx(three.log_likelihood, abs=1e-6)
    np.testing.assert_allclose(rested.means, twins.means, atol=1e-4)
    heaviest = int(three.weights.argmax())
    np.testing.assert_allclose(twins.weights[[heaviest, 3]], three.weights[heaviest] / 2)
    assert with_twins(more, range(4)) is None


@needs_core
@pytest.mark.parametrize(("family", "k"), [("full", 7), ("diag", 12), ("spherical", 14)])
def test_more_components_than_the_rows_carry_are_not_spurious(family: str, k: int) -> None:
    X = np.round(blobs(n=70, d=2, k=2, seed=3), 1)
    for seed in range(3):
        model = GaussianMixture(k, covariance_type=family, random_state=seed).fit(X)
        matrices = model.covariances_
        if family != "full":
            matrices = matrices.reshape(k, -1, 1) * np.eye(2)
        found = Mixtures(family, *(a[None] for a in (model.weights_, model.means_, matrices)))
        assert IndependentJudge(X).marks(found) == [set()]


@needs_core
@pytest.mark.parametrize("settings", [{"missing": "em"}, {"covariance_prior": 0.5}])
def test_missing_values_and_priors_are_followed_as_they_are(settings: dict[str, Any]) -> None:
    X = blobs(n=300, d=3, k=3, seed=4)
    if "missing" in settings:
        X[::9, 1] = np.nan
    model = GaussianMixture(3, random_state=0, **settings).fit(X)
    plain = GaussianMixture(3, random_state=0, init_params="kmeans", tol=1e-7, **settings).fit(X)
    assert model.n_starts_ > 1
    assert model.n_replicated_ >= 1
    assert model.lower_bound_ >= plain.lower_bound_ - 0.5 / len(X)


@needs_core
def test_many_rows_are_searched_by_a_part_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "SEARCHED_ROWS", 300)
    monkeypatch.setattr(searching, "ROWS_EACH", 1)
    X = blobs(n=1500, d=3, k=4, seed=6)
    guard = Maximisation(spread=ColumnSpread.of(X, None))
    found = best_start(prepare(X, 4), 4, "full", guard, SEED, "medium")
    assert found is not None
    begun = core.e_step(X, found.start.parameters)
    whole = GaussianMixture(4, random_state=0, tol=1e-8, max_iter=500).fit(X)
    assert begun.log_likelihood > len(X) * whole.lower_bound_ - 1


def test_the_record_says_what_was_found() -> None:
    record = SearchRecord(32, 5, 12.44, 800, 2400)
    said = "best log-likelihood reached by 5 of 32 starts; next best 12.4 lower"
    assert record.message == said
    assert record.sentence.startswith("Best")
    assert record.sentence.endswith("lower.")
    assert "no other" in replace(record, runner_up_difference=None).message
    assert "spurious" in replace(record, runner_up_difference=-3.0).message


def test_a_given_start_and_one_component_need_no_search() -> None:
    X = blobs(n=60)
    given = GaussianMixture(2, means_init=X[:2], random_state=0).fit(X)
    one = GaussianMixture(1, random_state=0).fit(X)
    assert given.n_starts_ is None
    assert one.n_starts_ is None
    assert one.runner_up_difference_ is None


@pytest.mark.parametrize("family", ["full", "tied", "diag", "spherical", "low_rank:1"])
def test_values_whose_squares_are_below_float64_end_on_one_component(family: str) -> None:
    """Variances of 0 left no direction of the rows, and the search an array without columns."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2)) * 1e-170 + np.repeat([[0.0], [8e-170]], 30, axis=0)
    model = GaussianMixture(2, covariance_type=family, random_state=0)
    with pytest.warns(FeatureWarning, match="hardly any spread"):
        model.fit(X)
    assert model.lower_bound_ == pytest.approx(-np.log(2 * np.pi * 1e-6), rel=1e-9)


def test_where_a_search_affords_too_few_rows_diagonal_covariances_find_the_groups() -> None:
    """It would go over 5,000 of these rows, fewer than a fifth of one for each parameter."""
    rng, (n, d, k) = np.random.default_rng(0), (9_000, 120, 5)
    labels = rng.choice(k, n, p=[0.3, 0.25, 0.2, 0.15, 0.1])
    loadings = 0.6 * rng.normal(size=(k, 5, d))
    X = rng.normal(size=(k, d))[labels] + rng.normal(size=(n, d))
    X += np.einsum("nq,nqd->nd", rng.normal(size=(n, 5)), loadings[labels])
    model = GaussianMixture(k, random_state=0).fit(X)
    assert model.n_starts_ is None
    assert adjusted_rand_score(labels, model.predict(X)) == 1


@needs_core
def test_of_rows_that_are_plainly_parted_the_best_optimum_alone_is_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng, (n, d, k) = np.random.default_rng(0), (12_000, 3, 8)
    X = (4 * rng.normal(size=(k, d)))[rng.integers(0, k, n)] + rng.normal(size=(n, d))
    seen, climb = [], Ground.climb

    def recorded(self: Ground, live: Any, *args: Any, **how: Any) -> list[Candidate]:
        seen.append((len(self.rows), len(live)))
        return climb(self, live, *args, **how)

    monkeypatch.setattr(Ground, "climb", recorded)
    model = GaussianMixture(k, random_state=0).fit(X)
    assert model.n_starts_ == GLANCED
    assert [n_live for n_rows, n_live in seen if n_rows == n] == [1]
    assert model.runner_up_difference_ > 0  # known from the few rows that were searched
