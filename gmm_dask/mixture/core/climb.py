"""Many steps of EM for one small mixture in one call of the core."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
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
        k, d = mixture[1].shape
        given = [np.ravel(each) for each in mixture]
        ends = list(accumulate([len(each) for each in given]))
        # One piece of memory, as it takes long to ask for an address.
        memory = np.concatenate([*given, np.zeros(k + MOST_FAR)])
        start = memory.ctypes.data
        of_means, of_covariances, of_rows = (start + 8 * end for end in ends)
        rows, scale = (0.0, self._no_scatter) if prior is None else prior
        record = Climb(
            FAMILIES[self.covariance_type], n_steps, accelerate, tol, self._addresses[2],
            address(scale), rows, start, of_means, of_covariances, of_rows, 0.0, 0, 0,
        )  # fmt: skip
        call("gmm_climb_up", self._task(k, of_rows + 8 * k), record)
        weights, means, covariances, sum_resp = np.split(memory[: ends[2] + k], ends)
        return Climbed(
            weights,
            means.reshape(k, d),
            covariances.reshape(mixture[2].shape),
            sum_resp,
            float(record.log_likelihood),
            int(record.n_done),
            record.ending == 1,
            record.ending == 2,
        )

    def _task(self, k: int, far: int) -> Task:
        task = Task(*self.X.shape, k)
        task.is_matrix = self.covariance_type in ("full", "tied")
        task.X, task.weights, _ = self._addresses
        task.far_limit = steps.FAR if k > 1 else -np.inf
        task.worth = 1.0
        task.far, task.most_far = far, MOST_FAR
        return task

    @cached_property
    def _addresses(self) -> tuple[int | None, int | None, int | None]:
        """Of the rows, their weights and what is added to covariances."""
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
