"""The commands that keep an output in order: promote, name, compare, merge, gc.

Heavy imports are inside the commands, so that help answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gmm_dask.command.ending import Debug, Show, carry_out, ending
from gmm_dask.errors import SettingsError

Ref = Annotated[
    str, typer.Argument(metavar="OUT[@VERSION]", help="Output folder; its latest version, or one.")
]
Output = Annotated[str, typer.Argument(metavar="OUT", help="Output folder.")]


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
