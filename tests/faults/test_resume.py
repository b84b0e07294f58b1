"""A driver that is killed anywhere: run again, the run ends with the bits of an undisturbed one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from gmm_dask.stage import publish
from gmm_dask.stage.outputs import Published, open_output
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import load_settings, settings_from
from gmm_dask.storage import verify
from tests.by_hand import wait_until
from tests.faults.killed import plain_report
from tests.stage.checkpoints.conftest import assert_same_run, write_rows

ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds

# Where a run is killed beside all of its passes: the first point of that name.
WHERE = [
    "phase plan",
    "link .*/run.json",
    "phase fit",
    "chunk of a pass",
    "link .*/model.json",
    "phase label",
    "link labels/.*",
    "labelled 2",
    "phase publish",
    "link .*/report.html",
    "link .*/MANIFEST.json",
    "link versions/00000001.json",
]
QUICK = ["chunk of a pass", "link checkpoints/00001.json", "labelled 2"]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of two plain starts, with extrapolated steps, in six chunks."""
    path = tmp_path_factory.mktemp("data") / "rows.parquet"
    write_rows(path, 0)
    return {
        "data": {"path": str(path)},
        "fit": {
            "n_components": 3,
            "init_params": "kmeans",
            "tol": 1e-4,
            "acceleration": "anderson",
            "n_init": 2,
        },
        "labels": {"keep": ["kind"]},
        "memory": {"chunk_bytes": 1600},
        "cluster": {"workers": 1},
        "output": {"checkpoint_seconds": 0},
    }


@pytest.fixture(scope="module")
def undisturbed(
    document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Published, list[str]]:
    """A run that nobody killed, and the names of the points that it came by."""
    out = tmp_path_factory.mktemp("undisturbed")
    (names,) = killed(document, out, [0]).splitlines()
    return open_output(str(out / "0")), json.loads(names)


