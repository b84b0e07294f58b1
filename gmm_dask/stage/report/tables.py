"""The tables of the report: components, rows, times, settings, events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from gmm_dask.pictures.telling import FAR, away, distinctions, strongest_correlations
from gmm_dask.pictures.view import CERTAIN
from gmm_dask.stage import text
from gmm_dask.stage.labels.certainty import agreements, profile_lines
from gmm_dask.stage.lineage.history import changed
from gmm_dask.stage.report.data import ReportData
from gmm_dask.stage.summary import Components, in_use

BLOCK = 6  # components side by side in one table, so that it fits a screen and a page
MAX_COMPONENTS = 64
MAX_CELLS = 4000  # about half a megabyte of HTML
MAX_KNOWN = 12  # components that are told in words
MAX_CORRELATIONS, LEAST_CORRELATION = 12, 0.2
MAX_UNLIKELY, MAX_UNLIKELY_FEATURES = 8, 6  # rows, and columns of them
MAX_KEPT, MAX_COUNTED = 6, 24  # kept columns, and components that their rows are counted by
MAX_LINES = 200  # settings, events and versions listed


@dataclass(frozen=True)
class Cell:
    """Mean and spread of one feature in one component, and how unusual the mean is.

    Parameters
    ----------
    mean, spread : str
        In the units of the data.
    tint : float
        0 for the overall mean to 1 for two standard deviations or more away.
    side : str
        "high", "low" or "".
    arrow : str
    """

    mean: str
    spread: str
    tint: float
    side: str
    arrow: str


@dataclass(frozen=True)
class Block:
    """A few components side by side: their columns, and one line of cells per feature."""

    columns: tuple[dict[str, str], ...]
    lines: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclass(frozen=True)
class ComponentTable:
    """All blocks, and how many components and features they had no room for."""

    blocks: tuple[Block, ...]
    n_components_left_out: int
    n_features_left_out: int


def component_table(data: ReportData) -> ComponentTable:
    """Sizes, weights, means and standard deviations, heaviest and most telling first in line."""
    shown = data.components
    k, d = shown.parameters.means.shape
    components = shown.heaviest(MAX_COMPONENTS)
    features = shown.most_telling(max(1, MAX_CELLS // len(components)))
    unusual = away(shown.parameters)
    cells = {j: _cells(shown, j, features, unusual[j]) for j in components}
    blocks = []
    for first in range(0, len(components), BLOCK):
        chosen = components[first : first + BLOCK]
        lines = tuple(
            (text.short(shown.names[f]), tuple(cells[j][row] for j in chosen))
            for row, f in enumerate(features)
        )
        blocks.append(Block(tuple(map(shown.heads, chosen)), lines))
    return ComponentTable(tuple(blocks), k - len(components), d - len(features))


@dataclass(frozen=True)
class Known:
    """A component by its number, its share and what it is known by."""

    component: int
    share: str
    words: str


def known_by(data: ReportData) -> list[Known]:
    """What each of the heaviest components is known by, the heaviest first."""
    parameters = data.parameters
    if parameters.n_components == 1:
        return []
    words = dict(enumerate(distinctions(parameters, data.feature_names)))
    records = data.metrics.get("profiles") or ()
    words |= profile_lines(parameters, data.feature_names, records)
    order = np.argsort(-parameters.weights, kind="stable")[:MAX_KNOWN]
    return [Known(int(j), text.percent(float(parameters.weights[j])), words[j]) for j in order]


def correlation_lines(data: ReportData) -> list[tuple[str, str]]:
    """The strongest correlations inside components."""
    found = strongest_correlations(data.parameters, data.feature_names, MAX_CORRELATIONS)
    return [
        (
            f"{'Every component' if j < 0 else f'Component {j}'}: {text.short(a)} with "
            f"{text.short(b)}",
            text.signed(value, 2),
        )
        for j, a, b, value in found
        if abs(value) >= LEAST_CORRELATION
    ]


def certainty_lines(data: ReportData) -> Sequence[tuple[str, ...]]:
    """For each component, of the rows drawn that it is the likeliest of: how sure they are."""
    resp = data.responsibilities(data.parameters)
    labels, sure = resp.argmax(axis=1), resp.max(axis=1, initial=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(resp > 0, resp * np.log2(resp), 0.0).sum(axis=1)
    lines = []
    for j in data.components.heaviest(MAX_COMPONENTS):
        mine = labels == j
        if mine.any():
            clear = text.percent(float((sure[mine] >= CERTAIN).mean()))
            mean = text.signed(float(sure[mine].mean()), 3)
            bits = text.signed(float(entropy[mine].mean()), 3)
            lines.append((str(j), text.count(int(mine.sum())), clear, mean, bits))
    return lines


def unlikely_rows(data: ReportData) -> tuple[list[str], list[tuple[str, ...]]]:
    """The least likely of the rows drawn: heads of the columns, and the rows."""
    features = data.components.most_telling(MAX_UNLIKELY_FEATURES)
    heads = ["Log-density", "Component", *(text.short(data.feature_names[f]) for f in features)]
    labels = data.responsibilities(data.parameters).argmax(axis=1)
    scales = data.components.spreads.min(axis=0)
    lines = []
    for row in np.argsort(data.log_density, kind="stable")[:MAX_UNLIKELY]:
        values = (text.measured(float(data.rows[row, f]), float(scales[f]))[0] for f in features)
        density = text.signed(float(data.log_density[row]), 2)
        lines.append((density, str(labels[row]), *values))
    return heads, lines


@dataclass(frozen=True)
class KeptColumn:
    """A kept column against the labels.

    Parameters
    ----------
    name, agreement : str
        Empty where the index says nothing.
    components : tuple of int
        The components whose rows are counted, of all labels.
    without : bool
        Whether rows without a component are counted in a last column.
    lines : tuple of (value, counts, most)
        What the rows of each value mostly are, in words.
    """

    name: str
    agreement: str
    components: tuple[int, ...]
    without: bool
    lines: tuple[tuple[str, tuple[str, ...], str], ...]


def kept_columns(data: ReportData) -> list[KeptColumn]:
    """Kept columns of few values, those that agree most with the labels first."""
    components = tuple(data.components.heaviest(MAX_COUNTED))
    found = []
    for name, index in islice(agreements(data.metrics).items(), MAX_KEPT):
        table = data.metrics["cross_tables"][name]
        without = any(each["counts"][-1] for each in table)
        shown = [*components, *([-1] if without else [])]
        lines = []
        for each in table:
            counts, value = each["counts"], each["value"]
            word = (
                "(missing)" if value is None else text.short(value) if value.strip() else "(empty)"
            )
            lines.append((word, tuple(text.count(counts[j]) for j in shown), _most(counts)))
        said = "" if index is None else text.signed(index, 3)
        found.append(KeptColumn(text.short(name), said, components, without, tuple(lines)))
    return found


def _most(counts: Sequence[int]) -> str:
    """Where most of these rows are, and which share of them."""
    most = max(counts)
    where = counts.index(most)
    named = "no component" if where == len(counts) - 1 else f"component {where}"
    return f"{named}, {text.percent(most / sum(counts))}"


def facts(data: ReportData, certain: float | None) -> list[tuple[str, str, str]]:
    """The numbers at the top: name, value, remark."""
    metrics = data.metrics
    found = [
        ("Rows used", text.count(metrics.get("n_used")), _of_rows(data)),
        (
            "Components",
            f"{data.parameters.n_components:,}",
            f"{data.parameters.covariance_type} covariances",
        ),
        *([("In use", used, "are the label of a row")] if (used := in_use(metrics)) else []),
        _passes(data),
    ]
    bound = data.final_lower_bound
    if bound is None and data.lower_bounds:
        bound = data.lower_bounds[-1]
    if bound is not None:
        total = metrics.get("log_likelihood")
        remark = "" if total is None else f"{text.signed(total, text.IN_TOTAL)} in total"
        found.append(("Log-likelihood per row", text.signed(bound, text.PER_ROW), remark))
    if search := metrics.get("search"):
        reached = f"{search['n_replicated']:,} of {search['n_starts']:,}"
        _, _, other = search["message"].partition("; ")
        found.append(("Starts that reached it", reached, other))
    if certain is not None:
        found.append(("Clear cases", text.percent(certain), "of the rows drawn"))
    return found


def row_counts(data: ReportData) -> list[tuple[str, str]]:
    """Rows read, used and dropped, and why."""
    metrics, plan = data.metrics, data.plan
    n_read = metrics.get("n_rows", plan.get("n_rows"))
    lines = [("Rows read", text.count(n_read)), ("Rows used", text.count(metrics.get("n_used")))]
    if incomplete := metrics.get("n_incomplete"):
        lines.append(("Used though values are missing", text.count(incomplete)))
    if (noise := metrics.get("n_noise")) is not None:
        lines.append(("Of them noise, with the label -1", text.count(noise)))
    lines += [(f"Dropped: {reason}", text.count(n)) for reason, n in data.dropped.items()]
    return lines if data.dropped else [*lines, ("Rows dropped", "0")]


def input_lines(data: ReportData) -> list[tuple[str, str]]:
    """Where the rows came from."""
    named = {
        "path": "Input",
        "tables": "Delta table",
        "n_files": "Files",
        "n_ignored": "Files ignored, as asked",
        "n_hidden": "Names passed over: they start with _ or .",
        "cast": "Columns taken for numbers, as asked",
        "n_chunks": "Chunks",
        "caution": "To be known",
    }
    lines = [
        (label, text.count(value) if isinstance(value, int) else text.readable(value))
        for key, label in named.items()
        if (value := data.plan.get(key)) is not None
    ]
    if (n_reads := data.metrics.get("n_reads")) is not None:
        lines.append(("Times all rows were read", text.count(n_reads)))
    if (held := data.metrics.get("chunks_held")) is not None and data.fitted_here:
        of_what = ("bytes_held", "chunks_in_scratch", "bytes_in_scratch")
        sizes = (data.metrics.get(name, 0) for name in of_what)
        n_chunks = data.plan.get("n_chunks") or held
        lines.append(("Between passes", text.held_chunks(n_chunks, held, *sizes)))
    names = {
        "bytes_decoded_per_pass": "Bytes decoded in a pass",
        "bytes_decoded": "Bytes decoded in all",
    }
    for key, label in names.items():
        if (n_bytes := data.metrics.get(key)) is not None:
            lines.append((label, text.size(n_bytes)))
    return [*lines, ("Run", data.run_id)]


def timings(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Wall time of each phase and of a pass."""
    seconds: Mapping[str, Any] = metrics.get("seconds") or {}
    names = {"fit": "Check of the rows"} if metrics.get("model_from") else {}
    lines = [
        (names.get(name, name.capitalize()), text.duration(value))
        for name, value in seconds.items()
        if isinstance(value, int | float)
    ]
    passes = [value for value in seconds.get("passes") or [] if value is not None]
    if passes:
        lines.append(("One pass, median", text.duration(float(np.median(passes)))))
        if metrics.get("n_used") and (median := float(np.median(passes))) > 0:
            lines.append(("Rows per second in a pass", text.count(metrics["n_used"] / median)))
    return lines


