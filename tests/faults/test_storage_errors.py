"""Storage of which a tenth of all steps fails: the same bits, or a named error and a rerun."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask.errors import GmmDaskError
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import Settings, settings_from
from gmm_dask.storage import Store, latest, list_versions, open_store, verify
from gmm_dask.storage.input import planning
from gmm_dask.storage.input.inputs import open_input
from gmm_dask.storage.input.parquet import opened
from tests.conftest import seeds
from tests.faults.conftest import ROWS, Drive
from tests.faults.steps import NEW_STORES, Unreliable, led_by, step
from tests.object_service import ObjectService, failure, files
from tests.storage.stores import Reader, published_rows

pytestmark = [
    pytest.mark.filterwarnings("ignore:Best performing initialization did not converge"),
    pytest.mark.timeout(1800),
]

SHARE = 0.1
FAULTS = (
    ("before", "500 Internal Server Error", "InternalError"),
    ("after", "500 Internal Server Error", "InternalError"),
    ("before", "503 Slow Down", "SlowDown"),
)


class Steps(io.RawIOBase):
    """A stream each read of which is a step."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def read(self, size: int | None = -1) -> bytes:
        return step("read", lambda: self._stream.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        self._stream.close()
        super().close()


@pytest.fixture
def data_by_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening an input file, and each read of it, is a step as those of the output are."""

    def stepping(url: str) -> Any:
        step("open data", lambda: None)
        file = open_input(url)
        file.stream = Steps(file.stream)
        return file

    for module in (planning, opened):
        monkeypatch.setattr(module, "open_input", stepping)


def bits(store: Store) -> dict[str, bytes]:
    """Model and labels of the one version, found whole."""
    (version,) = list_versions(store)
    assert version == latest(store)
    assert verify(store, version) == []
    assert published_rows(store, version) == list(range(ROWS))
    names = store.list(f"runs/{version.run_id}/")
    return {name: store.get(name) for name in names if "/labels/" in name or "model.json" in name}


@pytest.mark.parametrize("kind", NEW_STORES)
@pytest.mark.parametrize("cases", [range(6), pytest.param(range(6, 106), marks=pytest.mark.heavy)])
def test_steps_that_fail_at_random_change_no_bit(
    kind: str,
    cases: range,
    drive: Drive,
    data_by_steps: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    undisturbed = NEW_STORES[kind](monkeypatch, tmp_path)
    drive(undisturbed)
    n_ended = 0
    for seed in seeds(cases):
        with monkeypatch.context() as patch:
            store = NEW_STORES[kind](patch, tmp_path / str(seed))
            # Hundreds of steps all succeed only where few of them fail.
            for share in (SHARE, SHARE, SHARE / 30):
                failing = Unreliable(
                    Reader(store, list(range(ROWS))), random.Random(f"{seed} {share}"), share
                )
                with suppress(GmmDaskError), led_by(failing):
                    drive(store)
                    n_ended += failing.n_failed > 0
            drive(store)
            assert bits(store) == bits(undisturbed)
    assert n_ended or len(cases) < 50, "no run ended though steps of it failed"


def settings(bucket: str, out: str) -> Settings:
    return settings_from(
        {
            "data": {"path": f"s3://{bucket}/rows", "features": ["x"]},
            "fit": {"n_components": 2, "max_iter": 3},
            "memory": {"chunk_bytes": 8 * 4},
            "cluster": {"workers": 1},
            "output": {"path": f"s3://{bucket}/{out}", "checkpoint_seconds": 0},
        }
    )


def failing_by(seed: int) -> Callable[..., Any]:
    dice = random.Random(seed)

    def spoil(request: dict[str, Any], carry_out: Callable[[], Any]) -> Any:
        if dice.random() >= SHARE:
            return carry_out()
        when, status, code = dice.choice(FAULTS)
        if when == "after":
            carry_out()
        return failure(status, code)

    return spoil


@pytest.mark.heavy
@pytest.mark.usefixtures("no_pictures")
def test_requests_that_fail_at_random_change_no_bit(service: ObjectService, tmp_path: Path) -> None:
    """Input and output on S3: its library repeats what failed, and the stage what that gave up."""
    for seed in seeds(range(6)):
        bucket = service.bucket()
        x = [0.1 * (i % 8) + 9.0 * (i // 8) for i in range(ROWS)]
        pq.write_table(pa.table({"x": x}), tmp_path / "rows.parquet", row_group_size=4)
        files().pipe_file(f"{bucket}/rows/a.parquet", (tmp_path / "rows.parquet").read_bytes())
        run(settings(bucket, "undisturbed"))
        with service.spoilt(failing_by(seed)), suppress(GmmDaskError):
            run(settings(bucket, "out"))
        run(settings(bucket, "out"))
        one, other = (bits(open_store(f"s3://{bucket}/{each}")) for each in ("out", "undisturbed"))
        assert one == other
