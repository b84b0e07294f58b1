"""Runs of the stage that kill themselves at one of the points where something was just done.

    python -m tests.faults.killed SETTINGS.json OUT POINT ...

Each point is tried in a process and an output folder of its own, OUT/POINT; point 0 is not killed,
and the names of all points are printed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gmm_dask.engine.passes import expectation as passes
from gmm_dask.fitting import Pass
from gmm_dask.stage import publish
from gmm_dask.stage.lineage.registry import promote_as
from gmm_dask.stage.lineage.retention import Policy, collect
from gmm_dask.stage.report import ReportData
from gmm_dask.stage.run import refresh, run
from gmm_dask.stage.settings import FitSettings, settings_from
from gmm_dask.stage.watch import Watcher


def plain_report(data: ReportData) -> str:
    """What the report draws, instead of pictures: those take a second."""
    return "".join(str(parameters.means.tobytes().hex()) for parameters in data.trajectory)


class Points:
    """Counts what is done, and ends the process after so many things."""

    def __init__(self, kill_at: int) -> None:
        self.kill_at, self.names = kill_at, []

    def reached(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            done = real(*arguments, **options)
            path = str(arguments[-1]) if name == "link" else ""
            self.reached(f"{name} {Path(path).parent.name}/{Path(path).name}".removesuffix(" /"))
            return done

        return call


class Watching(Watcher):
    def __init__(self, points: Points) -> None:
        self._points = points

    def phase(self, name: str, detail: str) -> None:
        self._points.reached(f"phase {name}")

    def passed(self, record: Pass, settings: FitSettings) -> None:
        self._points.reached(f"pass {record.number}")

    def labelled(self, done: int, total: int) -> None:
        self._points.reached(f"labelled {done}")


def not_flushed(descriptor: int) -> None:
    """Instead of fsync: a kill loses nothing that was written; test_power_cut.py has what does."""


def attempt(
    document: dict[str, Any],
    out: str,
    kill_at: int,
    flush: Callable[[int], None] = not_flushed,
) -> list[str]:
    """One run; the names of the points it came by, if it lives to tell them."""
    points = Points(kill_at)
    publish.render_report = plain_report
    passes._statistics = points.around("chunk of a pass", passes._statistics)
    os.link = points.around("link", os.link)
    os.fsync = points.around("fsync", flush)
    document["output"]["path"] = f"{out}/{kill_at}"
    run(settings_from(document), Watching(points))
    return points.names


def night(document: dict[str, Any], out: str) -> None:
    """A refresh, the promotion of what it published, and the removal of what is older."""
    publish.render_report = plain_report
    document["output"]["path"] = out
    published = refresh(settings_from(document))
    promote_as(published.folder, published.version, "champion", unchecked=True)
    collect(published.folder.store, Policy(runs=1, labels=1, abandoned_days=0.0))


def main(path: str, out: str, *kill_at: str) -> None:
    document = json.loads(Path(path).read_text())
    for at in map(int, kill_at):
        child = os.fork()  # nothing has run so far, so there is no thread that would be missing
        if child == 0:
            print(json.dumps(attempt(document, out, at)), flush=True)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code == (0 if at == 0 else -signal.SIGKILL), (at, code)


if __name__ == "__main__":
    main(*sys.argv[1:])
