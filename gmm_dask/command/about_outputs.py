"""The commands about what was published: they show it, export it, and keep an output in order.

Heavy imports are inside the commands, so that help answers at once.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gmm_dask.command.ending import Debug, Show, carry_out, ending
from gmm_dask.errors import OutputError, SettingsError

Ref = Annotated[
    str, typer.Argument(metavar="OUT[@VERSION]", help="Output folder; its latest version, or one.")
]
Output = Annotated[str, typer.Argument(metavar="OUT", help="Output folder.")]


def show(
    ref: Ref,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    debug: Debug = False,
) -> None:
    """Show the components, the outcome and the paths of a version, or of a model.json."""
    with ending(debug, prints=True):
        from gmm_dask.command.results import print_ref

        print_ref(ref, as_json=as_json)


def versions(out: Output, debug: Debug = False) -> None:
    """List the versions, the latest last: when it was published, which run, and what came of it."""
    with ending(debug, prints=True):
        from gmm_dask.command.results import print_versions
        from gmm_dask.stage.lineage.history import history

        print_versions(history(out))


class Part(StrEnum):
    """The files of a version whose path can be printed."""

    MODEL = "model"
    LABELS = "labels"
    REPORT = "report"
    FOLDER = "folder"


def verify(ref: Ref, debug: Debug = False) -> None:
    """Read every file of a version and compare it with the manifest; exit 1 names the damaged."""
    with ending(debug):
        from gmm_dask import storage
        from gmm_dask.command.console import make_console, print_line
        from gmm_dask.command.under_way import UNDER_WAY

        url, which = storage.parse_ref(ref)
        store = storage.open_store(url)
        version = storage.find_entry(store, which)
        problems = storage.verify(store, version, UNDER_WAY.tell)
        if problems:
            raise OutputError(*problems)
        files = len(storage.read_manifest(store, version)["files"])
        whole = f"Version {version.number} of {url} is whole: {files} files, {version.rows:,} rows."
        print_line(make_console(), whole)


def path(ref: Ref, what: Annotated[Part, typer.Argument()], debug: Debug = False) -> None:
    """Print one path of a version, for use in scripts."""
    with ending(debug, prints=True):
        from gmm_dask.stage.outputs import label_parts, open_output

        published = open_output(ref)
        if what is Part.LABELS and not label_parts(ref):
            raise OutputError(
                f"{ref} was published without labels (labels.enabled: false): run it with "
                "labels, or label the data with `gmm-dask label`."
            )
        typer.echo(published.path(what))


class Form(StrEnum):
    """The forms in which a mixture is exported."""

    SQL = "sql"
    ONNX = "onnx"
    SCHEMA = "schema"
    MLFLOW = "mlflow"


def export(
    ref: Annotated[
        str, typer.Argument(metavar="OUT[@VERSION]", help="Output folder, or a model.json.")
    ],
    form: Annotated[
        Form,
        typer.Option(
            "--format",
            help="A query, a model in ONNX, JSON Schema of the files of OUT, or a run of MLflow.",
        ),
    ],
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write; else it is printed.")
    ] = None,
    table: Annotated[
        str, typer.Option(metavar="TABLE", help="What the query selects from.")
    ] = "data",
    keep: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="To select, too; may be repeated.")
    ] = None,
    first: Annotated[
        int,
        typer.Option(
            metavar="0|1",
            min=0,
            max=1,
            help="The first place in a list, where features are lists.",
        ),
    ] = 1,
    debug: Debug = False,
) -> None:
    """Write a mixture as what scores rows without this package: see docs/formats.md."""
    with ending(debug, prints=True):
        import json

        from gmm_dask.export import SCHEMAS, to_onnx, to_sql
        from gmm_dask.stage.outputs import read_model
        from gmm_dask.storage import write_file

        if form is not Form.SQL and (keep or table != "data"):
            raise SettingsError(f"--keep and --table are of a query, and not of {form}.")
        if form is Form.MLFLOW:
            from gmm_dask.estimator.published import load_model

            typer.echo(load_model(ref).to_mlflow())
            return
        model = read_model(ref)
        if form is Form.ONNX:
            if to is None:
                raise SettingsError("A model in ONNX is no text: give --to model.onnx.")
            write_file(to, to_onnx(model))
            return
        if form is Form.SCHEMA:
            written = json.dumps(SCHEMAS, indent=2) + "\n"
        else:
            written = to_sql(model, table, keep or (), first=first)
        if to is None:
            typer.echo(written, nl=False)
        else:
            write_file(to, written.encode())


def promote(
    ref: Annotated[
        str, typer.Argument(metavar="OUT[@VERSION]", help="The version to return to, as OUT@7.")
    ],
    alias: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="ALIAS",
            help="Have an alias, such as champion, point to the version, if it meets the "
            "promotion criteria of its settings; the latest version stays the latest.",
        ),
    ] = None,
    back: Annotated[
        bool,
        typer.Option("--back", help="Have the alias point to where it did before."),
    ] = False,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Ask for no criteria.")] = False,
    debug: Debug = False,
) -> None:
    """Make the run of an earlier version the latest again, or point an alias to a version."""
    with ending(debug):
        from gmm_dask.command.console import PROMOTED_OR_NOT, make_console, print_line
        from gmm_dask.stage import publish
        from gmm_dask.stage.lineage import registry
        from gmm_dask.stage.outputs import resolve

        if alias is None:
            if back or unchecked:
                raise SettingsError("--back and --unchecked are of an alias: name it with --as.")
            carry_out(publish.promote, ref, Show.AUTO, PROMOTED_OR_NOT)
        elif back:
            version = registry.promote_back(ref, alias)
            print_line(make_console(), f"{alias} is version {version.number} again.")
        else:
            folder, version = resolve(ref)
            said = registry.promote_as(folder, version, alias, unchecked=unchecked)
            line = " ".join((f"{alias} is version {version.number}.", *said))
            print_line(make_console(), line)


def name(
    ref: Ref,
    component: Annotated[int, typer.Argument(metavar="COMPONENT", help="Its number.")],
    called: Annotated[
        str, typer.Argument(metavar="NAME", help='Such as "early morning"; "" takes it away.')
    ],
    debug: Debug = False,
) -> None:
    """Name a component; the name goes along to the versions that follow."""
    with ending(debug):
        from gmm_dask.command.console import make_console, print_line
        from gmm_dask.stage.lineage.registry import name_component

        version = name_component(ref, component, called)
        said = f"is called {called}" if called else "has no name"
        print_line(make_console(), f"Component {component} {said}, from version {version.number}.")


def compare(
    first: Ref,
    second: Annotated[
        str | None,
        typer.Argument(
            metavar="OUT[@VERSION]",
            help="The later one; where not given, the first is compared with the one it follows.",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a report there, too.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Show two versions side by side: components, movers, criteria, drift."""
    with ending(debug, prints=True):
        from gmm_dask.command.console import make_console, print_line
        from gmm_dask.stage.lineage import comparison
        from gmm_dask.stage.report.html import render_comparison
        from gmm_dask.storage import write_file

        pair = (comparison.one_before(first), first) if second is None else (first, second)
        found = comparison.compare(*pair)
        console = make_console()
        for line in found.events:
            print_line(console, line)
        for sheet in found.sheets:
            print_line(console, "")
            print_line(console, sheet.title, "bold")
            for line in comparison.lines_of(sheet):
                print_line(console, line)
        if html is not None:
            page = render_comparison(found.title, found.events, found.sheets)
            write_file(html, page.encode())


