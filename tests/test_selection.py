"""A grid whose candidates share every read: fits and criteria of each alone, and the choice."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

from gmm_dask import GaussianMixture, GaussianMixtureSelector
from gmm_dask.errors import SettingsError
from gmm_dask.fitting import INIT_METHODS, Maximisation, choice, passes
from gmm_dask.fitting.choice import Candidate
from gmm_dask.fitting.initial.initialize import _kmeans
from gmm_dask.mixture import e_step
from gmm_dask.sampling import row_keys

CENTRES = np.array([[0.0, 0.0], [7.0, 0.0], [0.0, 7.0]])


def rows(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return CENTRES[rng.integers(0, 3, n)] + rng.normal(size=(n, 2))


def rows_of_dask(X: np.ndarray, reads: list[int], n_chunks: int = 7) -> da.Array:
    """The rows as blocks that note each of their reads."""
    lazy = da.from_array(X, chunks=(-(-len(X) // n_chunks), X.shape[1]))
    return lazy.map_blocks(lambda block: reads.append(1) or block, dtype=X.dtype, meta=X[:0])


def with_small_sample(monkeypatch: pytest.MonkeyPatch, init_rows: int = 400) -> None:
    """Have the class find starts on fewer rows than it is given here, as on more rows it does."""
    given = GaussianMixture._settings
    change = {"init_rows": init_rows}
    monkeypatch.setattr(
        GaussianMixture, "_settings", lambda self: given(self).model_copy(update=change)
    )


def settings(**changed: Any) -> GaussianMixture:
    return GaussianMixture(tol=1e-4, max_iter=15, **changed)


@pytest.mark.parametrize("sample_em", [True, False])
@pytest.mark.filterwarnings("ignore:Best performing")
def test_candidates_of_plain_starts_are_the_fits_of_their_own_and_are_read_as_often_as_the_longest(
    monkeypatch: pytest.MonkeyPatch, sample_em: bool
) -> None:
    with_small_sample(monkeypatch)
    reads: list[int] = []
    X, families = rows_of_dask(rows(1700), reads), ["full", "diag"]
    base = settings(sample_em=sample_em, init_params="kmeans")
    grid = GaussianMixtureSelector(
        [2, 4], covariance_types=families, n_init=2, random_state=4, estimator=base
    ).fit(X)
    of_grid, longest = len(reads), 0
    table = grid.results_
    assert len(table["rank"]) == 4
    for i in range(4):
        if table["start"][i] == "split":
            continue
        params = {name: table[name][i] for name in ("n_components", "covariance_type")}
        reads.clear()
        alone = clone(base).set_params(**params, n_init=2, random_state=4).fit(X)
        of_fit = len(reads)
        np.testing.assert_allclose(table["bic"][i], alone.bic(X), rtol=1e-11)
        longest = max(longest, len(reads)) if sample_em else longest
        np.testing.assert_allclose(table["aic"][i], alone.aic(X), rtol=1e-11)
        np.testing.assert_allclose(table["icl"][i], alone.icl(X), rtol=1e-11)
        assert table["n_passes"][i] == alone.n_iter_
        if params == grid.best_params_:
            for name in ("weights_", "means_", "covariances_"):
                same = getattr(grid.best_estimator_, name), getattr(alone, name)
                np.testing.assert_array_equal(*same)
        assert sample_em or of_grid < 3 * of_fit
    if sample_em:
        assert of_grid <= longest
    assert grid.n_reads_ * 7 == of_grid
    assert grid.best_params_ == {"n_components": 4, "covariance_type": "diag"}


@pytest.mark.parametrize("init_rows", [200, 65_536])
def test_criteria_are_those_that_scipy_computes_of_each_mixture(
    monkeypatch: pytest.MonkeyPatch, init_rows: int
) -> None:
    with_small_sample(monkeypatch, init_rows)
    X = rows(900, seed=3)
    grid = GaussianMixtureSelector(range(1, 5), covariance_types=["full", "diag"], random_state=0)
    selection = grid._selected(grid._base(), X, None).selection
    assert len(selection.ranked) == 8
    for each in selection.ranked:
        p = each.result.parameters
        k, d = p.means.shape
        logs = np.stack(
            [
                np.log(w) + multivariate_normal(m, S).logpdf(X)
                for w, m, S in zip(p.weights, p.means, p.dense_covariances(), strict=True)
            ],
            axis=1,
        )
        densities = np.logaddexp.reduce(logs, axis=1)
        n_free = k * (1 + d + (d * (d + 1) // 2 if p.covariance_type == "full" else d)) - 1
        bic = n_free * np.log(len(X)) - 2 * densities.sum()
        np.testing.assert_allclose(each.bic, bic, rtol=1e-9)
        np.testing.assert_allclose(each.icl, bic - 2 * (logs.max(1) - densities).sum(), rtol=1e-9)


@pytest.mark.parametrize("init_rows", [600, 65_536])
def test_candidates_that_begin_from_one_another_are_no_lower_than_fits_alone(
    monkeypatch: pytest.MonkeyPatch, init_rows: int
) -> None:
    with_small_sample(monkeypatch, init_rows)
    rng, families = np.random.default_rng(8), ["full", "spherical"]
    centres = 6 * rng.normal(size=(5, 2))
    X = centres[rng.integers(0, 5, 3000)] + rng.normal(size=(3000, 2))
    base = GaussianMixture(tol=1e-6, max_iter=500)
    grid = GaussianMixtureSelector(
        range(2, 6), covariance_types=families, n_init=2, random_state=0, estimator=base
    ).fit(X)
    table = grid.results_
    assert set(table["start"]) == {"neighbours"}
    found = dict(
        zip(
            zip(table["n_components"], table["covariance_type"], strict=True),
            table["log_likelihood"],
            strict=True,
        )
    )
    for (k, family), log_likelihood in found.items():
        alone = clone(base).set_params(n_components=k, covariance_type=family, random_state=0)
        assert log_likelihood > alone.fit(X).score(X) * len(X) - 0.5, (k, family)
    for family in families:
        assert (np.diff([found[k, family] for k in range(2, 6)]) > 0).all()
    assert grid.best_params_ == {"n_components": 5, "covariance_type": "spherical"}
    assert grid.best_estimator_.n_replicated_ > 1


def test_the_choice_is_the_same_on_any_number_of_workers_and_in_any_order_of_candidates() -> None:
    X, found = rows(1500, seed=2), []
    for n_workers, counts in ((1, [4, 2, 3]), (4, [2, 3, 4])):
        with dask.config.set(scheduler="threads", num_workers=n_workers):
            grid = GaussianMixtureSelector(counts, random_state=0, criterion="icl").fit(
                da.from_array(X, chunks=(200, 2))
            )
        found.append(grid)
    one, other = found
    assert one.reason_ == other.reason_
    for name, column in one.results_.items():
        np.testing.assert_array_equal(column, other.results_[name], err_msg=name)
    np.testing.assert_array_equal(one.predict(X), one.best_estimator_.predict(X))


@pytest.mark.parametrize("criterion", ["held_out", "prediction_strength"])
def test_criteria_of_parts_are_those_of_fits_to_these_parts(criterion: str) -> None:
    X = rows(1200, seed=4)
    grid = GaussianMixtureSelector(
        [2, 3, 4],
        criterion=criterion,
        random_state=1,
        estimator=settings(init_params="kmeans"),
    ).fit(X)
    salt = int(np.random.SeedSequence(1).spawn(2)[1].generate_state(1, np.uint64)[0])
    share = row_keys(X, salt) / 2.0**64
    table = {k: grid.results_[criterion][i] for i, k in enumerate(grid.results_["n_components"])}
    for k, value in table.items():
        plain = settings(n_components=k, random_state=1, init_params="kmeans")
        if criterion == "held_out":
            expected = clone(plain).fit(X[share >= 0.2]).score(X[share < 0.2])
        else:
            halves = [X[share < 0.5], X[share >= 0.5]]
            fits = [clone(plain).fit(half) for half in halves]
            strengths = []
            for own, half, other in zip(fits, halves, fits[::-1], strict=True):
                mine, theirs = own.predict(half), other.predict(half)
                cluster = [theirs[mine == j] for j in range(k) if (mine == j).sum() > 1]
                together = [(c[:, None] == c).sum() - len(c) for c in cluster]
                pairs = [len(c) * (len(c) - 1) for c in cluster]
                strengths.append(min(np.array(together) / np.array(pairs)))
            expected = np.mean(strengths)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert criterion == "held_out" or grid.best_params_["n_components"] == 3
    assert grid.best_score_ == table[grid.best_params_["n_components"]]


@pytest.mark.parametrize("kind", ["full", "tied", "spherical"])
def test_components_die_until_the_message_is_shortest(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with_small_sample(monkeypatch, 800)
    reads: list[int] = []
    X = rows_of_dask(rows(4000, seed=3), reads)
    grid = GaussianMixtureSelector(
        range(1, 9), covariance_types=kind, criterion="mml", random_state=2
    ).fit(X)
    assert grid.best_params_["n_components"] == 3
    best = grid.best_estimator_
    assert sorted(np.argmin(((CENTRES[:, None] - best.means_) ** 2).sum(axis=2), axis=1)) == [
        0,
        1,
        2,
    ]
    assert best.weights_ == pytest.approx(1 / 3, abs=0.03)
    assert grid.best_score_ == min(grid.results_["mml"])
    assert grid.n_reads_ * 7 == len(reads) < 7 * 30  # components die on the sample


@pytest.mark.parametrize("kind", ["full", "tied", "diag"])
def test_the_message_tells_each_parameter(kind: str) -> None:
    X, k = rows(500), 3
    grid = GaussianMixtureSelector(k, covariance_types=kind, criterion="bic", random_state=0).fit(X)
    weights, n = grid.best_estimator_.weights_, len(X)
    own, shared = {"full": (5, 0), "tied": (2, 3), "diag": (4, 0)}[kind]
    expected = own / 2 * np.log1p(n * weights / 12).sum() + (k + shared) / 2 * np.log(n / 12)
    expected += (k * (own + 1) + shared) / 2 - grid.results_["log_likelihood"][0]
    assert grid.results_["mml"][0] == pytest.approx(expected, rel=1e-12)
    assert own * k + shared + k - 1 == grid.results_["n_parameters"][0]


def test_a_candidate_below_fewer_components_starts_again_from_a_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of starts that all lie on one cluster, four components come to less than two."""
    X = rows(900, seed=5)

    def poor(sample: Any, k: int, rng: Any, weight: Any) -> np.ndarray:
        resp = np.full((len(sample), k), 1e-9)
        if k < 3:
            return _kmeans(sample, k, rng, weight)
        resp[:, 0] = 1.0
        return resp / resp.sum(axis=1, keepdims=True)

    monkeypatch.setitem(INIT_METHODS, "kmeans", poor)
    plain = settings(init_params="kmeans")
    grid = GaussianMixtureSelector([2, 3], random_state=0, estimator=plain).fit(X)
    assert grid.results_["start"].tolist() == ["split", "own"]
    assert grid.best_params_["n_components"] == 3
    assert grid.results_["gain"][0] > 100
    np.testing.assert_allclose(
        np.sort(grid.best_estimator_.means_, axis=0), np.sort(CENTRES, axis=0), atol=0.3
    )


