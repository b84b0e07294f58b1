"""The exit code says what became of a run, whatever becomes of what it prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from gmm_dask.command import process as streams
from gmm_dask.command.console import make_console
from gmm_dask.stage.outputs import open_output
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import settings_from
from gmm_dask.storage import verify

ROOT = Path(__file__).parents[2]
IRIS = ROOT / "examples" / "iris"
COMMAND = f"{sys.executable} -m gmm_dask"
FIT = f"{COMMAND} fit {IRIS} --features petal_length,petal_width --n-components 3 --out out"

# How a shell leaves the streams; a reader that takes one byte and goes is told by the last ones.
BROKEN = {
    "closed": "{} <&- >&- 2>&-",
    "full": "{} >/dev/full 2>/dev/full",
    "without a reader": "({}; echo $? >&3) 3>code 2>&1 | head -c 1 >/dev/null; exit $(cat code)",
}


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, capture_output=True, text=True, check=False, timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )  # fmt: skip


@pytest.mark.parametrize("columns", ["0", "1"])
def test_a_terminal_of_no_width_is_told_everything(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    console, table = make_console(), Table("a", "b")
    table.add_row("one", "two")
    console.print(table)
    console.print("three")
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("one", "two", "three"))


@pytest.mark.parametrize("how", list(BROKEN))
def test_a_run_that_is_published_ends_with_0(how: str, tmp_path: Path) -> None:
    progress = "live" if how == "without a reader" else "lines"
    done = shell(BROKEN[how].format(f"{FIT} --progress {progress}"), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    published = open_output(str(tmp_path / "out"))
    assert published.metrics["n_rows"] == 150
    assert not verify(published.folder.store, published.version)


def test_a_run_that_fails_ends_with_1_and_a_wrong_call_with_2(tmp_path: Path) -> None:
    failing = f"{COMMAND} fit absent --n-components 3 --out out"
    assert shell(f"{failing} 2>/dev/full", tmp_path).returncode == 1
    assert shell(f"{failing} --tol -1 >&- 2>&-", tmp_path).returncode == 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the output `out`."""
    folder = tmp_path_factory.mktemp("published")
    document = {"data": {"path": str(IRIS)}, "output": {"path": str(folder / "out")}}
    run(settings_from(document))
    return folder


def test_a_command_that_only_prints_fails_where_its_output_is_lost(folder: Path) -> None:
    full = shell(f"{COMMAND} path out model >/dev/full", folder)
    assert full.returncode == 1
    assert "No space left on device; what was printed is lost" in full.stderr
    assert shell(f"{COMMAND} show out >&-", folder).returncode == 1


def test_a_command_that_only_prints_ends_quietly_where_its_reader_has_gone(folder: Path) -> None:
    done = shell(f"{COMMAND} show out | true; exit ${{PIPESTATUS[0]}}", folder)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_command_that_finds_something_out_says_so_by_its_code(folder: Path) -> None:
    assert shell(f"{COMMAND} verify out >/dev/full", folder).returncode == 0


def test_nothing_that_is_printed_gets_into_a_file_that_is_opened(tmp_path: Path) -> None:
    """The number of a closed stream is the first one that a file would get."""
    code = (
        "import os, sys\n"
        "from gmm_dask.command.process import keep_streams\n"
        "keep_streams()\n"
        "keep_streams()\n"
        "file = open('data', 'w')\n"
        "assert file.fileno() > 2\n"
        "os.write(1, b'noise')\n"
        "os.write(2, b'noise')\n"
        "print('more'), print('more', file=sys.stderr)\n"
        "file.write('data')\n"
    )
    for closed in ("<&- >&- 2>&-", "2>&-", ">&-", "<&- 2>&-"):
        done = shell(f'{sys.executable} -c "{code}" {closed}', tmp_path)
        assert done.returncode == 0
        assert (tmp_path / "data").read_text() == "data"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_can_be_printed_is_printed_as_before(unbuffered: str) -> None:
    code = (
        "import sys; from gmm_dask.command.process import keep_streams, lost\n"
        "print('first')\n"
        "before = sys.stdout.encoding, sys.stdout.errors, sys.stdout.fileno()\n"
        "keep_streams()\n"
        "assert before == (sys.stdout.encoding, sys.stdout.errors, 1)\n"
        "print('second \\u00e9'); print('third', file=sys.stderr)\n"
        "assert lost(sys.stdout) is None"
    )
    environment = {"PYTHONIOENCODING": "latin-1:replace", "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False, timeout=60,
        env=os.environ | environment,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"third\n")
    assert done.stdout == "first\nsecond \u00e9\n".encode("latin-1")


def test_a_stream_that_is_full_for_a_while_loses_only_that(tmp_path: Path) -> None:
    """A pipe that does not wait takes again what comes after its reader has read."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    file = streams._LossyFile(writer)
    block = b"x" * 4096
    while file.error is None:
        assert file.write(block) <= len(block)
    os.read(reader, 1 << 20)
    assert file.write(b"later") == 5
    assert os.read(reader, 1 << 20) == b"later"
    os.close(reader)
    assert file.write(block) == len(block)
    assert isinstance(file.error, BrokenPipeError)
    os.close(writer)


def test_a_stream_of_the_caller_stays(capsys: pytest.CaptureFixture[str]) -> None:
    stream = sys.stdout
    streams.keep_streams()
    assert sys.stdout is stream
    print("heard")
    assert capsys.readouterr().out == "heard\n"
