"""Numbers of a fit as pictures: its curve, how sure its rows are, how its components differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import Parameters
from gmm_dask.pictures.canvas import ACCENT, INK, MUTED, drawable, dress, titled
from gmm_dask.pictures.components import draw_bars
from gmm_dask.pictures.telling import away, most_telling
from gmm_dask.pictures.view import CERTAIN, palette
from gmm_dask.words import numbered, signed

Array = npt.NDArray[np.float64]

MAX_POINTS = 60  # of a curve that are marked each
LEAST_RISE = 1e-3  # of a log-likelihood per row, that the axis of a curve shows at least
MAX_PROFILED = 12  # features side by side in a profile
QUANTILES = (0.01, 0.05, 0.25, 0.5)  # of the log-density


def draw_curve(
    axes: Any,
    lower_bounds: Sequence[float],
    *,
    objective: str = "log-likelihood",
    outcome: str = "",
    of_sample: Sequence[float] = (),
) -> None:
    """The objective per row by pass.

    Parameters
    ----------
    lower_bounds : sequence of float
        Log-likelihood per row in each pass over all rows.
    outcome : str
        How the fit ended, for the title.
    of_sample : sequence of float
        Log-likelihood per row in the passes over a sample before them, which go on the same axis to
        the left.
    """
    bounds, before = np.asarray(lower_bounds, dtype=np.float64), len(of_sample)
    passes = np.arange(1, len(bounds) + 1) + before
    marker = "o" if len(passes) <= MAX_POINTS else None
    if before:
        axes.plot(np.arange(1, before + 1), of_sample, color=MUTED, linewidth=1.6, zorder=2)
        axes.axvline(before + 0.5, color=MUTED, linewidth=1, linestyle=(0, (4, 4)), zorder=1)
    axes.plot(passes, bounds, color=ACCENT, linewidth=2.2, marker=marker, markersize=5)
    if len(passes):
        axes.plot(passes[-1:], bounds[-1:], "o", color=ACCENT, markersize=9)
        note = f"{signed(bounds[-1], 4)} after {numbered(len(passes), 'pass')}"
        axes.annotate(
            note, (0.98, 0.05), xycoords="axes fraction", ha="right", va="bottom", color=INK,
            fontsize=12, fontweight="bold",
        )  # fmt: skip
    dress(axes, "Pass over the data", f"{objective.capitalize()} per row")
    if before:
        axes.set_xlabel(f"Pass: {before:,} over the sample, then over all rows")
    _whole_ticks(axes, before + len(passes))
    axes.margins(y=0.12)
    shown = np.concatenate([of_sample, bounds])
    if len(shown) and np.ptp(shown) < LEAST_RISE:  # rounding is neither a rise nor a fall
        middle = (shown.min() + shown.max()) / 2
        axes.set_ylim(middle - LEAST_RISE / 2, middle + LEAST_RISE / 2)
    axes.ticklabel_format(axis="y", useOffset=False)
    words = f": {outcome.replace('_', ' ')}" if outcome else ""
    titled(axes, f"{objective.capitalize()}{words}")


def draw_candidates(
    axes: Any,
    families: Sequence[str],
    numbers: Sequence[int],
    values: Sequence[float | None],
    *,
    up: str,
) -> None:
    """A curve for each family over the number of components; the first candidate is marked.

    Parameters
    ----------
    families, numbers, values : (n,)
        Family, number of components and value of the criterion of each candidate; one without a
        value is left out.
    up : str
        What the values are, and which of them are good.
    """
    names = list(dict.fromkeys(families))
    for name, colour in zip(names, palette(len(names)), strict=True):
        each = zip(families, numbers, values, strict=True)
        curve = sorted((k, v) for family, k, v in each if family == name and v is not None)
        if curve:
            axes.plot(*zip(*curve, strict=True), "o-", color=colour, linewidth=2, label=name)
    if values[0] is not None:
        ring = {"markersize": 15, "markerfacecolor": "none", "markeredgecolor": INK}
        axes.plot(numbers[0], values[0], "o", markeredgewidth=2, **ring)
    dress(axes, "Number of components", up)
    _whole_ticks(axes, max(numbers))
    axes.margins(y=0.12)
    axes.legend(frameon=False, labelcolor=INK)


def draw_series(axes: Any, curves: Mapping[str, Sequence[float | None]], *, up: str) -> None:
    """Curves over partitions in their order; one that has no value breaks a curve.

    Parameters
    ----------
    curves : mapping of str to (n,)
        By what they are called.
    up : str
        What the values are.
    """
    for (name, values), colour in zip(curves.items(), palette(len(curves)), strict=True):
        found = [np.nan if value is None else value for value in values]
        axes.plot(range(1, len(found) + 1), found, "o-", color=colour, markersize=4, label=name)
    dress(axes, "Partition, in the order of the files", up)
    _whole_ticks(axes, max(map(len, curves.values())))
    axes.margins(y=0.12)
    axes.legend(frameon=False, labelcolor=INK)


def draw_uncertainty(axes: Any, resp: Array) -> None:
    """Rows in the order of how sure their component is, each with what is left for the others.

    As the uncertainty plot of mclust (Scrucca et al. 2016, R Journal 8).
    """
    labels, uncertainty = resp.argmax(axis=1), 1 - resp.max(axis=1, initial=0.0)
    order = np.argsort(uncertainty, kind="stable")
    share = (np.arange(len(order)) + 1) / max(1, len(order))
    colours = palette(resp.shape[1])[labels[order]] if len(order) else None
    axes.axhline(1 - CERTAIN, color=MUTED, linewidth=1, linestyle=(0, (4, 4)), zorder=1)
    axes.vlines(share, 0, uncertainty[order], colors=colours, linewidth=1.2, zorder=2)
    axes.plot(share, uncertainty[order], color=INK, linewidth=1.2, zorder=3)
    dress(axes, "Share of the rows, the surest first", "1 − largest responsibility")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, max(0.12, 1.08 * float(uncertainty.max(initial=0.0))))
    titled(axes, "How sure rows are of their component")


def draw_log_density(axes: Any, log_density: Array) -> None:
    """The log-density of rows as bars, with some of its quantiles."""
    found = log_density[np.isfinite(log_density)]
    if len(found):
        low, high = np.quantile(found, [0.002, 1.0])
        high = high if high > low else low + 1
        draw_bars(axes, np.clip(found, low, high), low, high, per_unit=False)
        for number, at in enumerate(np.quantile(found, QUANTILES)):
            axes.axvline(at, color=ACCENT, linewidth=1.4, zorder=3)
            axes.annotate(
                f"{100 * QUANTILES[number]:.0f} %", (at, 0.97 - 0.08 * number), color=INK,
                xycoords=("data", "axes fraction"), xytext=(4, 0), textcoords="offset points",
                va="top", fontsize=11, zorder=4,
            )  # fmt: skip
    dress(axes, "Log-density of a row", "Rows")
    titled(axes, "How likely rows are")


def draw_selection(axes: Any, table: Mapping[str, Any], criterion: str = "bic") -> None:
    """The criterion of each candidate by its number of components, a curve for each family.

    Parameters
    ----------
    table : mapping of arrays
        As `GaussianMixtureSelector.results_`: the best candidate first.
    """
    types, values = np.asarray(table["covariance_type"]), np.asarray(table[criterion], dtype=float)
    numbers = np.asarray(table["n_components"])
    kinds = list(dict.fromkeys(types.tolist()))
    for kind, colour in zip(kinds, palette(len(kinds)), strict=True):
        mine = np.flatnonzero(types == kind)
        mine = mine[np.argsort(numbers[mine], kind="stable")]
        axes.plot(numbers[mine], values[mine], "o-", color=colour, linewidth=2, label=kind)
    axes.plot(numbers[:1], values[:1], "o", markersize=14, fillstyle="none", color=INK)
    dress(axes, "Components", criterion.upper())
    _whole_ticks(axes, int(numbers.max(initial=2)))
    if len(kinds) > 1:
        axes.legend(frameon=False)
    titled(axes, f"{criterion.upper()} of the candidates; the best has a ring")


def draw_profile(axes: Any, parameters: Parameters, names: Sequence[str]) -> None:
    """How far each component's means are from those of all, in standard deviations of all rows."""
    features = most_telling(parameters, MAX_PROFILED)
    distances = away(parameters)[:, features]
    k = parameters.n_components
    axes.imshow(distances, cmap=_diverging(), vmin=-2, vmax=2, aspect="auto")
    if distances.size <= 240:
        for (j, f), value in np.ndenumerate(distances):
            axes.annotate(signed(value, 1), (f, j), ha="center", va="center", fontsize=11)
    dress(axes, "", "Component")
    axes.grid(False)
    axes.set_yticks(range(k) if k <= 30 else range(0, k, 5))
    upright = len(features) > 6
    axes.set_xticks(range(len(features)))
    axes.set_xticklabels(
        [drawable(names[f], 22) for f in features],
        rotation=30 if upright else 0, ha="right" if upright else "center", parse_math=False,
    )  # fmt: skip
    titled(axes, "Means, in standard deviations from the mean of all rows")


def _diverging() -> Any:
    """Colours from the report's blue over white to its orange, light enough for black letters."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("away", ["#66aad6", "#ffffff", "#ee9a5c"])


def _whole_ticks(axes: Any, n_passes: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    if n_passes <= 1:
        axes.set_xlim(0, 2)
