"""A flow as a script that loses its Prefect server at some place of the stage.

    python -m tests.flows.severed FLOW PLACE closed|silent SETTINGS ...

The server of PREFECT_API_URL is reached through a relay, which is what ends.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

HOST = "127.0.0.1"  # that of flows.script, which imports Prefect: its settings come first


class Relay:
    """Hands bytes to and from a server, until it closes its connections or falls silent."""

    def __init__(self, port: int) -> None:
        self._to, self._silent = port, Event()
        self._listener = socket.create_server((HOST, 0))
        self._open = [self._listener]
        Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._listener.getsockname()[1]}/api"

    def fall_silent(self) -> None:
        """Take what is sent, and say nothing."""
        self._silent.set()

    def close(self) -> None:
        """As if the process of the server had ended."""
        self._silent.set()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._listener.accept()
            except OSError:
                return
            theirs = socket.create_connection((HOST, self._to))
            self._open += [ours, theirs]
            for one, other in ((ours, theirs), (theirs, ours)):
                Thread(target=self._hand_on, args=(one, other), daemon=True).start()

    def _hand_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                if not self._silent.is_set():
                    other.sendall(data)
        if not self._silent.is_set():
            with suppress(OSError):
                other.shutdown(socket.SHUT_WR)


def once(act: Callable[[], None], real: Callable[..., Any]) -> Callable[..., Any]:
    acts = iter([act])

    def call(*args: Any, **kwargs: Any) -> Any:
        for each in acts:
            each()
        return real(*args, **kwargs)

    return call


def lose_at(place: str, act: Callable[[], None]) -> None:
    """Have it happen before what is done at the place."""
    from gmm_dask.flows import deployable, tasks
    from gmm_dask.flows.watching import FlowWatcher
    from gmm_dask.stage.checkpoints import keeper

    where: dict[str, list[tuple[Any, str]]] = {
        "plan": [(tasks, "stage_plan")],
        "first pass": [(tasks, "stage_fit"), (tasks, "stage_adopt")],
        "later pass": [(FlowWatcher, "show_pass")],
        "checkpoint": [(keeper, "write_checkpoint")],
        "label": [(tasks, "stage_label")],
        "publish": [(tasks, "stage_publish")],
        "shown": [(deployable, "show_fit"), (deployable, "show_labels")],
    }
    for target, name in where[place]:
        setattr(target, name, once(act, getattr(target, name)))


def main(flow: str, place: str, how: str, *arguments: str) -> int:
    relay = Relay(urlsplit(os.environ["PREFECT_API_URL"]).port or 0)
    os.environ["PREFECT_API_URL"] = relay.url  # before Prefect is imported
    from gmm_dask.flows import deployable, script
    from gmm_dask.stage.settings import ScoreSettings, Settings

    lose_at(place, {"closed": relay.close, "silent": relay.fall_silent}[how])
    if flow == "label":
        return script.main(deployable.label, ScoreSettings, arguments)
    return script.main(deployable.cluster, Settings, arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
