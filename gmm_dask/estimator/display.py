"""MixtureDisplay: pictures of a fitted mixture on matplotlib axes, in scikit-learn's manner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import DataError, SettingsError
from gmm_dask.estimator.fitted import FittedMixture
from gmm_dask.estimator.published import load_model
from gmm_dask.estimator.rows.forms import features_of, names_of
from gmm_dask.estimator.rows.user_rows import is_lazy, is_path
from gmm_dask.mixture import MergeTree, Parameters, log_density, merge_tree, responsibilities
from gmm_dask.pictures.canvas import titled
from gmm_dask.pictures.components import draw_components, limit
from gmm_dask.pictures.measures import (
    draw_curve,
    draw_log_density,
    draw_profile,
    draw_selection,
    draw_uncertainty,
)
from gmm_dask.pictures.merges import (
    draw_boundaries,
    draw_entropies,
    draw_posteriors,
    draw_tree,
)
from gmm_dask.pictures.panels import draw_densities, draw_pairs, pairs_grid, shown_densities
from gmm_dask.pictures.view import best_view

Array = npt.NDArray[np.float64]
Kind = Literal[
    "components", "pairs", "densities", "curve", "uncertainty", "likelihood", "profile",
    "selection", "clusters", "merges", "entropy", "posteriors"
]  # fmt: skip

MAX_ROWS = 2000  # drawn: more only hide each other
NO_ROWS = "Give rows that are in memory, as MixtureDisplay.from_estimator(model, X)."


class MixtureDisplay:
    """Pictures of a fitted mixture; make one with `from_estimator` or `from_version`.

    Parameters
    ----------
    parameters : Parameters
    feature_names : sequence of str
    rows : (m, d)
        Rows to draw; rows with a missing value are left out, of many MAX_ROWS are drawn.
    lower_bounds : sequence of float
        Log-likelihood per row by pass.
    table : mapping of arrays, optional
        The candidates of a GaussianMixtureSelector.
    n_clusters : int, optional
        Clusters that components are merged into; where not given, where merging stops.

    Attributes
    ----------
    ax_ : matplotlib Axes, or array of Axes
        What the last picture was drawn on.
    figure_ : matplotlib Figure
    """

    ax_: Any
    figure_: Any

    def __init__(
        self,
        parameters: Parameters,
        feature_names: Sequence[str],
        *,
        rows: Array,
        lower_bounds: Sequence[float] = (),
        table: Mapping[str, npt.NDArray[Any]] | None = None,
        n_clusters: int | None = None,
    ) -> None:
        complete = rows[np.isfinite(rows).all(axis=1)]
        if len(complete) > MAX_ROWS:
            chosen = np.linspace(0, len(complete) - 1, MAX_ROWS).round().astype(np.intp)
            complete = complete[chosen]
        self.parameters, self.feature_names, self.rows = parameters, feature_names, complete
        self.lower_bounds, self.table = lower_bounds, table
        self.n_clusters = n_clusters

    @classmethod
    def from_estimator(
        cls, estimator: FittedMixture, X: Any = None, *, kind: Kind = "components", ax: Any = None
    ) -> MixtureDisplay:
        """Draw a fitted estimator, over rows where they are given.

        Parameters
        ----------
        estimator : GaussianMixture or GaussianMixtureSelector
        X : (n, d) array, lists, DataFrame or Arrow table, optional
            Rows in memory.
        kind : str
            components over rows in the view that tells them apart best; pairs of features;
            densities of each feature; the curve of the log-likelihood; the uncertainty of the rows
            and their likelihood; the profile of the means; the selection of a selector; clusters
            over rows, in directions in which means or covariances differ, and where they meet;
            the tree of merges; the entropy of labels by the number of clusters; or the posteriors
            of the rows of each component in order.
        ax : matplotlib Axes, optional
            Drawn on, or divided for a picture of several axes; a new figure where not given.

        Raises
        ------
        NotFittedError
        DataError
            The picture needs rows, or the rows are not in memory.
        SettingsError
            There is no such kind, or the estimator knows nothing of it.
        """
        fitted: Any = getattr(estimator, "best_estimator_", estimator)
        parameters = fitted._mixture()
        names = names_of(fitted)
        named = [f"x{j}" for j in range(parameters.n_features)] if names is None else names
        display = cls(
            parameters,
            [str(name) for name in named],
            rows=_rows(fitted, X, parameters.n_features),
            lower_bounds=fitted._bounds_per_row(),
            table=getattr(estimator, "results_", None),
            n_clusters=fitted.n_clusters,
        )
        return display.plot(kind=kind, ax=ax)

    @classmethod
    def from_version(
        cls, ref: str, X: Any = None, *, kind: Kind = "components", ax: Any = None
    ) -> MixtureDisplay:
        """Draw what was published: "OUT" for the latest version, "OUT@7", or a model.json.

        Parameters and errors are those of `from_estimator` and of `load_model`.
        """
        return cls.from_estimator(load_model(ref), X, kind=kind, ax=ax)

    def plot(self, *, kind: Kind = "components", ax: Any = None) -> MixtureDisplay:
        """Draw one kind of picture; parameters and errors are those of `from_estimator`."""
        if kind not in get_args(Kind):
            known = ", ".join(get_args(Kind))
            raise SettingsError(f"kind is {kind!r}; it must be one of {known}")
        self._refuse(kind)
        if ax is None:
            from matplotlib import pyplot

            _, ax = pyplot.subplots(layout="constrained", figsize=_SIZES.get(kind))
        self.figure_, self.ax_ = ax.figure, ax
        draw: dict[Kind, Callable[[Any], None]] = {
            "components": self._components,
            "pairs": self._pairs,
            "densities": self._densities,
            "curve": lambda axes: draw_curve(axes, self.lower_bounds),
            "uncertainty": lambda axes: draw_uncertainty(axes, self._resp),
            "likelihood": lambda axes: draw_log_density(
                axes, log_density(self.rows, self.parameters)
            ),
            "profile": lambda axes: draw_profile(axes, self.parameters, self.feature_names),
            "selection": lambda axes: draw_selection(axes, self.table or {}),
            "clusters": self._clusters,
            "merges": lambda axes: draw_tree(axes, self._tree, self.n_clusters),
            "entropy": lambda axes: draw_entropies(axes, self._tree, self.n_clusters),
            "posteriors": lambda axes: draw_posteriors(axes, self._resp),
        }
        draw[kind](ax)
        return self

    def _refuse(self, kind: Kind) -> None:
        if kind in ("uncertainty", "likelihood", "posteriors") and not len(self.rows):
            raise DataError(f"The picture {kind} is of rows, and there are none. {NO_ROWS}")
        if kind == "clusters" and self.parameters.n_features == 1:
            raise SettingsError("Clusters are drawn in a plane, and there is but one feature.")
        if kind == "selection" and self.table is None:
            raise SettingsError("A selection is drawn of a fitted GaussianMixtureSelector alone.")
        if kind == "curve" and not len(self.lower_bounds):
            raise SettingsError("No pass was made, so there is no curve.")

    @property
    def _resp(self) -> Array:
        return responsibilities(self.rows, self.parameters)

    @property
    def _tree(self) -> MergeTree:
        return merge_tree(self.parameters)

    def _clusters(self, axes: Any) -> None:
        clusters = self._tree.clusters(self.n_clusters).tolist()
        view = best_view(self.parameters, self.feature_names, shapes=True)
        limits = view.limits(self.rows, self.parameters)
        draw_components(axes, self.parameters, view, self.rows, self._resp)
        draw_boundaries(axes, self.parameters, clusters, view, limits)
        titled(axes, f"{max(clusters) + 1} clusters of {len(clusters)} components")

    def _components(self, axes: Any) -> None:
        view = best_view(self.parameters, self.feature_names)
        draw_components(axes, self.parameters, view, self.rows, self._resp)
        limit(axes, view, self.rows, self.parameters)
        titled(axes, "The components")

    def _pairs(self, axes: Any) -> None:
        axes.set_axis_off()
        within = axes.get_subplotspec()
        self.ax_ = pairs_grid(self.figure_, self.parameters.n_features, within)
        draw_pairs(self.ax_, self.parameters, self.feature_names, self.rows, self._resp)

    def _densities(self, axes: Any) -> None:
        axes.set_axis_off()
        shape = shown_densities(self.parameters.n_features)
        spec = axes.get_subplotspec().subgridspec(*shape)
        self.ax_ = spec.subplots(squeeze=False)
        draw_densities(self.ax_, self.parameters, self.feature_names, self.rows, self._resp)


_SIZES: dict[Kind, tuple[float, float]] = {"pairs": (10, 9), "densities": (11, 5)}


def _rows(estimator: FittedMixture, X: Any, n_features: int) -> Array:
    """The rows to draw, as float64; none where none are given."""
    if X is None:
        return np.empty((0, n_features))
    if is_lazy(X) or is_path(X):
        raise DataError(f"A picture shows rows that are in memory. {NO_ROWS}")
    return np.asarray(features_of(estimator, X, reset=False).X, dtype=np.float64)
