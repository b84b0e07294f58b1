"""A writer that is killed leaves nothing or all; what is named is on the disk."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gmm_dask.storage.store.local_store import LocalStore

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "out"))


def is_folder(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


KILLER = """
import os, signal, sys
from gmm_dask.storage.store.local_store import LocalStore
folder, operation = sys.argv[1:]
for kill_at in range(1, 100):
    child = os.fork()
    if child:
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            sys.exit(kill_at)
        continue
    calls = 0
    def killed(real):
        def call(*arguments, **options):
            global calls
            calls += 1
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)
        return call
    for name in ("open", "fsync", "link", "replace", "unlink", "mkdir", "close"):
        setattr(os, name, killed(getattr(os, name)))
    store = LocalStore(f"{folder}/{kill_at}")
    getattr(store, operation)("versions/00000001.json", b"whole" * 1000)
    os._exit(0)
"""


@pytest.mark.parametrize("operation", ["put", "put_if_absent"])
def test_a_writer_killed_at_any_system_call_leaves_nothing_or_all(
    tmp_path: Path, operation: str
) -> None:
    command = [sys.executable, "-c", KILLER, str(tmp_path), operation]
    kills = subprocess.run(command, cwd=ROOT, timeout=120, check=False).returncode
    assert 10 < kills < 100
    for kill_at in range(1, kills + 1):
        store = LocalStore(str(tmp_path / str(kill_at)))
        names = store.list("")
        assert names in ([], ["versions/00000001.json"])
        assert all(store.get(name) == b"whole" * 1000 for name in names)
        # The restart succeeds whatever was left behind.
        assert store.put_if_absent("versions/00000001.json", b"new") is (not names)


@pytest.mark.parametrize("operation", ["put", "put_if_absent"])
def test_content_is_flushed_before_it_is_named_and_the_name_before_success(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    for _ in range(2):  # to make the folders, and to find them
        store.put("versions/other", b".")
    calls: list[str] = []

    def recorded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            kind = name
            if name == "fsync":
                kind += " folder" if is_folder(arguments[0]) else " file"
            calls.append(kind)
            return real(*arguments, **options)

        return call

    for name in ("fsync", "link", "replace"):
        monkeypatch.setattr(os, name, recorded(name, getattr(os, name)))
    getattr(store, operation)("versions/x", b"data")
    naming = {"put": "replace", "put_if_absent": "link"}[operation]
    assert calls == ["fsync file", naming, "fsync folder"]


def test_folders_that_are_found_are_flushed_above_once_in_a_process(
    tmp_path: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path, tmp_path / "out", tmp_path / "out" / "versions"]
    folders[-1].mkdir(parents=True)  # by a writer that died before it flushed anything
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(os.fstat(fd).st_ino))
    store.put_if_absent("versions/x", b"data")
    assert {folder.stat().st_ino for folder in folders} <= set(flushed)
    flushed.clear()
    store.put_if_absent("versions/y", b"data")
    assert len(flushed) == 2
    assert flushed[-1] == folders[-1].stat().st_ino


def test_a_name_found_taken_is_flushed_before_anyone_builds_on_it(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        store.put("versions/x", b"data")
    flushed: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (flushed.append(fd), fsync(fd)))
    assert store.put_if_absent("versions/x", b"other") is False
    assert len(flushed) == 1
