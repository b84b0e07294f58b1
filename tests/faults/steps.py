"""Stores whose every step a test may stop at: system calls of a folder, requests of a service.

The stores are the real ones. What they call is led by the thread's own `Lead`, where it has one.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gmm_dask.storage import Store, object_store
from gmm_dask.storage.local_store import LocalStore
from gmm_dask.storage.object_store import ObjectStore
from tests.storage.stores import Crash, Reader, Turns

Lead = Callable[[str, Callable[[], Any]], Any]  # of a step's name, and what carries it out
WRITES = ("link", "replace", "unlink", "open", "put", "create", "delete")  # others change nothing
REQUESTS = ("put", "create", "delete")
# A crash after a step leaves what a crash before the next one does.
FAULTS = ("crash", "error", "lost reply", "repeated", "full")
TAKES_ROOM = ("open", "link", "mkdir", "put", "create")

_thread = threading.local()


@contextmanager
def led_by(lead: Lead | None) -> Iterator[None]:
    """Have the steps of this thread go through `lead` for the time of the block."""
    before, _thread.lead = getattr(_thread, "lead", None), lead
    try:
        yield
    finally:
        _thread.lead = before


class Harm(BaseException):
    """What a reader saw; stores make an error of their own of any Exception."""


def look(reader: Reader) -> None:
    with led_by(None):
        try:
            reader.look()
        except AssertionError as error:
            raise Harm(str(error)) from error


def step(name: str, carry_out: Callable[[], Any]) -> Any:
    lead = getattr(_thread, "lead", None)
    return carry_out() if lead is None else lead(name, carry_out)


@dataclass
class Service:
    """What ObjectStore asks of the library, with its objects in memory: each request is a step."""

    objects: dict[str, bytes] = field(default_factory=dict)

    def split_path(self, path: str) -> tuple[str, str, None]:
        bucket, _, key = path.removeprefix("s3://").partition("/")
        return bucket, key, None

    def call_s3(self, method: str, Bucket: str, Key: str) -> dict[str, Any]:
        path = f"{Bucket}/{Key}"
        if method == "delete_object":
            step("delete", lambda: self.objects.pop(path, None))
            return {}
        assert method == "head_object"
        return {"ContentLength": len(step("head", lambda: self._held(path)))}

    def pipe_file(
        self, path: str, data: bytes, mode: str = "overwrite", chunksize: int | None = None
    ) -> None:
        path = path.removeprefix("s3://")

        def create() -> None:
            if path in self.objects:
                raise FileExistsError(path)
            self.objects[path] = data

        if mode == "create":
            step("create", create)
        else:
            step("put", lambda: self.objects.__setitem__(path, data))

    def cat_file(self, path: str) -> bytes:
        return step("get", lambda: self._held(path.removeprefix("s3://")))

    def find(self, folder: str, prefix: str) -> list[str]:
        start = folder.removeprefix("s3://") + "/" + prefix
        return step("list", lambda: [name for name in self.objects if name.startswith(start)])

    def rm_file(self, path: str) -> None:
        step("delete", lambda: self.objects.pop(path.removeprefix("s3://"), None))

    def _held(self, path: str) -> bytes:
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.objects[path]


def new_service(patch: pytest.MonkeyPatch, folder: Path) -> Store:
    service = Service()
    patch.setattr(object_store, "_service", lambda: service)
    return ObjectStore("s3://bucket/some/out")


def new_folder(patch: pytest.MonkeyPatch, folder: Path) -> Store:
    """A local store below the folder; of the calls for other files none is a step."""
    within = f"{folder}{os.sep}"

    def stepping(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if isinstance(arguments[0], int) or str(arguments[0]).startswith(within):
                return step(real.__name__, lambda: real(*arguments, **options))
            return real(*arguments, **options)

        return call

    for name in ("open", "link", "replace", "unlink", "mkdir", "scandir"):
        patch.setattr(os, name, stepping(getattr(os, name)))
    patch.setattr(os.path, "lexists", stepping(os.path.lexists))

    def fsync(descriptor: int) -> None:
        """What is in memory only after a power cut is not what is tried here."""

    patch.setattr(os, "fsync", stepping(fsync))
    return LocalStore(f"{within}out")


NEW_STORES = {"folder": new_folder, "service": new_service}


@dataclass
class FaultAt:
    """A fault at the step of that index; a crashed process takes no more, a full disk stays so."""

    reader: Reader
    at: int = -1
    fault: str = ""
    names: list[str] = field(default_factory=list)
    dead: bool = False
    full: bool = False

    def __call__(self, name: str, carry_out: Callable[[], Any]) -> Any:
        if self.dead:
            raise Crash
        fault = self.fault if len(self.names) == self.at else ""
        self.names.append(name)
        if fault == "crash":
            self.dead = True
            raise Crash
        self.full = self.full or fault == "full"
        if self.full and name in TAKES_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if fault == "error":
            raise OSError(errno.EIO, "the store did not answer")
        done = carry_out()
        if name in WRITES:
            look(self.reader)
        if fault == "lost reply":
            if name == "open":
                os.close(done)
            elif name == "scandir":
                done.close()
            raise OSError(errno.EIO, "the answer of the store was lost")
        if fault == "repeated" and name in REQUESTS:
            return carry_out()  # as a library does that heard no answer
        return done


@dataclass
class Unreliable:
    """A share of all steps fails, before or after it took effect."""

    reader: Reader
    dice: random.Random
    share: float
    n_failed: int = 0

    def __call__(self, name: str, carry_out: Callable[[], Any]) -> Any:
        if self.dice.random() >= self.share:
            done = carry_out()
            if name in WRITES:
                look(self.reader)
            return done
        self.n_failed += 1
        fault = self.dice.choice(("error", "lost reply"))
        return FaultAt(self.reader, 0, fault)(name, carry_out)


@dataclass
class InTurn:
    """One of several drivers, each of which goes on for some steps until it is another's turn."""

    reader: Reader
    turns: Turns
    who: int

    def __call__(self, name: str, carry_out: Callable[[], Any]) -> Any:
        self.turns.step(self.who)
        try:
            return carry_out()
        finally:
            if name in WRITES:
                look(self.reader)
