"""The command line: `gmm-dask run | fit | label`, and the commands about what was published.

Heavy imports are inside the commands, so that help answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from gmm_dask import __version__
from gmm_dask.command import about_outputs
from gmm_dask.command.ending import INTERRUPTED, Debug, Overrides, Show, carry_out, ending
from gmm_dask.command.process import settle
from gmm_dask.errors import SettingsError, shown


class _Plain:
    """Help without types of flags and braces around arguments; errors are one line."""

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
    """A command whose error names every argument that a call lacks, not only the first."""

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
    """Hold the options that stand before a command."""


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


for _command in (
    about_outputs.show,
    about_outputs.versions,
    about_outputs.promote,
    about_outputs.name,
    about_outputs.compare,
    about_outputs.verify,
    about_outputs.path,
    about_outputs.export,
    about_outputs.merge,
    about_outputs.gc,
):
    app.command(cls=Command)(_command)


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
