"""The four marks of a spurious component, worked out here from their definition.

A solution is admissible if no component has one of them. Day 1969 and Kiefer, Wolfowitz 1956:
the likelihood has no bound; McLachlan, Peel 2000, 3.10: its spurious maxima.
"""

from __future__ import annotations

import numpy as np

from benchmarks.quality.plain_em import Mixtures, log_densities

BASE = 6.0  # each factor of it in thinness is carried by p more degrees of freedom
SHARE_OF_REG_COVAR = 0.5
BESIDE_REG_COVAR = 100.0


class Judge:
    """Judges mixtures over rows X (n, d), which are fitted with `reg_covar`."""

    def __init__(self, X: np.ndarray, reg_covar: float = 1e-6) -> None:
        self.rows = np.unique(X, axis=0)
        self.reg_covar = reg_covar
        self.total = np.cov(X.T, bias=True).reshape(X.shape[1], X.shape[1])
        gaps = [np.diff(np.unique(column)) for column in X.T]
        rounding = np.array([gap.min() if len(gap) else 0.0 for gap in gaps]) ** 2 / 12
        self.rounding = np.where(self.total.diagonal() > 2 * rounding, rounding, 0.0)

    def marks(self, mixtures: Mixtures) -> list[set[str]]:
        """The marks of each mixture; none: it is admissible."""
        return [self._marks(mixtures[[i]]) for i in range(len(mixtures))]

    def admissible(self, mixtures: Mixtures) -> np.ndarray:
        """Whether each mixture has no mark, (s,)."""
        return np.array([not marks for marks in self.marks(mixtures)], dtype=bool)

    def _marks(self, mixture: Mixtures) -> set[str]:
        weights, covariances = mixture.weights[0], mixture.covariances[0]
        if np.linalg.eigvalsh(covariances).min() <= 0:  # by rounding: reg_covar holds it up
            return {"floor"}
        within = np.einsum("k,kij->ij", weights, covariances)
        found = set()
        variances = np.diagonal(covariances, axis1=1, axis2=2)
        if (variances < self.rounding).any():
            found.add("tie")
        if self._is_floor(covariances, self.total if mixture.family == "tied" else within):
            found.add("floor")
        if mixture.family != "tied":
            found |= self._few_and_thin(mixture, within)
        return found

    def _is_floor(self, covariances: np.ndarray, beside: np.ndarray) -> bool:
        values, vectors = np.linalg.eigh(covariances)
        least = vectors[:, :, 0]
        there = np.einsum("ki,ij,kj->k", least, beside, least)
        held = values[:, 0] * SHARE_OF_REG_COVAR < self.reg_covar
        return bool((held & (there > BESIDE_REG_COVAR * self.reg_covar)).any())

    def _few_and_thin(self, mixture: Mixtures, within: np.ndarray) -> set[str]:
        d = self.rows.shape[1]
        logs = log_densities(self.rows, mixture)[0]
        held = np.exp(logs - np.logaddexp.reduce(logs)).sum(axis=1)  # distinct rows, (k,)
        covariances = mixture.covariances[0]
        if mixture.family == "full":
            needed, p, freedom = d + 1, d + 1, held - d
            root = np.linalg.cholesky(np.linalg.inv(within))
            thin = np.linalg.eigvalsh(root.T @ covariances @ root)[:, 0]
        elif mixture.family == "diag":
            needed, p, freedom = 2, 2, held - 1
            thin = (np.diagonal(covariances, axis1=1, axis2=2) / within.diagonal()).min(axis=1)
        else:
            needed, p, freedom = 2, 2, (held - 1) * d
            thin = covariances[:, 0, 0] / within[0, 0]
        found = set()
        if (held < needed + 0.5).any():
            found.add("rows")
        if (thin < BASE ** -(freedom / p)).any():
            found.add("thin")
        return found
