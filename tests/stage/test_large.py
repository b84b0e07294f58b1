"""The stage on more rows than the start's sample: sample first, held chunks, either kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask import load_model
from gmm_dask.engine import Backend
from gmm_dask.errors import SettingsError
from gmm_dask.mixture import core
from gmm_dask.mixture.core import library
from gmm_dask.stage.fit import fit
from gmm_dask.stage.job import plan
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import Settings, settings_from
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage.records.model_file import dump_model
from tests.by_hand import by_hand
from tests.engine.test_scratch import open_bytes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6,000 rows of three clusters in three files."""
    rng = np.random.default_rng(0)
    X = (
        rng.normal(size=(6000, 3))
        + np.array([[0, 0, 0], [3, 0, 1], [0, 4, 0]])[np.arange(6000) % 3]
    )
    folder = tmp_path_factory.mktemp("data")
    for i, part in enumerate(np.array_split(X, 3)):
        pq.write_table(pa.table(dict(zip("xyz", part.T, strict=True))), folder / f"{i}.parquet")
    return folder


def published(data: Path, out: Path, watcher: Watcher | None = None, **changes: Any) -> Any:
    document: dict[str, Any] = {
        "data": {"path": str(data)},
        "fit": {"n_components": 3, "init_params": "kmeans", "init_rows": 600, "tol": 1e-5},
        "memory": {"chunk_bytes": 24 * 1000},
        "output": {"path": str(out)},
    }
    for section, values in changes.items():
        document[section] = document.get(section, {}) | values
    return run(settings_from(document), watcher)


def test_the_switches_save_passes_and_cost_no_likelihood(data: Path, tmp_path: Path) -> None:
    plain = {"sample_em": False, "acceleration": "none"}
    slow = published(data, tmp_path / "slow", fit={"tol": 1e-7, **plain}).metrics
    fast = published(data, tmp_path / "fast", fit={"tol": 1e-7}).metrics
    assert fast["n_reads"] < slow["n_reads"]
    assert fast["log_likelihood_per_row"] > slow["log_likelihood_per_row"] - 1e-4


@pytest.mark.parametrize(
    ("held_bytes", "chunks_held"), [(0, 0), (24 * 2500, 2), (None, 6), (1 << 40, 6)]
)
def test_what_stays_in_memory_changes_no_bit_and_is_told(
    data: Path, tmp_path: Path, held_bytes: int | None, chunks_held: int
) -> None:
    expected = published(data, tmp_path / "again", memory={"held_bytes": 0})
    found = published(data, tmp_path / "held", memory={"held_bytes": held_bytes})
    assert found.run_id == expected.run_id
    model = [(o / "runs" / found.run_id / "model.json").read_bytes() for o in tmp_path.iterdir()]
    assert model[0] == model[1]
    # Parts are named by their content.
    labels = [
        sorted(p.name for p in (o / "runs" / found.run_id / "labels").iterdir())
        for o in tmp_path.iterdir()
    ]
    assert labels[0] == labels[1]
    metrics = found.metrics
    assert metrics["chunks_held"] == chunks_held
    assert metrics["bytes_held"] == chunks_held * 24_000
    assert metrics["bytes_decoded_per_pass"] == (6 - chunks_held) * 24_000
    reads = metrics["n_reads"] - 1
    assert metrics["bytes_decoded"] == (
        metrics["bytes_held"] + (reads + 1) * metrics["bytes_decoded_per_pass"]
    )
    report = (tmp_path / "held" / "runs" / found.run_id / "report.html").read_text()
    says = {0: "every pass reads all chunks again", 6: "all chunks stay"}
    assert says.get(chunks_held, f"{chunks_held} of 6 chunks stay") in report


@pytest.mark.parametrize(("held_bytes", "chunks_held"), [(0, 0), (24 * 2500, 2), (None, 6)])
def test_what_stays_in_scratch_changes_no_bit_and_is_told(
    data: Path, tmp_path: Path, held_bytes: int | None, chunks_held: int
) -> None:
    expected = published(data, tmp_path / "again", memory={"held_bytes": 0})
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    memory = {"held_bytes": held_bytes, "scratch": str(scratch)}
    found = published(data, out, memory=memory)
    assert found.run_id == expected.run_id
    assert found.folder.get("model.json") == expected.folder.get("model.json")
    assert list(scratch.iterdir()) == []
    metrics, n = found.metrics, 6 - chunks_held
    assert (metrics["chunks_held"], metrics["chunks_in_scratch"]) == (chunks_held, n)
    assert metrics["bytes_in_scratch"] == n * 24_000
    assert metrics["bytes_decoded_per_pass"] == 0
    assert metrics["bytes_decoded"] == (6 + n) * 24_000  # once, and those in scratch for the labels
    report = found.folder.get("report.html").decode()
    says = {0: "all chunks stay decoded in scratch", 2: "4 of 6 chunks stay decoded in scratch"}
    assert says.get(chunks_held, "all chunks stay decoded between passes") in report


