"""Several small pictures of one mixture: a density for each feature, a plane for each pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import Parameters
from gmm_dask.pictures.canvas import drawable
from gmm_dask.pictures.components import draw_components, limit
from gmm_dask.pictures.telling import most_telling, spreads
from gmm_dask.pictures.view import feature_view

Array = npt.NDArray[np.float64]

MAX_DENSITIES, MAX_PAIRED = 6, 4  # features; those that tell the components apart best
ACROSS = 3  # densities beside each other


def shown_densities(n_features: int) -> tuple[int, int]:
    """Rows and columns of the grid of densities."""
    n = min(n_features, MAX_DENSITIES)
    columns = 2 if n == 4 else min(n, ACROSS)
    return -(-n // columns), columns


def draw_densities(
    grid: Any, parameters: Parameters, names: Sequence[str], rows: Array, resp: Array
) -> None:
    """The density of each of some features with its parts, over the rows as bars.

    Parameters
    ----------
    grid : array of axes
        Axes in the shape of `shown_densities`; axes that are not needed are hidden.
    """
    features = _telling_in_order(parameters)
    for axes, feature in zip(np.ravel(grid), features, strict=False):
        view = feature_view(names, [feature])
        draw_components(axes, parameters, view, rows, resp, strokes=False)
        limit(axes, view, rows, parameters)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("")
        axes.set_yticks([])
    for axes in np.ravel(grid)[len(features) :]:
        axes.set_visible(False)


def pairs_grid(figure: Any, n_features: int, within: Any = None) -> npt.NDArray[Any]:
    """Axes for pairs of features: those of a grid that are not above its diagonal.

    Parameters
    ----------
    within : SubplotSpec, optional
        The part of the figure that is divided.
    """
    n = min(n_features, MAX_PAIRED)
    spec = figure.add_gridspec(n, n) if within is None else within.subgridspec(n, n)
    grid = np.full((n, n), None)
    for place in zip(*np.tril_indices(n), strict=True):
        grid[place] = figure.add_subplot(spec[place])
    return grid


def draw_pairs(
    grid: Any, parameters: Parameters, names: Sequence[str], rows: Array, resp: Array
) -> None:
    """Some features against each other, below the diagonal; on it the density of each.

    Parameters
    ----------
    grid : array of axes
        As `pairs_grid` has made it.
    """
    features = most_telling(parameters, MAX_PAIRED)
    for i, j in zip(*np.tril_indices(len(features)), strict=True):
        axes = grid[i, j]
        chosen = [features[i]] if i == j else [features[j], features[i]]
        view = feature_view(names, [int(each) for each in chosen])
        draw_components(axes, parameters, view, rows, resp, strokes=False)
        limit(axes, view, rows, parameters)
        for text in axes.texts:
            text.set_fontsize(9)
        if i == j:
            axes.set_ylim(bottom=0)
            axes.set_yticks([])
        last = i == len(features) - 1
        axes.set_xlabel(drawable(names[features[j]], 24) if last else "")
        axes.set_ylabel(drawable(names[features[i]], 24) if j == 0 else "")
        axes.tick_params(labelsize=9, labelbottom=last, labelleft=j == 0)
        axes.locator_params(nbins=4)


def _telling_in_order(parameters: Parameters) -> list[int]:
    """The features that separate the components best, the best first."""
    order = np.argsort(-spreads(parameters).separation, kind="stable")
    return [int(j) for j in order[:MAX_DENSITIES]]
