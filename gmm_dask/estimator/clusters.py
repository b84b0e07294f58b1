"""Clusters out of the components of a fitted mixture, and the cluster of each row."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.estimator.rows.user_rows import is_lazy
from gmm_dask.mixture import MergeTree, Parameters, merge_tree
from gmm_dask.mixture.merging import looked_up

Labels = npt.NDArray[np.int32]


class Clusters:
    """Components that overlap are one cluster; all of it follows from the mixture, without rows."""

    n_clusters: int | None
    _known_tree: tuple[tuple[bytes, ...], MergeTree] | None = None

    @property
    def merge_tree_(self) -> MergeTree:
        """The tree of merges, from each component alone to all together."""
        mixture = self._mixture()
        arrays = (mixture.weights, mixture.means, mixture.covariances)
        key = tuple(each.tobytes() for each in arrays)  # the fitted arrays may be set by hand
        if self._known_tree is None or self._known_tree[0] != key:
            self._known_tree = key, merge_tree(mixture)
        return self._known_tree[1]

    @property
    def clusters_(self) -> Labels:
        """The cluster of each component, (k,), numbered from 0 in the order of components."""
        return self.merge_tree_.clusters(self.n_clusters)

    @property
    def n_clusters_(self) -> int:
        """How many clusters there are."""
        return int(self.clusters_.max()) + 1

    def predict_clusters(self, X: Any) -> Any:
        """The cluster of each row, (n,), in the form of `predict`: that of its component."""
        clusters, labels = self.clusters_, self.predict(X)
        if hasattr(type(labels), "map_partitions"):
            return labels.map_partitions(_of_labels, clusters, meta=labels._meta)
        if is_lazy(labels):
            return labels.map_blocks(_of_labels, clusters, dtype=labels.dtype)
        return _of_labels(labels, clusters)

    def predict(self, X: Any) -> Any:
        """Component of each row, (n,)."""
        raise NotImplementedError

    def _mixture(self) -> Parameters:
        """The fitted mixture, whose weights sum to one; raises NotFittedError."""
        raise NotImplementedError


def _of_labels(labels: Any, clusters: Labels) -> Any:
    """Clusters of an array or a Series of labels, in its type."""
    found = looked_up(clusters, np.asarray(labels)).astype(labels.dtype)
    return type(labels)(found, index=labels.index) if hasattr(labels, "index") else found
