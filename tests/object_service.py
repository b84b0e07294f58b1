"""An object store of S3's kind on this machine, whose answers a test may spoil."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import pytest

from gmm_dask.storage.store.object_store import ObjectStore

SECRET = "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY0"

Answer = Callable[[dict[str, Any], Callable[[], tuple[str, list[Any], bytes]]], Any]


class ObjectService:
    """moto's S3 behind a lock, since moto itself looks first and writes then.

    `spoil` takes a request and what would carry it out, and gives (status, headers, body).
    """

    def __init__(self) -> None:
        # Here, so that tests without a service do without its packages.
        from moto.moto_server.werkzeug_app import create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._lock, self._n_buckets = threading.Lock(), 0
        self._app = create_backend_app("s3")
        self._server = make_server("127.0.0.1", 0, self, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.spoil: Answer | None = None
        self.requests: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        def carry_out() -> tuple[str, list[Any], bytes]:
            answer: list[Any] = []
            body = self._app(environ, lambda status, headers, *_: answer.extend((status, headers)))
            return answer[0], answer[1], b"".join(body)

        with self._lock:
            self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
            spoil = self.spoil
            status, headers, body = spoil(environ, carry_out) if spoil else carry_out()
        start_response(status, headers)
        # A HEAD has no body; what came after it would be read as the next answer.
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach the service, and nothing else of AWS."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "NO_PROXY": "127.0.0.1",
        }

    def bucket(self) -> str:
        """A new bucket."""
        self._n_buckets += 1
        name = f"bucket-{self._n_buckets}"
        files().call_s3("create_bucket", Bucket=name)
        return name

    def store(self) -> ObjectStore:
        """A store below a prefix of a new bucket."""
        return ObjectStore(f"s3://{self.bucket()}/some/out")

    @contextmanager
    def spoilt(self, spoil: Answer) -> Iterator[None]:
        """Answer so for the time of the block."""
        self.spoil = spoil
        try:
            yield
        finally:
            self.spoil = None

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


def files() -> Any:
    return fsspec.filesystem("s3", use_listings_cache=False)


def failure(status: str, code: str) -> tuple[str, list[Any], bytes]:
    """An answer that says no, as S3 does."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    return status, [("Content-Type", "application/xml")], body.encode()


@pytest.fixture(scope="session")
def running_service() -> Iterator[ObjectService]:
    service = ObjectService()
    yield service
    service.stop()


@pytest.fixture
def service(running_service: ObjectService, monkeypatch: pytest.MonkeyPatch) -> ObjectService:
    """The running service, and the environment that reaches it."""
    for name, value in running_service.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return running_service