def test_falls_of_log_likelihood_are_found_family_by_family() -> None:
    values = {
        Candidate(2, "full"): -10.0, Candidate(3, "full"): -12.0, Candidate(4, "full"): -9.0,
        Candidate(2, "diag"): -20.0, Candidate(3, "diag"): -20.5, Candidate(5, "diag"): -22.0,
    }  # fmt: skip
    found = choice.fallen(values, least=1.0)
    assert found == {
        Candidate(3, "full"): Candidate(2, "full"),
        Candidate(5, "diag"): Candidate(2, "diag"),
    }


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_a_split_of_any_family_leads_no_lower(kind: str) -> None:
    X = rows(600, seed=6)
    alone = settings(n_components=2, covariance_type=kind, random_state=0).fit(X)._parameters()
    shared = passes(lambda parameters: e_step(X, parameters))
    step = choice.split_starts(alone, 4, Maximisation(1e-6), shared)
    assert step is not None
    assert step.parameters.n_components == 4
    assert e_step(X, step.parameters).log_likelihood > e_step(X, alone).log_likelihood


def test_bootstrap_rejects_too_few_components_and_not_the_truth() -> None:
    X = rows(300, seed=7)
    found = {
        counts: GaussianMixtureSelector(
            counts, covariance_types="spherical", n_bootstrap=6, random_state=0, criterion="bic"
        )
        .fit(X)
        .bootstrap_
        for counts in ((2,), (1, 2, 3))
    }
    few, right = found[(2,)], found[(1, 2, 3)]
    assert few is not None
    assert right is not None
    assert few.p_value == 1 / 7
    assert few.ratio > 100
    assert right.n_components == 3
    assert right.p_value > 1 / 7