def killed(document: dict[str, Any], out: Path, points: list[int]) -> str:
    (out / "settings.json").write_text(json.dumps(document))
    command = [sys.executable, "-m", "tests.faults.killed", str(out / "settings.json"), str(out)]
    done = subprocess.run(
        [*command, *map(str, points)], cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=PATIENCE + 10 * len(points),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_it_goes_on(
    document: dict[str, Any], out: Path, expected: Published, monkeypatch: pytest.MonkeyPatch
) -> int:
    """Run again where one was killed; the passes that were not made again."""
    monkeypatch.setattr(publish, "render_report", plain_report)
    kept = sorted(path.name for path in out.glob("runs/*/checkpoints/0*.json"))
    told = list(out.glob("runs/*/metrics.json"))  # by the attempt that came so far
    published = run(settings_from(document | {"output": document["output"] | {"path": str(out)}}))
    assert published.version.number == 1
    assert verify(published.folder.store, published.version) == []
    assert_same_run(published, expected)
    if not told:
        assert published.metrics["n_resumed"] == (int(kept[-1][:5]) if kept else 0)
    return int(published.metrics["n_resumed"])


def test_a_run_killed_here_and_there_ends_the_same(
    document: dict[str, Any], undisturbed: tuple[Published, list[str]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    expected, names = undisturbed
    assert expected.metrics["cross_tables"].keys() == {"kind"}
    points = [first(where, names) for where in QUICK]
    killed(document, tmp_path, points)
    resumed = [
        check_it_goes_on(document, tmp_path / str(point), expected, monkeypatch) for point in points
    ]
    assert resumed[0] == 0 < resumed[1] < resumed[2]


@pytest.mark.heavy
@pytest.mark.timeout(1800)
def test_a_run_killed_in_the_middle_or_at_the_end_of_any_pass_or_elsewhere_ends_the_same(
    document: dict[str, Any], undisturbed: tuple[Published, list[str]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    expected, names = undisturbed
    ends = numbers("pass .*", names)
    middles = [end - 3 for end in ends]  # of the six chunks of a pass four are done
    kept = numbers("link checkpoints/.*", names)
    assert len(ends) == len(kept) - 1 >= 10  # of two starts
    assert {names[middle - 1] for middle in middles} == {"chunk of a pass"}
    of_passes = {*ends, *middles, *kept}
    assert len(of_passes) >= 30
    points = sorted(of_passes | {first(where, names) for where in WHERE})
    assert len(points) == len(of_passes) + len(WHERE)
    killed(document, tmp_path, points)
    for point in points:
        check_it_goes_on(document, tmp_path / str(point), expected, monkeypatch)


@pytest.mark.heavy
def test_a_run_killed_again_and_again_ends_the_same(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five times after as many points, each attempt a few passes farther than the last."""
    longer = document | {"fit": document["fit"] | {"tol": 0.0, "max_iter": 15}}
    names = json.loads(killed(longer, tmp_path, [0]))
    n_points = first("link checkpoints/00003.json", names)
    for _ in range(5):
        killed(longer, tmp_path, [n_points])
    expected, folder = open_output(str(tmp_path / "0")), tmp_path / str(n_points)
    assert check_it_goes_on(longer, folder, expected, monkeypatch) > 5


def numbers(pattern: str, names: list[str]) -> list[int]:
    """The numbers of all points of that name, from 1."""
    return [i for i, name in enumerate(names, 1) if re.fullmatch(pattern, name)]


def first(pattern: str, names: list[str]) -> int:
    return numbers(pattern, names)[0]


@pytest.fixture
def driver(tmp_path: Path) -> Callable[..., tuple[Path, subprocess.Popen[str]]]:
    """`gmm-dask run` on settings whose fit takes a while, in a session of its own."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(at, 1, (20_000, 4)) for at in (0, 1, 2)])
    table = pa.table({f"x{i}": X[:, i] for i in range(4)})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=10_000)

    def start(out: str, **cluster: Any) -> tuple[Path, subprocess.Popen[str]]:
        settings = {
            "data": {"path": str(tmp_path / "rows.parquet")},
            "fit": {"n_components": 3, "tol": 0.0, "max_iter": 90, "sample_em": False},
            "labels": {"enabled": False},
            "memory": {"chunk_bytes": 1 << 18},
            "cluster": cluster,
            "output": {"path": str(tmp_path / out), "checkpoint_seconds": 0},
        }
        (tmp_path / f"{out}.yaml").write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "gmm_dask", "run", str(tmp_path / f"{out}.yaml")]
        return tmp_path / out, subprocess.Popen(
            command, cwd=ROOT, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


def wait_for_checkpoint(out: Path, number: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not list(out.glob(f"runs/*/checkpoints/{number:05d}.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def assert_published(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said


def left_of_session(leader: int) -> list[psutil.Process]:
    """Processes of the session that still run."""
    left = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process)
        except (ProcessLookupError, psutil.Error):
            continue
    return left


@pytest.mark.parametrize(
    "cluster",
    [
        {"workers": 2},
        pytest.param({"kind": "processes", "workers": 2}, marks=pytest.mark.heavy),
    ],
    ids=["threads", "processes"],
)
def test_sigterm_closes_what_was_opened_and_the_next_run_goes_on(
    cluster: dict[str, Any],
    driver: Callable[..., tuple[Path, subprocess.Popen[str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publish, "render_report", plain_report)
    out, process = driver("out", **cluster)
    wait_for_checkpoint(out, 5, process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143, said
    assert "gmm-dask: terminated. " in said
    assert "goes on from its last checkpoint" in said
    assert "Traceback" not in said
    # Python's own helper of a pool ends after its parent, by the closed pipe.
    wait_until(lambda: left_of_session(process.pid) == [])
    assert not (out / "versions").exists()
    metrics = run(load_settings(out.with_suffix(".yaml"))).metrics
    assert metrics["n_resumed"] >= 5
    assert metrics["n_passes"] == 90


@pytest.mark.heavy
@pytest.mark.parametrize("cluster", [{"workers": 2}, {"kind": "processes", "workers": 2}])
def test_sigkill_in_the_middle_of_passes_changes_no_bit(
    cluster: dict[str, Any], driver: Callable[..., tuple[Path, subprocess.Popen[str]]]
) -> None:
    expected, process = driver("undisturbed", workers=1)
    assert_published(process)
    out, dice = expected.parent / "out", np.random.default_rng(0)
    for number in range(2, 80, 16):
        _, process = driver("out", **cluster)
        wait_for_checkpoint(out, number, process)
        time.sleep(dice.uniform(0, 0.02))
        process.kill()
        process.communicate(timeout=PATIENCE)
    _, process = driver("out", **cluster)
    assert_published(process)
    one, other = open_output(str(out)), open_output(str(expected))
    assert one.metrics["n_resumed"] >= 66
    assert one.folder.get("model.json") == other.folder.get("model.json")
