"""The report as one HTML file: no address outside it, and nothing from users runs as code."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined

from gmm_dask.mixture import responsibilities
from gmm_dask.stage.report import tables, text
from gmm_dask.stage.report.colours import CERTAIN
from gmm_dask.stage.report.data import ReportData
from gmm_dask.stage.report.figures import cluster_figure, likelihood_figure
from gmm_dask.stage.report.payload import payload, safe_json
from gmm_dask.stage.report.view import best_view

SCRIPTS = ("numbers.js", "drawing.js", "report.js")  # one scope, in this order

_WORDS = {
    "converged": ("Converged", "good"),
    "out_of_iterations": ("Stopped at the limit of passes", "warning"),
}


def render_report(data: ReportData) -> str:
    """The whole report as HTML; equal data give equal text.

    Everything that came from users is escaped, and the page's own policy lets a browser run the
    script that was put in here and no other, and load nothing.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_file("template.html.j2")).render(_context(data))


def _context(data: ReportData) -> dict[str, Any]:
    shown = payload(data)
    script = "".join(['(() => {\n"use strict";\n', *map(_file, SCRIPTS), "})();\n"])
    outcome, mood = _WORDS.get(data.outcome, (data.outcome.replace("_", " ").capitalize(), "bad"))
    certain = _certain_rows(data)
    n_rows, k = data.rows.shape[0], data.parameters.n_components
    return {
        "title": data.title,
        "summary": _summary(data),
        "outcome": outcome,
        "mood": mood,
        "advice": data.advice,
        "facts": tables.facts(data, certain / n_rows if n_rows and k > 1 else None),
        "sample": _about_sample(data, certain),
        "view": _about_view(data),
        "n_outside": best_view(data.parameters, data.feature_names).n_outside(
            data.rows, data.parameters
        ),
        "frames": _about_frames(data, shown),
        "n_frames": len(shown["frames"]),
        "names": shown["names"],
        "names_left_out": data.parameters.n_features - len(shown["names"]),
        "is_plane": shown["view"] is not None,
        "n_features": data.parameters.n_features,
        "palette": shown["palette"],
        "components": tables.component_table(data),
        "row_counts": tables.row_counts(data),
        "input": tables.input_lines(data),
        "timings": tables.timings(data.metrics),
        "criteria": tables.criteria(data.metrics),
        "settings": tables.settings_lines(data.settings),
        "versions": [(name, str(value)) for name, value in sorted(data.versions.items())],
        "events": list(tables.event_lines(data)),
        "passes": tables.pass_lines(data.lower_bounds),
        "n_passes": data.n_passes,
        "cluster_png": _data_uri(cluster_figure(data)),
        "curve_png": _data_uri(likelihood_figure(data.lower_bounds, data.outcome)),
        "payload": safe_json(shown),
        "style": _file("report.css"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def _summary(data: ReportData) -> str:
    used = data.metrics.get("n_used")
    rows = "The rows" if used is None else text.numbered(used, "row")
    verb = "was" if used == 1 else "were"
    k, passes = data.parameters.n_components, text.numbered(data.n_passes, "pass")
    features = text.numbered(data.parameters.n_features, "feature")
    return (
        f"{rows} {verb} described by {text.numbered(k, 'component')} of a Gaussian mixture on "
        f"{features}, in {passes} over the data."
    )


def _certain_rows(data: ReportData) -> int:
    resp = responsibilities(data.rows, data.parameters)
    return int((resp.max(axis=1, initial=0.0) >= CERTAIN).sum())


def _about_sample(data: ReportData, certain: int) -> str:
    n_rows, n_used = data.rows.shape[0], data.metrics.get("n_used")
    if not n_rows:
        return "No rows are drawn."
    whole = n_used == n_rows
    drawn = f"all {n_rows:,} rows" if whole else f"a sample of {text.numbered(n_rows, 'row')}"
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


def _about_view(data: ReportData) -> list[str]:
    view = best_view(data.parameters, data.feature_names)
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
    kept, states = len(shown["frames"]), len(data.states)
    if kept == states:
        return ""
    return f"The animation shows {kept:,} of {states:,} states, the early ones more closely."


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
