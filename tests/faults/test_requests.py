"""The stage on S3 with a fault at every request: what the library repeats is never done twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gmm_dask.storage import latest, list_versions, verify
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
