"""Many steps of EM for one small mixture in one call of the core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

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
        Of the last pass that counts, so of the mixture before the last M-step.
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
        mixture: tuple[Array, Array, Array],
        n_steps: int,
        *,
        tol: float = -1.0,
        accelerate: bool = False,
        prior: tuple[float, Array] | None = None,
    ) -> Climbed:
        """EM from weights, means and covariances; the same start gives the same bits.

        Parameters
        ----------
        mixture : weights (k,) positive, means (k, d), covariances
        n_steps : int
            Passes at most.
        tol : float
            Two changes of the log-likelihood in a row under this end the climb.
        accelerate : bool
            Extrapolate; a step that made it worse is taken back.
        prior : rows and (d,) of scatter, optional
            What is added to the rows and to the scatter of each covariance.
        """
        weights, means, covariances = (np.array(each, dtype=np.float64) for each in mixture)
        (k, d), sum_resp = means.shape, np.empty(len(means))
        added, far = np.ascontiguousarray(self.added), np.empty(MOST_FAR, np.int64)
        rows, scale = (0.0, np.zeros(d)) if prior is None else prior
        record = Climb(
            FAMILIES[self.covariance_type], n_steps, accelerate, tol, address(added),
            address(scale), rows, address(weights), address(means), address(covariances),
            address(sum_resp), 0.0, 0, 0,
        )  # fmt: skip
        call("gmm_climb_up", self._task(k, far), record)
        return Climbed(
            weights,
            means,
            covariances,
            sum_resp,
            float(record.log_likelihood),
            int(record.n_done),
            record.ending == 1,
            record.ending == 2,
        )

    def _task(self, k: int, far: npt.NDArray[Any]) -> Task:
        task = Task(*self.X.shape, k)
        task.is_matrix = self.covariance_type in ("full", "tied")
        task.X, task.weights = address(self.X), address(self.weight)
        task.far_limit = steps.FAR if k > 1 else -np.inf
        task.worth = 1.0
        task.far, task.most_far = address(far), len(far)
        return task


def can_climb(covariance_type: str) -> bool:
    """Whether the library is there and knows the family."""
    return is_there() and covariance_type in FAMILIES
