"""The commands about what was published: `gmm-dask show | versions | promote | verify | path | gc`.

Heavy imports are inside the commands, so that help and `show` answer at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from gmm_dask.command.ending import Debug, Show, carry_out, ending
from gmm_dask.errors import OutputError
from gmm_dask.stage.parts import Part

Ref = Annotated[
    str, typer.Argument(metavar="OUT[@VERSION]", help="Output folder; its latest version, or one.")
]
Output = Annotated[str, typer.Argument(metavar="OUT", help="Output folder.")]


def show(ref: Ref, debug: Debug = False) -> None:
    """Show the components, the outcome and the paths of a version, or of a model.json."""
    with ending(debug, prints=True):
        from gmm_dask.command.results import print_model, print_published
        from gmm_dask.stage.outputs import load_model, open_output

        if ref.endswith(".json"):
            print_model(load_model(ref), ref)
        else:
            print_published(open_output(ref))


def versions(out: Output, debug: Debug = False) -> None:
    """List the versions, the latest last: when it was published, which run, and what came of it."""
    with ending(debug, prints=True):
        from gmm_dask.command.results import print_versions
        from gmm_dask.stage.history import history

        print_versions(history(out))


def promote(
    ref: Annotated[
        str, typer.Argument(metavar="OUT@VERSION", help="The version to return to, as OUT@7.")
    ],
    debug: Debug = False,
) -> None:
    """Make the run of an earlier version the latest again: a new version points to it."""
    with ending(debug):
        from gmm_dask.stage import publish

        carry_out(publish.promote, ref, Show.AUTO)


def verify(ref: Ref, debug: Debug = False) -> None:
    """Read every file of a version and compare it with the manifest; exit 1 names the damaged."""
    with ending(debug):
        from gmm_dask import storage
        from gmm_dask.command.console import make_console, print_line
        from gmm_dask.storage.store.version_log import read_version

        url, number = storage.parse_ref(ref)
        store = storage.open_store(url)
        version = storage.latest(store) if number is None else read_version(store, number)
        if version is None:
            raise OutputError(f"{url} holds no published version.")
        problems = storage.verify(store, version)
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
            raise OutputError(f"{ref} was published without labels (labels.enabled: false).")
        typer.echo(published.path(what))


def gc(
    out: Output,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", metavar="", help="Say what would be removed, and remove nothing."
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Remove the checkpoints of published runs; no version and no unfinished run needs them."""
    with ending(debug):
        from gmm_dask import storage
        from gmm_dask.command.console import make_console, print_line
        from gmm_dask.stage import text
        from gmm_dask.storage.store.garbage import find_garbage, remove

        store = storage.open_store(out)
        garbage = find_garbage(store)
        if not dry_run:
            remove(store, garbage)
        done = "would be removed" if dry_run else "removed"
        files = text.numbered(len(garbage.names), "checkpoint")
        print_line(make_console(), f"{files} {done}, {text.size(garbage.bytes)}.")
