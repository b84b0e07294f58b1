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
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gmm_dask.storage import Store
from gmm_dask.storage.store import object_store
from gmm_dask.storage.store.local_store import LocalStore
from gmm_dask.storage.store.object_store import ObjectStore
from tests.storage.stores import Crash, Reader, Turns

Lead = Callable[[str, Callable[[], Any]], Any]  # of a step's name, and what carries it out
Arguments = tuple[Any, ...]
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
        self,
        path: str,
        data: bytes,
        mode: str = "overwrite",
        chunksize: int | None = None,
        timeout: float | None = None,
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

    def cat_file(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        return step("get", lambda: self._held(path.removeprefix("s3://"))[start:end])

    def find(self, folder: str, prefix: str) -> list[str]:
        start = folder.removeprefix("s3://") + "/" + prefix
        return step("list", lambda: [name for name in self.objects if name.startswith(start)])

    def rm_file(self, path: str) -> None:
        step("delete", lambda: self.objects.pop(path.removeprefix("s3://"), None))

    def _held(self, path: str) -> bytes:
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.objects[path]


class ServiceStore(ObjectStore):
    """A store of a service in memory."""

    @property
    def objects(self) -> dict[str, bytes]:
        return object_store._service().objects


def new_service(patch: pytest.MonkeyPatch, folder: Path) -> Store:
    service = Service()
    patch.setattr(object_store, "_service", lambda: service)
    return ServiceStore("s3://bucket/some/out")


def intercept(
    patch: pytest.MonkeyPatch,
    folder: Path,
    lead: Callable[[str, Arguments, Callable[[], Any]], Any],
) -> None:
    """Lead all system calls for the folder and what is in it; nothing is flushed in earnest."""
    within, opened = f"{folder}{os.sep}", set[int]()

    def led(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            what = arguments[0]
            inside = what in opened if isinstance(what, int) else f"{what}/".startswith(within)
            carry_out = partial(real, *arguments, **options)
            answer = lead(real.__name__, arguments, carry_out) if inside else carry_out()
            if real.__name__ == "open":
                (opened.add if inside else opened.discard)(answer)
            return answer

        return call

    def fsync(descriptor: int) -> None:
        """What that would change is known to the model of a disk, in power.py."""

    patch.setattr(os, "fsync", fsync)
    for name in ("open", "link", "replace", "unlink", "mkdir", "scandir", "fsync"):
        patch.setattr(os, name, led(getattr(os, name)))
    patch.setattr(os.path, "lexists", led(os.path.lexists))


def new_folder(patch: pytest.MonkeyPatch, folder: Path) -> Store:
    """A local store below the folder; of the calls for other files none is a step."""
    intercept(patch, folder, lambda name, _, carry_out: step(name, carry_out))
    return LocalStore(str(folder / "out"))


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
