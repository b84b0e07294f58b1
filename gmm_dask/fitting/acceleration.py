"""Larger steps than EM's own, from the steps before: Anderson acceleration.

EM is a fixed-point iteration x -> G(x), whose tail is slow where components overlap. From the
last few residuals G(x) - x the next point is extrapolated, in coordinates in which every vector
is a mixture (Walker and Ni 2011, SIAM J. Numer. Anal. 49, algorithm AA; Henderson and Varadhan
2019, J. Comput. Graph. Stat. 28, for EM). Who uses it looks at the log-likelihood and goes back
to G(x) where that fell.

In these coordinates a vector measures from a reference mixture, in the reference's own standard
deviations and with each component scaled by the root of its weight: near the reference a step of
length one changes the log-likelihood per row by about a half, whatever the units of the columns
(the Fisher metric of the complete data; Pinheiro and Bates 1996 on unconstrained covariances).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SingularCovarianceError
from gmm_dask.mixture import Parameters
from gmm_dask.mixture.covariance.factors import inverse_triangular

Array = npt.NDArray[np.float64]

DEPTH = 5  # differences of residuals that a step is made of
RIDGE = 1e-8  # of their mean square: nearly equal ones say the same thing once
REACH = 1.0  # standard deviations, and logs of spreads and weights, beyond where EM itself led


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
            _times(moved, self._factors),
            reference.family.encoded(parameters.family),
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
        numbers = spreads.reshape(len(reference.family.owners), -1)
        return Parameters(
            weights / weights.sum(),
            reference.means + _times(steps.reshape(k, d), self._inverses),
            reference.family.decoded(numbers),
        )

    @cached_property
    def scale(self) -> Array:
        """What each number is multiplied by: the root of the weight that it describes."""
        reference, d = self.reference, self.reference.n_features
        root = np.sqrt(reference.weights)
        owners = reference.family.owners
        per_covariance = [1.0 if owner is None else root[owner] for owner in owners]
        n_numbers = reference.family.encoded(reference.family).shape[1]
        return np.concatenate([root, np.repeat(root, d), np.repeat(per_covariance, n_numbers)])

    @property
    def _factors(self) -> Array:
        return self.reference.family.core_factors

    @cached_property
    def _inverses(self) -> Array:
        factors = self._factors
        return 1.0 / factors if factors.ndim == 2 else inverse_triangular(factors)


@dataclass(frozen=True, eq=False)
class History:
    """The last steps of EM in the chart around the first of them; nothing to begin with.

    Parameters
    ----------
    chart : Coordinates or None
    points, images : tuple of vectors
        Where each pass started from, and where its M-step led to.
    """

    chart: Coordinates | None = None
    points: tuple[Array, ...] = ()
    images: tuple[Array, ...] = ()

    def after(self, start: Parameters, mapped: Parameters) -> History:
        """With one step more, and no more than DEPTH + 1; nothing where a component is empty."""
        if min(start.weights.min(), mapped.weights.min()) <= 0:
            return NOTHING
        known = self.chart is not None and self.chart.reference.means.shape == start.means.shape
        history = self if known else History(Coordinates(start))
        assert history.chart is not None
        try:
            point, image = history.chart.encode(start), history.chart.encode(mapped)
        except np.linalg.LinAlgError:  # the mixture has left what the chart can show
            return NOTHING
        if not (np.isfinite(point).all() and np.isfinite(image).all()):
            return NOTHING
        points, images = (*history.points, point), (*history.images, image)
        return replace(history, points=points[-DEPTH - 1 :], images=images[-DEPTH - 1 :])

    def extrapolated(self) -> Parameters | None:
        """Where the steps so far lead to; None where they do not say."""
        if self.chart is None or len(self.points) < 2:
            return None
        images = np.stack(self.images)
        residuals = images - np.stack(self.points)
        F, G = np.diff(residuals, axis=0), np.diff(images, axis=0)
        normal = F @ F.T
        ridge = RIDGE * np.trace(normal) / len(normal)
        if not ridge > 0:
            return None
        share = np.linalg.solve(normal + ridge * np.eye(len(normal)), F @ residuals[-1])
        step = -(share @ G)
        reach = np.abs(step / self.chart.scale).max()
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                found = self.chart.decode(images[-1] + step / max(1.0, reach / REACH))
        except (SingularCovarianceError, np.linalg.LinAlgError):
            return None
        return found if _is_sound(found) else None


NOTHING = History()


def _times(rows: Array, factors: Array) -> Array:
    """Row j of (k, d) times the factor of component j: (k or 1, d, d), or a diagonal (k, d)."""
    return rows * factors if factors.ndim == 2 else (rows[:, None, :] @ factors)[:, 0]


def _is_sound(parameters: Parameters) -> bool:
    arrays = (parameters.weights, parameters.means, parameters.covariances)
    return all(np.isfinite(array).all() for array in arrays) and parameters.weights.min() > 0
