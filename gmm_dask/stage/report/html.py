"""The report as one HTML file: no address outside it, and nothing from users runs as code."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from gmm_dask.errors import shown
from gmm_dask.pictures.view import CERTAIN
from gmm_dask.stage import text
from gmm_dask.stage.report import tables
from gmm_dask.stage.report.data import ReportData
from gmm_dask.stage.report.figures import (
    certainty_figure,
    cluster_figure,
    density_figure,
    drift_figure,
    likelihood_figure,
    merges_figure,
    pairs_figure,
    profile_figure,
    selection_figure,
)
from gmm_dask.stage.report.payload import payload, safe_json
from gmm_dask.stage.summary import Ranked

MAX_CANDIDATES = 60  # in the table of a choice
SCRIPTS = ("numbers.js", "drawing.js", "report.js")  # one scope, in this order

MAX_PAIRED = 24  # components beyond which pairs of features show no single one any more

_WORDS = {
    "converged": ("Converged", "good"),
    "labelled": ("Labelled with a published model", "good"),
    "out_of_iterations": ("Stopped at the limit of passes", "warning"),
    "refreshed": ("Refreshed by one step from kept sums", "good"),
    "polished": ("Polished, not settled yet", "warning"),
}


def render_report(data: ReportData) -> str:
    """The whole report as HTML; equal data give equal text.

    Everything that came from users is escaped, and the page's own policy lets a browser run the
    script that was put in here and no other, and load nothing.
    """
    return _template("template.html.j2").render(_context(data))


def render_comparison(title: str, events: Sequence[str], sheets: Sequence[Any]) -> str:
    """Tables of a comparison as HTML, without a script; each has title, heads, rows and remark."""
    page = _template("compare.html.j2")
    return page.render(title=title, events=events, sheets=sheets, style=_file("report.css"))


@cache
def _template(name: str) -> Template:
    """A template as code, which takes longer to make than all tables of a report."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_on_one_line,
    )
    return environment.from_string(_file(name))


def _on_one_line(value: Any) -> Any:
    """Texts of users as messages show them; what is markup already stays."""
    return shown(value) if type(value) is str else value


