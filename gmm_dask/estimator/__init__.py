"""scikit-learn's manner: `GaussianMixture` and its kin on rows in every form that users have."""

from gmm_dask.estimator.bayesian import BayesianGaussianMixture
from gmm_dask.estimator.gaussian_mixture import GaussianMixture
from gmm_dask.estimator.published import PublishedMixture, load_model
from gmm_dask.estimator.selector import GaussianMixtureSelector

__all__ = [
    "BayesianGaussianMixture",
    "GaussianMixture",
    "GaussianMixtureSelector",
    "PublishedMixture",
    "load_model",
]
