"""What the rows of one fit go through: missing values, kernel and precision, chosen once.

Which rows count, and in what unit their weights are, is decided here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import DataError
from gmm_dask.mixture import core, reasons, steps
from gmm_dask.mixture import missing as incomplete
from gmm_dask.mixture.core import Precision, explanations
from gmm_dask.mixture.parameters import NOISE_LABEL, Noise, Parameters
from gmm_dask.mixture.reasons import LabelReasons, RowReasons
from gmm_dask.mixture.statistics import SufficientStatistics
from gmm_dask.mixture.steps import RowScores, positive
from gmm_dask.sampling import ColumnSpread, Keys, spread_and_keys

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Rows = npt.NDArray[Any]
Missing = Literal["error", "drop", "em"]
Kernel = Literal["numpy", "compiled"]


class Steps(Protocol):
    """The functions of rows that every kind of arithmetic has."""

    def e_step(
        self, X: Rows, parameters: Parameters, sample_weight: Rows | None = None
    ) -> SufficientStatistics:
        """Sums of the E-step over the rows."""

    def score_rows(self, X: Rows, parameters: Parameters) -> RowScores:
        """Label, log-density and largest responsibility of each row."""

    def responsibilities(self, X: Rows, parameters: Parameters) -> Array:
        """Posterior probability of each component for each row, (n, k)."""


class Counted(NamedTuple):
    """The rows of a chunk that count.

    Parameters
    ----------
    X : (m, d)
    weight : (m,), optional
    n_used : int
        Rows that can be used; rows of weight 0, which do not count, are among them.
    """

    X: Rows
    weight: Rows | None
    n_used: int


@dataclass(frozen=True)
class RowArithmetic:
    """The arithmetic of rows under a mixture.

    Parameters
    ----------
    missing : {"error", "drop", "em"}
        Rows are taken as complete; rows with NaN are left out; or NaN marks a missing value.
    kernel : {"numpy", "compiled"}
        The kernel that complete rows go through.
    precision : {"double", "single"}
        Precision of the E-step; only the compiled core has a single one.
    """

    missing: Missing = "error"
    kernel: Kernel = "numpy"
    precision: Precision = "double"

    @classmethod
    def chosen(cls, missing: Missing) -> RowArithmetic:
        """The arithmetic of this installation: the compiled core wherever it is there."""
        return cls(missing, "compiled" if core.is_there() else "numpy")

    def in_single(self) -> RowArithmetic | None:
        """The arithmetic in single precision; None where rows go through NumPy."""
        if self.kernel == "numpy" or self.missing == "em":
            return None
        return replace(self, precision="single")

    def usable(self, X: Rows, sample_weight: Rows | None = None) -> npt.NDArray[np.bool_]:
        """Rows that a fit can use, (n,).

        Raises
        ------
        DataError
            A weight is negative, NaN or infinite.
        """
        if sample_weight is not None:
            positive(sample_weight)
        return np.ones(len(X), bool) if self.missing == "em" else ~incomplete_rows(X)

    def eligible(
        self, X: Rows, sample_weight: Rows | None, usable: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.bool_]:
        """Rows that a start can be found on, (n,): usable, of positive weight, with some value.

        Parameters
        ----------
        X : (n, d)
        sample_weight : (n,), optional
        usable : (n,), optional
            What `usable` says of these rows, where the caller knows it.
        """
        found = self.usable(X, sample_weight) if usable is None else usable
        if self.missing == "em":
            found = found & ~np.isnan(X).all(axis=1)
        return found if sample_weight is None else np.asarray(found & (sample_weight > 0))

    def counted(self, X: Rows, sample_weight: Rows | None) -> Counted:
        """The rows that count: those of weight 0 are absent, whatever values stand in them.

        Raises
        ------
        DataError
            There is not one weight for each row.
        """
        if sample_weight is not None and sample_weight.shape != X.shape[:1]:
            raise DataError(f"{sample_weight.shape} weights were given for {X.shape[0]} rows.")
        if self.missing != "drop" and sample_weight is None:
            return Counted(X, None, len(X))
        counts = self.usable(X) if self.missing == "drop" else np.ones(len(X), bool)
        n_used = int(np.count_nonzero(counts))
        if sample_weight is not None:
            counts = counts & positive(sample_weight)
        if counts.all():
            return Counted(X, sample_weight, n_used)
        return Counted(X[counts], None if sample_weight is None else sample_weight[counts], n_used)

    def e_step(
        self,
        X: Rows,
        parameters: Parameters,
        sample_weight: Rows | None = None,
        *,
        unit: float = 1.0,
    ) -> SufficientStatistics:
        """Sufficient statistics of the rows that count; the weights are divided by `unit`.

        Parameters
        ----------
        X : (n, d)
        parameters : Parameters
        sample_weight : (n,), optional
        unit : float
            A power of two.
        """
        rows, weight, n_used = self.counted(X, sample_weight)
        if weight is not None:
            weight = weight / unit
        found = self._e_step(rows, parameters, weight)
        return found if len(rows) == n_used else replace(found, n_rows=n_used)

    def _e_step(self, X: Rows, parameters: Parameters, weight: Rows | None) -> SufficientStatistics:
        if parameters.noise is not None:
            return self._beside_noise(X, parameters, parameters.noise, weight)
        if self.precision == "single":
            return core.e_step(X, parameters, weight, self.precision)
        return self._steps(X).e_step(X, parameters, weight)

    def _beside_noise(
        self, X: Rows, parameters: Parameters, noise: Noise, weight: Rows | None
    ) -> SufficientStatistics:
        """Sums over the rows, each times its probability to be no noise; densities count both."""
        density = self._steps(X).score_rows(X, parameters).log_density
        of_noise, of_others = noise.log_shares(X, density)
        log_density = np.logaddexp(of_noise, of_others)
        weight = np.ones(len(X)) if weight is None else weight
        others = weight * np.exp(of_others - log_density)
        found = self._e_step(X, replace(parameters, noise=None), others)
        return replace(
            found,
            sum_weight=float(weight.sum()),
            log_likelihood=float(weight @ log_density),
        )

    def spread_and_keys(
        self, X: Rows, sample_weight: Array | None = None, salt: int | None = None
    ) -> tuple[ColumnSpread, Keys]:
        """Moments of the columns of usable rows, and with a salt a hash of each row, (n,)."""
        if self.kernel == "compiled":
            return core.spread_and_keys(X, sample_weight, salt)
        return spread_and_keys(X, sample_weight, salt)

    def score(self, X: Rows, parameters: Parameters) -> RowScores:
        """Label, log-density and largest responsibility of each usable row; -1 of noise."""
        found = self._steps(X).score_rows(X, parameters)
        if parameters.noise is None:
            return found
        of_noise, of_others = parameters.noise.log_shares(X, found.log_density)
        log_density = np.logaddexp(of_noise, of_others)
        is_noise = np.exp(of_noise - log_density)
        largest = np.exp(of_others - log_density) * found.max_responsibility
        labels = np.where(is_noise > largest, NOISE_LABEL, found.labels).astype(found.labels.dtype)
        return RowScores(labels, log_density, np.maximum(is_noise, largest))

    def responsibilities(self, X: Rows, parameters: Parameters) -> Array:
        """Posterior probability of each component for each usable row, (n, k).

        Rows sum to one, or to the probability that the row is no noise.
        """
        found = self._steps(X).responsibilities(X, parameters)
        if parameters.noise is None:
            return found
        density = self._steps(X).score_rows(X, parameters).log_density
        of_noise, of_others = parameters.noise.log_shares(X, density)
        return found * np.exp(of_others - np.logaddexp(of_noise, of_others))[:, None]

    def explain(
        self,
        X: Rows,
        parameters: Parameters,
        components: Indices,
        others: Indices | None,
        n_columns: int,
    ) -> tuple[RowReasons, LabelReasons | None]:
        """What makes usable rows unusual in a component, and what speaks for it against another.

        See `reasons.explain`.
        """
        asked = (X, parameters, components, others, n_columns)
        if self.kernel == "compiled":
            return explanations.explain(*asked)
        return reasons.explain(*asked)

    def two_best(self, X: Rows, parameters: Parameters) -> tuple[Indices, Indices]:
        """The most likely component of each usable row, and the next, (n,) each, noise apart.

        Parameters
        ----------
        X : (n, d)
        parameters : Parameters
            A mixture of more than one component.
        """
        shares = self._steps(X).responsibilities(X, parameters)
        if self.kernel == "compiled":
            return explanations.two_best(shares)
        return reasons.two_best(shares)

    def interpolated(self, values: Array, x: Array, y: Array) -> Array:
        """Values (n,) on the straight lines between points whose x ascend, as `np.interp`."""
        if self.kernel == "compiled":
            return explanations.interpolated(values, x, y)
        return np.interp(values, x, y)

    def impute(self, X: Rows, parameters: Parameters) -> Array:
        """X (n, d) as float64; each missing value is replaced by its mean given the row."""
        return incomplete.impute(X, parameters)

    def _steps(self, X: Rows) -> Steps:
        """Complete rows go the same way whether values may be missing or not."""
        if self.missing == "em" and incomplete_rows(X).any():
            return incomplete
        return core if self.kernel == "compiled" else steps


def incomplete_rows(X: Rows) -> npt.NDArray[np.bool_]:
    """Whether a row has a missing value, (n,); values are looked at where the row's sum is NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        sums = X @ np.ones(X.shape[1], X.dtype)
    found = np.isnan(sums)
    if found.any():
        found[found] = np.isnan(X[found]).any(axis=1)  # infinities of either sign have no sum
    return np.asarray(found)
