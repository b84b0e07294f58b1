"""Groups of rows out of many small cells, by the moments of the cells alone.

The likelihood of rows that are parted among Gaussians (Symons 1981, Biometrics 37; Banfield and
Raftery 1993, Biometrics 49) asks for nothing but sums over each group, and these are sums over its
cells: no rows are passed over to try another grouping.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gmm_dask.fitting.initial.kmeans import kmeans_plusplus, settled
from gmm_dask.fitting.search.ground import Ground
from gmm_dask.fitting.search.views import Views

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.intp]

CELLS = 4  # for each component
ROWS = 2  # of a cell at least in the mean, for each row that its covariance takes
EVERY = 7  # start of a round joins cells, where that is worth it: each in the next view
APART = 0.2  # that a merge of two clusters costs each row: of equal ones 4.6 deviations apart
SWEEPS = 3  # of k-means, that make the cells
STARTS = 12  # groupings at random
LEAST_GAIN = 1e-6  # of the log-likelihood, for which a cell is moved


@dataclass(frozen=True, eq=False)
class Joining:
    """The starts of a search that join cells.

    Parameters
    ----------
    ground : Ground
    views : Views
    k : int
    rng : Generator
        Of the cells that show how many clusters are apart.
    """

    ground: Ground
    views: Views
    k: int
    rng: np.random.Generator

    def groups(self, V: Array, number: int, rng: np.random.Generator) -> Labels | None:
        """Groups of rows for a start in a view; None where it is to be another start.

        Cells are joined where more than k clusters are apart: nothing else moves a cluster from one
        component to another.
        """
        if number % EVERY or self._cells is None or self._cells.n_apart <= self.k:
            return None
        cells = Cells.of(self.ground, V, self.k, rng)
        return None if cells is None else cells.groups(rng)

    @cached_property
    def _cells(self) -> Cells | None:
        """Cells in the view of the family's own symmetry."""
        V = self.views.rows(self.views.names[0], self.rng)
        return Cells.of(self.ground, V, self.k, self.rng)


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over sets of rows.

    Parameters
    ----------
    sums : (s, 1 + d + d) or, of full covariances, (s, 1 + d + d d)
        Of the weights, of the columns and of their squares or products.
    d : int
    kind : {"full", "diag", "spherical"}
    prior : (d,) or (d d,)
        Variances of all rows.
    added : (d,) or (d d,)
        What reg_covar adds to a covariance.
    """

    sums: Array
    d: int
    kind: str
    prior: Array
    added: Array

    @classmethod
    def of(cls, ground: Ground, labels: Labels, n: int) -> Moments:
        """The sums over the rows of each label."""
        Y, d, weight = ground.rows, ground.rows.shape[1], ground.weight
        is_full, variances = ground.covariance_type == "full", ground.variances
        sums = np.empty((n, 1 + d + (d * d if is_full else d)))
        for cell in range(n):
            mine = np.flatnonzero(labels == cell)
            rows, of = Y[mine], np.ones(len(mine)) if weight is None else weight[mine]
            squares = (rows * of[:, None]).T @ rows if is_full else of @ rows**2
            sums[cell] = np.concatenate([[of.sum()], of @ rows, squares.ravel()])
        prior = np.diag(variances).ravel() if is_full else variances
        return cls(sums, d, ground.covariance_type, prior, ground.added.ravel())

    def levels(self, sums: Array) -> Array:
        """The log-likelihood of the rows of sets under a Gaussian each, but for constants, (s,).

        A row of all rows' variances is added to each set: so few rows are no group of their own.
        """
        d, rows = self.d, np.maximum(sums[..., 0], 0.0)
        counted = np.maximum(rows, 1e-9)[..., None]
        mean = sums[..., 1 : 1 + d] / counted
        if self.kind == "full":
            outer = (mean[..., :, None] * mean[..., None, :]).reshape(*mean.shape[:-1], -1)
            scatter = sums[..., 1 + d :] - counted * outer
            S = (scatter + self.prior) / (counted + 1) + self.added
            logs = np.linalg.slogdet(S.reshape(*S.shape[:-1], d, d))[1]
        else:
            scatter = np.maximum(sums[..., 1 + d :] - counted * mean**2, 0.0)
            S = (scatter + self.prior) / (counted + 1) + self.added
            if self.kind == "spherical":
                logs = d * np.log(S.mean(axis=-1))
            else:
                logs = np.log(S).sum(axis=-1)
        return np.asarray(rows * (np.log(counted[..., 0]) - logs / 2))


@dataclass(frozen=True, eq=False)
class Cells:
    """Small cells of rows, and the groups that merging them comes to.

    Parameters
    ----------
    labels : (m,)
        The cell of each row.
    moments : Moments
        Of each cell.
    tree : list of (s,)
        The group of each cell, from all cells down to k groups.
    costs : (s - k,)
        What each merge costs the log-likelihood of each of its rows.
    """

    labels: Labels
    moments: Moments
    tree: list[Labels]
    costs: Array

    @classmethod
    def of(cls, ground: Ground, V: Array, k: int, rng: np.random.Generator) -> Cells | None:
        """The cells of a view (m, q) of the rows; None where there are too few for k groups.

        None as well where a covariance is singular, and of tied covariances, whose groups are not
        independent of one another.
        """
        d, kind = ground.rows.shape[1], ground.covariance_type
        n_cells = min(CELLS * k, len(V) // (ROWS * (1 + d if kind == "full" else 1)))
        if kind == "tied" or n_cells <= k:
            return None
        centres = kmeans_plusplus(V, n_cells, rng, ground.weight)
        used, labels = np.unique(settled(V, centres, ground.weight, SWEEPS), return_inverse=True)
        if len(used) <= k:
            return None
        moments = Moments.of(ground, labels, len(used))
        if not np.isfinite(moments.levels(moments.sums)).all():
            return None  # a constant column, to which reg_covar adds nothing
        return cls(labels, moments, *_tree(moments, k))

    @property
    def n_apart(self) -> int:
        """Clusters that are plainly apart: those that cheap merges leave."""
        return len(self.tree[0]) - int((self.costs <= APART).sum())

    def groups(self, rng: np.random.Generator) -> Labels:
        """The group of each row in the best grouping of the clusters into k that was found, (m,).

        Groupings at random are tried beside the one that merging comes to, which is often not the
        best.
        """
        n_cells, k = len(self.tree[0]), int(self.tree[-1].max()) + 1
        n = max(self.n_apart, k)
        of = self.tree[n_cells - n]
        sums = np.eye(n)[of].T @ self.moments.sums
        merged = np.zeros(n, np.intp)
        merged[of] = self.tree[-1]
        others = (rng.permutation(n) % k for _ in range(STARTS))
        ends = [_exchanged(self.moments, sums, begun, k) for begun in (merged, *others)]
        levels = [float(self.moments.levels(np.eye(k)[end].T @ sums).sum()) for end in ends]
        return np.asarray(ends[int(np.argmax(levels))][of][self.labels])


def _tree(moments: Moments, k: int) -> tuple[list[Labels], Array]:
    """The group of each cell from all cells down to k groups, and the costs of the merges."""
    sums, n = moments.sums.copy(), len(moments.sums)
    own, costs = moments.levels(sums), np.full((n, n), np.inf)
    for i in range(n - 1):
        costs[i, i + 1 :] = own[i] + own[i + 1 :] - moments.levels(sums[i] + sums[i + 1 :])
    costs = np.minimum(costs, costs.T)
    label, found, paid, is_left = np.arange(n), [np.arange(n)], [], np.ones(n, bool)
    for _ in range(n - k):
        i, j = sorted(divmod(int(costs.argmin()), n))
        least = float(costs[i, j])
        sums[i] += sums[j]
        paid.append(least / float(sums[i, 0]))
        sums[j] = 0.0
        label = np.where(label == j, i, label)
        costs[j], costs[:, j], is_left[j] = np.inf, np.inf, False
        left = np.flatnonzero(is_left)
        own[i] = moments.levels(sums[i])
        costs[i, left] = own[i] + own[left] - moments.levels(sums[left] + sums[i])
        costs[left, i] = costs[i, left]
        costs[i, i] = np.inf
        found.append((np.cumsum(is_left) - 1)[label])
    return found, np.array(paid)


def _exchanged(moments: Moments, sums: Array, label: Labels, k: int) -> Labels:
    """The grouping after the best move of one set to another group, again and again."""
    label, n = label.copy(), len(sums)
    groups, places, changed = np.eye(k)[label].T @ sums, np.arange(n), tuple(range(k))
    own, joined, left = np.empty(k), np.empty((n, k)), np.empty(n)
    for _ in range(4 * n):
        for j in changed:  # a move touches two groups
            mine = np.flatnonzero(label == j)
            own[j], joined[:, j] = moments.levels(groups[j]), moments.levels(groups[j] + sums)
            left[mine] = moments.levels(groups[j] - sums[mine])
        gains = (left - own[label])[:, None] + joined - own
        gains[places, label] = 0.0
        gains[np.bincount(label, minlength=k)[label] < 2] = 0.0  # no group is left empty
        i, to = divmod(int(gains.argmax()), k)
        if gains[i, to] <= LEAST_GAIN:
            break
        changed = int(label[i]), to
        groups[label[i]] -= sums[i]
        groups[to] += sums[i]
        label[i] = to
    return label
