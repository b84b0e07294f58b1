"""What every fitted mixture says of rows, in whatever form they come."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from gmm_dask import engine
from gmm_dask.errors import DataError
from gmm_dask.estimator.explaining import Explaining
from gmm_dask.estimator.hand_over import HandOver
from gmm_dask.estimator.rows.user_rows import backend_of, checked_chunks, is_lazy, map_rows
from gmm_dask.mixture import MergeTree, Parameters, merge_tree, mixture_sample
from gmm_dask.mixture.merging import looked_up

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]
_Criterion = Callable[..., engine.WeightedSum]


class Showing:
    """An estimator whose HTML in a notebook computes and reads nothing."""

    def _get_fitted_attr_html(self, doc_link: str = "") -> Any:
        """scikit-learn's table of the fitted attributes, without properties: some are computed."""
        there = {name: each for name, each in vars(self).items() if not name.startswith("_")}
        found = BaseEstimator._get_fitted_attr_html(SimpleNamespace(**there), doc_link)
        found.estimator_class = type(self)
        return found


class FittedMixture(Showing, Explaining, HandOver, DensityMixin, BaseEstimator):  # type: ignore[misc]
    """Predictions of a mixture, which a subclass fits; clusters of it are found without rows."""

    random_state: Any
    lower_bounds_: list[float]
    n_clusters: int | None = None
    _known_tree: tuple[tuple[bytes, ...], MergeTree] | None = None

    @classmethod
    @cache
    def _get_param_names(cls) -> list[str]:
        """See BaseEstimator, which looks at the signature each time: a tenth of a small fit."""
        return list(super()._get_param_names())

    def predict(self, X: Any) -> Any:
        """Component of largest responsibility for each row, (n,); -1 for noise."""
        return map_rows(self, X, "labels", np.int64, self._parameters(), self.missing)

    def predict_clusters(self, X: Any) -> Any:
        """The cluster of each row, (n,), in the form of `predict`: that of its component."""
        clusters, labels = self.clusters_, self.predict(X)
        if hasattr(type(labels), "map_partitions"):
            return labels.map_partitions(_of_labels, clusters, meta=labels._meta)
        if is_lazy(labels):
            return labels.map_blocks(_of_labels, clusters, dtype=labels.dtype)
        return _of_labels(labels, clusters)

    def predict_proba(self, X: Any) -> Any:
        """Responsibility of each component for each row, (n, k); the rest is that of noise."""
        parameters = self._parameters()
        columns: list[Any] = list(range(parameters.n_components))
        kind = np.float64
        return map_rows(self, X, "responsibilities", kind, parameters, self.missing, columns)

    def score_samples(self, X: Any) -> Any:
        """Log-density of each row, (n,); of the values that are there where some are missing."""
        return map_rows(self, X, "log_density", np.float64, self._parameters(), self.missing)

    def impute(self, X: Any) -> Any:
        """X with each missing value replaced by its mean given the row, (n, d), columns as in X."""
        parameters = self._parameters()
        columns: list[Any] = list(range(parameters.n_features))
        return map_rows(self, X, "impute", np.float64, parameters, "em", columns)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Mean log-density per unit of weight."""
        return self._evaluated(engine.log_likelihood, X, sample_weight).mean

    def sample(self, n_samples: int = 1) -> tuple[Array, npt.NDArray[np.int64]]:
        """Rows drawn from the mixture (n_samples, d), and their components (n_samples,)."""
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(
                f"Invalid value for 'n_samples': {n_samples} . The sampling requires at "
                "least one sample."
            )
        return mixture_sample(self._mixture(), n_samples, check_random_state(self.random_state))

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

    def __sklearn_tags__(self) -> Any:
        """scikit-learn's description of the estimator."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing != "error"
        return tags

    def _recorded(self) -> Parameters:
        """The mixture of a model file, which labels rows as `predict` does."""
        return self._mixture()

    def _bounds_per_row(self) -> list[float]:
        """The lower bounds of all passes, per unit of weight."""
        return list(self.lower_bounds_)

    def _evaluated(self, what: _Criterion, X: Any, sample_weight: Any) -> engine.WeightedSum:
        parameters = self._parameters()
        chunks = checked_chunks(self, X, sample_weight, self.missing, reset=False)
        with backend_of(chunks, X) as backend:
            total = what(chunks, backend, parameters, self.missing)
        if total.weight == 0:
            raise DataError("No row can be used, or all weights are zero: nothing to evaluate.")
        return total


def _of_labels(labels: Any, clusters: Labels) -> Any:
    """Clusters of an array or a Series of labels, in its type."""
    found = looked_up(clusters, np.asarray(labels)).astype(labels.dtype)
    return type(labels)(found, index=labels.index) if hasattr(labels, "index") else found
