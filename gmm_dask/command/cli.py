"""The command line: `gmm-dask run | fit | label`, and the commands about what was published.

Heavy imports are inside the commands, so that help answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gmm_dask import __version__
from gmm_dask.command import options, published
from gmm_dask.command.ending import INTERRUPTED, Debug, Show, carry_out, ending
from gmm_dask.command.process import settle

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


# Defaults and choices shown in the help are those of the settings; a test compares them.
Data = Annotated[
    list[str],
    typer.Argument(metavar="DATA...", help="Folder, file or glob of Parquet; several if need be."),
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
    with ending(debug):
        from gmm_dask.stage import run as stage
        from gmm_dask.stage.settings import load_settings

        carry_out(stage.run, load_settings(settings, overrides or ()), progress)


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
    with ending(debug):
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
        carry_out(stage.run, settings_from(document, source="The call"), progress)


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
    with ending(debug):
        from gmm_dask.stage import run as stage
        from gmm_dask.stage.settings import ScoreSettings, settings_from

        document = {
            "data": options.given(path=data, id_columns=options.names(id_columns), missing=missing),
            "model": model,
            "labels": options.labels(keep, responsibilities, enabled=True),
            "cluster": options.cluster(cluster, workers, tls_ca_file, tls_cert, tls_key),
            "output": {"path": out},
        }
        carry_out(stage.score, settings_from(document, ScoreSettings, "The call"), progress)


for command in (
    published.show,
    published.versions,
    published.promote,
    published.verify,
    published.path,
    published.gc,
):
    app.command()(command)
