"""One Prefect server for the tests of a file: loopback, a free port, an empty home."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from gmm_dask.flows import script
from gmm_dask.flows.script import answers, free_port

ROOT = Path(__file__).parents[2]
CANARY = "canary-S3cr3t-0123"  # in the environment of server and worker
PATIENCE = 180  # seconds; a busy machine takes its time


@dataclass(frozen=True)
class Server:
    """A running Prefect server and the environment that reaches it."""

    url: str
    environment: dict[str, str]

    def command(self, *arguments: str, cwd: Path = ROOT) -> list[str]:
        return [sys.executable, "-m", *arguments]

    def call(self, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Run `python -m ...` against the server; fails with what it printed."""
        done = subprocess.run(
            self.command(*arguments), env=self.environment, cwd=cwd, timeout=PATIENCE,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done


def ask(server: Server, path: str, body: Any = None, method: str = "POST") -> Any:
    request = Request(
        f"{server.url}/{path}", data=json.dumps({} if body is None else body).encode(),
        headers={"Content-Type": "application/json"}, method=method,
    )  # fmt: skip
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=60) as response:
                return json.loads(response.read() or b"null")
        except HTTPError as error:  # its database is locked by a run that reports itself
            if error.code != 503 or time.monotonic() > until:
                raise
        time.sleep(0.5)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scripts may be called in this process, which stays as it was."""
    monkeypatch.setattr(script, "settle", lambda: None)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("prefect")
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")} | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # What is due is looked for often; by default every 5, 60 and 10 seconds.
        "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        # A run that waits for another of its deployment asks again; by default after 30 seconds.
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
        "DO_NOT_TRACK": "1",
        "NO_PROXY": "127.0.0.1",
        "HOME": str(home),
        "DB_PASSWORD": CANARY,
    }
    with running(
        ["server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"], environment,
        home / "server.log",
    ) as process:  # fmt: skip
        until = time.monotonic() + PATIENCE
        while not answers(url):
            assert process.poll() is None, (home / "server.log").read_text()
            assert time.monotonic() < until, (home / "server.log").read_text()
            time.sleep(0.1)
        yield Server(url, environment)


@contextmanager
def running(
    arguments: list[str], environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A Prefect command for the time of the block."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments], env=environment, cwd=ROOT, stdout=stream,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
