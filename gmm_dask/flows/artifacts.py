"""What a published run shows in Prefect: components, curve, picture, and where everything lies."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from gmm_dask.errors import shown
from gmm_dask.redaction import redacted
from gmm_dask.stage import text
from gmm_dask.stage.fit import Fitted
from gmm_dask.stage.job import Job
from gmm_dask.stage.lineage.comparison import Comparison
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.publish import report_data
from gmm_dask.stage.report.figures import cluster_figure, likelihood_figure
from gmm_dask.stage.settings import Settings
from gmm_dask.stage.summary import Ending, Ranked, Summary, measures

COMPONENTS = "gmm-components"
LOG_LIKELIHOOD = "gmm-log-likelihood"
CLUSTERS = "gmm-clusters"
OUTPUTS = "gmm-outputs"
LABELLED = "gmm-labelled"
COMPARISON = "gmm-comparison"
HEADS = ("component", "weight", "rows")  # of the table of components, before the features

MAX_CANDIDATES = 12  # of a choice, on the same page
MAX_EVENTS = 5  # on the page of the outputs; all are in the report

Rows = list[dict[str, str | int]]


def show_fit(published: Published, fresh: tuple[Job[Settings], Fitted] | None = None) -> None:
    """Create the artifacts of a fit; the picture needs the rows of a run that was just made.

    The run is published already, so artifacts that cannot be created are a warning.
    """
    metrics = published.metrics
    try:
        create_table_artifact(
            component_rows(published), key=COMPONENTS, description=_components_say(published)
        )
        objective = metrics.get("objective") or "log-likelihood"
        curve = likelihood_figure(metrics["lower_bounds"], metrics["outcome"], objective)
        title = f"{objective.capitalize()} per row, pass by pass"
        create_markdown_artifact(
            picture(title, curve, _curve_says(published)),
            key=LOG_LIKELIHOOD,
            description=f"{title}.",
        )
        if fresh is not None:
            job, fitted = fresh
            clusters = cluster_figure(report_data(job, fitted, metrics))
            create_markdown_artifact(
                picture("Components and rows, at the start and at the end", clusters),
                key=CLUSTERS,
                description="Components over a sample of rows, at the start and at the end.",
            )
        _show_outputs(published)
    except Exception as error:
        _warn(error)


def show_labels(published: Published) -> None:
    """Create the artifacts of a run that labelled with a published model."""
    try:
        create_table_artifact(
            labelled_rows(published), key=LABELLED, description=_labels_say(published)
        )
        _show_outputs(published)
    except Exception as error:
        _warn(error)


def show_comparison(found: Comparison) -> None:
    """Create the artifact of two versions that were compared."""
    try:
        create_markdown_artifact(
            comparison_markdown(found), key=COMPARISON, description="Two versions side by side."
        )
    except Exception as error:
        get_run_logger().warning("What was compared cannot be shown: %s", error)


def comparison_markdown(found: Comparison) -> str:
    """What happened to components, and every table of the comparison."""
    lines = [f"## {_code(found.title)}", "", *(f"- {_code(each)}" for each in found.events)]
    for sheet in found.sheets:
        table = [sheet.heads, ("---",) * len(sheet.heads), *sheet.rows]
        cells = [[cell if cell == "---" else _plain(cell) for cell in line] for line in table]
        lines += ["", f"### {sheet.title}", "", *(f"| {' | '.join(line)} |" for line in cells)]
        lines += ["", sheet.remark]
    return "\n".join(lines).rstrip() + "\n"


def component_rows(published: Published) -> Rows:
    """One row per component: weight, labelled rows, mean and spread of each feature."""
    shown = Summary.of(published.model, published.metrics, published.names).components
    heads, every = feature_heads(shown.names), range(len(shown.names))
    rows: Rows = []
    for j, labelled in enumerate(published.metrics["n_labelled"]):
        fixed = (j, f"{shown.parameters.weights[j]:.4f}", labelled)
        cells = map(" ± ".join, shown.measured(j, every))
        rows.append(dict(zip((*HEADS, *heads), (*fixed, *cells), strict=True)))
    return rows


def feature_heads(names: Sequence[str]) -> list[str]:
    """A head for each feature; one that is named like another column of the table says so."""
    heads: list[str] = []
    names = [shown(name) for name in names]
    for name in names:
        taken = {*HEADS, *heads, *(other for other in names if other != name)}
        while name in taken:
            name += " (feature)"
        heads.append(name)
    return heads


def labelled_rows(published: Published) -> Rows:
    """One row per component with the rows that got its label, and one for those without."""
    rows: Rows = [
        {"label": j, "rows": count} for j, count in enumerate(published.metrics["n_labelled"])
    ]
    dropped = published.metrics["n_dropped"] | {"noise": published.metrics.get("n_noise")}
    return rows + [{"label": f"-1 ({why})", "rows": n} for why, n in dropped.items() if n]


def picture(title: str, png: bytes, words: str = "") -> str:
    """Markdown that carries the picture itself; Prefect's pages do not draw inline SVG."""
    encoded = base64.b64encode(png).decode("ascii")
    return f"![{title}](data:image/png;base64,{encoded})\n\n{words}".rstrip() + "\n"


