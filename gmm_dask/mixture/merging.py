"""Which components together are one cluster: a tree of merges, made from a mixture alone.

Rows of a cluster that is no Gaussian (a ring, a banana) go to several components, which overlap.
How much two components overlap is read off a table of k x k: the posterior probability of each
component, summed over the rows that are assigned to each. It adds up over rows. What it is
expected to be follows from the mixture, so that clusters are known before any row is labelled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture.covariance.factors import inverse_triangular
from gmm_dask.mixture.parameters import Parameters
from gmm_dask.mixture.row_arithmetic import RowArithmetic

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]

# Standard deviations: two equal Gaussians that far apart, or farther, are two clusters.
APART = 5.0
OVERLAP = NormalDist().cdf(-APART / 2)
MOST_DRAWS, FEWEST_DRAWS = 1000, 20  # of a component
WORK = 5e8  # multiplications that all draws may take
NUMBERS = 1 << 24  # posterior probabilities of all draws that may be there at once
NOTHING = 1e-30  # a posterior probability; smaller ones only slow the processor down
NO_WEIGHT = 1e-12  # least weight that counts, so that a component of weight 0 has an overlap


@dataclass(frozen=True)
class MergeTree:
    """The components of a mixture merged two clusters at a time, those that overlap most first.

    A cluster is called by its lowest component.

    Parameters
    ----------
    pairs : k - 1 pairs of int
        The two clusters of each merge, the one that gives the name first.
    overlaps : k - 1 floats
        Overlap of the two nodes that each merge joins, as `overlaps_of` gives it.
    entropies : k floats
        Expected entropy of a row's posterior probabilities of k, k - 1, ..., 1 clusters.
    """

    pairs: tuple[tuple[int, int], ...]
    overlaps: tuple[float, ...]
    entropies: tuple[float, ...]

    @property
    def n_components(self) -> int:
        """Components of the mixture, k."""
        return len(self.entropies)

    @property
    def n_clusters(self) -> int:
        """Clusters where merging stops: the next two would overlap less than OVERLAP."""
        falls_short = (i for i, overlap in enumerate(self.overlaps) if overlap < OVERLAP)
        return self.n_components - next(falls_short, len(self.overlaps))

    @cached_property
    def separations(self) -> tuple[float, ...]:
        """Standard deviations between two equal Gaussians that overlap as much as each merge."""
        normal = NormalDist()
        return tuple(
            0.0 if overlap >= 0.5 else -2 * normal.inv_cdf(overlap) if overlap > 0 else np.inf
            for overlap in self.overlaps
        )

    def problem(self) -> str | None:
        """Why this is no tree of merges; None where it is one."""
        k, left = self.n_components, set(range(self.n_components))
        if len(self.pairs) != k - 1 or len(self.overlaps) != k - 1:
            return f"has not {k - 1} merges of {k} components"
        for kept, merged in self.pairs:
            if not kept < merged or not {kept, merged} <= left:
                return f"merges {merged} into {kept}, which are no clusters by then"
            left.remove(merged)
        return None

    def clusters(self, n_clusters: int | None = None) -> Labels:
        """The cluster of each component, (k,), numbered from 0 by their lowest components.

        Parameters
        ----------
        n_clusters : int, optional
            At most so many, no more than there are components; as many as the stop leaves where
            it is not given.
        """
        left = self.n_clusters if n_clusters is None else min(n_clusters, self.n_components)
        names = np.arange(self.n_components)
        for kept, merged in self.pairs[: self.n_components - left]:
            names[names == merged] = kept
        return np.unique(names, return_inverse=True)[1].astype(np.int32)


def merge_tree(parameters: Parameters) -> MergeTree:
    """The tree of merges of a mixture; the same mixture has the same tree.

    Two clusters are merged by the posterior probability that each has of the other's rows (Hennig,
    Advances in Data Analysis and Classification 4, 2010, method DEMP). The entropies are those of
    Baudry, Raftery, Celeux, Lo, Gottardo, J. Computational and Graphical Statistics 19, 2010.
    """
    posteriors, labels, weights = _drawn(parameters)
    table = classification_table(posteriors, labels, weights)
    k = parameters.n_components
    entropy = float((weights * row_entropies(posteriors)).sum())
    posteriors, left = posteriors.T.copy(), list(range(k))
    pairs, overlaps, entropies = [], [], [float(entropy)]
    while len(left) > 1:
        among = overlaps_of(table[np.ix_(left, left)])
        first, second = np.triu_indices(len(left), 1)
        largest = among[first, second].argmax()
        i, j = int(first[largest]), int(second[largest])
        a, b = left[i], left.pop(j)
        apart = _entropy_of(posteriors[[a, b]])
        posteriors[a] += posteriors[b]
        entropy += float((weights * (_entropy_of(posteriors[[a]]) - apart)).sum())
        table[a] += table[b]
        table[:, a] += table[:, b]
        pairs.append((a, b))
        overlaps.append(float(among[i, j]))
        entropies.append(max(entropy, 0.0) if len(left) > 1 else 0.0)
    return MergeTree(tuple(pairs), tuple(overlaps), tuple(entropies))


def overlaps_of(table: Array) -> Array:
    """Overlap of each two components by their table, (k, k): 0 apart, 1/2 the same.

    It is the mean of what each gives the other, as a share of the geometric mean of their weights:
    for two equal Gaussians the rows that are assigned to the wrong one. A component that gives
    most of its own probability away overlaps by that part with the one that gets most of it.

    Parameters
    ----------
    table : (k, k)
        As `classification_table` has it.
    """
    weights = table.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        given = np.nan_to_num(table / weights, nan=0.0)
        root = np.sqrt(weights)
        mutual = np.nan_to_num((table + table.T) / (2 * root[:, None] * root), nan=0.0)
    kept = np.diagonal(given).copy()
    np.fill_diagonal(given, 0.0)
    for j in np.flatnonzero((kept < 0.5) & given.any(axis=0)):
        to = given[:, j].argmax()
        mutual[j, to] = mutual[to, j] = max(mutual[j, to], 1 - kept[j])
    np.fill_diagonal(mutual, 1.0)
    return np.asarray(np.minimum(mutual, 1.0))


def classification_table(posteriors: Array, labels: Labels, weights: Array) -> Array:
    """Weighted sums of posterior probabilities (columns) by assigned component (rows), (k, k).

    Parameters
    ----------
    posteriors : (n, k)
    labels, weights : (n,)
    """
    k = posteriors.shape[1]
    table = np.zeros((k, k))
    for j in range(k):
        table[:, j] = np.bincount(labels, weights * posteriors[:, j], minlength=k)
    return table


def row_entropies(posteriors: Array) -> Array:
    """Entropy of each row's posterior probabilities (n, k) in nats, (n,)."""
    return _entropy_of(posteriors.T)