def criteria(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Information criteria, where they were computed."""
    return [
        (name.upper(), text.signed(metrics[name], 2))
        for name in ("bic", "aic", "icl")
        if metrics.get(name) is not None
    ]


def settings_lines(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings that are not as by default, as `section.key` and value."""
    return list(islice(text.flattened(changed(settings)), MAX_LINES))


def event_lines(events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Events as sentences; further details in brackets."""
    for event in events[:MAX_LINES]:
        if "message" in event:
            yield text.readable(event["message"])
        else:
            yield ", ".join(f"{key}: {text.readable(value)}" for key, value in event.items())
    if len(events) > MAX_LINES:
        yield f"{len(events) - MAX_LINES:,} more are in metrics.json."


def pass_lines(lower_bounds: tuple[float, ...]) -> list[tuple[str, str, str]]:
    """Pass, log-likelihood per row and its change; the middle of a long list is left out."""
    n = len(lower_bounds)
    shown = range(n) if n <= MAX_LINES else [*range(MAX_LINES // 2), *range(n - MAX_LINES // 2, n)]
    return [
        (
            f"{i + 1:,}",
            text.signed(lower_bounds[i], text.PER_ROW),
            "" if i == 0 else f"{lower_bounds[i] - lower_bounds[i - 1]:+.2e}".replace("-", "−"),
        )
        for i in shown
    ]


def _cells(shown: Components, j: int, features: Sequence[int], unusual: Any) -> list[Cell]:
    """The cells of a component; how unusual a mean is shows as a tint and an arrow."""
    return [
        _cell(*measured, float(unusual[f]))
        for f, measured in zip(features, shown.measured(j, features), strict=True)
    ]


def _cell(mean: str, spread: str, away: float) -> Cell:
    side = ("high" if away > 0 else "low") if abs(away) >= 0.2 else ""
    arrow = ("↑" if away > 0 else "↓") if abs(away) >= FAR else ""
    return Cell(mean, spread, round(min(abs(away) / 2, 1.0), 2), side, arrow)


def _of_rows(data: ReportData) -> str:
    n_rows = data.metrics.get("n_rows")
    if n_rows is None:
        return ""
    read = f"of {n_rows:,} read" if data.dropped else "all that were read"
    incomplete = data.metrics.get("n_incomplete")
    return f"{read}; {incomplete:,} incomplete" if incomplete else read


def _passes(data: ReportData) -> tuple[str, str, str]:
    taken = _total_time(data.metrics)
    if not data.fitted_here:
        return "Passes over the data", "none", "; ".join(filter(None, ["no fit", taken]))
    best = f"best of {data.n_starts} starts" if data.n_starts > 1 else ""
    n_taken_back = data.metrics.get("n_taken_back")
    more = f"{n_taken_back:,} more were taken back" if n_taken_back else ""
    remarks = filter(None, [best, more, taken])
    return "Passes over the data", f"{data.n_passes:,}", "; ".join(remarks)


def _total_time(metrics: Mapping[str, Any]) -> str:
    seconds = (metrics.get("seconds") or {}).values()
    phases = [value for value in seconds if isinstance(value, int | float)]
    return f"{text.duration(sum(phases))} for the whole run" if phases else ""