def outputs_markdown(published: Published) -> str:
    """Where model, labels and report lie, and what the run came to."""
    version, metrics = published.version, published.metrics
    summary = Summary.of(published.model, metrics)
    lines = [
        f"## Version {version.number}",
        "",
        published.news,
        "",
        "| | |",
        "|---|---|",
        *(f"| {what} | {_cell(path)} |" for what, path in published.places.items()),
        f"| published | {text.moment(version.published)} |",
        f"| features | {_cell(summary.features)} |",
        f"| run | {published.folder.run_id} |",
        f"| rows used | {_rows_used(metrics)} |",
        *(f"| {what} | {said} |" for what, said in measures(metrics).items()),
    ]
    if (ranked := Ranked.of(metrics, MAX_CANDIDATES)) is not None:
        cells = [ranked.heads, ("---",) * len(ranked.heads), *ranked.rows]
        lines += ["", f"Candidates by {ranked.heading}:", ""]
        lines += [f"| {' | '.join(line)} |" for line in cells]
        lines += ["", *(f"- {sentence}" for sentence in ranked.reason)]
    first = [event["message"] for event in summary.events[:MAX_EVENTS]]
    lines += ["", *(f"- {_code(message)}" for message in (*summary.cautions, *first))]
    return "\n".join(lines).rstrip() + "\n"


def _rows_used(metrics: dict[str, Any]) -> str:
    used = f"{metrics['n_used']:,} of {metrics['n_rows']:,}"
    incomplete = metrics.get("n_incomplete")
    return f"{used}, {incomplete:,} with missing values" if incomplete else used


def _show_outputs(published: Published) -> None:
    create_markdown_artifact(
        outputs_markdown(published),
        key=OUTPUTS,
        description="Where model, labels and report lie.",
    )


def _code(words: str) -> str:
    """Markdown code, in which no character of a path has a meaning of its own."""
    words = shown(redacted(words))
    fence = "`" * (1 + max(map(len, re.findall("`+", words)), default=0))
    pad = " " if {words[:1], words[-1:]} & {"`", " "} else ""  # one on each side is not shown
    return f"{fence}{pad}{words}{pad}{fence}"


def _cell(words: str) -> str:
    """Markdown code for a table, where a bar would end the cell."""
    return _code(words).replace("|", "\\|")


def _plain(words: str) -> str:
    """A cell in which no character of a name has a meaning of its own."""
    return re.sub(r"([\\`*_{}\[\]<>#|~!&])", r"\\\1", shown(redacted(words)))


def _components_say(published: Published) -> str:
    parameters = published.model.parameters
    return (
        f"{text.numbered(parameters.n_components, 'component')} of covariance type "
        f"{parameters.covariance_type}; "
        "mean ± standard deviation of each feature."
    )


def _curve_says(published: Published) -> str:
    ending = Ending.of(published.model, published.metrics)
    return f"{ending.passes[0].upper()}{ending.passes[1:]}. {ending.advice}"


def _labels_say(published: Published) -> str:
    return f"Rows by label; {text.numbered(published.metrics['n_rows'], 'row')} in all."


def _warn(error: Exception) -> None:
    get_run_logger().warning("The run is published, but not all of it can be shown: %s", error)
