"""One Prefect server for all flow tests: loopback, a free port, an empty home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from flows.server import answers, free_port

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


def ask(server: Server, path: str, body: dict[str, Any] | None = None) -> Any:
    request = Request(
        f"{server.url}/{path}", data=json.dumps(body or {}).encode(),
        headers={"Content-Type": "application/json"}, method="POST",
    )  # fmt: skip
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=60) as response:
                return json.load(response)
        except HTTPError as error:  # its database is locked by a run that reports itself
            if error.code != 503 or time.monotonic() > until:
                raise
        time.sleep(0.5)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("prefect")
    url = f"http://127.0.0.1:{free_port()}/api"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")} | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # What is due is looked for often; by default every 5, 60 and 10 seconds.
        "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
        "NO_PROXY": "127.0.0.1",
        "HOME": str(home),
        "DB_PASSWORD": CANARY,
    }
    port = url.rsplit(":", 1)[1].split("/")[0]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1",
             "--port", port],
            env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        until = time.monotonic() + PATIENCE
        while not answers(url):
            assert process.poll() is None, (home / "server.log").read_text()
            assert time.monotonic() < until, (home / "server.log").read_text()
            time.sleep(0.3)
        yield Server(url, environment)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
