"""A preload of Dask workers: does to the worker what a file in a folder says, once.

The folder is in the environment. A file there is named by a place of the stage and holds a fault;
the first worker that comes to the place takes it away and suffers it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import Any

FOLDER = "GMM_DASK_TEST_FAULTS"
WAKE = "wake"


def _fill_memory() -> None:
    blocks = []
    while True:  # until the nanny ends the process
        blocks.append(os.urandom(1 << 20) * 16)
        time.sleep(0.01)


def _retire() -> None:
    from distributed import get_worker

    worker = get_worker()
    worker.loop.add_callback(worker.close_gracefully)


HOARD: list[bytes] = []


def _hoard() -> None:
    """Take more memory than a worker may have, and go on."""
    HOARD.extend(os.urandom(1 << 20) * 50 for _ in range(5))


def _sleep_on() -> None:
    """Hear and say nothing any more; the task goes on when it is waked, with other labels."""
    from distributed import get_worker

    get_worker().loop.add_callback(Event().wait)
    while not Path(os.environ[FOLDER], WAKE).exists():
        time.sleep(0.02)
    label = import_module("gmm_dask.stage.labels.chunk_labels")
    label_table = label.label_table

    def other_table(first_row: int, kept: Any, scores: Any, **more: Any) -> Any:
        other = scores._replace(log_density=scores.log_density + 1)
        return label_table(first_row, kept, other, **more)

    label.label_table = other_table


FAULTS: dict[str, Callable[[], object]] = {
    "os._exit": lambda: os._exit(1),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "SIGSTOP": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "retired": _retire,
    "memory": _fill_memory,
    "slow": lambda: time.sleep(6),
}
OF_WORKERS_BY_HAND = {"hoard": _hoard, "sleeps on": _sleep_on}


def arm(place: str, fault: str) -> None:
    """Have the fault happen to the next worker that comes to the place."""
    Path(os.environ[FOLDER], place).write_text(fault)


def wake() -> None:
    """Have the workers go on that sleep on."""
    Path(os.environ[FOLDER], WAKE).touch()


def is_done(place: str) -> bool:
    return Path(os.environ[FOLDER], f"{place}-taken").exists()


def _disturbed(place: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def disturbed(*args: Any, **kwargs: Any) -> Any:
        file = Path(os.environ[FOLDER], place)
        try:
            file.rename(file.with_name(f"{place}-taken"))
        except FileNotFoundError:
            pass
        else:
            fault = file.with_name(f"{place}-taken").read_text()
            (FAULTS | OF_WORKERS_BY_HAND)[fault]()
        return function(*args, **kwargs)

    return disturbed


def dask_setup(worker: Any) -> None:
    """Stand before the functions that tasks call."""
    for place, module, name in (
        ("survey", "gmm_dask.engine.passes.survey", "survey_chunk"),
        ("pass", "gmm_dask.engine.passes.expectation", "_statistics"),
        ("label", "gmm_dask.stage.labels.chunk_labels", "label_chunk"),
        ("half a label", "gmm_dask.stage.labels.chunk_labels", "_scored"),
    ):
        found = import_module(module)
        setattr(found, name, _disturbed(place, getattr(found, name)))