def test_strength_of_a_table() -> None:
    assert choice.prediction_strength(np.array([[5.0, 0.0], [0.0, 3.0]])) == 1.0
    assert choice.prediction_strength(np.array([[5.0, 0.0], [2.0, 2.0]])) == pytest.approx(4 / 12)
    assert choice.prediction_strength(np.array([[1.0, 0.0], [0.0, 4.0]])) == 1.0


@pytest.mark.filterwarnings("ignore::gmm_dask.errors.FeatureWarning")  # of six rows
def test_scikit_learns_checks_of_an_estimator() -> None:
    check_estimator(GaussianMixtureSelector([1, 2], n_init=1), on_skip=None)


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore:.*did not converge")
def test_a_grid_of_54_fits_reads_no_more_often_than_its_longest_member(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_small_sample(monkeypatch, 4000)
    reads: list[int] = []
    X, families = rows_of_dask(rows(40_000, seed=9), reads), ["full", "diag"]
    grid = GaussianMixtureSelector(
        range(2, 11), covariance_types=families, n_init=3, random_state=0
    ).fit(X)
    of_grid, of_alone = len(reads), []
    table = grid.results_
    gaps = []
    for k, kind, log_likelihood in zip(
        *(table[name] for name in ("n_components", "covariance_type", "log_likelihood")),
        strict=True,
    ):
        reads.clear()
        alone = GaussianMixture(k, covariance_type=kind, n_init=3, random_state=0).fit(X)
        of_alone.append(len(reads))
        gaps.append(log_likelihood - alone.score(X) * 40_000)
    # The criteria take a read that a fit alone does not need.
    assert of_grid <= max(of_alone) + 7
    assert np.sum(np.array(gaps) > -0.5) > 12
    assert min(gaps) > -1e-3 * 40_000


def test_start_values_of_one_number_and_a_fit_without_convergence_are_told_of() -> None:
    X = rows(300, seed=1)
    given = GaussianMixture(means_init=CENTRES)
    with pytest.raises(SettingsError, match="means_init"):
        GaussianMixtureSelector([3], estimator=given).fit(X)
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        GaussianMixtureSelector([3], estimator=GaussianMixture(max_iter=1, tol=0)).fit(X)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_components": []},
        {"n_components": [0, 2]},
        {"covariance_types": ["full", "round"]},
        {"covariance_types": []},
    ],
)
def test_a_grid_of_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong)).rstrip("s")):
        GaussianMixtureSelector(**wrong).fit(rows(30))
