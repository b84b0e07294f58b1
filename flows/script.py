"""A flow as a script: settings file in, exit code out; Prefect's server is found or started."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn, TextIO

from httpx import HTTPError
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)

from flows.server import OwnServer, ServerError, bypass_proxy
from flows.tasks import EXPECTED
from gmm_dask.command.console import AGAIN, printable
from gmm_dask.command.process import dask_in_our_words, settle
from gmm_dask.command.results import print_outcome
from gmm_dask.errors import SettingsError
from gmm_dask.stage.job import plan
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.settings import ScoreSettings, Settings, load_settings

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(
    flow: Flow[Any, Any],
    schema: type[Settings | ScoreSettings],
    arguments: Sequence[str] | None = None,
) -> int:
    """Run the flow with the settings of a file; 0 only when the outcome was published."""
    stream = sys.stderr
    settle()
    _log_to(sys.stderr, instead_of=stream)
    parsed = _parser(flow).parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)  # so that the server is stopped then, too
    try:
        settings = load_settings(parsed.settings, parsed.set, schema)
    except SettingsError as error:
        return _tell(error, USAGE)
    try:
        with dask_in_our_words(settings.cluster.kind):
            published = run(flow, settings)
    except (*EXPECTED, ServerError) as error:
        return _tell(error, FAILED)
    except KeyboardInterrupt:
        return _tell(f"interrupted. {AGAIN}", INTERRUPTED)
    print_outcome(published)
    return DONE


def run(flow: Flow[Any, Any], settings: Settings | ScoreSettings) -> Published:
    """Run the flow with the server that Prefect is configured for, or with one of its own."""
    configured = PREFECT_API_URL.value()
    if configured:
        _check_server(configured)
        return carried_out(flow, settings, configured)
    bypass_proxy()
    server = OwnServer()
    server.start()
    plan(
        settings
    )  # Bad input is told while the server starts: nobody will look for the failed run.
    changes = {
        PREFECT_API_URL: server.wait(),
        PREFECT_HOME: server.home,
        PREFECT_LOGGING_TO_API_ENABLED: False,  # the log is on the screen
    }
    logging.getLogger("prefect.flow_runs").addFilter(_is_no_page)
    with temporary_settings(changes):
        return carried_out(flow, settings, server.url)


def carried_out(flow: Flow[Any, Any], settings: Settings | ScoreSettings, url: str) -> Published:
    """What the flow published; raises ServerError where Prefect's server failed under way."""
    try:
        return flow(settings)
    except HTTPError as error:  # Prefect itself asked again for a minute
        raise ServerError(
            f"The Prefect server at {url} failed ({str(error) or type(error).__name__}), so how "
            "the run ended is not recorded there. What was published or finished is kept: see that "
            "the server runs, then run again."
        ) from error


def _is_no_page(record: logging.LogRecord) -> bool:
    """Keep all but the address of the run's page: a server of our own has no pages."""
    return not record.getMessage().startswith("View at ")


def _check_server(url: str) -> None:
    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    if error is not None:
        raise ServerError(
            f"The Prefect server at {url} does not answer ({error}). Start it, or unset "
            "PREFECT_API_URL (`prefect config unset PREFECT_API_URL`) to run without one."
        )


def _log_to(stream: TextIO, *, instead_of: TextIO | None) -> None:
    """Have handlers that were made when Prefect was imported write to the stream that never fails.

    The console of Prefect's own handler ends the process where its reader has gone.
    """
    if stream is instead_of:
        return
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for handler in (each for logger in loggers for each in getattr(logger, "handlers", ())):
        if isinstance(handler, logging.StreamHandler) and handler.stream is instead_of:
            handler.setStream(stream)
            if isinstance(handler, PrefectConsoleHandler):
                handler.console.file = stream


def _parser(flow: Flow[Any, Any]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(f"python -m flows.{flow.name}", description=flow.description)
    parser.add_argument("settings", help="settings file, YAML")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a setting"
    )
    return parser


def _tell(what: object, code: int) -> int:
    print(printable(f"error: {what}"), file=sys.stderr)  # noqa: T201
    return code


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
