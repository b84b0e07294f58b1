"""EM for many starts at once in plain NumPy, by another way than that of gmm_dask.

Log-densities and sums are one matrix product each with the rows' monomials, in coordinates in
which the data are white (full, tied), of unit variances (diag) or of one scale (spherical): maps
that the family is closed under. The figures that count are taken from the rows themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_WEIGHT = 1e-10  # rows that a component is taken to hold at least
LEAST_VARIANCE = 1e-11  # in white coordinates, where products of monomials have no more digits
BLOCK = 400_000  # log-densities worked on at a time


@dataclass(frozen=True, eq=False)
class Mixtures:
    """Mixtures of one family: weights (s, k), means (s, k, d), covariances (s, k, d, d)."""

    family: str
    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, of: slice | np.ndarray | list[int]) -> Mixtures:
        return Mixtures(self.family, self.weights[of], self.means[of], self.covariances[of])

    def mapped(self, shift: np.ndarray, matrix: np.ndarray) -> Mixtures:
        """The mixtures of the rows (x - shift) @ matrix.T."""
        covariances = matrix @ self.covariances @ matrix.T
        return Mixtures(self.family, self.weights, (self.means - shift) @ matrix.T, covariances)


def joined(parts: list[Mixtures]) -> Mixtures:
    """All mixtures of the parts, in order."""
    arrays = ("weights", "means", "covariances")
    return Mixtures(
        parts[0].family, *(np.concatenate([getattr(p, name) for p in parts]) for name in arrays)
    )


def log_densities(X: np.ndarray, mixtures: Mixtures) -> np.ndarray:
    """Weighted log-density of each component (s, k, n), from distances row by row."""
    d = X.shape[1]
    roots = np.linalg.cholesky(mixtures.covariances)
    apart = X[None, None] - mixtures.means[:, :, None]  # (s, k, n, d)
    white = np.linalg.solve(roots, apart.swapaxes(2, 3))
    log_root = np.log(np.diagonal(roots, axis1=2, axis2=3)).sum(axis=2)
    with np.errstate(divide="ignore"):
        log_weights = np.log(mixtures.weights)
    constant = log_weights - log_root - d / 2 * np.log(2 * np.pi)
    return constant[:, :, None] - (white**2).sum(axis=2) / 2


def log_likelihoods(X: np.ndarray, mixtures: Mixtures) -> np.ndarray:
    """Of all rows under each mixture, (s,)."""
    return np.array(
        [
            np.logaddexp.reduce(log_densities(X, mixtures[[i]])[0]).sum()
            for i in range(len(mixtures))
        ]
    )


def restricted(covariances: np.ndarray, weights: np.ndarray, family: str) -> np.ndarray:
    """Covariances (s, k, d, d) as the family has them, given the sums behind each."""
    d = covariances.shape[-1]
    if family == "tied":
        pooled = np.einsum("sk,skij->sij", weights / weights.sum(1, keepdims=True), covariances)
        return np.repeat(pooled[:, None], weights.shape[1], axis=1)
    if family == "full":
        return covariances
    variances = np.diagonal(covariances, axis1=2, axis2=3)
    if family == "spherical":
        variances = np.repeat(variances.mean(axis=2, keepdims=True), d, axis=2)
    return variances[..., None] * np.eye(d)


class PlainEM:
    """EM over rows X (n, d) for mixtures of one family.

    Parameters
    ----------
    X : (n, d)
    family : {"full", "tied", "diag", "spherical"}
    reg_covar : float
        Added to every variance, in squared units of X.
    """

    def __init__(self, X: np.ndarray, family: str, reg_covar: float = 1e-6) -> None:
        self.X, self.family, self.n = X, family, len(X)
        self.shift, self.matrix = X.mean(axis=0), _whitening(X, family, reg_covar)
        self.rows = (X - self.shift) @ self.matrix.T
        self._regular = reg_covar * self.matrix @ self.matrix.T
        self._log_volume = self.n * np.linalg.slogdet(self.matrix)[1]
        self._monomials, self._quadratic = _monomials(self.rows, family)
        self._whole = self.rows.T @ self.rows

    def run(
        self,
        mixtures: Mixtures,
        steps: int,
        tol: float = 0.0,
    ) -> tuple[Mixtures, np.ndarray]:
        """EM from each mixture, all in the coordinates of `rows`; with the log-likelihoods (s,).

        A mixture rests where it is once a step gains less than `tol`.
        """
        arrays = (mixtures.weights, mixtures.means, mixtures.covariances)
        mixtures = Mixtures(self.family, *(np.copy(each) for each in arrays))
        found = np.full(len(mixtures), -np.inf)
        running = np.arange(len(mixtures))
        for _ in range(steps):
            if not len(running):
                break
            after, value = self._step(mixtures[running])
            goes_on = value - found[running] >= tol
            found[running] = value
            for name in ("weights", "means", "covariances"):
                getattr(mixtures, name)[running[goes_on]] = getattr(after, name)[goes_on]
            running = running[goes_on]
        if len(running):
            found[running] = self._step(mixtures[running])[1]
        return mixtures, found

    def from_responsibilities(self, responsibilities: np.ndarray) -> Mixtures:
        """The M-step from responsibilities (n, s, k)."""
        n, s, k = responsibilities.shape
        sums = self._monomials.T @ responsibilities.reshape(n, s * k)
        return self._maximised(sums.reshape(-1, s, k))

    def inward(self, mixtures: Mixtures) -> Mixtures:
        """Mixtures of X as mixtures of `rows`."""
        return mixtures.mapped(self.shift, self.matrix)

    def outward(self, mixtures: Mixtures) -> Mixtures:
        """Mixtures of `rows` as mixtures of X."""
        back = np.linalg.inv(self.matrix)
        return mixtures.mapped(-self.shift @ self.matrix.T, back)

    def _step(self, mixtures: Mixtures) -> tuple[Mixtures, np.ndarray]:
        block = max(1, BLOCK // (self.n * mixtures.weights.shape[1]))
        parts, values = [], []
        for begin in range(0, len(mixtures), block):
            part, value = self._block(mixtures[begin : begin + block])
            parts.append(part)
            values.append(value)
        return joined(parts), np.concatenate(values)

    def _block(self, mixtures: Mixtures) -> tuple[Mixtures, np.ndarray]:
        s, k = mixtures.weights.shape
        coefficients, beside = self._coefficients(mixtures)
        logs = (self._monomials @ coefficients.reshape(-1, s * k)).reshape(self.n, s, k)
        largest = logs.max(axis=2, keepdims=True)
        np.exp(logs - largest, out=logs)
        total = logs.sum(axis=2, keepdims=True)
        value = (largest + np.log(total)).sum(axis=(0, 2)) + beside + self._log_volume
        logs /= total
        return self.from_responsibilities(logs), value

    def _coefficients(self, mixtures: Mixtures) -> tuple[np.ndarray, np.ndarray]:
        """What the monomials are multiplied by, (p, s, k), and what is left out of them, (s,)."""
        weights, means, covariances = mixtures.weights, mixtures.means, mixtures.covariances
        s, k, d = means.shape
        if self.family == "tied":
            inverse = np.repeat(np.linalg.inv(covariances[:, 0])[:, None], k, axis=1)
            log_det = np.repeat(np.linalg.slogdet(covariances[:, 0])[1][:, None], k, axis=1)
        elif self.family == "full":
            inverse, log_det = np.linalg.inv(covariances), np.linalg.slogdet(covariances)[1]
        else:
            variances = np.diagonal(covariances, axis1=2, axis2=3)
            inverse, log_det = np.eye(d) / variances[..., None], np.log(variances).sum(axis=2)
        linear = np.einsum("skij,skj->ski", inverse, means)
        with np.errstate(divide="ignore"):
            constant = np.maximum(np.log(weights), -1e300)
        constant -= (d * np.log(2 * np.pi) + log_det + np.einsum("ski,ski->sk", linear, means)) / 2
        parts = [constant[None], np.moveaxis(linear, 2, 0)]
        beside = np.zeros(s)
        if self.family == "tied":
            beside = -np.einsum("sij,ij->s", inverse[:, 0], self._whole) / 2
        elif self.family == "spherical":
            parts.append(-inverse[None, :, :, 0, 0] / 2)
        else:
            i, j = self._quadratic
            factor = np.where(i == j, -0.5, -1.0)
            parts.append(np.moveaxis(inverse[:, :, i, j] * factor, 2, 0))
        return np.concatenate(parts), beside

    def _maximised(self, sums: np.ndarray) -> Mixtures:
        _, s, k = sums.shape
        d = self.rows.shape[1]
        n = np.maximum(sums[0], LEAST_WEIGHT)
        means = np.moveaxis(sums[1 : 1 + d], 0, 2) / n[..., None]
        outer = means[..., :, None] * means[..., None, :]
        if self.family == "tied":
            pooled = (self._whole - np.einsum("sk,skij->sij", n, outer)) / self.n
            covariances = np.repeat(pooled[:, None], k, axis=1)
        elif self.family == "spherical":
            second = sums[1 + d] / n - (means**2).sum(axis=2)
            covariances = (second / d)[..., None, None] * np.eye(d)
        else:
            i, j = self._quadratic
            second = np.zeros((s, k, d, d))
            second[:, :, i, j] = np.moveaxis(sums[1 + d :], 0, 2) / n[..., None]
            second[:, :, j, i] = second[:, :, i, j]
            if self.family == "diag":
                outer = outer * np.eye(d)
            covariances = second - outer
        covariances = covariances + self._regular + LEAST_VARIANCE * np.eye(d)
        weights = n / n.sum(axis=1, keepdims=True)
        return Mixtures(self.family, weights, means, covariances)


def _whitening(X: np.ndarray, family: str, reg_covar: float) -> np.ndarray:
    """The map to coordinates of unit variances that the family stays itself under."""
    d = X.shape[1]
    covariance = np.cov(X.T, bias=True).reshape(d, d) + reg_covar * np.eye(d)
    if family in ("full", "tied"):
        values, vectors = np.linalg.eigh(covariance)
        return vectors.T / np.sqrt(values)[:, None]
    variances = covariance.diagonal()
    if family == "spherical":
        variances = np.full(d, variances.mean())
    return np.diag(1 / np.sqrt(variances))


def _monomials(rows: np.ndarray, family: str) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """1, the columns, and the products of columns that the family asks for; which products."""
    d = rows.shape[1]
    i, j = np.triu_indices(d) if family == "full" else (np.arange(d), np.arange(d))
    parts = [np.ones((len(rows), 1)), rows]
    if family == "spherical":
        parts.append((rows**2).sum(axis=1, keepdims=True))
    elif family != "tied":
        parts.append(rows[:, i] * rows[:, j])
    return np.ascontiguousarray(np.hstack(parts)), (i, j)
