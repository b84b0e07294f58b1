"""The results of a command on stdout: what was published, versions, models."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from gmm_dask.command.console import fit_text, make_console, print_line
from gmm_dask.stage import text
from gmm_dask.stage.lineage.history import Listed
from gmm_dask.stage.outputs import Published, open_output, read_model
from gmm_dask.stage.summary import Ending, Ranked, Summary, measures, rows_used
from gmm_dask.storage import Model

MAX_FEATURES = 24  # lines of a table that people still read
MAX_COMPONENTS = 24
MAX_CANDIDATES = 12
VERSION_HEADS = (
    "version", "published (UTC)", "run", "rows", "K", "log-likelihood", "settings", "data"
)  # fmt: skip


def print_ref(ref: str, *, as_json: bool) -> None:
    """Print a version, or the model of a model.json, for people or as one JSON object."""
    if not ref.endswith(".json"):
        published = open_output(ref)
        if as_json:
            _print_json(published.model, published.metrics, published)
        else:
            print_published(published)
    elif as_json:
        _print_json(read_model(ref), {}, None)
    else:
        print_model(read_model(ref), ref)


def _print_json(model: Model, metrics: Mapping[str, Any], published: Published | None) -> None:
    """One object on one line: facts of the version, its metrics, and its components by feature."""
    summary = Summary.of(model, metrics, () if published is None else published.names)
    parameters, spreads = model.parameters, summary.components.spreads
    document: dict[str, Any] = {"version": None, "run_id": None, "published": None, "places": {}}
    names: tuple[str | None, ...] = ()
    if published is not None:
        version, names = published.version, published.names
        document |= {"version": version.number, "run_id": version.run_id}
        document |= {"published": version.published, "places": published.places}
    document["model"] = {
        "outcome": model.outcome,
        "n_passes": model.n_passes,
        "n_rows": model.n_rows,
        "covariance_type": parameters.covariance_type,
        "features": list(model.feature_names),
        "sha256": model.sha256,
    }
    document["components"] = [
        {
            "component": j,
            "name": names[j] if names else None,
            "weight": float(parameters.weights[j]),
            "mean": dict(zip(model.feature_names, parameters.means[j].tolist(), strict=True)),
            "sd": dict(zip(model.feature_names, spreads[j].tolist(), strict=True)),
        }
        for j in range(parameters.n_components)
    ]
    line = json.dumps(document | {"metrics": metrics}, ensure_ascii=True, allow_nan=False)
    sys.stdout.write(f"{line}\n")


def print_published(
    published: Published, console: Console | None = None, told: Collection[str] = ()
) -> None:
    """Print the components, how the fit ended, and where model, labels and report lie.

    Cautions that were `told` on the same terminal are left out.
    """
    console = console or make_console()
    version, metrics, model = published.version, published.metrics, published.model
    where = f"version {version.number} of {published.folder.store.url} (run {version.run_id})"
    summary = Summary.of(model, metrics, published.names)
    facts = {"published": text.moment(version.published)}
    if (begun := metrics.get("published")) is not None:
        facts["published"] += f", a run of {text.moment(begun)}"
    facts |= {"rows": rows_used(metrics)} | measures(metrics) | _ending(summary.ending)
    facts |= (
        _events(summary) | published.places
    )  # reads: a slow store would stop a half-told result
    print_line(console, f"{'Published' if published.new else 'This is'} {where}.", "bold")
    _print_features(console, summary, told)
    _print_candidates(console, metrics)
    _print_components(console, summary)
    _print_facts(console, facts)


def _print_candidates(console: Console, metrics: Mapping[str, Any]) -> None:
    """The candidates of a choice, the best first, and why it was made."""
    if (ranked := Ranked.of(metrics, MAX_CANDIDATES)) is None:
        return
    print_line(console, f"Candidates by {ranked.heading}:", "bold")
    lines = [ranked.heads, *ranked.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
        print_line(console, "  ".join(cells))
    for sentence in ranked.reason:
        print_line(console, sentence)
    console.print()


def print_outcome(published: Published, told: Collection[str] = ()) -> None:
    """Print what a command ended with, and what it wrote where that is not all of a run."""
    print_published(published, told=told)
    if not published.new or published.earlier is not None:
        print_line(make_console(), published.news)


def print_versions(listed: Sequence[Listed], console: Console | None = None) -> None:
    """Print a line for each version; none is cut to the width of the terminal."""
    console = console or make_console()
    lines = [VERSION_HEADS, *(_cells(each, each is listed[-1]) for each in listed)]
    widths = [
        max(len(line[i]) for line in lines if len(line) > i + 1)  # what is last needs no room
        for i in range(len(VERSION_HEADS) - 1)
    ]
    for line in lines:
        padded = [f"{cell:{width}}" for cell, width in zip(line[:-1], widths, strict=False)]
        print_line(console, "  ".join((*padded, line[-1])))


def _cells(listed: Listed, is_latest: bool) -> tuple[str, ...]:
    """The cells of a version's line; where its entry is damaged, one cell says so."""
    marks = ", ".join((*(["latest"] if is_latest else []), *listed.aliases))
    number, version = f"{listed.number} ({marks})" if marks else str(listed.number), listed.version
    problem = None if listed.problem is None else " ".join(listed.problem.split())
    if version is None:
        return number, problem or ""
    known = (
        number,
        text.moment(version.published).removesuffix(" UTC"),
        version.run_id,
        f"{version.rows:,}",
    )
    if problem is not None:
        return *known, problem
    if listed.n_components is None:
        return *known, listed.removed or ""
    likelihood = "" if listed.log_likelihood is None else text.in_total(listed.log_likelihood)
    data = ", ".join(filter(None, (listed.data, listed.removed)))
    of_run = (str(listed.n_components), likelihood, listed.settings or "", data)
    return known + of_run


