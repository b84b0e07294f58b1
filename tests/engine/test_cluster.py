"""Clusters: opened and closed by us, joined by address, with and without TLS."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import psutil
import pytest

from gmm_dask.engine import ClusterSpec, LocalBackend, expectation, open_backend, row_chunks
from gmm_dask.engine.cluster import opening
from gmm_dask.engine.cluster.link import Log
from gmm_dask.engine.cluster.opening import available_cores
from gmm_dask.errors import ClusterError, SettingsError
from tests.by_hand import by_hand, free_port
from tests.certificates import write_certificates
from tests.conftest import Blobs


def check_pass(spec: ClusterSpec, blobs: Blobs) -> None:
    chunks = row_chunks(blobs.X, chunk_bytes=1 << 13)
    expected = expectation(chunks, LocalBackend(1))(blobs.truth)
    with open_backend(spec) as backend:
        found = expectation(chunks, backend)(blobs.truth)
        assert backend.n_workers >= 1
    assert found.log_likelihood == expected.log_likelihood
    np.testing.assert_array_equal(found.sum_xx, expected.sum_xx)


def test_a_scheduler_by_address_gives_the_same_bits(blobs: Blobs) -> None:
    with by_hand() as cluster:
        check_pass(ClusterSpec("address", address=cluster.address), blobs)
        # Our client is gone, the cluster that was given goes on.
        check_pass(ClusterSpec("address", address=cluster.address), blobs)


def test_tls_is_spoken_with_certificates_and_not_without(blobs: Blobs, tmp_path: Path) -> None:
    files = write_certificates(tmp_path)
    options = (
        "--tls-ca-file", files["ca"], "--tls-cert", files["cert"], "--tls-key", files["key"],
    )  # fmt: skip
    tls = {"tls_ca_file": files["ca"], "tls_cert": files["cert"], "tls_key": files["key"]}
    with by_hand(protocol="tls", options=options) as cluster:
        address = cluster.address
        check_pass(ClusterSpec("address", address=address, **tls), blobs)
        stranger = write_certificates(tmp_path / "stranger")
        wrong = {"tls_ca_file": files["ca"], "tls_cert": stranger["cert"]}
        wrong["tls_key"] = stranger["key"]
        spec = ClusterSpec("address", address=address, timeout=3, **wrong)
        with pytest.raises(ClusterError, match="No scheduler answers"), open_backend(spec):
            pass


def test_an_address_where_nobody_listens_is_named_in_time() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    spec = ClusterSpec("address", address=address, timeout=1)
    with (
        pytest.raises(ClusterError, match=f"No scheduler answers at {address}"),
        open_backend(spec),
    ):
        pass


def test_whoever_waits_for_a_scheduler_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Heard(Log):
        def __init__(self) -> None:
            self.awaited: list[str | None] = []

        def waiting(self, what: str | None, seconds: float = 0.0) -> None:
            self.awaited.append(what)
            assert seconds <= 1

    heard, address = Heard(), f"tcp://127.0.0.1:{free_port()}"
    monkeypatch.setattr(opening, "SOON", 0.1)
    spec = ClusterSpec("address", address=address, timeout=1)
    with pytest.raises(ClusterError, match="No scheduler"), open_backend(spec, heard):
        pass
    assert heard.awaited == ["the scheduler", None]


def test_processes_leave_the_environment_as_it_was(blobs: Blobs) -> None:
    before = dict(os.environ)
    check_pass(ClusterSpec("processes", workers=1), blobs)
    assert dict(os.environ) == before


def test_nothing_listens_beyond_this_machine_and_two_clusters_get_along() -> None:
    spec = ClusterSpec("processes", workers=1)
    with open_backend(spec), open_backend(spec):
        here = psutil.Process()
        listening = [
            connection.laddr.ip
            for process in (here, *here.children(recursive=True))
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
    assert listening
    assert set(listening) == {"127.0.0.1"}


def test_threads_are_all_cores_unless_told() -> None:
    with open_backend(ClusterSpec()) as backend:
        assert backend.n_workers == available_cores()
    with open_backend(ClusterSpec(workers=3)) as backend:
        assert backend.n_workers == 3


@pytest.mark.parametrize("limit", ["1MiB", "100MB", "much", "-1GiB", ""])
def test_memory_that_no_worker_can_live_on_is_refused_and_does_not_hang(limit: str) -> None:
    spec = ClusterSpec("processes", workers=1, memory_limit=limit)
    with pytest.raises(SettingsError, match=r"256MiB|no size of memory"), open_backend(spec):
        pass


def test_workers_that_are_not_ready_in_time_are_an_error() -> None:
    spec = ClusterSpec("processes", workers=2, timeout=0.05)
    said = r"2 worker processes were not ready within 0\.05 s"
    with pytest.raises(ClusterError, match=said), open_backend(spec):
        pass


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    files = write_certificates(tmp_path)
    odd = tmp_path / "odd.pem"
    odd.write_text("no certificate")
    right = {"tls_ca_file": files["ca"], "tls_cert": files["cert"], "tls_key": files["key"]}
    for name in right:
        tls = right | {name: str(odd)}
        spec = ClusterSpec("address", address="tls://127.0.0.1:1", timeout=1, **tls)
        said = f"cluster.*{name}.*odd\\.pem"
        with pytest.raises(SettingsError, match=said), open_backend(spec):
            pass
