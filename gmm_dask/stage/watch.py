"""The messages of a running stage to whoever watches it: a terminal, a log file or Prefect."""

from __future__ import annotations

from gmm_dask.fitting import Pass
from gmm_dask.stage.settings import FitSettings


class Watcher:
    """Hears of every phase, pass and part; the methods of this base class do nothing."""

    @property
    def under_way(self) -> str:
        """The work under way in words, for messages about workers that were lost."""
        return "the work"

    def phase(self, name: str, detail: str) -> None:
        """One of "plan", "fit", "label", "publish" begins."""

    def detail(self, message: str) -> None:
        """Something was decided that is worth a line."""

    def progress(self, phase: str, done: int, of: int | None = None, note: str = "") -> None:
        """Something that may take more than a second came so far; see `fitting.Report`.

        What nobody counts has begun where it is told of, with 0 done.
        """

    def passed(self, record: Pass, settings: FitSettings) -> None:
        """One pass of EM over all rows ended."""

    def labelled(self, done: int, total: int) -> None:
        """At least `done` of `total` label parts are written."""

    def warn(self, message: str) -> None:
        """Something went another way than usual, and the run goes on."""

    def waiting(self, what: str | None, seconds: float = 0.0) -> None:
        """The stage waits for something, for at most so many seconds; None says that it came."""
