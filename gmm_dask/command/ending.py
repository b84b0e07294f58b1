"""How a command ends: what it published, or one message and an exit code."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gmm_dask.command.process import Terminated, dask_in_our_words, lost, terminable
from gmm_dask.command.under_way import UNDER_WAY
from gmm_dask.errors import GmmDaskError, SettingsError, shown

if TYPE_CHECKING:
    from gmm_dask.command.progress import Progress
    from gmm_dask.stage.outputs import Published

# Exit codes; 0 is "published", and the last three are those of shells after the signals.
FAILED, USAGE, INTERRUPTED, BROKEN_PIPE, TERMINATED = 1, 2, 130, 141, 143


class Show(StrEnum):
    """The ways in which progress is shown."""

    AUTO = "auto"
    LIVE = "live"
    LINES = "lines"
    JSON = "json"
    NONE = "none"


Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Replace one setting, whatever the other options say; repeatable.",
    ),
]


def carry_out(
    stage: Callable[[Any, Progress], Published],
    settings: Any,
    progress: Show,
    interrupted: str | None = None,
) -> None:
    """Run a stage under its progress, and print what it published.

    Parameters
    ----------
    interrupted : str, optional
        What is said of where an interrupted stage stands; that of a run where not given.
    """
    from gmm_dask.command.console import AGAIN
    from gmm_dask.command.results import print_outcome

    watcher, begun = _watcher(progress), time.monotonic()
    cluster = getattr(settings, "cluster", None)  # of a run; who promotes a version needs none
    try:
        with (
            terminable(),
            warnings.catch_warnings(),
            dask_in_our_words(cluster.kind if cluster else "threads"),
            watcher.running(),
        ):
            # A warning of a library is news of the run, not a line of somebody's source.
            warnings.showwarning = lambda message, *_, **__: watcher.warn(str(message))
            published = stage(settings, watcher)
    except KeyboardInterrupt as interrupt:
        ended = type(interrupt)(interrupted or AGAIN)
        if watcher.failed(*_said(ended)):
            raise typer.Exit(_said(ended)[1]) from None
        raise ended from None
    except Exception as error:
        if watcher.failed(*_said(error)):
            raise typer.Exit(_said(error)[1]) from None
        raise
    watcher.published(published, time.monotonic() - begun)
    if progress in (Show.AUTO, Show.LIVE):
        UNDER_WAY.begin()  # while the printing reads what the store has
    try:
        on_one_screen = sys.stdout.isatty() and sys.stderr.isatty()
        print_outcome(published, watcher.told if on_one_screen else ())
    except Exception as error:  # the run is published, whether or not it can be shown
        _complain(f"{published.path('folder')} is published, but cannot be shown: {error}")
    finally:
        UNDER_WAY.end()


def _watcher(progress: Show) -> Progress:
    from gmm_dask.command.console import JsonLines, LiveDisplay, LogLines, make_console
    from gmm_dask.command.progress import Progress

    UNDER_WAY.end()  # the display says more, and `none` asks for nothing
    console = make_console(stderr=True)
    if progress is Show.AUTO:
        # rich calls a log file a terminal where FORCE_COLOR is set, so the stream is asked.
        live = sys.stderr.isatty() and not console.is_dumb_terminal
        progress = Show.LIVE if live else Show.LINES
    kinds = {Show.LIVE: LiveDisplay, Show.LINES: LogLines, Show.JSON: JsonLines}
    return kinds[progress](console) if progress in kinds else Progress()


@contextmanager
def ending(
    debug: bool, *, prints: bool = False, explained: Callable[[str], str] = str
) -> Iterator[None]:
    """Turn every way a command can end badly into one message and its exit code.

    Parameters
    ----------
    debug : bool
        Whether the traceback of an error is shown.
    prints : bool
        Whether what the command prints is all that it does. Then it fails where that is lost, and
        ends like other programs where its reader has gone; what others did stays done.
    explained : message -> message
        Adds what its reader needs to follow the advice.
    """
    try:
        yield
        if prints and (error := lost(sys.stdout)) is not None:
            if isinstance(error, BrokenPipeError):
                raise typer.Exit(BROKEN_PIPE)
            raise OSError(error.errno, f"{error.strerror}; what was printed is lost")
    except typer.Exit:
        raise
    except KeyboardInterrupt as interrupt:
        message, code = _said(interrupt)
        _complain(message)
        raise typer.Exit(code) from None
    except Exception as error:
        if debug:
            import traceback

            _complain(traceback.format_exc().rstrip())
        message, code = _said(error)
        _complain(explained(message))
        raise typer.Exit(code) from None


def _said(error: BaseException) -> tuple[str, int]:
    """The message of an error, and the exit code of a command that ends with it."""
    if isinstance(error, KeyboardInterrupt):
        ended = isinstance(error, Terminated)
        said = f"{'terminated' if ended else 'interrupted'}. {error}".rstrip()
        return said, TERMINATED if ended else INTERRUPTED
    return _message(error), USAGE if isinstance(error, SettingsError) else FAILED


def _message(error: BaseException) -> str:
    if isinstance(error, GmmDaskError):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory. Use fewer workers, or a smaller memory.chunk_bytes."
    if isinstance(error, OSError):
        return shown(f"the system refused: {error}")
    return shown(f"unexpected {type(error).__name__}: {error} (--debug shows where)")


def _complain(message: str) -> None:
    from gmm_dask.command.console import make_console, print_line, printable

    console = make_console(stderr=True)
    for line in printable(f"gmm-dask: {message}").split("\n"):
        print_line(console, line)
