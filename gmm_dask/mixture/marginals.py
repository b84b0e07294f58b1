"""A mixture of some of its features, and of some given the others: again a mixture.

With the features o given as x_o, the other features u have in component j the mean
m_u + B_j (x_o - m_o) and the covariance P_uu^-1, with P the precision and B_j = -P_uu^-1 P_uo
(Bishop, Pattern Recognition and Machine Learning, 2.75 and 2.73); the weights are the probabilities
of the components given x_o.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import steps
from gmm_dask.mixture.covariance.matrices import Full, Matrices
from gmm_dask.mixture.covariance.variances import Variances
from gmm_dask.mixture.parameters import Parameters

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


def conditional(parameters: Parameters, given: Indices, values: Array) -> Parameters:
    """The mixture of the other features, in their order, given values of some.

    Full, tied, diagonal and spherical covariances stay what they are; those of low rank become
    full.

    Parameters
    ----------
    parameters : Parameters
    given : (o,)
        Indices of features: some, and not all.
    values : (o,)
        Finite, in the units of the data.
    """
    family, k = parameters.family, parameters.n_components
    left = np.setdiff1d(np.arange(parameters.n_features), given)
    of_given, noise = replace(parameters.marginal(given), noise=None), parameters.noise
    weights = steps.responsibilities(values[None], of_given)[0]
    if noise is not None:
        shares = noise.take(given).log_shares(
            values[None], steps.log_density(values[None], of_given)
        )
        noise = noise.take(left).with_share(float(np.exp(shares[0] - np.logaddexp(*shares))[0]))
    deviations = values - parameters.means[:, given]
    expected = np.einsum("kuo,ko->ku", family.regressions(given, left), deviations)
    means = parameters.means[:, left] + expected
    if isinstance(family, Variances):
        return Parameters(weights, means, family.marginal(left), noise)
    cut = np.ix_(left, left)
    kind: Any = type(family) if isinstance(family, Matrices) else Full
    precisions = family.precisions[..., cut[0], cut[1]]
    return Parameters(weights, means, kind.of_precisions(k, len(left), precisions), noise)