def test_scratch_is_given_back_when_the_fit_is_over_or_fails(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch, seen = tmp_path / "scratch", []
    settings = short(data, tmp_path / "out", 0, scratch)

    def look(*arguments: Any, **options: Any) -> None:
        seen.append(open_bytes(scratch))
        raise KeyboardInterrupt

    class Looking(Watcher):
        def passed(self, record: Any, settings: Any) -> None:
            seen.append(open_bytes(scratch))

    fitted = fit(plan(settings), Looking())
    assert fitted.held.n_scratch == 6
    assert seen[0] > 0
    assert open_bytes(scratch) == 0
    monkeypatch.setattr("gmm_dask.engine.expectations", look)
    with pytest.raises(KeyboardInterrupt) as kept:
        fit(plan(settings))
    assert seen[-1] > 0
    assert open_bytes(scratch) == 0
    assert kept.value.__traceback__ is not None


def test_scratch_that_cannot_be_written_is_an_error_before_any_work(
    data: Path, tmp_path: Path
) -> None:
    memory = {"scratch": str(tmp_path / "absent" / "scratch")}
    with pytest.raises(SettingsError, match=r"memory\.scratch: .*Name a folder"):
        published(data, tmp_path / "out", memory=memory)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_told_once_and_changes_no_bit(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = published(data, tmp_path / "again", memory={"held_bytes": 0})
    monkeypatch.setattr("gmm_dask.engine.cache.disk.STAYS_FREE", 1.01)
    watcher, memory = Warned(), {"held_bytes": 24 * 2500, "scratch": str(tmp_path / "scratch")}
    found = published(data, tmp_path / "out", watcher=watcher, memory=memory)
    assert found.folder.get("model.json") == expected.folder.get("model.json")
    (warning,) = watcher.warned
    assert "no room for 4 chunks (No space left on device but what must stay free)" in warning
    assert found.metrics["chunks_in_scratch"] == 0
    assert found.metrics["bytes_decoded_per_pass"] == 4 * 24_000


class Warned(Watcher):
    """Keeps what is warned of."""

    def __init__(self) -> None:
        self.warned: list[str] = []

    def warn(self, message: str) -> None:
        if "memory" in message:
            self.warned.append(message)


ALL_STAY = "all chunks stay decoded between passes, 144.0 kB"


class Listening(Watcher):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.warned: list[str] = []

    def detail(self, message: str) -> None:
        self.heard.append(message)

    def warn(self, message: str) -> None:
        self.warned.append(message)


def short(
    data: Path, out: Path, held_bytes: int | None, scratch: Path | None = None, **cluster: Any
) -> Settings:
    document = {
        "data": {"path": str(data)},
        "fit": {"n_components": 3, "max_iter": 1},
        "memory": {
            "chunk_bytes": 24 * 1000,
            "held_bytes": held_bytes,
            "scratch": None if scratch is None else str(scratch),
        },
        "cluster": cluster,
        "output": {"path": str(out)},
    }
    return settings_from(document)


@pytest.mark.parametrize(
    ("held_bytes", "said"),
    [
        (None, ALL_STAY),
        (60_000, "2 of 6 chunks stay decoded between passes, 48.0 kB"),
        (0, "every pass reads all chunks again"),
    ],
)
def test_every_executor_says_what_stays_decoded(
    data: Path, tmp_path: Path, backend: Backend, held_bytes: int | None, said: str
) -> None:
    watcher = Listening()
    fit(plan(short(data, tmp_path / "out", held_bytes)), watcher, backend)
    assert said in watcher.heard


def test_every_executor_fits_the_same_from_scratch_and_says_so(
    data: Path, tmp_path: Path, backend: Backend
) -> None:
    watcher, scratch = Listening(), tmp_path / "scratch"
    expected = fit(plan(short(data, tmp_path / "again", 0)))
    found = fit(plan(short(data, tmp_path / "out", 60_000, scratch)), watcher, backend)
    assert dump_model(found.model) == dump_model(expected.model)
    said = "2 of 6 chunks stay decoded between passes, 48.0 kB; "
    assert said + "4 of 6 chunks stay decoded in scratch between passes, 96.0 kB" in watcher.heard
    assert list(scratch.iterdir()) == []


@pytest.mark.heavy
def test_a_cluster_by_address_says_what_stays_decoded(data: Path, tmp_path: Path) -> None:
    watcher = Listening()
    with by_hand(1) as cluster:
        run(short(data, tmp_path, None, kind="address", address=cluster.address), watcher)
    assert ALL_STAY in watcher.heard


def test_without_the_compiled_core_a_run_says_so_and_publishes_the_same(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {"init_params": "kmeans"}  # a search makes fewer passes without the core
    fast = published(data, tmp_path / "fast", fit=plain)
    assert fast.metrics["kernel"] == core.level_name() != "numpy"
    monkeypatch.setattr(library, "library", lambda: None)
    watcher = Listening()
    slow = published(data, tmp_path / "slow", watcher, fit=plain)
    assert core.SLOWER in watcher.warned
    assert slow.metrics["kernel"] == "numpy"
    a, b = (load_model(str(tmp_path / name)).parameters for name in ("slow", "fast"))
    np.testing.assert_allclose(a.means, b.means, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(a.covariances, b.covariances, rtol=1e-9, atol=1e-9)
    assert fast.metrics["n_labelled"] == slow.metrics["n_labelled"]
    assert fast.metrics["log_likelihood"] == pytest.approx(
        slow.metrics["log_likelihood"], rel=1e-12
    )
