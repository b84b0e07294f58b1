"""A scheduler and workers started by hand, as processes that a test can end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class ByHand:
    """The commands of the README, on a port of their own."""

    protocol: str = "tcp"
    options: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    scheduler: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{self.protocol}://127.0.0.1:{self.port}"

    def start_scheduler(self) -> None:
        self.scheduler = self._start("dask_scheduler", "--port", str(self.port))

    def start_worker(self, *options: str) -> None:
        self.workers.append(
            self._start("dask_worker", self.address, "--nthreads", "1", "--no-nanny", *options)
        )

    def kill(self, process: subprocess.Popen[bytes] | None) -> None:
        assert process is not None
        process.kill()
        process.wait(30)

    def kill_workers(self) -> None:
        for worker in self.workers:
            self.kill(worker)
        self.workers.clear()

    def end(self) -> None:
        """Workers first: they say goodbye to their scheduler."""
        for processes in (self.workers, [self.scheduler]):
            running = [each for each in processes if each is not None and each.poll() is None]
            for process in running:
                process.send_signal(signal.SIGCONT)
                process.terminate()
            for process in running:
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    self.kill(process)

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        # Without a dashboard address Dask's HTTP server listens on every interface.
        loopback = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
        return subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{name}", *arguments, *loopback, *self.options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )


@contextmanager
def by_hand(
    n_workers: int = 1, protocol: str = "tcp", options: Sequence[str] = ()
) -> Iterator[ByHand]:
    """A scheduler and workers without nannies; all that is left of them ends with the block."""
    cluster = ByHand(protocol, options)
    try:
        cluster.start_scheduler()
        for _ in range(n_workers):
            cluster.start_worker()
        yield cluster
    finally:
        cluster.end()


def wait_until(condition: object, seconds: float = 60.0) -> None:
    """Wait for what other processes do; fails where it takes longer."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
