"""The command line: `gmm-dask run | fit | label | show | verify | path | gc`.

Heavy imports are inside the commands, so that help and `show` answer at once.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gmm_dask import __version__, options
from gmm_dask.errors import GmmDaskError, OutputError, SettingsError
from gmm_dask.own_process import settle
from gmm_dask.stage.parts import Part
from gmm_dask.termination import Terminated, terminable

if TYPE_CHECKING:
    from gmm_dask.progress import Progress
    from gmm_dask.stage.outputs import Published

# Exit codes; 0 is "published", and the last two are those of shells after SIGINT and SIGTERM.
FAILED, USAGE, INTERRUPTED, TERMINATED = 1, 2, 130, 143

app = typer.Typer(
    name="gmm-dask",
    help="Gaussian mixture clustering: Parquet in, a model and one label per row out.",
    epilog="Exit codes: 0 published, 1 failed, 2 wrong call or settings, 130 interrupted, "
    "143 terminated.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Show(StrEnum):
    """How progress is shown."""

    AUTO = "auto"
    LIVE = "live"
    LINES = "lines"
    NONE = "none"


# Defaults and choices shown in the help are those of the settings; a test compares them.
Data = Annotated[str, typer.Argument(metavar="DATA", help="Folder, file or glob of Parquet.")]
Ref = Annotated[
    str, typer.Argument(metavar="OUT[@VERSION]", help="Output folder; its latest version, or one.")
]
Out = Annotated[str, typer.Option("--out", help="Folder of the published versions, or s3:// URL.")]
Ids = Annotated[
    list[str] | None,
    typer.Option("--id-columns", metavar="A,B", help="Columns to carry through to the labels."),
]
Missing = Annotated[
    str | None,
    typer.Option(
        metavar="error|drop|em",
        help="Rows with a missing feature: an error, left out, or used by exact EM.",
        show_default="error",
    ),
]
Keep = Annotated[
    str | None,
    typer.Option(
        metavar="ids|all|A,B", help="Input columns to keep in the labels.", show_default="ids"
    ),
]
Responsibilities = Annotated[
    bool, typer.Option("--responsibilities", help="Also write each row's responsibilities.")
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="threads|processes|ADDRESS",
        help="Where the work is done: here, or by the scheduler at tls://host:port.",
        show_default="threads",
    ),
]
Workers = Annotated[
    int | None, typer.Option(help="Threads or processes.", show_default="all cores")
]
TlsCa = Annotated[str | None, typer.Option("--tls-ca-file", help="Authority, for tls://.")]
TlsCert = Annotated[str | None, typer.Option("--tls-cert", help="Our certificate, for tls://.")]
TlsKey = Annotated[str | None, typer.Option("--tls-key", help="Our private key, for tls://.")]
Shown = Annotated[
    Show,
    typer.Option(
        "--progress", help="A live display, a line per pass, or none; auto looks at the terminal."
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def main() -> None:
    """The entry point of `gmm-dask`."""
    settle()
    try:
        app(prog_name="gmm-dask")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """See the help of the app."""


@app.command()
def run(
    settings: Annotated[Path, typer.Argument(metavar="SETTINGS.yaml", help="A settings file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Replace one setting; repeatable."),
    ] = None,
    progress: Shown = Show.AUTO,
    debug: Debug = False,
) -> None:
    """Plan, fit, label and publish what a settings file describes."""
    with _ending(debug):
        from gmm_dask.stage import run as stage
        from gmm_dask.stage.settings import load_settings

        _carry_out(stage.run, load_settings(settings, overrides or ()), progress)


@app.command()
def fit(
    data: Data,
    out: Out,
    n_components: Annotated[int, typer.Option(help="Number of components.")],
    features: Annotated[
        list[str] | None,
        typer.Option(metavar="A,B,C", help="Columns to cluster on.", show_default="all numeric"),
    ] = None,
    covariance_type: Annotated[
        str | None, typer.Option(metavar="full|tied|diag|spherical", show_default="full")
    ] = None,
    tol: Annotated[
        float | None,
        typer.Option(help="Stop at a smaller change per row.", show_default="0.001"),
    ] = None,
    reg_covar: Annotated[
        float | None, typer.Option(help="Added to every variance.", show_default="1e-06")
    ] = None,
    max_iter: Annotated[
        int | None, typer.Option(help="Passes at most.", show_default="100")
    ] = None,
    n_init: Annotated[
        int | None, typer.Option(help="Starts; the best is kept.", show_default="1")
    ] = None,
    init_params: Annotated[
        str | None,
        typer.Option(metavar="kmeans|k-means++|random|random_from_data", show_default="kmeans"),
    ] = None,
    component_policy: Annotated[
        str | None,
        typer.Option(
            metavar="floor|reseed|drop|raise",
            help="A component that starves, collapses or becomes singular.",
            show_default="floor",
        ),
    ] = None,
    random_state: Annotated[int | None, typer.Option(help="Seed.", show_default="0")] = None,
    id_columns: Ids = None,
    weight_column: Annotated[str | None, typer.Option(help="Column of row weights.")] = None,
    missing: Missing = None,
    keep: Keep = None,
    responsibilities: Responsibilities = False,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="Publish the model alone.")
    ] = False,
    cluster: Cluster = None,
    workers: Workers = None,
    tls_ca_file: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    progress: Shown = Show.AUTO,
    debug: Debug = False,
) -> None:
    """The same as `run` from options alone, without a settings file."""
    with _ending(debug):
        from gmm_dask.stage import run as stage
        from gmm_dask.stage.settings import settings_from

        document = {
            "data": options.given(
                path=data,
                features=options.names(features),
                id_columns=options.names(id_columns),
                weight_column=weight_column,
                missing=missing,
            ),
            "fit": options.given(
                n_components=n_components,
                covariance_type=covariance_type,
                tol=tol,
                reg_covar=reg_covar,
                max_iter=max_iter,
                n_init=n_init,
                init_params=init_params,
                component_policy=component_policy,
                random_state=random_state,
            ),
            "labels": options.labels(keep, responsibilities, enabled=not no_labels),
            "cluster": options.cluster(cluster, workers, tls_ca_file, tls_cert, tls_key),
            "output": {"path": out},
        }
        _carry_out(stage.run, settings_from(document, source="The call"), progress)


@app.command()
def label(
    data: Data,
    out: Out,
    model: Annotated[
        str,
        typer.Option(metavar="OUT[@VERSION]", help="Output folder of a fit, or a model.json."),
    ],
    id_columns: Ids = None,
    missing: Missing = None,
    keep: Keep = None,
    responsibilities: Responsibilities = False,
    cluster: Cluster = None,
    workers: Workers = None,
    tls_ca_file: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    progress: Shown = Show.AUTO,
    debug: Debug = False,
) -> None:
    """Label other data with a published model, and publish the labels."""
    with _ending(debug):
        from gmm_dask.stage import run as stage
        from gmm_dask.stage.settings import ScoreSettings, settings_from

        document = {
            "data": options.given(path=data, id_columns=options.names(id_columns), missing=missing),
            "model": model,
            "labels": options.labels(keep, responsibilities, enabled=True),
            "cluster": options.cluster(cluster, workers, tls_ca_file, tls_cert, tls_key),
            "output": {"path": out},
        }
        _carry_out(stage.score, settings_from(document, ScoreSettings, "The call"), progress)


@app.command()
def show(ref: Ref, debug: Debug = False) -> None:
    """Show the components, the outcome and the paths of a version, or of a model.json."""
    with _ending(debug):
        from gmm_dask.console import print_model, print_published
        from gmm_dask.stage.outputs import load_model, open_output

        if ref.endswith(".json"):
            print_model(load_model(ref), ref)
        else:
            print_published(open_output(ref))


@app.command()
def verify(ref: Ref, debug: Debug = False) -> None:
    """Read every file of a version and compare it with the manifest; exit 1 names the damaged."""
    with _ending(debug):
        from gmm_dask import storage
        from gmm_dask.console import make_console, print_line
        from gmm_dask.storage.version_log import read_version

        url, number = storage.parse_ref(ref)
        store = storage.open_store(url)
        version = storage.latest(store) if number is None else read_version(store, number)
        if version is None:
            raise OutputError(f"{url} holds no published version.")
        problems = storage.verify(store, version)
        if problems:
            raise OutputError("\n".join(problems))
        files = len(storage.read_manifest(store, version)["files"])
        whole = f"Version {version.number} of {url} is whole: {files} files, {version.rows:,} rows."
        print_line(make_console(), whole)


@app.command()
def path(ref: Ref, what: Annotated[Part, typer.Argument()], debug: Debug = False) -> None:
    """Print one path of a version, for use in scripts."""
    with _ending(debug):
        from gmm_dask.stage.outputs import label_parts, open_output

        published = open_output(ref)
        if what is Part.LABELS and not label_parts(ref):
            raise OutputError(f"{ref} was published without labels (labels.enabled: false).")
        typer.echo(published.path(what))


@app.command()
def gc(
    out: Annotated[str, typer.Argument(metavar="OUT", help="Output folder.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Remove the checkpoints of published runs; no version and no unfinished run needs them."""
    with _ending(debug):
        from gmm_dask import storage
        from gmm_dask.console import make_console, print_line
        from gmm_dask.stage import text
        from gmm_dask.storage.garbage import find_garbage, remove

        store = storage.open_store(out)
        garbage = find_garbage(store)
        if not dry_run:
            remove(store, garbage)
        done = "would be removed" if dry_run else "removed"
        files = text.numbered(len(garbage.names), "checkpoint")
        print_line(make_console(), f"{files} {done}, {text.size(garbage.bytes)}.")


