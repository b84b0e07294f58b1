"""scikit-learn's manner: `GaussianMixture` on rows in every form that users have."""

from gmm_dask.estimator.gaussian_mixture import GaussianMixture

__all__ = ["GaussianMixture"]
