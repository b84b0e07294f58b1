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
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from gmm_dask.stage import publish
from gmm_dask.stage.lineage.registry import promote_as
from gmm_dask.stage.outputs import resolve
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import FitSettings, Settings, settings_from
from gmm_dask.storage import RunFolder, find_entry, latest, list_versions, verify
from gmm_dask.storage.store.local_store import LocalStore
from tests.faults.conftest import ROWS
from tests.faults.killed import night, plain_report
from tests.stage.checkpoints.conftest import assert_same_run
from tests.storage.stores import published_rows

ROOT = Path(__file__).parents[2]
DRIVER = """
import json, os, sys
from tests.faults.killed import attempt
attempt(json.loads(sys.argv[1]), sys.argv[2], 0, os.fsync)
"""
NIGHT = """
import json, os, sys
from tests.faults.killed import night
night(json.loads(sys.argv[1]), sys.argv[2])
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
    settings: Settings, out: Path, calls: str, *options: str, driver: str = DRIVER
) -> subprocess.CompletedProcess[bytes]:
    """A whole run in a process of its own under strace, whose log lies beside its output."""
    out.mkdir(exist_ok=True)
    document = json.dumps(settings.model_dump(mode="json"))
    tracing = ["strace", "-f", "-o", str(out / "calls"), "-e", f"trace={calls}", *options]
    command = [*tracing, sys.executable, "-c", driver, document, str(out)]
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


def state_of(store: LocalStore) -> tuple[Any, ...]:
    """Which runs there are, which is the latest and which the champion; all of them whole."""
    newest = latest(store)
    assert newest is not None
    for alias in newest.registry.aliases:
        version = find_entry(store, alias)
        assert verify(store, version) == []
        assert published_rows(store, version) == list(range(ROWS))
    kept = [each for each in list_versions(store) if each.run_id not in newest.registry.retired]
    assert [verify(store, each) for each in kept] == [[]] * len(kept)
    runs = {name.split("/")[1] for name in store.list("runs/")}
    model = RunFolder(store, newest.run_id).get("model.json")
    champion = find_entry(store, "champion").run_id
    return runs, newest.run_id, newest.registry.retired, model, champion


@pytest.mark.parametrize("calls", CALLS)
def test_a_night_killed_at_any_such_call_leaves_what_is_whole_and_is_done_again(
    calls: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refresh, the promotion of what it published, and what `gc` removes."""
    monkeypatch.setattr(publish, "render_report", plain_report)
    rows = Path(settings.data.in_short)
    for k in (1, 2):  # two nights before this one
        run(at(settings.model_copy(update={"fit": FitSettings(n_components=k)}), tmp_path / "out"))
    settings = settings.model_copy(update={"fit": FitSettings(n_components=2)})
    folder, out = resolve(str(tmp_path / "out"))
    promote_as(folder, out, "champion", unchecked=True)
    table = pq.read_table(rows)
    pq.write_table(table.set_column(0, "x", pc.add(table["x"], 0.1)), rows, row_group_size=4)

    def prepared(name: str) -> Settings:
        shutil.copytree(tmp_path / "out", tmp_path / name)
        return at(settings, tmp_path / name)

    undisturbed = prepared("undisturbed")
    done = drive(undisturbed, tmp_path / "undisturbed", calls, driver=NIGHT)
    assert done.returncode == 0, done.stderr
    expected = state_of(LocalStore(str(tmp_path / "undisturbed")))
    assert len(expected[0]) == 1
    n_calls = most_calls(tmp_path / "undisturbed" / "calls")
    for when in range(1, n_calls + 1, 2 * CALLS[calls]):
        mine = prepared(str(when))
        kill = ("-e", f"inject={calls}:signal=SIGKILL:when={when}")
        killed = drive(mine, tmp_path / str(when), calls, *kill, driver=NIGHT)
        assert killed.returncode == -signal.SIGKILL
        store = LocalStore(str(tmp_path / str(when)))
        state_of(store)
        night(mine.model_dump(mode="json"), store.url)
        assert state_of(store) == expected


def at(settings: Settings, out: Path) -> Settings:
    document = settings.model_dump(mode="json")
    return settings_from(document | {"output": document["output"] | {"path": str(out)}})
