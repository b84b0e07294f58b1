"""Variational inference is scikit-learn's, pass by pass, from the same start."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.mixture import BayesianGaussianMixture as Theirs

from gmm_dask.fitting.variational import Posterior, VariationalFit, VariationalPrior, infer
from gmm_dask.mixture import SufficientStatistics, e_step, score_rows
from gmm_dask.mixture.covariance import family

KINDS = ["full", "tied", "diag", "spherical"]
PRIORS = ["dirichlet_process", "dirichlet_distribution"]
PASSES, REG_COVAR = 25, 1e-3


def rows(offset: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(120, 3)) @ rng.normal(size=(3, 3)) for _ in range(3)]
    centres = rng.normal(size=(3, 3)) * 4
    return np.vstack([part + centre for part, centre in zip(parts, centres, strict=True)]) + offset


def theirs(X: np.ndarray, kind: str, prior: str, passes: int, **options: Any) -> Theirs:
    model = Theirs(
        n_components=6, covariance_type=kind, weight_concentration_prior_type=prior,
        max_iter=passes, tol=0, reg_covar=REG_COVAR, random_state=0, **options,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **kwargs: None)
        return model.fit(X)


def start_of(model: Theirs) -> VariationalFit:
    """Where scikit-learn's inference begins, as a fit of ours."""
    k, d = model.means_.shape
    freedom = np.broadcast_to(np.asarray(model.degrees_of_freedom_, float), (k,))
    posterior = Posterior(
        np.array(model.weight_concentration_),
        model.mean_precision_,
        model.means_,
        freedom,
        family(model.covariance_type)(k, d, model.covariances_),
    )
    prior = VariationalPrior(
        model.weight_concentration_prior_type,
        model.weight_concentration_prior_,
        model.mean_precision_prior_,
        model.mean_prior_,
        model.degrees_of_freedom_prior_,
        np.asarray(model.covariance_prior_),
    )
    return VariationalFit(posterior, prior, REG_COVAR, tol=0.0, max_iter=PASSES)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options", [{}, {"weight_concentration_prior": 20.0, "mean_precision_prior": 0.3}]
)
def test_every_pass_is_theirs(kind: str, prior: str, options: dict[str, Any]) -> None:
    X = rows()
    begun = start_of(theirs(X, kind, prior, 0, **options))
    expected = theirs(X, kind, prior, PASSES, **options)
    found = infer([begun], lambda asked: [e_step(X, each) for each in asked])
    bounds = np.ravel(expected.lower_bounds_)
    np.testing.assert_allclose(found.lower_bounds, bounds, rtol=1e-9)
    posterior = found.posterior
    for ours, of_them in (
        (posterior.weights, expected.weights_),
        (posterior.means, expected.means_),
        (posterior.family.covariances, expected.covariances_),
        (posterior.concentration, np.array(expected.weight_concentration_)),
        (posterior.mean_precision, expected.mean_precision_),
        (posterior.degrees_of_freedom, expected.degrees_of_freedom_),
        (score_rows(X, posterior.expected).log_density, expected.score_samples(X)),
    ):
        np.testing.assert_allclose(ours, np.broadcast_to(of_them, ours.shape), rtol=1e-9, atol=1e-9)


def test_an_offset_of_the_data_loses_no_digits() -> None:
    near, far = rows(), rows(1e6)
    found = []
    for X, shift in ((near, 0.0), (far, 1e6)):
        begun = start_of(theirs(near, "full", PRIORS[0], 0))
        moved = Posterior(
            begun.posterior.concentration, begun.posterior.mean_precision,
            begun.posterior.means + shift, begun.posterior.degrees_of_freedom,
            begun.posterior.family,
        )  # fmt: skip
        believed = VariationalPrior(
            PRIORS[0], begun.prior.concentration, begun.prior.mean_precision,
            begun.prior.mean + shift, begun.prior.degrees_of_freedom, begun.prior.covariance,
        )  # fmt: skip
        fit = VariationalFit(moved, believed, REG_COVAR, tol=0.0, max_iter=PASSES)
        found.append(infer([fit], lambda asked, X=X: [e_step(X, each) for each in asked]))
    one, other = found
    np.testing.assert_allclose(other.lower_bounds, one.lower_bounds, rtol=1e-9)
    np.testing.assert_allclose(
        other.posterior.family.covariances, one.posterior.family.covariances, rtol=1e-6
    )


def test_the_best_of_several_starts_is_kept_and_each_pass_serves_all_that_go_on() -> None:
    X, asked_for = rows(), []
    first = start_of(theirs(X, "full", PRIORS[0], 0))
    settled = theirs(X, "full", PRIORS[0], PASSES)
    second = start_of(settled)

    def together(mixtures: Any) -> list[SufficientStatistics]:
        asked_for.append(len(mixtures))
        return [e_step(X, each) for each in mixtures]

    rule = {"tol": 1e-2, "max_iter": 300}
    starts = [
        VariationalFit(fit.posterior, fit.prior, REG_COVAR, **rule, start=i)
        for i, fit in enumerate([first, second], 1)
    ]
    found = infer(starts, together)
    alone = [infer([each], together) for each in starts]
    assert found.lower_bound == max(each.lower_bound for each in alone)
    n_passes = [len(each.lower_bounds) for each in alone]
    assert asked_for[: max(n_passes)] == [2] * min(n_passes) + [1] * (max(n_passes) - min(n_passes))
    assert all(each.converged for each in alone)
