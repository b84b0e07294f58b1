"""Many steps of EM for small mixtures in one call of the core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import steps
from gmm_dask.mixture.core.library import Climb, Task, address, call, is_there

Array = npt.NDArray[np.float64]

FAMILIES = {"full": 0, "tied": 1, "diag": 2, "spherical": 3}  # as core.h numbers them
MOST_FAR = 8  # rows that are noted: one is enough for the climb to end


class Climbed(NamedTuple):
    """Where a climb led to.

    Parameters
    ----------
    weights : (k,)
    means : (k, d)
    covariances : family's shape
    sum_resp : (k,)
        Weight of the rows of each component, in the last pass.
    log_likelihood : float
        Log-likelihood in the last pass that counts: that of the mixture before the last M-step.
    n_passes : int
    converged : bool
    in_trouble : bool
        A component is no density, or rows are too far from all of them: the climb ended there.
    """

    weights: Array
    means: Array
    covariances: Array
    sum_resp: Array
    log_likelihood: float
    n_passes: int
    converged: bool
    in_trouble: bool


@dataclass(frozen=True, eq=False)
class Slope:
    """Rows to climb on, and what is added to covariances there.

    Parameters
    ----------
    X : (n, d) float64
    weight : (n,) or None
    covariance_type : {"full", "tied", "diag", "spherical"}
    added : (d, d) full and tied, else (d,)
        To every covariance: `reg_covar` in the coordinates of X.
    """

    X: Array
    weight: Array | None
    covariance_type: str
    added: Array

    def climb(
        self,
        mixtures: Sequence[tuple[Array, Array, Array]],
        n_steps: int,
        *,
        tol: float = -1.0,
        accelerate: bool = False,
        prior: tuple[float, Array] | None = None,
    ) -> list[Climbed]:
        """EM from each mixture; the same start gives the same bits, whatever others there are.

        Parameters
        ----------
        mixtures : sequence of weights (k,) positive, means (k, d), covariances
        n_steps : int
            Passes at most.
        tol : float
            Two changes of the log-likelihood in a row under this end the climb.
        accelerate : bool
            Extrapolate; a step that made it worse is taken back.
        prior : rows and (d,) of scatter, optional
            What is added to the rows and to the scatter of each covariance.
        """
        n, k = len(mixtures), mixtures[0][1].shape[0]
        weights, means, covariances = map(np.array, zip(*mixtures, strict=True))
        sum_resp, levels = np.zeros((n, k)), np.zeros(n)
        counts, far = np.zeros((2, n), np.int64), np.zeros(MOST_FAR, np.int64)
        rows, scale = (0.0, self._no_scatter) if prior is None else prior
        at = address(counts) or 0
        record = Climb(
            FAMILIES[self.covariance_type], n_steps, accelerate, tol, self._addresses[2],
            address(scale), rows, n, address(weights), address(means), address(covariances),
            address(sum_resp), address(levels), at, at + 8 * n,
        )  # fmt: skip
        call("gmm_climb_all", self._task(k, far), record)
        n_done, endings = counts.tolist()
        return [
            Climbed(
                weights[i], means[i], covariances[i], sum_resp[i], levels[i].item(), n_done[i],
                endings[i] == 1, endings[i] == 2,
            )
            for i in range(n)
        ]  # fmt: skip

    def _task(self, k: int, far: npt.NDArray[np.int64]) -> Task:
        task = Task(*self.X.shape, k)
        task.X, task.weights, _ = self._addresses
        task.far_limit = steps.FAR if k > 1 else -np.inf
        task.worth = 1.0
        task.far, task.most_far = address(far), MOST_FAR
        return task

    @cached_property
    def _addresses(self) -> tuple[int | None, int | None, int | None]:
        """Addresses of the rows, of their weights, and of what is added to covariances."""
        return address(self.X), address(self.weight), address(self._added)

    @cached_property
    def _added(self) -> Array:
        return np.ascontiguousarray(self.added)

    @cached_property
    def _no_scatter(self) -> Array:
        return np.zeros(self.X.shape[1])


def can_climb(covariance_type: str) -> bool:
    """Whether the library is there and knows the family."""
    return is_there() and covariance_type in FAMILIES
