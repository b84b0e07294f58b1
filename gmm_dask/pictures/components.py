"""Components over their rows: ellipses in a plane, curves along a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import Parameters
from gmm_dask.pictures.canvas import BARS, INK, dress
from gmm_dask.pictures.view import CERTAIN, View, mixed, palette

Array = npt.NDArray[np.float64]

N_BARS, N_POINTS, MAX_TOTAL = 40, 81, 2000  # points of a curve, and of all that one is drawn at
_ROOT = math.sqrt(2 * math.pi)
MAX_NUMBERED = 40  # components with a number at their centre; more would hide the picture


def draw_components(
    axes: Any,
    parameters: Parameters,
    view: View,
    rows: Array,
    resp: Array,
    *,
    limits: Array | None = None,
    strokes: bool = True,
) -> None:
    """Components over rows, in a view of one or two axes; limits and title are the caller's.

    Parameters
    ----------
    rows : (m, d)
    resp : (m, k)
        Responsibilities, which the rows are coloured by.
    limits : (1, 2), optional
        Ends of the only axis of a line; where not given, those that show these components.
    strokes : bool
        Whether each row is a stroke below the curves of a view of one axis.
    """
    if view.n_axes == 2:
        _draw_plane(axes, parameters, view, rows, resp)
        dress(axes, view.titles[0], view.titles[1])
    else:
        limits = view.limits(rows, parameters) if limits is None else limits
        _draw_line(axes, parameters, view, rows, resp if strokes else None, limits[0])
        dress(axes, view.titles[0], "Share of rows per unit")


def draw_bars(axes: Any, values: Array, low: float, high: float, *, per_unit: bool) -> None:
    """A histogram as one shape: matplotlib's own is forty, each drawn by itself."""
    counts, edges = np.histogram(values, bins=N_BARS, range=(low, high))
    unit = max(len(values), 1) * (edges[1] - edges[0]) if per_unit else 1.0
    axes.stairs(counts / unit, edges, fill=True, color=BARS, zorder=0)


def limit(axes: Any, view: View, rows: Array, parameters: Parameters) -> None:
    """Give axes of a view the limits in which all components can be seen."""
    limits = view.limits(rows, parameters)
    axes.set_xlim(*limits[0])
    if view.n_axes == 2:
        axes.set_ylim(*limits[1])
    else:
        highest = axes.dataLim.ymax
        axes.set_ylim(-0.09 * highest, 1.1 * highest)


def _draw_plane(axes: Any, parameters: Parameters, view: View, rows: Array, resp: Array) -> None:
    points = view.rows(rows)
    area = _dot_area(len(points))
    unsure = resp.max(axis=1, initial=0.0) < CERTAIN
    axes.scatter(*points.T, s=area, c=mixed(resp), linewidths=0, alpha=0.9, zorder=2)
    axes.scatter(
        *points[unsure].T, s=area, facecolors="none", edgecolors=INK, linewidths=area / 45,
        alpha=0.7, zorder=2,
    )  # fmt: skip
    centres, covariances = view.rows(parameters.means), view.covariances(parameters)
    colours, alive = palette(parameters.n_components), np.flatnonzero(parameters.weights > 0)
    _draw_ellipses(axes, centres[alive], covariances[alive], colours[alive])
    for j in map(int, alive):
        _draw_number(axes, centres[j], j, colours[j], parameters.n_components)


def _draw_ellipses(axes: Any, centres: Array, covariances: Array, colours: Array) -> None:
    """The 1- and 2-sigma ellipses of all components; fills below the rows, lines above."""
    from matplotlib.collections import EllipseCollection

    values, vectors = np.linalg.eigh(covariances)
    angles = np.degrees(np.arctan2(vectors[:, 1, 1], vectors[:, 0, 1]))
    for n_sigma, fill, line in ((2, 0.06, 1.4), (1, 0.14, 2.4)):
        heights, widths = 2 * n_sigma * np.sqrt(np.maximum(values, 0.0)).T
        shape = (widths, heights, angles)
        where = {"units": "xy", "offsets": centres, "offset_transform": axes.transData}
        fills = np.column_stack([colours, np.full(len(colours), fill)])
        axes.add_collection(
            EllipseCollection(*shape, **where, facecolors=fills, edgecolors="none", zorder=1)
        )
        axes.add_collection(
            EllipseCollection(
                *shape, **where, facecolors="none", edgecolors=colours, linewidths=line, zorder=3
            )
        )


def _draw_number(axes: Any, at: Sequence[float] | Array, j: int, colour: Array, k: int) -> None:
    if k > MAX_NUMBERED:
        return
    circle = {"boxstyle": "circle,pad=0.28", "facecolor": "white", "edgecolor": colour}
    axes.annotate(
        str(j), at, ha="center", va="center", fontsize=12, fontweight="bold", color=INK,
        bbox=circle | {"linewidth": 2}, zorder=5, annotation_clip=True,
    )  # fmt: skip


def _draw_line(
    axes: Any,
    parameters: Parameters,
    view: View,
    rows: Array,
    resp: Array | None,
    limits: Array,
) -> None:
    points = view.rows(rows)[:, 0]
    low, high = limits
    draw_bars(axes, points, low, high, per_unit=True)
    centres = view.rows(parameters.means)[:, 0]
    spreads = np.sqrt(view.covariances(parameters)[:, 0, 0])
    # Points of its own for each component: a narrow peak would fall between those of the axis.
    own = np.clip(np.linspace(-4, 4, N_POINTS) * spreads[:, None] + centres[:, None], low, high)
    colours, peaks = palette(parameters.n_components), parameters.weights / (_ROOT * spreads)
    curves = peaks[:, None] * np.exp(-0.5 * ((own - centres[:, None]) / spreads[:, None]) ** 2)
    _draw_curves(axes, np.stack([own, curves], axis=2), colours)
    for j in np.flatnonzero(parameters.weights > 0) if resp is not None else ():
        _draw_number(axes, (centres[j], peaks[j]), int(j), colours[j], parameters.n_components)
    x = np.union1d(np.linspace(low, high, 400), own if own.size < MAX_TOTAL else own[:, ::8])
    total = np.zeros_like(x)
    for centre, spread, peak in zip(centres, spreads, peaks, strict=True):
        total += peak * np.exp(-0.5 * ((x - centre) / spread) ** 2)
    axes.plot(x, total, color=INK, linewidth=1.2, linestyle=(0, (5, 3)), zorder=2)
    if resp is not None:
        upwards = axes.get_xaxis_transform()  # from 0 to 1, whatever the curves' height
        colours = mixed(resp)
        axes.vlines(points, 0.015, 0.055, colors=colours, linewidth=1, zorder=2, transform=upwards)


def _draw_curves(axes: Any, curves: Array, colours: Array) -> None:
    """Curves (k, points, 2) and the areas below them, each kind as one shape of matplotlib."""
    from matplotlib.collections import LineCollection, PolyCollection

    ends = curves[:, [-1, 0]] * [1.0, 0.0]
    areas = PolyCollection(
        list(np.concatenate([curves, ends], axis=1)), facecolors=colours, alpha=0.15, linewidths=0,
        zorder=1,
    )  # fmt: skip
    axes.add_collection(areas)
    axes.add_collection(LineCollection(list(curves), colors=colours, linewidths=2.2, zorder=3))
    axes.autoscale_view()


def _dot_area(n_rows: int) -> float:
    return 34.0 if n_rows <= 300 else 18.0 if n_rows <= 1000 else 11.0
