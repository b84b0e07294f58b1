"""A driver that the kernel ends at a system call of its own: the next run ends whole, same bits."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from gmm_dask.stage import publish
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import Settings, settings_from
from gmm_dask.storage import latest, list_versions, verify
from gmm_dask.storage.store.local_store import LocalStore
from tests.faults.conftest import ROWS
from tests.faults.killed import plain_report
from tests.stage.checkpoints.conftest import assert_same_run
from tests.storage.stores import published_rows

ROOT = Path(__file__).parents[2]
DRIVER = """
import json, os, sys
from tests.faults.killed import attempt
attempt(json.loads(sys.argv[1]), sys.argv[2], 0, os.fsync)
"""
# A question mark is for a call that not every processor has; of many calls some are tried.
CALLS = {
    "?link,linkat": 1,
    "?rename,?renameat,renameat2": 1,
    "fsync": 4,
    "write": 3,
}

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
    pytest.mark.filterwarnings("ignore:Best performing initialization did not converge"),
]


def drive(
    settings: Settings, out: Path, calls: str, *options: str
) -> subprocess.CompletedProcess[bytes]:
    """A whole run in a process of its own under strace, whose log lies beside its output."""
    out.mkdir()
    document = json.dumps(settings.model_dump(mode="json"))
    tracing = ["strace", "-f", "-o", str(out / "calls"), "-e", f"trace={calls}", *options]
    command = [*tracing, sys.executable, "-c", DRIVER, document, str(out)]
    # Files of compiled Python would be written by the first run alone.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=300
    )


def most_calls(log: Path) -> int:
    """Calls of the thread that made most: strace counts those of each thread."""
    return max(Counter(re.findall(r"^(\d+) +\w+\(", log.read_text(), re.MULTILINE)).values())


@pytest.mark.parametrize("calls", CALLS)
def test_a_driver_killed_at_any_such_call_is_followed_by_one_whole_version(
    calls: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "render_report", plain_report)
    undisturbed = drive(settings, tmp_path / "undisturbed", calls)
    assert undisturbed.returncode == 0, undisturbed.stderr
    n_calls = most_calls(tmp_path / "undisturbed" / "calls")
    assert n_calls >= 4
    expected = run(at(settings, tmp_path / "undisturbed" / "0"))
    assert not expected.new
    for when in range(1, n_calls + 1, CALLS[calls]):
        out = tmp_path / str(when)
        kill = ("-e", f"inject={calls}:signal=SIGKILL:when={when}")
        assert drive(settings, out, calls, *kill).returncode == -signal.SIGKILL
        assert "+++ killed by SIGKILL +++" in (out / "calls").read_text()
        store = LocalStore(str(out / "0"))
        seen = latest(store)
        assert seen is None or published_rows(store, seen) == list(range(ROWS))
        published = run(at(settings, out / "0"))
        assert list_versions(store) == [published.version]
        assert verify(store, published.version) == []
        assert published_rows(store, published.version) == list(range(ROWS))
        assert_same_run(published, expected)


def at(settings: Settings, out: Path) -> Settings:
    document = settings.model_dump(mode="json")
    return settings_from(document | {"output": document["output"] | {"path": str(out)}})
