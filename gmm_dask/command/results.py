"""The results of a command on stdout: what was published, versions, models."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from gmm_dask.cautions import told_apart
from gmm_dask.command.console import fit_text, make_console, print_line
from gmm_dask.fitting import Outcome
from gmm_dask.stage import text
from gmm_dask.stage.history import Listed
from gmm_dask.stage.outputs import Published, label_parts
from gmm_dask.stage.report.view import separations
from gmm_dask.storage import Model

MAX_FEATURES = 24  # lines of a table that people still read
MAX_COMPONENTS = 24
VERSION_HEADS = (
    "version", "published (UTC)", "run", "rows", "K", "log-likelihood", "settings", "data"
)  # fmt: skip


def print_published(
    published: Published, console: Console | None = None, told: Collection[str] = ()
) -> None:
    """Print the components, how the fit ended, and where model, labels and report lie.

    Cautions that were `told` on the same terminal are left out.
    """
    console = console or make_console()
    version, metrics, model = published.version, published.metrics, published.model
    where = f"version {version.number} of {published.folder.store.url} (run {version.run_id})"
    if published.new:
        print_line(console, f"Published {where}.", "bold")
    else:
        print_line(console, f"This is {where}.", "bold")
    _print_features(console, model, metrics, told)
    _print_components(console, model, metrics["n_labelled"], sizes=not metrics.get("model_from"))
    facts = {"published": text.moment(version.published)}
    if (begun := metrics.get("published")) is not None:
        facts["published"] += f", a run of {text.moment(begun)}"
    facts |= {"rows": _rows(metrics)} | measures(metrics) | _ending(model, metrics)
    _print_facts(console, facts | _events(metrics) | places(published))


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
    """The cells of a version's line; what is damaged is told in the place of the others."""
    number, version = f"{listed.number}{' (latest)' if is_latest else ''}", listed.version
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
    likelihood = "" if listed.log_likelihood is None else text.in_total(listed.log_likelihood)
    of_run = (str(listed.n_components), likelihood, listed.settings or "", listed.data or "")
    return known + of_run


def print_model(model: Model, path: str, console: Console | None = None) -> None:
    """Print a model that is known by its file alone."""
    console = console or make_console()
    _print_features(console, model, {})
    _print_components(console, model, None, sizes=True)
    facts = {"rows": f"{model.n_rows:,}"}
    if model.lower_bounds:
        facts["log-likelihood"] = f"{text.per_row(model.lower_bounds[-1])} per row in the last pass"
    _print_facts(console, facts | _ending(model, {}) | {"model": path})


def _print_features(
    console: Console, model: Model, metrics: Mapping[str, Any], told: Collection[str] = ()
) -> None:
    """The features, whether somebody named them, and what they are cautioned against for."""
    named = metrics.get("features_named")
    print_line(console, f"{text.features(model.feature_names, named=named)}.")
    cautions, _ = told_apart(metrics.get("events") or ())
    for caution in (each for each in cautions if each not in told):
        print_line(console, f"Caution: {caution}", "yellow")
    console.print()


def _rows(metrics: Mapping[str, Any]) -> str:
    rows = f"{metrics['n_rows']:,}" if metrics["n_rows"] else "0: no file holds a row"
    if dropped := metrics["n_rows"] - metrics["n_used"]:
        rows += f", {dropped:,} of them without a label: a value is missing"
    if incomplete := metrics.get("n_incomplete"):
        rows += f", {incomplete:,} of them used though values are missing"
    if tables := metrics.get("tables"):
        rows += f"; of the Delta table, {text.table_versions(tables)}"
    if ignored := metrics.get("n_ignored"):
        rows += f"; {text.numbered(ignored, 'file')} ignored, as asked"
    if cast := metrics.get("cast"):
        rows += f"; taken for numbers, as asked: {', '.join(cast)}"
    return rows


