"""What the operating system refuses becomes one error with path, reason and remedy."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gmm_dask.errors import OutputError
from gmm_dask.storage.store.local_store import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "out"))


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def is_folder(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


@pytest.fixture(params=["open", "fsync", "link"])
def refusing(
    request: pytest.FixtureRequest, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int], None]]:
    """Makes one system call of writers fail with a given error."""
    store.put("runs/x", b"before")

    def refuse(code: int) -> None:
        def fail(*arguments: Any, **options: Any) -> Any:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, request.param, fail)

    yield refuse
    monkeypatch.undo()
    assert files(Path(store.url)) == ["runs/x"]  # nothing torn, nothing half-made
    assert store.get("runs/x") == b"before"


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EACCES, "give this user permission there"),
        (errno.EROFS, "not read-only"),
        (errno.ENOSPC, "free some space and run again"),
        (errno.EDQUOT, "quota"),
        (errno.EIO, "mounted and healthy"),
        (errno.ENAMETOOLONG, "shorter path"),
        (errno.EMFILE, "limit of open files"),
    ],
)
def test_what_the_system_refuses_names_path_reason_and_remedy(
    store: LocalStore, refusing: Callable[[int], None], code: int, remedy: str
) -> None:
    refusing(code)
    with pytest.raises(OutputError) as raised:
        store.put_if_absent("runs/y", b"data")
    message = str(raised.value)
    assert store.path("runs/y") in message
    assert os.strerror(code) in message
    assert remedy in message
    assert isinstance(raised.value.__cause__, OSError)


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP])
def test_a_file_system_without_hard_links_is_refused_at_the_start(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(OutputError, match=r"no hard links.*another file system"):
        store.check_writable()
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_flushed_is_tolerated_only_where_that_is_unsupported(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def unsupported(descriptor: int) -> None:
        if is_folder(descriptor):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", unsupported)
    assert store.put_if_absent("runs/x", b"data")


def test_writable_is_tried_without_leaving_anything(store: LocalStore, tmp_path: Path) -> None:
    store.check_writable()
    assert list(tmp_path.iterdir()) == []
    store.put("x", b".")
    store.check_writable()
    assert [p.name for p in Path(store.url).iterdir()] == ["x"]


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"a file")
    for folder in ("out", "out/below", "out/far/below"):
        store = LocalStore(str(tmp_path / folder))
        with pytest.raises(OutputError, match=r"out is a file, not a folder: choose another"):
            store.check_writable()
        with pytest.raises(OutputError, match="a file is where a folder should be"):
            store.put_if_absent("runs/x", b".")
    assert (tmp_path / "out").read_bytes() == b"a file"


def test_a_refusal_names_no_file_that_nobody_knows(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ = os.open

    def refused(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_(path, flags, *mode)

    monkeypatch.setattr(os, "open", refused)
    for write, where in (
        (lambda: store.put("x", b"."), f"{store.path('x')} cannot be written: Permission denied;"),
        (store.check_writable, rf"cannot be written: Permission denied( \({store.url}\))?;"),
    ):
        with pytest.raises(OutputError, match=where) as caught:
            write()
        assert "unfinished" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OutputError, match=r"Permission denied.*give this user permission"):
            LocalStore(str(tmp_path / "out")).check_writable()
    finally:
        tmp_path.chmod(0o755)


def test_permission_denied_is_reported_before_any_work(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OutputError, match=r"cannot be written: Permission denied.*give this user"):
        store.check_writable()


def test_not_being_allowed_to_look_is_not_the_same_as_absent(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("versions/00000001.json", b".")

    def fail(*arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(OutputError, match="cannot be listed: Permission denied"):
        store.list("versions/")
    monkeypatch.setattr(Path, "lstat", fail)
    with pytest.raises(OutputError, match="cannot be read: Permission denied"):
        store.exists("versions/00000001.json")
