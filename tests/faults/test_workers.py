"""The stage while workers and schedulers die: the same bits, or a named error and a rerun."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import dask
import distributed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask.errors import ClusterError, DeadlyChunkError
from gmm_dask.fitting import Pass
from gmm_dask.stage.checkpoints import keeper
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import FitSettings, Settings, settings_from
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage import latest, open_store, verify
from tests.by_hand import ROOT, ByHand, by_hand
from tests.faults import saboteur
from tests.storage.stores import published_rows

pytestmark = pytest.mark.usefixtures("no_pictures", "own_faults", "told_of_checkpoints")

ROWS = 240  # in twelve chunks
CHECKPOINT = "a checkpoint is written"
SABOTEUR = str(ROOT / "tests" / "faults" / "saboteur.py")
PLACES = ("survey", "first pass", "later pass", "label")
OF_THE_DRIVER = ("plan", "checkpoint")  # where no worker has anything to do
PHASES = {
    ("plan", "plan"),
    ("fit", "survey"),
    ("fit", "first pass"),
    ("label", "label"),
    ("publish", "publish"),
}


@pytest.fixture
def own_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "faults"
    folder.mkdir()
    monkeypatch.setenv(saboteur.FOLDER, str(folder))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def settings(folder: Path, out: str, **cluster: Any) -> Settings:
    data = folder / "rows.parquet"
    if not data.exists():
        rng = np.random.default_rng(0)
        x = np.concatenate([rng.normal(size=ROWS // 2), rng.normal(3, 1, ROWS // 2)])
        pq.write_table(pa.table({"x": x, "id": np.arange(ROWS)}), data, row_group_size=20)
    return settings_from(
        {
            "data": {"path": str(data), "features": ["x"]},
            "fit": {"n_components": 2, "max_iter": 4, "tol": 0.0},
            "memory": {"chunk_bytes": 8 * 20},
            "cluster": cluster,
            "output": {"path": str(folder / out), "checkpoint_seconds": 0},
        }
    )


@pytest.fixture
def told_of_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher hears of each checkpoint before it is written."""
    keep = keeper.Keeper.keep

    def told(self: Any, *what: Any) -> None:
        self._watcher.detail(CHECKPOINT)
        keep(self, *what)

    monkeypatch.setattr(keeper.Keeper, "keep", told)


class At(Watcher):
    """Does something when the stage comes to a place: before its next chunk."""

    def __init__(self, place: str, act: Callable[[], object]) -> None:
        self._place, self._act, self.acted = place, act, 0

    def phase(self, name: str, detail: str) -> None:
        if (name, self._place) in PHASES:
            self._now()

    def passed(self, record: Pass, settings: FitSettings) -> None:
        if self._place == "later pass" and record.number == 2:
            self._now()

    def detail(self, message: str) -> None:
        if self._place == "checkpoint" and message == CHECKPOINT:
            self._now()

    def _now(self) -> None:
        if not self.acted:
            self.acted += 1
            self._act()


def outcome(chosen: Settings) -> tuple[bytes, list[str]]:
    """The bits of what was published, after it was found whole."""
    store = open_store(chosen.output.path)
    version = latest(store)
    assert version is not None
    assert verify(store, version) == []
    assert published_rows(store, version) == list(range(ROWS))
    run_folder = f"runs/{version.run_id}"
    labels = sorted(name for name in store.list(run_folder) if "/labels/" in name)
    return store.get(f"{run_folder}/model.json"), labels


def undisturbed(folder: Path) -> tuple[bytes, list[str]]:
    chosen = settings(folder, "undisturbed", workers=1)
    run(chosen)
    return outcome(chosen)


def preloaded(module: str) -> dask.config.set:
    """Have workers started meanwhile load a module."""
    # Settings made before distributed is imported would take its own with them when they end.
    assert distributed.config is not None
    return dask.config.set({"distributed.worker.preload": [module]})


def processes(folder: Path) -> Settings:
    limits = {"timeout": 60, "stuck_after": 4, "memory_limit": "400MiB"}
    return settings(folder, "out", kind="processes", workers=2, **limits)


QUICK = ("SIGKILL", "later pass")


@pytest.mark.parametrize(
    ("fault", "place"),
    [
        pytest.param(fault, place, marks=() if (fault, place) == QUICK else pytest.mark.heavy)
        for fault in saboteur.FAULTS
        for place in PLACES
    ],
)
def test_a_worker_that_is_lost_or_late_changes_no_bit(
    fault: str, place: str, tmp_path: Path
) -> None:
    task = "pass" if place.endswith("pass") else place
    watcher = At(place, partial(saboteur.arm, task, fault))
    with preloaded(SABOTEUR):
        run(processes(tmp_path), watcher)
    assert watcher.acted
    assert saboteur.is_done(task), "the fault did not happen"
    assert outcome(processes(tmp_path)) == undisturbed(tmp_path)


