"""Workers that are slow, late or too large, and a second driver: nothing that is read changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from gmm_dask.errors import ClusterError
from gmm_dask.stage.run import run
from gmm_dask.storage import latest, list_versions, open_store
from tests.by_hand import ByHand, by_hand, wait_until
from tests.faults import saboteur
from tests.faults.test_workers import (
    OF_THE_DRIVER,
    PLACES,
    SABOTEUR,
    At,
    by_address,
    outcome,
    own_faults,
    settings,
    told_of_checkpoints,
    undisturbed,
)

pytestmark = pytest.mark.usefixtures("no_pictures", "own_faults", "told_of_checkpoints")
__all__ = ["own_faults", "told_of_checkpoints"]  # fixtures

SLOW = """
import time
from importlib import import_module

def dask_setup(worker):
    for module, name in (
        ("gmm_dask.engine.passes.survey", "survey_chunk"),
        ("gmm_dask.engine.passes.expectation", "_statistics"),
        ("gmm_dask.stage.labels.chunk_labels", "label_chunk"),
    ):
        found = import_module(module)
        setattr(found, name, slowed(getattr(found, name)))

def slowed(function):
    def slow(*args, **kwargs):
        time.sleep(0.3)
        return function(*args, **kwargs)
    return slow
"""


def start_sabotaged(cluster: ByHand, *options: str) -> None:
    cluster.start_worker("--preload", SABOTEUR, *options)


@pytest.mark.heavy
def test_a_worker_that_is_always_slow_changes_no_bit(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    with by_hand(1) as cluster:
        cluster.start_worker("--preload", str(tmp_path / "slow.py"))
        chosen = by_address(cluster, tmp_path, 60)
        run(chosen)
        assert outcome(chosen) == undisturbed(tmp_path)


@pytest.mark.heavy
def test_a_worker_that_goes_on_after_the_version_was_published_changes_nothing(
    tmp_path: Path,
) -> None:
    with by_hand(0) as cluster:
        start_sabotaged(cluster)
        start_sabotaged(cluster)
        chosen = settings(
            tmp_path, "out", kind="address", address=cluster.address, timeout=60, stuck_after=3
        )
        run(chosen, At("label", partial(saboteur.arm, "half a label", "sleeps on")))
        assert saboteur.is_done("half a label"), "the fault did not happen"
        before = outcome(chosen)
        assert before == undisturbed(tmp_path)
        folder = tmp_path / "out" / "runs"
        receipts = {path: path.read_bytes() for path in folder.glob("*/receipts/*")}
        saboteur.wake()
        n_parts = len(before[1])
        wait_until(lambda: len(list(folder.glob("*/labels/*.parquet"))) > n_parts)
        wait_until(lambda: any(path.read_bytes() != data for path, data in receipts.items()))
        model, labels = outcome(chosen)  # which reads the parts that are listed, and all rows
        assert model == before[0]
        assert set(labels) > set(before[1])
        assert not run(chosen).new
        assert len(list_versions(open_store(chosen.output.path))) == 1


@pytest.mark.heavy
@pytest.mark.parametrize("place", ["survey", "later pass", "label"])
def test_a_worker_by_hand_over_its_memory_is_restarted_by_its_nanny(
    place: str, tmp_path: Path
) -> None:
    with by_hand(0) as cluster:
        start_sabotaged(cluster, "--nanny", "--memory-limit", "400MiB")
        chosen = by_address(cluster, tmp_path, 60)
        task = "pass" if place.endswith("pass") else place
        run(chosen, At(place, partial(saboteur.arm, task, "memory")))
        assert saboteur.is_done(task), "the fault did not happen"
        assert outcome(chosen) == undisturbed(tmp_path)


@pytest.mark.heavy
@pytest.mark.parametrize("place", ["survey", "later pass", "label"])
def test_a_worker_by_hand_paused_at_its_memory_is_an_error_and_a_rerun_succeeds(
    place: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        cluster = stack.enter_context(by_hand(0))
        start_sabotaged(cluster, "--memory-limit", "350MiB")
        task = "pass" if place.endswith("pass") else place
        with pytest.raises(ClusterError, match="no worker that can work for 8 s"):
            run(
                by_address(cluster, tmp_path, 8),
                At(place, partial(saboteur.arm, task, "hoard")),
            )
        assert latest(open_store(str(tmp_path / "out"))) is None
        again = stack.enter_context(by_hand(1))
        run(by_address(again, tmp_path, 60))
        assert outcome(by_address(again, tmp_path, 60)) == undisturbed(tmp_path)


@pytest.mark.parametrize("place", [*OF_THE_DRIVER, *PLACES, "publish"])
def test_a_second_driver_that_overtakes_publishes_the_one_version(
    place: str, tmp_path: Path
) -> None:
    chosen, overtook = settings(tmp_path, "out", workers=1), []
    first = run(chosen, At(place, lambda: overtook.append(run(chosen))))
    assert overtook[0].version == first.version
    assert outcome(chosen) == undisturbed(tmp_path)
    assert len(list_versions(open_store(chosen.output.path))) == 1


@pytest.mark.heavy
@pytest.mark.parametrize("place", [*OF_THE_DRIVER, *PLACES, "publish"])
def test_two_drivers_on_one_cluster_publish_the_one_version(place: str, tmp_path: Path) -> None:
    with by_hand(2) as cluster, ThreadPoolExecutor(1) as pool:
        chosen, second = by_address(cluster, tmp_path, 60), []
        first = run(chosen, At(place, lambda: second.append(pool.submit(run, chosen))))
        assert second[0].result(timeout=120).version == first.version
        assert outcome(chosen) == undisturbed(tmp_path)
        assert len(list_versions(open_store(chosen.output.path))) == 1
