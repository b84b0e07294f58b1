"""scikit-learn's manner: `GaussianMixture` on rows in every form that users have."""

from gmm_dask.estimator.gaussian_mixture import GaussianMixture
from gmm_dask.estimator.published import PublishedMixture, load_model

__all__ = ["GaussianMixture", "PublishedMixture", "load_model"]