def _context(data: ReportData) -> dict[str, Any]:
    sent, drawn = payload(data), {name: _data_uri(png) for name, png in pictures(data).items()}
    script = "".join(['(() => {\n"use strict";\n', *map(_file, SCRIPTS), "})();\n"])
    outcome, mood = _WORDS.get(data.outcome, (data.outcome.replace("_", " ").capitalize(), "bad"))
    certain = _certain_rows(data)
    n_rows, k = data.rows.shape[0], data.parameters.n_components
    return {
        "title": data.title,
        "summary": _summary(data),
        "features": text.features(data.feature_names, named=data.metrics.get("features_named")),
        "cautions": [text.readable(line) for line in data.cautions],
        "happenings": list(tables.event_lines(data.happenings)),
        "outcome": outcome,
        "mood": mood,
        "advice": data.advice,
        "facts": tables.facts(data, certain / n_rows if n_rows and k > 1 else None),
        "sample": _about_sample(data, certain),
        "view": _about_view(data),
        "n_outside": data.view.n_outside(data.rows, data.parameters),
        "frames": _about_frames(data, sent),
        "from_start": data.states[0].number == 1,
        "fitted_here": data.fitted_here,
        "objective": data.objective.capitalize(),
        "curve": _about_curve(data),
        "n_frames": len(sent["frames"]),
        "names": sent["names"],
        "names_left_out": data.parameters.n_features - len(sent["names"]),
        "n_clusters": data.n_clusters,
        "is_plane": sent["view"] is not None,
        "n_features": data.parameters.n_features,
        "palette": sent["palette"],
        "components": tables.component_table(data),
        "row_counts": tables.row_counts(data),
        "input": tables.input_lines(data),
        "timings": tables.timings(data.metrics),
        "criteria": tables.criteria(data.metrics),
        "settings": tables.settings_lines(data.settings),
        "versions": [(name, str(value)) for name, value in sorted(data.versions.items())],
        "events": list(tables.event_lines(data.events)),
        "passes": tables.pass_lines(data.lower_bounds),
        "n_passes": data.n_passes,
        "pictures": drawn,
        "known_by": tables.known_by(data),
        "about_run": _about_run(data),
        "correlations": tables.correlation_lines(data),
        "certainty": tables.certainty_lines(data) if k > 1 else [],
        "unlikely": tables.unlikely_rows(data),
        "n_drawn": n_rows,
        "kept_columns": tables.kept_columns(data),
        "drifted": (data.metrics.get("refresh") or {}).get("exceeded") or [],
        "ranked": Ranked.of(data.metrics, MAX_CANDIDATES),
        "payload": safe_json(sent),
        "style": _file("report.css"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def pictures(data: ReportData) -> dict[str, bytes]:
    """The still pictures as PNG, by name; those of rows are left out where none is drawn."""
    found = {"clusters": cluster_figure(data), "densities": density_figure(data)}
    if data.n_passes:
        found["curve"] = likelihood_figure(
            data.lower_bounds, data.outcome, data.objective, data.sample_bounds
        )
    if data.parameters.n_features > 1 and data.parameters.n_components <= MAX_PAIRED:
        found["pairs"] = pairs_figure(data)
    if data.parameters.n_components > 1:
        found["profile"] = profile_figure(data)
        if len(data.rows):
            found["certainty"] = certainty_figure(data)
    k = data.parameters.n_components
    if data.merge_tree is not None and data.n_clusters < k <= MAX_PAIRED:
        found["merges"] = merges_figure(data.merge_tree, data.n_clusters)
    if (refresh := data.metrics.get("refresh")) and refresh["curves"]:
        found["drift"] = drift_figure(refresh["curves"])
    if (selection := data.metrics.get("selection")) is not None:
        found["choice"] = selection_figure(selection)
    return found


def _about_run(data: ReportData) -> list[str]:
    """When the run was published, of what data and under which name."""
    published = data.metrics.get("published")
    when = None if published is None else f"Published {text.moment(published)}"
    path = data.plan.get("path")
    data_of = None if path is None else f"data: {text.readable(path)}"
    software = data.versions.get("gmm-dask")
    made = None if software is None else f"gmm-dask {software}"
    return [each for each in (when, data_of, f"run {data.run_id}", made) if each is not None]


def _summary(data: ReportData) -> str:
    used = data.metrics.get("n_used")
    rows = "The rows" if used is None else text.numbered(used, "row")
    verb = "was" if used == 1 else "were"
    components = text.numbered(data.parameters.n_components, "component")
    mixture = f"a Gaussian mixture on {text.numbered(data.parameters.n_features, 'feature')}"
    if not data.fitted_here:
        return f"{rows} {verb} labelled by {components} of {mixture} that was fitted before."
    passes = f"{text.numbered(data.n_passes, 'pass')} over the data"
    best = f", the best of {data.n_starts} starts" if data.n_starts > 1 else ""
    return f"{rows} {verb} described by {components} of {mixture}, in {passes}{best}."


def _certain_rows(data: ReportData) -> int:
    return int((data.responsibilities(data.parameters).max(axis=1, initial=0.0) >= CERTAIN).sum())


def _about_sample(data: ReportData, certain: int) -> str:
    n_rows = data.rows.shape[0]
    if not n_rows:
        return "No rows are drawn" + (": none is complete." if len(data.sample) else ".")
    drawn = _drawn(data)
    if data.parameters.n_components == 1:
        return f"The picture shows {drawn}."
    sure = f"{100 * CERTAIN:.0f} %"
    uncertain = n_rows - certain
    if not uncertain:
        return f"The picture shows {drawn}. Each belongs to its component for {sure} or more."
    ring = "" if data.parameters.n_features == 1 else ", drawn with a ring"
    return (
        f"The picture shows {drawn}. Clear cases, which belong to one component for {sure} or "
        f"more: {certain:,}. Between components: {uncertain:,}{ring}."
    )


def _drawn(data: ReportData) -> str:
    n_rows, n_incomplete = data.rows.shape[0], data.metrics.get("n_incomplete") or 0
    kind = "complete row" if n_incomplete else "row"
    if n_rows == (data.metrics.get("n_used") or 0) - n_incomplete:
        return f"all {n_rows:,} {kind}s"
    return f"a sample of {text.numbered(n_rows, kind)}"


def _about_view(data: ReportData) -> list[str]:
    view = data.view
    if not view.names_of:
        return []
    if data.parameters.n_components == 1:
        first = "With one component, the best view shows the directions of widest spread."
    elif view.separation is None:
        first = "The centres do not differ, so the view shows the directions of widest spread."
    else:
        kept = "all" if view.separation > 1 - 1e-9 else text.percent(view.separation)
        first = (
            "The best view looks along the two directions that tell the components apart best. "
            f"It keeps {kept} of the separation between their centres."
        )
    lines = [first]
    for axis, named in enumerate(view.names_of):
        parts = [f"{text.short(n)} (correlation {text.signed(c, 2)})" for n, c in named]
        lines.append(f"Direction {axis + 1} goes mainly with {' and '.join(parts)}.")
    return lines


def _about_frames(data: ReportData, shown: dict[str, Any]) -> str:
    kept, states, first = len(shown["frames"]), len(data.states), data.states[0].number
    lines = []
    if data.n_sample_passes:
        passes = text.numbered(data.n_sample_passes, "pass")
        lines.append(f"The first {passes} are over a sample of the rows, where the start is found.")
    if first > 1:
        passes = text.numbered(first - 1, "pass")
        lines.append(f"It begins after {passes}: until then there were other components.")
    if kept < states:
        lines.append(f"It shows {kept:,} of {states:,} states, the early ones more closely.")
    return " ".join(lines)


def _about_curve(data: ReportData) -> str:
    prior = " with the log-density of the priors" if data.objective == "log-posterior" else ""
    says = f"The {data.objective} per row{prior} says how well the components describe the rows"
    falls = " except where a component was floored, reseeded or dropped" if data.happenings else ""
    if data.n_sample_passes:
        falls += " but at the dashed line, from which on it is that of all rows"
    return (
        f"{says}: higher is better. It rises from pass to pass{falls}, and the fit ends when it "
        f"no longer changes by more than the tolerance."
    )


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
