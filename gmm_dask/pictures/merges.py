"""Clusters out of components as pictures: which are merged, how surely, and where they meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import MergeTree, Parameters, responsibilities
from gmm_dask.mixture.merging import APART
from gmm_dask.pictures.canvas import ACCENT, INK, MUTED, dress, titled
from gmm_dask.pictures.view import View, palette

Array = npt.NDArray[np.float64]

FARTHEST = 12.0  # standard deviations: the tree is drawn up to there
LEAST_SHARE = 0.01  # of a posterior probability that counts as a row of the component
FINENESS = 201  # points of each axis of a plane on which boundaries are found


def draw_tree(axes: Any, tree: MergeTree, n_clusters: int | None = None) -> None:
    """The merges, each at the standard deviations that its two clusters are apart.

    Parameters
    ----------
    n_clusters : int, optional
        Clusters that are in use, which are drawn in ink, and merges beyond them in grey; those
        where merging stops by itself where it is not given.
    """
    k, left = tree.n_components, tree.n_clusters if n_clusters is None else n_clusters
    order = _order(tree)
    x = {j: float(at) for at, j in enumerate(order)}
    y = dict.fromkeys(range(k), 0.0)
    highest = 0.0
    for number, ((kept, merged), apart) in enumerate(
        zip(tree.pairs, tree.separations, strict=True)
    ):
        highest = max(highest, min(apart, FARTHEST))
        colour = INK if number < k - left else "#b4bcc6"
        corners = ([x[kept], x[kept], x[merged], x[merged]], [y[kept], highest, highest, y[merged]])
        axes.plot(*corners, color=colour, linewidth=1.8, zorder=2)
        x[kept], y[kept] = (x[kept] + x[merged]) / 2, highest
    axes.axhline(APART, color=ACCENT, linewidth=1.2, linestyle=(0, (5, 4)), zorder=1)
    colours = palette(k)
    axes.scatter(range(k), np.zeros(k), s=60, color=colours[order], zorder=3, clip_on=False)
    dress(axes, "Component", "Standard deviations apart")
    axes.set_xticks(range(k), [str(j) for j in order])
    axes.tick_params(axis="x", pad=9)
    axes.set_ylim(0, 1.08 * max(highest, APART))
    titled(axes, f"Components merged into {left} of {k} clusters")


def draw_entropies(axes: Any, tree: MergeTree, n_clusters: int | None = None) -> None:
    """Expected entropy of a row's label by the number of clusters (Baudry et al. 2010).

    A bend says how many clusters there are: merging beyond it makes no label surer.
    """
    k, left = tree.n_components, tree.n_clusters if n_clusters is None else n_clusters
    numbers = np.arange(k, 0, -1)
    axes.plot(numbers, tree.entropies, "o-", color=ACCENT, linewidth=2.2, markersize=6, zorder=2)
    axes.axvline(left, color=MUTED, linewidth=1.2, linestyle=(0, (5, 4)), zorder=1)
    dress(axes, "Clusters", "Entropy of a label, nats")
    axes.set_xticks(numbers if k <= 20 else numbers[:: -(-k // 20)])
    axes.set_ylim(bottom=0)
    titled(axes, "How unsure labels are")


def draw_posteriors(axes: Any, resp: Array) -> None:
    """The posterior probabilities of each component, from its surest row to its least sure.

    A curve like a step is a component of its own; one that slopes shares its rows with others
    (Hennig, Advances in Data Analysis and Classification 4, 2010, `weightplots`).

    Parameters
    ----------
    resp : (m, k)
    """
    colours = palette(resp.shape[1])
    for j, of_j in enumerate(resp.T):
        found = np.sort(of_j[of_j >= LEAST_SHARE])[::-1]
        share = np.linspace(0, 1, len(found)) if len(found) > 1 else np.zeros(len(found))
        axes.plot(share, found, color=colours[j], linewidth=2, label=str(j))
    dress(axes, "Rows of the component, the surest first", "Posterior probability")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    if resp.shape[1] <= 20:
        axes.legend(title="Component", frameon=False, fontsize=10)
    titled(axes, "How sure components are of their rows")


def draw_boundaries(
    axes: Any, parameters: Parameters, clusters: Sequence[int], view: View, limits: Array
) -> None:
    """Where clusters meet in a view of two axes, of the mixture as it is seen there.

    Parameters
    ----------
    clusters : (k,)
    view : View
        View to draw in, such as `best_view` with `shapes` gives.
    limits : (2, 2)
        Lower and upper end of each axis.

    Raises
    ------
    ValueError
        The view has one axis.
    """
    if view.n_axes != 2:
        raise ValueError("Boundaries are drawn in a view of two axes; this one has one.")
    across, up = (np.linspace(low, high, FINENESS) for low, high in limits)
    points = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    seen = Parameters.from_covariances(
        parameters.weights, view.rows(parameters.means), view.covariances(parameters), "full"
    )
    of_clusters = np.arange(max(clusters) + 1)[:, None] == np.asarray(clusters)
    posteriors = of_clusters @ responsibilities(points, seen).T
    for c, of_c in enumerate(posteriors):
        others = np.delete(posteriors, c, axis=0).max(axis=0, initial=0.0)
        lead = (of_c - others).reshape(FINENESS, FINENESS)
        colour = palette(len(clusters))[list(clusters).index(c)]
        axes.contourf(across, up, lead, levels=[0, 2], colors=[colour], alpha=0.12, zorder=0)
        if len(posteriors) > 1:
            axes.contour(across, up, lead, levels=[0], colors=[INK], linewidths=1.2, zorder=4)
    dress(axes, view.titles[0], view.titles[1])
    axes.set_xlim(*limits[0])
    axes.set_ylim(*limits[1])


def _order(tree: MergeTree) -> list[int]:
    """The components in an order in which no branches of the tree cross."""
    members = {j: [j] for j in range(tree.n_components)}
    for kept, merged in tree.pairs:
        members[kept] += members.pop(merged)
    return members[0]
