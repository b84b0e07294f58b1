"""Rows drawn from a mixture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture.parameters import Parameters

Array = npt.NDArray[np.float64]


def mixture_sample(
    parameters: Parameters, n_samples: int, rng: np.random.Generator | np.random.RandomState
) -> tuple[Array, npt.NDArray[np.int64]]:
    """Rows (n_samples, d), component by component, and the component of each (n_samples,)."""
    counts = rng.multinomial(n_samples, parameters.weights)
    standard = rng.standard_normal((n_samples, parameters.n_features))
    component = np.repeat(np.arange(parameters.n_components), counts)
    X = np.empty_like(standard)
    for j, covariance in enumerate(parameters.dense_covariances()):
        mine = component == j
        X[mine] = parameters.means[j] + standard[mine] @ np.linalg.cholesky(covariance).T
    return X, component
