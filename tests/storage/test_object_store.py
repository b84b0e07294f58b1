"""The store on S3: what its library and its service do beside the contract in test_store."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import fsspec
import pytest

from gmm_dask.errors import DataError, InputError, OutputError
from gmm_dask.storage.input.planning import plan_dataset
from gmm_dask.storage.store import object_store
from gmm_dask.storage.store.object_store import CONFLICTS, ObjectStore
from gmm_dask.storage.store.protocol import create_once
from gmm_dask.storage.store.runs import open_store
from tests.object_service import SECRET, ObjectService, failure, files

Carry = Callable[[], Any]


def is_write(request: dict[str, Any]) -> bool:
    return bool(request["REQUEST_METHOD"] == "PUT")


class Once:
    """Spoils the first write and no other."""

    def __init__(self, spoil: Callable[[Carry], Any]) -> None:
        self.spoil, self.left = spoil, 1

    def __call__(self, request: dict[str, Any], carry_out: Carry) -> Any:
        if not (is_write(request) and self.left):
            return carry_out()
        self.left -= 1
        return self.spoil(carry_out)


def after(carry_out: Carry) -> Any:
    carry_out()
    return failure("500 Internal Server Error", "InternalError")


def without_condition(request: dict[str, Any], carry_out: Carry) -> Any:
    request.pop("HTTP_IF_NONE_MATCH", None)
    return carry_out()


def refusing_condition(request: dict[str, Any], carry_out: Carry) -> Any:
    if "HTTP_IF_NONE_MATCH" in request:
        return failure("501 Not Implemented", "NotImplemented")
    return carry_out()


# --- one request decides ---------------------------------------------------------------------


def test_an_object_of_many_parts_is_created_once_and_whole(
    service: ObjectService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "PART_BYTES", 5 << 20)  # the least that S3 allows
    store, data = service.store(), os.urandom(11 << 20)
    assert store.put_if_absent("labels/part", data) is True
    monkeypatch.setattr(ObjectStore, "_head", staticmethod(lambda path: None))
    assert store.put_if_absent("labels/part", data[::-1]) is False  # by the last request alone
    assert store.get("labels/part") == data
    assert store.list("") == ["labels/part"]


def test_a_writer_that_looked_before_another_wrote_still_loses(
    service: ObjectService, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = service.store()
    monkeypatch.setattr(ObjectStore, "_head", staticmethod(lambda path: None))
    for name, first in (("versions/1", b"first"), ("empty", b"")):
        assert store.put_if_absent(name, first) is True
        assert store.put_if_absent(name, b"second") is False
        assert store.get(name) == first


def test_a_write_whose_answer_was_lost_is_repeated_and_recognised(service: ObjectService) -> None:
    store = service.store()
    with service.spoilt(Once(after)):
        assert create_once(store, "versions/1", b"ours") == b"ours"
    with service.spoilt(Once(after)):
        assert create_once(store, "versions/1", b"theirs") == b"ours"
    assert store.get("versions/1") == b"ours"


def test_a_conflict_with_another_request_is_tried_again_but_not_for_ever(
    service: ObjectService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "PAUSE", 0.001)
    conflict = failure("409 Conflict", "ConditionalRequestConflict")
    store = service.store()
    with service.spoilt(Once(lambda carry_out: conflict)):
        assert store.put_if_absent("x", b"data") is True
    tries = len(service.requests)
    with (
        service.spoilt(lambda request, go: conflict if is_write(request) else go()),
        pytest.raises(OutputError, match="cannot be written"),
    ):
        store.put_if_absent("y", b"data")
    writes = [each for each in service.requests[tries:] if each.startswith("PUT")]
    assert len(writes) == CONFLICTS
    assert store.list("") == ["x"]


# --- stores that cannot decide ---------------------------------------------------------------


def test_a_store_that_decides_races_is_no_cause_for_caution(service: ObjectService) -> None:
    store = service.store()
    assert store.check_writable() is None
    assert files().find(store.url) == []


@pytest.mark.parametrize("spoil", [without_condition, refusing_condition])
def test_a_store_without_conditional_writes_is_told_and_takes_one_writer(
    service: ObjectService, spoil: Any
) -> None:
    store = service.store()
    with service.spoilt(spoil):
        caution = store.check_writable()
        assert "does not honour conditional writes" in str(caution)
        assert "only one run at a time" in str(caution)
        assert store.put_if_absent("x", b"first") is True
        assert store.put_if_absent("x", b"second") is False
    assert store.get("x") == b"first"
    assert files().find(store.url) == [f"{store.url}/x".removeprefix("s3://")]


# --- what is refused says why, and what to do --------------------------------------------------


def test_an_answer_of_something_between_is_told_as_one(service: ObjectService) -> None:
    place, page = f"s3://{service.bucket()}/x", ("200 OK", [("Content-Type", "text/html")], b"<b>")
    with (
        service.spoilt(lambda request, carry_out: page),
        pytest.raises(InputError, match="the answer is none of an object store"),
    ):
        plan_dataset(place)


def test_a_bucket_that_is_not_there_is_named_with_a_remedy(service: ObjectService) -> None:
    store = ObjectStore("s3://no-such-bucket/out")
    assert store.list("versions/") == []
    assert not store.exists("x")
    for write in (
        store.check_writable,
        lambda: store.put("x", b""),
        lambda: store.put_if_absent("x", b""),
    ):
        with pytest.raises(OutputError, match=r"no-such-bucket/out.*create the bucket"):
            write()


@pytest.mark.parametrize("code", ["AccessDenied", "SignatureDoesNotMatch"])
def test_a_refusal_of_the_service_is_no_absence(service: ObjectService, code: str) -> None:
    answer = failure("403 Forbidden", code)
    store = service.store()
    store.put("x", b"data")
    with service.spoilt(lambda request, carry_out: answer):
        for call in (
            lambda: store.get("x"),
            lambda: store.list(""),
            lambda: store.put("x", b""),
            store.check_writable,
        ):
            with pytest.raises(OutputError, match="the right to list, read and write") as raised:
                call()
            assert SECRET not in str(raised.value)
            assert isinstance(raised.value.__cause__, PermissionError)


def test_without_credentials_the_error_says_where_they_come_from(
    service: ObjectService, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    store = ObjectStore("s3://some-bucket/out")
    files().clear_instance_cache()
    try:
        with pytest.raises(
            OutputError, match=r"credentials.*the environment, a profile or the role"
        ):
            store.put("x", b"data")
        with pytest.raises(DataError, match=r"credentials.*\. Give them by the environment"):
            plan_dataset("s3://some-bucket/data")
    finally:
        files().clear_instance_cache()


def test_without_the_library_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.filesystem", fail)
    with pytest.raises(OutputError, match=r"gmm-dask\[s3\]"):
        ObjectStore("s3://bucket/out").check_writable()


BAD_URLS = [
    "s3://", "s3:///out", "s3://user:hunter2@bucket/out", "s3://hunter2@bucket/out",
    "s3://bucket/../out", "s3://bucket/a//b", "s3://bucket/out?X-Amz-Signature=hunter2",
    "s3://bucket/out*", "s3://bucket/out#hunter2", "s3://bucket/a\0b",
]  # fmt: skip


@pytest.mark.parametrize("url", BAD_URLS)
def test_what_is_no_place_in_a_bucket_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(OutputError, match=r"output\.path: .*s3://") as raised:
        open_store(url)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("url", ["s3://bucket/a/b", "s3://bucket/a/b/", "S3://bucket/a/b"])
def test_one_place_has_one_url(url: str) -> None:
    store = open_store(url)
    assert store == ObjectStore("s3://bucket/a/b")
    assert store.path("runs/x") == "s3://bucket/a/b/runs/x"
    assert open_store("s3://bucket/").path("x") == "s3://bucket/x"


# --- nobody answers ----------------------------------------------------------------------------


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A service that takes every connection and says nothing; how often it was asked."""
    asked: list[int] = []
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connections.append(server.accept()[0])
                    asked.append(1)

        thread = threading.Thread(target=accept)
        thread.start()
        environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(object_store, "READ_SECONDS", 0.2)
        monkeypatch.setattr(object_store, "ATTEMPTS", 1)
        try:
            yield asked
        finally:
            files().clear_instance_cache()
            server.shutdown(socket.SHUT_RDWR)
            thread.join(60)
            for connection in connections:
                connection.close()


@pytest.mark.parametrize(
    "ask",
    [
        lambda: open_store("s3://bucket/out").get("x"),
        lambda: open_store("s3://bucket/out").put_if_absent("x", b"data"),
        lambda: open_store("s3://bucket/out").list("versions/"),
        lambda: open_store("s3://bucket/out").check_writable(),
        lambda: plan_dataset("s3://bucket/data"),
        lambda: plan_dataset("s3://bucket/data/**/*.parquet"),
    ],
)
def test_a_service_that_never_answers_ends_in_an_error_that_says_so(
    ask: Callable[[], object], silence: list[int]
) -> None:
    with pytest.raises((OutputError, InputError), match=r"s3://bucket.*: no answer came in 0\.4 s"):
        ask()
    assert 0 < len(silence) <= 4


def test_each_request_ends_unless_the_users_configuration_waits_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert object_store.filesystem("s3").config_kwargs["read_timeout"] == 20
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 99}})
    waits = object_store.filesystem("s3").config_kwargs
    assert (waits["read_timeout"], waits["connect_timeout"]) == (99, 10)
