"""Mixtures as plain vectors, in which any vector is a mixture: what extrapolation needs.

The vector measures from a reference mixture, in its own standard deviations and with each
component scaled by the root of its weight: near the reference a step of length one changes the
log-likelihood per row by about a half, whatever the units of the columns (the Fisher metric of
the complete data; Pinheiro and Bates 1996 on unconstrained covariances).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture.parameters import Parameters

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Coordinates:
    """The chart of mixtures around a reference without empty components.

    Parameters
    ----------
    reference : Parameters
        Becomes the origin.
    """

    reference: Parameters

    def encode(self, parameters: Parameters) -> Array:
        """The mixture as a vector, (k (1 + d) + free numbers of the covariances,)."""
        reference = self.reference
        moved = parameters.means - reference.means
        parts = (
            np.log(parameters.weights / reference.weights),
            np.stack([moved[j] @ factor for j, factor in enumerate(self._factors)]),
            reference.family.to_coordinates(
                parameters.covariances, reference.precisions_cholesky, reference.n_features
            ),
        )
        return np.asarray(self.scale * np.concatenate([part.ravel() for part in parts]))

    def decode(self, vector: Array) -> Parameters:
        """The mixture of a vector.

        Raises
        ------
        SingularCovarianceError
            The vector is too long for float64.
        """
        reference = self.reference
        k, d = reference.means.shape
        shares, steps, spreads = np.split(vector / self.scale, [k, k + k * d])
        log_weights = np.log(reference.weights) + shares
        weights = np.exp(log_weights - log_weights.max())
        steps = steps.reshape(k, d)
        moved = [np.linalg.solve(f.T, steps[j]) for j, f in enumerate(self._factors)]
        covariances = reference.family.from_coordinates(
            spreads.reshape(self._n_covariances, -1), reference.precisions_cholesky, d
        )
        return Parameters.from_covariances(
            weights / weights.sum(),
            reference.means + np.stack(moved),
            covariances,
            reference.covariance_type,
        )

    @property
    def scale(self) -> Array:
        """What each number is multiplied by: the root of the weight that it describes."""
        reference, (k, d) = self.reference, self.reference.means.shape
        root = np.sqrt(reference.weights)
        per_covariance = root if reference.family.per_component else np.ones(1)
        n_numbers = reference.family.n_free(k, d) // self._n_covariances
        return np.concatenate([root, np.repeat(root, d), np.repeat(per_covariance, n_numbers)])

    @property
    def _n_covariances(self) -> int:
        return self.reference.n_components if self.reference.family.per_component else 1

    @property
    def _factors(self) -> list[Array]:
        return [self.reference.dense_factor(j) for j in range(self.reference.n_components)]