def print_model(model: Model, path: str, console: Console | None = None) -> None:
    """Print a model that is known by its file alone."""
    console = console or make_console()
    summary = Summary.of(model, {})
    _print_features(console, summary)
    _print_components(console, summary)
    facts = {"rows": f"{model.n_rows:,}"}
    if model.lower_bounds:
        facts["log-likelihood"] = f"{text.per_row(model.lower_bounds[-1])} per row in the last pass"
    _print_facts(console, facts | _ending(summary.ending) | {"model": path})


def _print_features(console: Console, summary: Summary, told: Collection[str] = ()) -> None:
    """The features, whether somebody named them, and what they are cautioned against for."""
    print_line(console, f"{summary.features}.")
    for caution in (each for each in summary.cautions if each not in told):
        print_line(console, f"Caution: {caution}", "yellow")
    console.print()


def _ending(ending: Ending) -> dict[str, str]:
    if ending.outcome == "labelled":
        return {"fit": f"none: {ending.passes}"}
    return {"outcome": f"{ending.outcome.replace('_', ' ')} after {ending.passes}. {ending.advice}"}


def _events(summary: Summary) -> dict[str, str]:
    """The first event that is no caution, and how many there are."""
    if not (events := summary.events):
        return {}
    more = f" ({len(events) - 1} more in the report)" if len(events) > 1 else ""
    return {"events": f"{events[0]['message']}{more}"}


def _print_facts(console: Console, facts: dict[str, str]) -> None:
    width = max(map(len, facts))
    for name, value in facts.items():
        print_line(console, f"{name:<{width}}  {value}")


def _print_components(console: Console, summary: Summary) -> None:
    """Components side by side, as many as the width takes, in blocks one below the other."""
    shown = summary.components
    components, features = shown.heaviest(MAX_COMPONENTS), shown.most_telling(MAX_FEATURES)
    names = [*shown.heads(components[0]), *(text.short(shown.names[f]) for f in features)]
    columns = [
        [*shown.heads(j).values(), *map(" ± ".join, shown.measured(j, features))]
        for j in components
    ]
    for block in _blocks(columns, console.width - max(map(len, names)) - 2):
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for j in range(len(block) + 1):
            table.add_column(justify="right" if j else "left", overflow="fold")
        for number, line in enumerate(zip(names, *block, strict=True)):
            table.add_row(
                *(fit_text(cell, console) for cell in line), style="" if number else "bold"
            )
        console.print(table)
    for total, these, noun in (
        (shown.parameters.n_components, components, "component"),
        (shown.parameters.n_features, features, "feature"),
    ):
        if more := total - len(these):
            print_line(
                console, f"{text.numbered(more, f'more {noun}')} in parameters.parquet", "dim"
            )
    console.print()
    for j in (each for each in components if each in summary.profiles):
        print_line(console, f"component {j}  {summary.profiles[j]}")
    if summary.profiles:
        console.print()


def _blocks(columns: list[list[str]], width: int) -> Iterator[list[list[str]]]:
    """The columns in groups that fit the width; a group has at least one."""
    block: list[list[str]] = []
    room = width
    for column in columns:
        needed = max(map(len, column)) + 2
        if block and needed > room:
            yield block
            block, room = [], width
        block.append(column)
        room -= needed
    yield block