def _carry_out(stage: Callable[[Any, Progress], Published], settings: Any, progress: Show) -> None:
    from gmm_dask.console import AGAIN, make_console, print_line, print_published

    watcher = _watcher(progress)
    try:
        with terminable(), warnings.catch_warnings(), watcher.running():
            # A warning of a library is news of the run, not a line of somebody's source.
            warnings.showwarning = lambda message, *_, **__: watcher.warn(str(message))
            published = stage(settings, watcher)
    except KeyboardInterrupt as interrupt:
        raise type(interrupt)(AGAIN) from None
    print_published(published)
    if not published.new:
        print_line(make_console(), "It was published before; nothing was written.")


def _watcher(progress: Show) -> Progress:
    from gmm_dask.console import LiveDisplay, LogLines, make_console
    from gmm_dask.progress import Progress

    console = make_console(stderr=True)
    if progress is Show.AUTO:
        # rich calls a log file a terminal where FORCE_COLOR is set, so the stream is asked.
        live = sys.stderr.isatty() and not console.is_dumb_terminal
        progress = Show.LIVE if live else Show.LINES
    kinds = {Show.LIVE: LiveDisplay, Show.LINES: LogLines}
    return kinds[progress](console) if progress in kinds else Progress()


@contextmanager
def _ending(debug: bool) -> Iterator[None]:
    """Turn every way a command can end badly into one message and its exit code."""
    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt as interrupt:
        ended = isinstance(interrupt, Terminated)
        _complain(f"{'terminated' if ended else 'interrupted'}. {interrupt}".rstrip())
        raise typer.Exit(TERMINATED if ended else INTERRUPTED) from None
    except Exception as error:
        if debug:
            import traceback

            _complain(traceback.format_exc().rstrip())
        _complain(_message(error))
        raise typer.Exit(USAGE if isinstance(error, SettingsError) else FAILED) from None


def _message(error: Exception) -> str:
    if isinstance(error, GmmDaskError):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory. Use fewer workers, or a smaller memory.chunk_bytes."
    if isinstance(error, OSError):
        return f"the system refused: {error}"
    return f"unexpected {type(error).__name__}: {error} (--debug shows where)"


def _complain(message: str) -> None:
    from gmm_dask.console import make_console, print_line

    print_line(make_console(stderr=True), f"gmm-dask: {message}")
