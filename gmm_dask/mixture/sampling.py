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
    from scipy.linalg import solve_triangular

    counts = rng.multinomial(n_samples, parameters.weights)
    X = rng.standard_normal((n_samples, parameters.n_features))
    component = np.repeat(np.arange(parameters.n_components), counts)
    for j in map(int, np.flatnonzero(counts)):
        mine = component == j
        # U^-T z has the covariance (U U^T)^-1.
        drawn = solve_triangular(parameters.dense_factor(j), X[mine].T, trans="T")
        X[mine] = parameters.means[j] + drawn.T
    return X, component
