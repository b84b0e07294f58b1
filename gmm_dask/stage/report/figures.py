"""Still pictures as PNG: the curve of the log-likelihood, and the components over their rows."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import Parameters, responsibilities
from gmm_dask.stage.report.data import ReportData
from gmm_dask.stage.report.view import CERTAIN, View, best_view, mixed, palette
from gmm_dask.stage.text import numbered, short

Array = npt.NDArray[np.float64]

WIDTH = 1200  # pixels
DPI = 100
INK, MUTED, GRID = "#1c2430", "#5a6675", "#e4e8ed"
ACCENT = "#0072b2"
MAX_NUMBERED = 40  # components with a number at their centre; more would hide the picture


def likelihood_figure(
    lower_bounds: Sequence[float], outcome: str, objective: str = "log-likelihood"
) -> bytes:
    """PNG of the log-likelihood (or log-posterior) per row by pass, 1200 pixels wide."""
    figure = _figure(height=420)
    axes = figure.subplots()
    passes = np.arange(1, len(lower_bounds) + 1)
    bounds = np.asarray(lower_bounds, dtype=np.float64)
    marker = "o" if len(passes) <= 60 else None
    axes.plot(passes, bounds, color=ACCENT, linewidth=2.2, marker=marker, markersize=5)
    if len(passes):
        axes.plot(passes[-1:], bounds[-1:], "o", color=ACCENT, markersize=9)
        note = f"{bounds[-1]:.4f} after {numbered(len(passes), 'pass')}".replace("-", "−")
        axes.annotate(
            note, (passes[-1], bounds[-1]), xytext=(-4, -20), textcoords="offset points",
            ha="right", va="top", color=INK, fontsize=12, fontweight="bold",
        )  # fmt: skip
    _dress(axes, "Pass over the data", f"{objective.capitalize()} per row")
    _whole_ticks(axes, len(passes))
    axes.margins(y=0.12)
    words = _drawable(outcome.replace("_", " "))
    axes.set_title(f"{objective.capitalize()}: {words}", loc="left", **_TITLE)
    return _png(figure)


def cluster_figure(data: ReportData) -> bytes:
    """PNG of the components and their rows at the start and at the end, 1200 pixels wide."""
    view = best_view(data.parameters, data.feature_names)
    start, final = data.states[0], data.parameters
    before = "At the start" if start.number == 1 else f"After {numbered(start.number - 1, 'pass')}"
    after = f"After {numbered(data.n_passes, 'pass')}"
    panels = [_Panel(before, start.parameters), _Panel(after, final)]
    if len(data.states) == 1:
        panels = [_Panel("The components", final)]
    figure = _figure(height=580)
    all_axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    limits = view.limits(data.rows, final)
    for axes, panel in zip(all_axes, panels, strict=True):
        if view.n_axes == 2:
            _draw_plane(axes, panel.parameters, view, data.rows)
        else:
            _draw_line(axes, panel.parameters, view, data.rows, limits[0])
        axes.set_title(panel.title, loc="left", **_TITLE)
        axes.label_outer()
    highest = max(axes.dataLim.ymax for axes in all_axes)
    all_axes[0].set_xlim(*limits[0])
    all_axes[0].set_ylim(*limits[1] if view.n_axes == 2 else (-0.09 * highest, 1.1 * highest))
    return _png(figure)


@dataclass(frozen=True, eq=False)
class _Panel:
    title: str
    parameters: Parameters


_TITLE = {"fontsize": 14, "fontweight": "bold", "color": INK, "parse_math": False}


def _draw_plane(axes: Any, parameters: Parameters, view: View, rows: Array) -> None:
    resp = responsibilities(rows, parameters)
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
    _dress(axes, view.titles[0], view.titles[1])


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


def _draw_line(axes: Any, parameters: Parameters, view: View, rows: Array, limits: Array) -> None:
    points = view.rows(rows)[:, 0]
    low, high = limits
    bins = np.linspace(low, high, 41)
    share = np.full(len(points), 1 / (max(len(points), 1) * (bins[1] - bins[0])))
    axes.hist(points, bins=bins, weights=share, color="#dfe4ea", zorder=0)
    centres = view.rows(parameters.means)[:, 0]
    spreads = np.sqrt(view.covariances(parameters)[:, 0, 0])
    # Points of its own for each component: a narrow peak would fall between those of the axis.
    peaks = np.linspace(-4, 4, 41) * spreads[:, None] + centres[:, None]
    x = np.clip(np.union1d(np.linspace(low, high, 400), peaks), low, high)
    colours = palette(parameters.n_components)
    total = np.zeros_like(x)
    for j, colour in enumerate(colours):
        peak = parameters.weights[j] / (spreads[j] * math.sqrt(2 * math.pi))
        curve = peak * np.exp(-0.5 * ((x - centres[j]) / spreads[j]) ** 2)
        total += curve
        axes.fill_between(x, curve, color=colour, alpha=0.15, linewidth=0, zorder=1)
        axes.plot(x, curve, color=colour, linewidth=2.2, zorder=3)
        if parameters.weights[j] > 0:
            _draw_number(axes, (centres[j], peak), j, colour, parameters.n_components)
    axes.plot(x, total, color=INK, linewidth=1.2, linestyle=(0, (5, 3)), zorder=2)
    strokes = axes.get_xaxis_transform()  # from 0 to 1 upwards, whatever the curves' height
    of_rows = mixed(responsibilities(rows, parameters))
    axes.vlines(points, 0.015, 0.055, colors=of_rows, linewidth=1, zorder=2, transform=strokes)
    _dress(axes, view.titles[0], "Share of rows per unit")


def _dot_area(n_rows: int) -> float:
    return 34.0 if n_rows <= 300 else 18.0 if n_rows <= 1000 else 11.0


def _dress(axes: Any, across: str, up: str) -> None:
    axes.set_axisbelow(True)
    axes.grid(True, color=GRID, linewidth=1)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
    axes.tick_params(colors=MUTED, labelsize=11, length=0)
    label = {"fontsize": 12, "color": MUTED, "parse_math": False}
    axes.set_xlabel(_drawable(across), **label)
    axes.set_ylabel(_drawable(up), **label)


def _whole_ticks(axes: Any, n_passes: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    if n_passes <= 1:
        axes.set_xlim(0, 2)


def _figure(height: int) -> Any:
    with _quiet_import():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, wspace=0.02)
        size = (WIDTH / DPI, height / DPI)
        figure = Figure(figsize=size, dpi=DPI, facecolor="white", layout=layout)
        FigureCanvasAgg(figure)
    return figure


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    # Without its own name and version in the file, equal pictures are equal bytes. `savefig` would
    # draw everything twice.
    figure.canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _drawable(name: str) -> str:
    """The name with a box for each character that the font lacks."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    return "".join(c if font.get_char_index(ord(c)) else "□" for c in short(name, 80))


@contextmanager
def _quiet_import() -> Iterator[None]:
    """Keep matplotlib from complaining, on import, of a home folder it may not write to."""
    logger = logging.getLogger("matplotlib")
    logger.addFilter(_is_not_about_caches)
    try:
        yield
    finally:
        logger.removeFilter(_is_not_about_caches)


def _is_not_about_caches(record: logging.LogRecord) -> bool:
    return (
        record.funcName != "_get_config_or_cache_dir" and "MPLCONFIGDIR" not in record.getMessage()
    )