def measures(metrics: Mapping[str, Any]) -> dict[str, str]:
    """How well the mixture describes the rows; without rows that count there is no saying."""
    if metrics["log_likelihood_per_row"] is None:
        return {"log-likelihood": "none: no row counts"}
    return {
        "log-likelihood": f"{text.in_total(metrics['log_likelihood'])} in total, "
        f"{text.per_row(metrics['log_likelihood_per_row'])} per row",
        "criteria": ", ".join(
            f"{name.upper()} {metrics[name]:,.2f}" for name in ("bic", "aic", "icl")
        ),
    }


def _ending(model: Model, metrics: Mapping[str, Any]) -> dict[str, str]:
    outcome = Outcome(model.outcome)
    ended = f"{outcome.replace('_', ' ')} after"
    if source := metrics.get("model_from"):
        rows, passes = text.numbered(model.n_rows, "row"), text.numbered(model.n_passes, "pass")
        return {"fit": f"none: the model is that of {source}, fitted to {rows}; {ended} {passes}"}
    return {"outcome": f"{ended} {passes_made(model.n_passes, metrics)}. {outcome.advice}"}


def passes_made(n_passes: int, metrics: Mapping[str, Any]) -> str:
    """The passes of the start that was kept, and what else was read."""
    passes = text.numbered(n_passes, "pass")
    if taken_back := metrics.get("n_taken_back"):
        passes += f", and {taken_back:,} that were taken back,"
    if (starts := metrics.get("n_starts", 1)) == 1:
        return f"{passes} over the data"
    reads = text.numbered(metrics["n_reads"], "time")
    return f"{passes.rstrip(',')}, the best of {starts} starts; all rows were read {reads}"


def _events(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The first event that is no caution, and how many there are."""
    _, events = told_apart(metrics.get("events") or ())
    if not events:
        return {}
    more = f" ({len(events) - 1} more in the report)" if len(events) > 1 else ""
    return {"events": f"{events[0]['message']}{more}"}


def places(published: Published) -> dict[str, str]:
    """Where model, labels and report lie; there may be no labels."""
    ref = f"{published.folder.store.url}@{published.version.number}"
    shown = ["model", "labels", "report"] if label_parts(ref) else ["model", "report"]
    return {what: published.path(what) for what in shown}


def _print_facts(console: Console, facts: dict[str, str]) -> None:
    width = max(map(len, facts))
    for name, value in facts.items():
        print_line(console, f"{name:<{width}}  {value}")


def _print_components(
    console: Console, model: Model, n_labelled: Sequence[int] | None, *, sizes: bool
) -> None:
    """Components side by side, as many as the width takes, in blocks one below the other."""
    parameters = model.parameters
    spreads = np.sqrt(np.einsum("kdd->kd", parameters.dense_covariances()))
    components = _foremost(parameters.weights, MAX_COMPONENTS)
    features = _foremost(separations(parameters), MAX_FEATURES)
    heads = ["component", "weight"] + ["size"] * sizes + ["labelled"] * (n_labelled is not None)
    names = heads + [text.short(model.feature_names[f]) for f in features]
    columns = []
    for j in components:
        weight = float(parameters.weights[j])
        cells = [str(j), text.percent(weight)]
        cells += [text.count(weight * model.n_rows)] if sizes else []
        cells += [] if n_labelled is None else [text.count(n_labelled[j])]
        measured = (text.measured(parameters.means[j, f], spreads[j, f]) for f in features)
        columns.append(cells + [f"{mean} ± {spread}" for mean, spread in measured])
    for block in _blocks(columns, console.width - max(map(len, names)) - 2):
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for j in range(len(block) + 1):
            table.add_column(justify="right" if j else "left", overflow="fold")
        for number, line in enumerate(zip(names, *block, strict=True)):
            table.add_row(
                *(fit_text(cell, console) for cell in line), style="" if number else "bold"
            )
        console.print(table)
    for total, shown, noun in (
        (parameters.n_components, components, "component"),
        (parameters.n_features, features, "feature"),
    ):
        if more := total - len(shown):
            print_line(
                console, f"{text.numbered(more, f'more {noun}')} in parameters.parquet", "dim"
            )
    console.print()


def _foremost(values: npt.NDArray[np.float64], at_most: int) -> list[int]:
    """Positions of the largest values, in order of position."""
    return sorted(np.argsort(-values, kind="stable")[:at_most].tolist())


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
