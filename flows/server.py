"""A Prefect server for one script: this machine only, its own database, gone with the process."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

HOST = "127.0.0.1"
START_SECONDS = 300.0  # a first start migrates a database, which takes long on a busy machine
STOP_SECONDS = 10.0
ATTEMPTS = 3  # another program may take the free port before the server does


class ServerError(Exception):
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
