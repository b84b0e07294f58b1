"""Still pictures of the report as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gmm_dask.mixture import MergeTree
from gmm_dask.pictures.canvas import MUTED, make_room, new_figure, png_of, titled
from gmm_dask.pictures.components import draw_components, limit
from gmm_dask.pictures.measures import (
    draw_candidates,
    draw_curve,
    draw_log_density,
    draw_profile,
    draw_series,
    draw_uncertainty,
)
from gmm_dask.pictures.merges import draw_entropies, draw_tree
from gmm_dask.pictures.panels import (
    MAX_PAIRED,
    draw_densities,
    draw_pairs,
    pairs_grid,
    shown_densities,
)
from gmm_dask.stage.report.data import ReportData
from gmm_dask.words import numbered


def likelihood_figure(
    lower_bounds: Sequence[float],
    outcome: str,
    objective: str = "log-likelihood",
    of_sample: Sequence[float] = (),
) -> bytes:
    """PNG of the log-likelihood (or log-posterior) per row by pass, 1200 pixels wide."""
    figure = new_figure(height=420)
    draw_curve(
        figure.subplots(), lower_bounds, outcome=outcome, objective=objective, of_sample=of_sample
    )
    make_room(figure)
    return png_of(figure)


def selection_figure(selection: Mapping[str, Any]) -> bytes:
    """PNG of the criterion and of the log-likelihood by number of components and family.

    Parameters
    ----------
    selection : mapping
        As in metrics.json; the candidates stand there with the best first.
    """
    table, criterion = selection["table"], selection["criterion"]
    families, numbers = table["covariance_type"], table["n_components"]
    figure = new_figure(height=420)
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(0.09, 0.15, 0.98, 0.96, 0.25)
    up = selection["heading"]
    draw_candidates(left, families, numbers, table[criterion], up=up)
    up = "Log-likelihood (higher is better)"
    draw_candidates(right, families, numbers, table["log_likelihood"], up=up)
    if selection["elbow"] is not None:
        right.axvline(selection["elbow"], color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
    return png_of(figure)


def merges_figure(tree: MergeTree, n_clusters: int) -> bytes:
    """PNG of the tree of merges, and of how unsure labels are by the number of clusters."""
    figure = new_figure(height=420)
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(0.07, 0.15, 0.98, 0.9, 0.2)
    draw_tree(left, tree, n_clusters)
    draw_entropies(right, tree, n_clusters)
    return png_of(figure)


def drift_figure(curves: Mapping[str, Sequence[float | None]]) -> bytes:
    """PNG of the drift of each partition from the data of the fit, 1200 pixels wide.

    Parameters
    ----------
    curves : mapping of metric to (n,)
        As in `refresh.curves` of metrics.json.
    """
    figure = new_figure(height=420)
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(0.09, 0.15, 0.98, 0.96, 0.25)
    indices = {"psi": "shares of components", "severity_psi": "tenths of severity"}
    known = {words: curves[name] for name, words in indices.items() if name in curves}
    draw_series(left, known, up="Population stability index")
    others = {"log_density_drop": "drop of log-density", "divergence": "divergence"}
    known = {words: curves[name] for name, words in others.items() if name in curves}
    draw_series(right, known, up="From the data of the fit, in nats")
    return png_of(figure)


def cluster_figure(data: ReportData) -> bytes:
    """PNG of the components and their rows at the start and at the end, 1200 pixels wide."""
    start, final = data.states[0], data.parameters
    before = "At the start" if start.number == 1 else f"After {numbered(start.number - 1, 'pass')}"
    after = f"After {numbered(data.n_passes, 'pass')}"
    panels = [(before, start.parameters), (after, final)]
    if len(data.states) == 1:
        panels = [("The components", final)]
    figure = new_figure(height=580)
    limits = data.view.limits(data.rows, final)
    all_axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (title, parameters) in zip(all_axes, panels, strict=True):
        resp = data.responsibilities(parameters)
        draw_components(axes, parameters, data.view, data.rows, resp, limits=limits)
        titled(axes, title)
        axes.label_outer()
    highest = max(all_axes, key=lambda axes: axes.dataLim.ymax)
    limit(highest, data.view, data.rows, final)
    figure.subplots_adjust(wspace=0.03)
    make_room(figure)
    return png_of(figure)


def density_figure(data: ReportData) -> bytes:
    """PNG of the density of each of the features that tell the components apart best."""
    n_rows, n_columns = shown_densities(data.parameters.n_features)
    height = 20 + 240 * n_rows
    figure = new_figure(height)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    figure.subplots_adjust(0.02, 62 / height, 0.98, 1 - 12 / height, 0.08, 0.36)
    resp = data.responsibilities(data.parameters)
    draw_densities(grid, data.parameters, data.feature_names, data.rows, resp)
    return png_of(figure)


def pairs_figure(data: ReportData) -> bytes:
    """PNG of the features that tell the components apart best against each other."""
    height = 80 + 210 * min(data.parameters.n_features, MAX_PAIRED)
    figure = new_figure(height)
    grid = pairs_grid(figure, data.parameters.n_features)
    figure.subplots_adjust(0.08, 60 / height, 0.98, 1 - 12 / height, 0.08, 0.08)
    resp = data.responsibilities(data.parameters)
    draw_pairs(grid, data.parameters, data.feature_names, data.rows, resp)
    return png_of(figure)


def certainty_figure(data: ReportData) -> bytes:
    """PNG of how sure the rows are of their component, and of how likely they are."""
    figure = new_figure(height=380)
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(0.07, 0.16, 0.98, 0.9, 0.18)
    draw_uncertainty(left, data.responsibilities(data.parameters))
    draw_log_density(right, data.log_density)
    return png_of(figure)


def profile_figure(data: ReportData) -> bytes:
    """PNG of how far each component's means are from those of all rows."""
    k = data.parameters.n_components
    figure = new_figure(height=int(np.clip(140 + 44 * k, 240, 900)))
    draw_profile(figure.subplots(), data.parameters, data.feature_names)
    make_room(figure)
    return png_of(figure)
