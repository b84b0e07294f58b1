"""The stage on S3 with a fault at every request: what the library repeats is never done twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask.stage import job
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.refresh import known
from gmm_dask.stage.run import refresh
from gmm_dask.stage.settings import Settings, settings_from
from gmm_dask.storage import Store, latest, list_versions, verify
from tests.faults.conftest import ROWS, Drive
from tests.object_service import ObjectService, failure
from tests.storage.stores import published_rows

pytestmark = pytest.mark.filterwarnings("ignore:Best performing initialization did not converge")

Carry = Callable[[], Any]


def before(carry_out: Carry) -> Any:
    return failure("500 Internal Server Error", "InternalError")


def after(carry_out: Carry) -> Any:
    carry_out()
    return failure("500 Internal Server Error", "InternalError")


def busy(carry_out: Carry) -> Any:
    return failure("503 Slow Down", "SlowDown")


class Nth:
    """Counts requests, and spoils the one of that number."""

    def __init__(self, at: int, fault: Callable[[Carry], Any]) -> None:
        self.at, self.fault, self.seen = at, fault, 0

    def __call__(self, request: dict[str, Any], carry_out: Carry) -> Any:
        self.seen += 1
        return self.fault(carry_out) if self.seen == self.at + 1 else carry_out()


@pytest.mark.parametrize(
    ("fault", "every"),
    [
        pytest.param(after, 30, id="some after"),
        *(pytest.param(each, 1, marks=pytest.mark.heavy) for each in (before, after, busy)),
    ],
)
@pytest.mark.timeout(1800)
def test_a_fault_at_any_request_does_not_fail_the_run(
    fault: Callable[[Carry], Any], every: int, drive: Drive, service: ObjectService
) -> None:
    count = Nth(-1, before)
    with service.spoilt(count):
        drive(service.store())
    assert count.seen > 60
    for at in range(every // 2, count.seen, every):
        store = service.store()
        with service.spoilt(Nth(at, fault)):
            drive(store)
        (version,) = list_versions(store)
        assert version == latest(store)
        assert verify(store, version) == []
        assert published_rows(store, version) == list(range(ROWS))


@pytest.fixture
def night(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None
) -> Callable[[Store], Published]:
    """A refresh on a store that polishes, labels all rows and moves the alias of its output."""
    document = settings.model_dump(mode="json")
    document["data"]["path"] = str(tmp_path / "lake")
    document["refresh"] = {"polish": 2}
    document["promotion"] = {"alias": "champion"}

    def refreshed(store: Store) -> Published:
        for module in (job, known):
            monkeypatch.setattr(module, "open_store", lambda url, **_: store)
        return refresh(settings_from(document))

    return refreshed


def write_day(tmp_path: Path, name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(size=4), rng.normal(9, 1, 4)])
    (tmp_path / "lake").mkdir(exist_ok=True)
    pq.write_table(pa.table({"x": x, "id": np.arange(8)}), tmp_path / "lake" / f"{name}.parquet")


@pytest.mark.parametrize(
    ("fault", "every"),
    [
        pytest.param(after, 80, id="some after"),
        *(pytest.param(each, 1, marks=pytest.mark.heavy) for each in (before, after, busy)),
    ],
)
@pytest.mark.timeout(1800)
def test_a_fault_at_any_request_does_not_fail_a_refresh(
    fault: Callable[[Carry], Any],
    every: int,
    night: Callable[[Store], Published],
    service: ObjectService,
    tmp_path: Path,
) -> None:
    """No label is lost or there twice, and the alias points to a version that is whole."""
    for day in range(3):
        write_day(tmp_path, f"day={day}", day)
    begun = service.store()
    night(begun)
    before_it = {name: begun.get(name) for name in begun.list("")}
    write_day(tmp_path, "day=9", 9)
    (tmp_path / "lake" / "day=1.parquet").unlink()
    files = ("model.json", "statistics.json", "drift.parquet")
    expected: tuple[Any, ...] | None = None
    n_requests = at = every // 2
    while at <= n_requests:  # the first time nothing is spoilt, and requests are counted
        store = service.store()
        for name, data in before_it.items():
            store.put(name, data)
        with service.spoilt(count := Nth(-1 if expected is None else at, fault)):
            night(store)
        newest = latest(store)
        assert newest is not None
        assert verify(store, newest) == []
        assert published_rows(store, newest) == list(range(24))
        whole = (
            [(each.run_id, each.registry.aliases) for each in list_versions(store)],
            *(store.get(f"runs/{newest.run_id}/{name}") for name in files),
        )
        assert newest.registry.aliases["champion"] in [
            each.number for each in list_versions(store) if each.run_id == newest.run_id
        ]
        if expected is None:
            expected, n_requests = whole, count.seen
            assert n_requests > 60
            continue
        assert whole == expected
        at += every
