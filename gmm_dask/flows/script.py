"""A flow as a script: settings file in, exit code out; Prefect's server is found or started."""

from __future__ import annotations

import argparse
import atexit
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO, cast
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

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

from gmm_dask.command.console import AGAIN, printable
from gmm_dask.command.process import dask_in_our_words, settle
from gmm_dask.command.results import print_outcome
from gmm_dask.errors import GmmDaskError, SettingsError
from gmm_dask.flows.tasks import EXPECTED
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
    except EXPECTED as error:
        return _tell(error, FAILED)
    except KeyboardInterrupt:
        return _tell(f"interrupted. {AGAIN}", INTERRUPTED)
    print_outcome(published)
    return DONE


def run(flow: Flow[Any, Any], settings: Settings | ScoreSettings) -> Published:
    """Run the flow with the server that Prefect is configured for, or with one of its own."""
    if PREFECT_API_URL.value():
        return carried_out(flow, settings, check_server())
    bypass_proxy()
    server = OwnServer()
    server.start()
    # Bad input is told while the server starts: nobody will look for the failed run.
    plan(cast(Any, settings))
    changes = {
        PREFECT_API_URL: server.wait(),
        PREFECT_HOME: server.home,
        PREFECT_LOGGING_TO_API_ENABLED: False,  # the log is on the screen
    }
    logging.getLogger("prefect.flow_runs").addFilter(_is_no_page)
    with temporary_settings(changes):
        return carried_out(flow, settings, server.url)


def carried_out(flow: Flow[Any, Any], settings: Settings | ScoreSettings, url: str) -> Published:
    """The version that the flow published; raises ServerError if Prefect's server failed."""
    try:
        return cast(Published, flow(settings))
    except HTTPError as error:  # Prefect itself asked again for a minute
        raise ServerError(
            f"The Prefect server at {url} failed ({str(error) or type(error).__name__}), so how "
            "the run ended is not recorded there. What was published or finished is kept: see that "
            "the server runs, then run again."
        ) from error


def _is_no_page(record: logging.LogRecord) -> bool:
    """Keep all records but the address of the run's page: a server of our own has no pages."""
    return not record.getMessage().startswith("View at ")


def check_server() -> str:
    """The address of the server that Prefect is configured for; ServerError if none answers."""
    url: str | None = PREFECT_API_URL.value()
    if not url:
        raise ServerError(
            "No Prefect server is configured. Start one (`prefect server start`), and set "
            "PREFECT_API_URL to its address, such as http://127.0.0.1:4200/api."
        )
    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    if error is not None:
        raise ServerError(
            f"The Prefect server at {url} does not answer ({error}). Start it, or unset "
            "PREFECT_API_URL (`prefect config unset PREFECT_API_URL`) to run without one."
        )
    return url


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


HOST = "127.0.0.1"
START_SECONDS = 300.0  # a first start migrates a database, which takes long on a busy machine
STOP_SECONDS = 10.0
ATTEMPTS = 3  # another program may take the free port before the server does


class ServerError(GmmDaskError):
    """No Prefect server could be started or reached; the message says what to do."""


@dataclass
class OwnServer:
    """A server that starts in the background and stops when the interpreter ends.

    Prefect sends its last events when the interpreter ends, and waits a minute for a server
    that is gone by then: so the server is stopped after that, by atexit.
    """

    url: str = ""
    home: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="gmm-dask-prefect-")))
    _process: subprocess.Popen[bytes] | None = None
    _deadline: float = 0.0
    _attempts: int = 0

    def start(self) -> None:
        """Start without waiting."""
        atexit.register(self.stop)
        self._deadline = time.monotonic() + START_SECONDS
        self._launch()

    def wait(self) -> str:
        """The address of the API, once it answers; raises ServerError if it never does."""
        assert self._process is not None
        while not answers(self.url):
            if self._process.poll() is not None:
                if self._attempts >= ATTEMPTS:
                    raise ServerError(f"Prefect's server did not start:\n{self._last_words()}")
                self._launch()
            if time.monotonic() > self._deadline:
                raise ServerError(
                    f"Prefect's server did not answer within {START_SECONDS:.0f} s. Start one with "
                    "`prefect server start` and set PREFECT_API_URL to its address."
                )
            time.sleep(0.1)
        return self.url

    def stop(self) -> None:
        """Stop the server and remove its files; again is harmless."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        shutil.rmtree(self.home, ignore_errors=True)

    def _launch(self) -> None:
        self._attempts += 1
        port = free_port()
        self.url = f"http://{HOST}:{port}/api"
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                # Services schedule and clean up; one run in the foreground needs neither.
                [*command, "--port", str(port), "--no-ui", "--no-services"],
                env=own_environment(os.environ, self.home),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the flow, which still needs its server
            )

    @property
    def _log(self) -> Path:
        return self.home / "server.log"

    def _last_words(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-5:])


def own_environment(environment: Mapping[str, str], home: Path) -> dict[str, str]:
    """The environment of the server: none of the user's Prefect settings or databases."""
    kept = {name: value for name, value in environment.items() if not name.startswith("PREFECT_")}
    return kept | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "DO_NOT_TRACK": "1",
    }


def answers(url: str) -> bool:
    """Whether a server's API is ready; no proxy is asked for this machine."""
    try:
        with build_opener(ProxyHandler({})).open(f"{url}/health", timeout=10) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


def free_port() -> int:
    """A port of this machine that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def bypass_proxy() -> None:
    """Let no proxy of the environment stand between this process and its own server."""
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), HOST]))