def test_a_command_tells_in_its_own_words_of_lost_workers_and_a_lost_scheduler(
    tmp_path: Path,
) -> None:
    settings(tmp_path, "out")  # makes the data
    said: list[str] = []
    with by_hand(2) as cluster:
        with distributed.Client(cluster.address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        arguments = [str(tmp_path / "rows.parquet"), "--out", str(tmp_path / "out")]
        arguments += ["--features=x", "--n-components=2", "--tol=0", "--max-iter=100000"]
        arguments += ["--set=memory.chunk_bytes=160", "--set=cluster.timeout=10"]
        command = [sys.executable, "-m", "gmm_dask", "fit", *arguments]
        command += ["--cluster", cluster.address, "--progress=lines"]
        with Popen(command, stderr=PIPE, text=True) as running:
            assert running.stderr is not None
            for line in running.stderr:
                said.append(line)
                if " number=3 " in line:
                    cluster.kill(cluster.workers.pop())
                elif "is gone" in line:
                    cluster.kill(cluster.scheduler)
        assert running.returncode == 1
    passes = [int(number) for number in re.findall(r"event=pass number=(\d+)", "".join(said))]
    (lost,) = (number for number, line in enumerate(said) if "one of 2 workers is gone" in line)
    n_before = sum(" event=pass " in line for line in said[:lost])
    named = re.search(r"; its part of pass (\d+) is repeated", said[lost])
    assert named is not None
    assert passes[n_before - 1] < int(named[1])
    assert re.search(r"scheduler was lost; pass \d+ is repeated as soon as", "".join(said[lost:]))
    assert any('event=waiting what="the scheduler" seconds_at_most=10' in line for line in said)
    assert all(re.match(r"time=\S+ event=[a-z]+ |gmm-dask: ", line) for line in said)
    *_, end = said
    assert "Workers end with their scheduler: start both again, and run the same command" in end
    assert not re.search("distributed|Traceback|e_step|re-run", "".join(said))


def by_address(cluster: ByHand, folder: Path, timeout: float) -> Settings:
    return settings(folder, "out", kind="address", address=cluster.address, timeout=timeout)


def end_scheduler(cluster: ByHand) -> None:
    cluster.kill(cluster.scheduler)
    cluster.kill_workers()


@pytest.mark.heavy
@pytest.mark.parametrize("place", [*PLACES, *OF_THE_DRIVER])
def test_all_workers_gone_and_back_change_no_bit(place: str, tmp_path: Path) -> None:
    def restart(cluster: ByHand) -> None:
        cluster.kill_workers()
        cluster.start_worker()

    with by_hand(2) as cluster:
        run(by_address(cluster, tmp_path, 60), At(place, partial(restart, cluster)))
        assert outcome(by_address(cluster, tmp_path, 60)) == undisturbed(tmp_path)


@pytest.mark.heavy
@pytest.mark.parametrize("place", [*PLACES, *OF_THE_DRIVER])
def test_a_scheduler_gone_and_back_changes_no_bit(place: str, tmp_path: Path) -> None:
    def restart(cluster: ByHand) -> None:
        end_scheduler(cluster)
        cluster.start_scheduler()
        cluster.start_worker()

    with by_hand(1) as cluster:
        run(by_address(cluster, tmp_path, 60), At(place, partial(restart, cluster)))
        assert outcome(by_address(cluster, tmp_path, 60)) == undisturbed(tmp_path)


@pytest.mark.heavy
@pytest.mark.parametrize("end", [ByHand.kill_workers, end_scheduler])
@pytest.mark.parametrize("place", [*PLACES, *OF_THE_DRIVER])
def test_what_is_gone_for_good_is_an_error_and_a_rerun_succeeds(
    place: str, end: Callable[[ByHand], None], tmp_path: Path
) -> None:
    with ExitStack() as stack:
        cluster = stack.enter_context(by_hand(1))
        watcher = At(place, partial(end, cluster))
        with pytest.raises(
            ClusterError, match=r"no worker (that can work for|within) 8 s|No scheduler answers"
        ):
            run(by_address(cluster, tmp_path, 8), watcher)
        assert latest(open_store(str(tmp_path / "out"))) is None
        again = stack.enter_context(by_hand(1))
        run(by_address(again, tmp_path, 60))
        assert outcome(by_address(again, tmp_path, 60)) == undisturbed(tmp_path)


@pytest.mark.heavy
def test_to_publish_no_cluster_is_needed(tmp_path: Path) -> None:
    with by_hand(1) as cluster:
        watcher = At("publish", partial(end_scheduler, cluster))
        run(by_address(cluster, tmp_path, 8), watcher)
        assert watcher.acted
        assert outcome(by_address(cluster, tmp_path, 8)) == undisturbed(tmp_path)


@pytest.mark.heavy
def test_a_chunk_that_kills_its_workers_is_named_by_file_and_rows(tmp_path: Path) -> None:
    preload = tmp_path / "poison.py"
    preload.write_text(
        "import os\n"
        "def dask_setup(worker):\n"
        "    from gmm_dask.stage.labels import chunk_labels as label\n"
        "    before = label.label_chunk\n"
        "    def poison(work, chunk, *more, **named):\n"
        "        os._exit(1) if chunk.index == 5 else None\n"
        "        return before(work, chunk, *more, **named)\n"
        "    label.label_chunk = poison\n"
    )
    said = r"chunk 5: rows\.parquet, row group 5, rows 100 to 119 \(160 bytes in memory\)"
    with (
        preloaded(str(preload)),
        pytest.raises(DeadlyChunkError, match=said),
    ):
        run(processes(tmp_path))
    run(processes(tmp_path))
    assert outcome(processes(tmp_path)) == undisturbed(tmp_path)
