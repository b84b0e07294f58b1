"""The command line: `gmm-dask run | fit | label`, and the commands about what was published.

Heavy imports are inside the commands, so that help answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from gmm_dask import __version__
from gmm_dask.command import upkeep
from gmm_dask.command.ending import INTERRUPTED, Debug, Overrides, Show, carry_out, ending
from gmm_dask.command.process import settle
from gmm_dask.command.upkeep import Output, Ref
from gmm_dask.errors import OutputError, SettingsError, shown


class _Plain:
    """Help in which a flag has no type, and an argument no braces; errors of one line."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """The context of a call; what an error repeats of the call is shown on one line."""
        given = bool(args)  # without words, the message is the help
        try:
            return super().make_context(info_name, args, parent, **extra)  # type: ignore[misc]
        except Exception as error:
            if given and hasattr(error, "message"):
                error.message = shown(error.message)
            raise

    def get_params(self, ctx: Any) -> list[Any]:
        """Arguments and options."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for each in params:
            if getattr(each, "is_flag", False):
                each.metavar = ""
        return params

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words of the line `Usage:`."""
        pieces = super().collect_usage_pieces(ctx)  # type: ignore[misc]
        return [piece.replace("{", "").replace("}", "") for piece in pieces]


class Command(_Plain, TyperCommand):
    """A command that names everything that a call lacks, not the first alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See TyperCommand."""
        given, *_ = self.make_parser(ctx).parse_args(list(args))
        lacking = [
            each for each in self.get_params(ctx) if each.required and not given.get(each.name)
        ]
        if len(lacking) > 1 and not given.get("help"):
            *names, last = (
                str(each.metavar or each.name)
                if each.param_type_name == "argument"
                else each.opts[0]
                for each in lacking
            )
            ctx.fail(f"{', '.join(names)} and {last} are missing.")
        return super().parse_args(ctx, args)


class Group(_Plain, TyperGroup):
    """All commands."""


app = typer.Typer(
    cls=Group,
    name="gmm-dask",
    help="Gaussian mixture clustering: Parquet in, a model and one label per row out.",
    epilog="Exit codes: 0 published, 1 failed, 2 wrong call or settings, 130 interrupted, "
    "143 terminated.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


Shown = Annotated[
    Show,
    typer.Option(
        "--progress",
        help="A live display, log lines, JSON lines, or none; auto looks at the terminal.",
    ),
]


def _of_settings(schema: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command that takes every key of such settings.

    Its options are made when it is called: they need pydantic, for which the help of all commands
    would have to wait.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @cache
        def whole() -> Any:
            from gmm_dask.command import options
            from gmm_dask.stage import settings

            alone = typer.Typer(add_completion=False)
            takes = options.takes(getattr(settings, schema))
            alone.command(cls=Command)(takes(function))
            return get_command(alone)

        class Called(Command):
            def make_context(
                self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
            ) -> Any:
                return whole().make_context(info_name, args, parent, **extra)

        app.command(function.__name__, cls=Called, help=function.__doc__)(lambda: None)
        return function

    return register


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
        typer.Option(
            "--version",
            help="Show the version.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """See the help of the app."""


@app.command(cls=Command)
def run(
    settings: Annotated[Path, typer.Argument(metavar="SETTINGS.yaml", help="A settings file.")],
    overrides: Overrides = None,
    progress: Shown = Show.AUTO,
    debug: Debug = False,
) -> None:
    """Carry out a settings file: fit and label, or label with the model that it names."""
    with ending(debug):
        from gmm_dask.stage import run as stage
        from gmm_dask.stage.settings import ScoreSettings, load_settings

        loaded = load_settings(settings, overrides or (), schema=None)
        what = stage.score if isinstance(loaded, ScoreSettings) else stage.run
        carry_out(what, loaded, progress)


@app.command(cls=Command)
def refresh(
    settings: Annotated[Path, typer.Argument(metavar="SETTINGS.yaml", help="Those of the fit.")],
    overrides: Overrides = None,
    progress: Shown = Show.AUTO,
    debug: Debug = False,
) -> None:
    """Go on from the latest version: read new and changed partitions alone, drop what is gone."""
    with ending(debug):
        from gmm_dask.stage import run as stage
        from gmm_dask.stage.settings import load_settings

        carry_out(stage.refresh, load_settings(settings, overrides or ()), progress)


@_of_settings("Settings")
def fit(
    overrides: Overrides = None,
    progress: Shown = Show.AUTO,
    debug: Debug = False,
    **given: Any,
) -> None:
    """Plan, fit, label and publish from options alone, without a settings file."""
    from gmm_dask.command import options
    from gmm_dask.stage.settings import Settings

    with ending(debug, explained=options.explained(Settings)):
        from gmm_dask.stage import run as stage

        carry_out(stage.run, options.settings_of(Settings, given, overrides), progress)


@_of_settings("Settings")
def select(
    overrides: Overrides = None,
    progress: Shown = Show.AUTO,
    debug: Debug = False,
    **given: Any,
) -> None:
    """Choose the number of components and the family: all candidates share every read."""
    from gmm_dask.command import options
    from gmm_dask.stage.settings import Settings

    with ending(debug, explained=options.explained(Settings)):
        from gmm_dask.stage import run as stage

        settings = options.settings_of(Settings, given, overrides)
        if not settings.select.is_asked:
            raise SettingsError(
                "There is one candidate, so nothing to choose: give --n-components 2:12, or a list "
                "such as 2,4,8, or several families as in --covariance-type full,diag."
            )
        carry_out(stage.run, settings, progress)


@_of_settings("ScoreSettings")
def label(
    overrides: Overrides = None,
    progress: Shown = Show.AUTO,
    debug: Debug = False,
    **given: Any,
) -> None:
    """Label other data with a published model, and publish the labels."""
    from gmm_dask.command import options
    from gmm_dask.stage.settings import ScoreSettings

    with ending(debug, explained=options.explained(ScoreSettings)):
        from gmm_dask.stage import run as stage

        carry_out(stage.score, options.settings_of(ScoreSettings, given, overrides), progress)


class Part(StrEnum):
    """What a version is asked the path of."""

    MODEL = "model"
    LABELS = "labels"
    REPORT = "report"
    FOLDER = "folder"


@app.command(cls=Command)
def show(
    ref: Ref,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    debug: Debug = False,
) -> None:
    """Show the components, the outcome and the paths of a version, or of a model.json."""
    with ending(debug, prints=True):
        from gmm_dask.command.results import print_ref

        print_ref(ref, as_json=as_json)


@app.command(cls=Command)
def versions(out: Output, debug: Debug = False) -> None:
    """List the versions, the latest last: when it was published, which run, and what came of it."""
    with ending(debug, prints=True):
        from gmm_dask.command.results import print_versions
        from gmm_dask.stage.lineage.history import history

        print_versions(history(out))


app.command(cls=Command)(upkeep.promote)
app.command(cls=Command)(upkeep.name)
app.command(cls=Command)(upkeep.compare)


@app.command(cls=Command)
def verify(ref: Ref, debug: Debug = False) -> None:
    """Read every file of a version and compare it with the manifest; exit 1 names the damaged."""
    with ending(debug):
        from gmm_dask import storage
        from gmm_dask.command.console import make_console, print_line

        url, which = storage.parse_ref(ref)
        store = storage.open_store(url)
        version = storage.find_entry(store, which)
        problems = storage.verify(store, version)
        if problems:
            raise OutputError(*problems)
        files = len(storage.read_manifest(store, version)["files"])
        whole = f"Version {version.number} of {url} is whole: {files} files, {version.rows:,} rows."
        print_line(make_console(), whole)


@app.command(cls=Command)
def path(ref: Ref, what: Annotated[Part, typer.Argument()], debug: Debug = False) -> None:
    """Print one path of a version, for use in scripts."""
    with ending(debug, prints=True):
        from gmm_dask.stage.outputs import label_parts, open_output

        published = open_output(ref)
        if what is Part.LABELS and not label_parts(ref):
            raise OutputError(f"{ref} was published without labels (labels.enabled: false).")
        typer.echo(published.path(what))


class Form(StrEnum):
    """What a mixture is exported as."""

    SQL = "sql"
    ONNX = "onnx"
    SCHEMA = "schema"
    MLFLOW = "mlflow"


@app.command(cls=Command)
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


app.command(cls=Command)(upkeep.merge)
app.command(cls=Command)(upkeep.gc)


@app.command(cls=Command)
def deploy(
    settings: Annotated[
        Path, typer.Argument(metavar="SETTINGS.yaml", help="Of a fit, or with a model to label by.")
    ],
    pool: Annotated[str, typer.Option(metavar="POOL", help="A work pool of the Prefect server.")],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the deployment; that of the file where not given."),
    ] = None,
    cron: Annotated[
        str | None, typer.Option(metavar="CRON", help='When it runs by itself, as "0 3 * * *".')
    ] = None,
    timezone: Annotated[str, typer.Option(metavar="ZONE", help="Of the cron.")] = "UTC",
    image: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="With gmm-dask, for pools of containers.")
    ] = None,
    flow: Annotated[
        str | None,
        typer.Option(
            metavar="FLOW",
            help="Another one than cluster or label: refresh or compare, or with a model backfill.",
        ),
    ] = None,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Deploy a settings file as a Prefect flow that workers run; needs the extra `flows`."""
    with ending(debug, prints=True):
        from gmm_dask.command.console import make_console, print_line

        try:
            from gmm_dask.flows import deploying
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"{error.name} is not installed: pip install 'gmm-dask[flows]'."
            ) from error
        deployed = deploying.deploy(
            settings,
            pool,
            name=name,
            cron=cron,
            timezone=timezone,
            image=image,
            overrides=overrides or (),
            flow=flow,
        )
        print_line(
            make_console(), f"Deployed {deployed}. Run it: prefect deployment run {deployed}"
        )