def merge(
    refs: Annotated[
        list[str],
        typer.Argument(metavar="OUT[@VERSION]", help="The refreshed output of each site."),
    ],
    out: Annotated[str, typer.Option(metavar="OUT", help="Where the mixture is published.")],
    debug: Debug = False,
) -> None:
    """Make one step of EM from the statistics that several sites kept; no row leaves its site."""
    with ending(debug):
        from gmm_dask.command.console import make_console, print_line
        from gmm_dask.stage.refresh import sites

        print_line(make_console(), f"Published {sites.merge(refs, out)}.")


def gc(
    out: Output,
    keep: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Remove all runs but the latest N, and those that an alias or a run under way "
            "needs.",
        ),
    ] = None,
    keep_labels: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Remove the labels of all runs but the latest N."),
    ] = None,
    abandoned_days: Annotated[
        float | None,
        typer.Option(
            metavar="DAYS",
            min=0,
            help="With --keep 7: remove runs that were begun longer ago and never published.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be removed, and remove nothing."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Remove checkpoints of published runs and, if asked to, runs and labels that nobody needs."""
    with ending(debug):
        from gmm_dask import storage
        from gmm_dask.command.console import make_console, print_line
        from gmm_dask.stage import text
        from gmm_dask.stage.lineage import retention

        if abandoned_days is None and keep is not None:
            abandoned_days = retention.DAYS
        policy = retention.Policy(keep, keep_labels, abandoned_days)
        found = retention.collect(storage.open_store(out), policy, dry_run=dry_run)
        done = "would be removed" if dry_run else "removed"
        what = [text.numbered(len(found.garbage.names), "file")]
        if found.runs:
            what.append(f"with {text.numbered(len(found.runs), 'run')}")
        if found.labels:
            what.append(f"with the labels of {text.numbered(len(found.labels), 'run')}")
        line = f"{' '.join(what)} {done}, {text.size(found.garbage.bytes)}."
        print_line(make_console(), line)