def _entropy_of(posteriors: Array) -> Array:
    """The sums over some components (m, n) of -r log r, (n,)."""
    logs = np.log(np.where(posteriors > 0, posteriors, 1.0))
    return np.asarray(0.0 - np.einsum("mn,mn->n", posteriors, logs))


def _drawn(parameters: Parameters) -> tuple[Array, Labels, Array]:
    """Posterior probabilities, labels and weights of draws from every component in turn."""
    k, d = parameters.means.shape
    weights = np.maximum(parameters.weights, NO_WEIGHT)
    mixture = Parameters(weights, parameters.means, parameters.family)
    n = int(np.clip(min(WORK / (k * d) ** 2, NUMBERS / k**2), FEWEST_DRAWS, MOST_DRAWS))
    # The same for every component, so that a mixture with components in another order is the same.
    standard = np.random.Generator(np.random.PCG64(0)).standard_normal((n, d))
    arithmetic = RowArithmetic.chosen("error")
    posteriors, labels = np.empty((k * n, k)), np.empty(k * n, np.int32)
    for j, spread in enumerate(_spread(mixture, standard)):
        X = parameters.means[j] + spread
        of_j = slice(j * n, (j + 1) * n)
        posteriors[of_j] = arithmetic.responsibilities(X, mixture)
        labels[of_j] = posteriors[of_j].argmax(axis=1)
    posteriors[posteriors < NOTHING] = 0.0
    return posteriors, labels, np.repeat(weights / n, n)


def _spread(mixture: Parameters, standard: Array) -> Iterator[Array]:
    """Standard normal draws (n, d) with the covariance of each component in turn."""
    family, k = mixture.family, mixture.n_components
    if family.matrices is None and family.loadings is None:  # features are independent
        yield from (standard * (1.0 / factors) for factors in family.core_factors)
        return
    distinct = (
        standard @ inverse_triangular(mixture.dense_factor(j)[None])[0]
        for j in range(len(family.owners))
    )
    yield from repeat(next(distinct), k) if len(family.owners) == 1 else distinct


def looked_up(clusters: Sequence[int] | Labels, labels: npt.NDArray[np.integer]) -> Labels:
    """The cluster of each row by its label, (n,); a row that has none, label -1, has none."""
    return np.asarray(np.append(np.asarray(clusters, np.int32), np.int32(-1))[labels])
