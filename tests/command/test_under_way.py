"""A command on a terminal says that it is under way, until it has something else to say."""

from __future__ import annotations

import os
import pty
import queue
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import pytest

from gmm_dask.command import under_way

CODE = """
import sys, time
from gmm_dask.command import process, under_way

under_way.PERIOD = 0.01
process.settle()
under_way.UNDER_WAY.tell(3, 17)
time.sleep(0.3)
print("the result", file=getattr(sys, sys.argv[1]))
time.sleep(0.3)
"""


def on_a_terminal(stream: str, term: str) -> str:
    """What a terminal gets of the code above."""
    reader, terminal = pty.openpty()
    environment = os.environ | {"TERM": term}
    with subprocess.Popen(
        [sys.executable, "-c", CODE, stream], stdout=terminal, stderr=terminal, env=environment
    ) as process:
        os.close(terminal)
        read = b""
        with suppress(OSError):  # the other end is closed
            while more := os.read(reader, 4096):
                read += more
        assert process.wait() == 0
    os.close(reader)
    return read.decode()


def test_the_line_is_there_until_something_is_written_to_either_stream() -> None:
    for stream in ("stdout", "stderr"):
        told, after = on_a_terminal(stream, "xterm").split("the result")
        assert "reading files: 3 of 17, 0 s" in told
        assert told.endswith("\r\x1b[K"), "the line is gone before anything else is written"
        assert after.strip() == ""


def test_a_terminal_that_takes_no_line_back_gets_none() -> None:
    assert on_a_terminal("stdout", "dumb").strip() == "the result"


def test_the_line_can_begin_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_way, "PERIOD", 0.01)
    terminal = SimpleNamespace(isatty=lambda: True, fileno=lambda: -1)
    monkeypatch.setattr(under_way, "sys", SimpleNamespace(stderr=terminal))
    monkeypatch.setenv("TERM", "xterm")
    line, written = under_way.UnderWay(), queue.Queue[str]()
    monkeypatch.setattr(line, "_write", written.put)
    for _ in range(2):
        line.begin()
        assert "under way" in written.get(timeout=60)
        line.end()
        while written.get(timeout=60) != "\r\x1b[K":
            pass
        assert written.empty()
