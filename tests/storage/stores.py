"""Stores and runs for tests of the commit protocol: in memory, with faults, with taken turns."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gmm_dask.errors import OutputError
from gmm_dask.mixture import Parameters, RowScores
from gmm_dask.storage.arrow import read_parquet_bytes
from gmm_dask.storage.records.codec import record
from gmm_dask.storage.records.documents import MAX_BYTES, canonical_json
from gmm_dask.storage.records.labels import label_table
from gmm_dask.storage.records.manifest import read_manifest, verify, write_manifest
from gmm_dask.storage.records.model_file import Model, dump_model, parameters_bytes
from gmm_dask.storage.records.receipts import PartReceipt, write_part
from gmm_dask.storage.store.local_store import LocalStore
from gmm_dask.storage.store.protocol import Store, too_large
from gmm_dask.storage.store.runs import RunFolder, html_of_model
from gmm_dask.storage.store.version_log import Version, list_versions
from gmm_dask.storage.store.versions import find_version, publish_version

PATIENCE = 600  # seconds for a turn; this process may be suspended itself
CHUNK = 4  # rows of a part
ROWS = list(range(3 * CHUNK))
RUN = "00000000000000aa"
OTHER = "00000000000000bb"
PUBLISHED = "2026-08-01T12:00:00.000Z"
ARRAYS = ("weights", "means", "covariances", "precisions_cholesky")


class Crash(BaseException):
    """The process ends here; no handler of ours may catch it."""


@dataclass
class MemoryStore:
    """The smallest store that keeps the promises."""

    objects: dict[str, bytes] = field(default_factory=dict)
    url: str = "memory"
    lock: Any = field(default_factory=threading.Lock)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        with self.lock:
            is_free = name not in self.objects
            self.objects.setdefault(name, data)
            return is_free

    def put(self, name: str, data: bytes) -> None:
        self.objects[name] = data

    def get(self, name: str, at_most: int = MAX_BYTES) -> bytes:
        if name not in self.objects:
            raise OutputError(f"{name} does not exist")
        if len(self.objects[name]) > at_most:
            raise OutputError(too_large(name, len(self.objects[name]), at_most))
        return self.objects[name]

    def exists(self, name: str) -> bool:
        return name in self.objects

    def size(self, name: str) -> int:
        return len(self.get(name))

    def delete(self, name: str) -> None:
        self.objects.pop(name, None)

    def list(self, prefix: str) -> list[str]:
        return sorted(name for name in tuple(self.objects) if name.startswith(prefix))

    def path(self, name: str) -> str:
        return name

    def check_writable(self) -> None:
        pass


@dataclass
class Between:
    """A store around a store: every operation goes through `around`."""

    store: Store

    @property
    def url(self) -> str:
        return self.store.url

    def around(self, operation: str, call: Callable[[], Any]) -> Any:
        return call()

    def put_if_absent(self, name: str, data: bytes) -> bool:
        return self.around("put_if_absent", lambda: self.store.put_if_absent(name, data))

    def put(self, name: str, data: bytes) -> None:
        return self.around("put", lambda: self.store.put(name, data))

    def get(self, name: str, at_most: int = MAX_BYTES) -> bytes:
        return self.around("get", lambda: self.store.get(name, at_most))

    def exists(self, name: str) -> bool:
        return self.around("exists", lambda: self.store.exists(name))

    def size(self, name: str) -> int:
        return self.around("size", lambda: self.store.size(name))

    def delete(self, name: str) -> None:
        self.around("delete", lambda: self.store.delete(name))

    def list(self, prefix: str) -> list[str]:
        return self.around("list", lambda: self.store.list(prefix))

    def path(self, name: str) -> str:
        return self.store.path(name)

    def check_writable(self) -> str | None:
        return self.store.check_writable()


FAULTS = ("crash before", "crash after", "error before", "lost reply")


@dataclass
class FaultStore(Between):
    """Fails once, at the operation of that index."""

    at: int = -1
    fault: str = ""
    operations: list[str] = field(default_factory=list)

    def around(self, operation: str, call: Callable[[], Any]) -> Any:
        here = len(self.operations) == self.at
        self.operations.append(operation)
        if here and self.fault == "crash before":
            raise Crash
        if here and self.fault == "error before":
            raise OutputError("the store did not answer") from TimeoutError()
        result = call()
        if here and self.fault == "crash after":
            raise Crash
        if here and self.fault == "lost reply":
            raise OutputError("the answer of the store was lost") from TimeoutError()
        return result


class Turns:
    """Lets a fixed number of threads do one store operation at a time, in an order by seed.

    `burst` is how probable it is that the one whose turn it was goes on. `first` are turns that
    come before those by seed: who, and for how many steps or until its end.
    """

    def __init__(
        self, n: int, seed: int, burst: float = 0.0, first: Sequence[tuple[int, int]] = ()
    ) -> None:
        self.random, self.burst = random.Random(seed), burst
        self.first = [who for who, n_steps in first for _ in range(n_steps)]
        self.alive = set(range(n))
        self.condition = threading.Condition()
        self.turn = self._next()

    def take(self, who: int, call: Callable[[], Any]) -> Any:
        with self.condition:
            assert self.condition.wait_for(lambda: self.turn == who, timeout=PATIENCE)
            try:
                return call()
            finally:
                self._pass_on()

    def begin(self, who: int) -> None:
        """Wait for the first turn; the others wait until this one comes to its next step."""
        with self.condition:
            assert self.condition.wait_for(lambda: self.turn == who, timeout=PATIENCE)

    def step(self, who: int) -> None:
        """The step before is done: it may be another's turn now."""
        with self.condition:
            self._pass_on()
            assert self.condition.wait_for(lambda: self.turn == who, timeout=PATIENCE)

    def leave(self, who: int) -> None:
        with self.condition:
            self.alive.discard(who)
            self._pass_on()

    def _pass_on(self) -> None:
        if self.alive:
            self.turn = self._next()
        self.condition.notify_all()

    def _next(self) -> int:
        while self.first:
            who = self.first.pop(0)
            if who in self.alive:
                return who
        if getattr(self, "turn", None) in self.alive and self.random.random() < self.burst:
            return self.turn
        return self.random.choice(sorted(self.alive))


@dataclass
class TurnStore(Between):
    """One driver's view of a store whose operations are taken in turns."""

    turns: Turns
    who: int

    def around(self, operation: str, call: Callable[[], Any]) -> Any:
        return self.turns.take(self.who, call)


@cache
def small_model() -> Model:
    parameters = Parameters.from_covariances(
        [0.25, 0.75], [[0.0, 1.0], [5.0, -3.0]], [np.eye(2), [[2.0, 0.5], [0.5, 1.0]]], "full"
    )
    return Model(
        parameters=parameters,
        feature_names=("a", "b"),
        feature_types=("double", "int64"),
        reg_covar=1e-6,
        converged=True,
        outcome="converged",
        n_passes=2,
        lower_bounds=(-3.5, -3.25),
        n_rows=12,
        sum_weight=12.0,
        data_fingerprint="f" * 64,
        settings_hash="a" * 64,
        created_by={"gmm-dask": "0.1.0", "numpy": "2.4.6"},
    )


def model_of(parameters: Parameters, **changes: Any) -> Model:
    d = parameters.n_features
    names = {"feature_names": tuple(f"x{i}" for i in range(d)), "feature_types": ("double",) * d}
    return replace(small_model(), parameters=parameters, **names | changes)


def same_bits(one: Model, two: Model) -> bool:
    arrays = all(
        getattr(one.parameters, name).tobytes() == getattr(two.parameters, name).tobytes()
        for name in ARRAYS
    )
    others = all(
        repr(getattr(one, field.name)) == repr(getattr(two, field.name))
        for field in fields(Model)
        if field.name != "parameters"
    )
    return arrays and others and one.parameters.covariance_type == two.parameters.covariance_type


@cache
def part_table(index: int, noise: float = 0.0) -> pa.Table:
    rows = np.arange(index * CHUNK, (index + 1) * CHUNK)
    scores = RowScores((rows % 2).astype(np.int32), -rows - 0.5 + noise, np.full(CHUNK, 0.75))
    kept = pa.table({"flower": [f"flower {row}" for row in rows]})
    usable = rows % 5 != 4
    return label_table(index * CHUNK, kept, scores, usable=usable)


def put_part(folder: RunFolder, index: int, noise: float = 0.0) -> PartReceipt:
    return write_part(
        folder,
        index,
        part_table(index, noise),
        first_row=index * CHUNK,
        file="part-0.parquet",
        start=index * CHUNK,
        stop=(index + 1) * CHUNK,
        model_sha256=small_model().sha256,
    )


def put_files(folder: RunFolder, note: str = "") -> None:
    """All files of a run but the labels; `note` makes those differ that hold times."""
    folder.put_if_absent("run.json", b'{"plan":1}\n')
    folder.put_if_absent("contents.json", b'{"files":[]}\n')
    folder.put_if_absent("model.json", dump_model(small_model()))
    sha256 = small_model().sha256
    metrics = canonical_json({"model_sha256": sha256, "seconds": note})
    folder.put_of_model("parameters.parquet", parameters_bytes(small_model()), sha256)
    folder.put_of_model("report.html", html_of_model(f"<html>{note}</html>", sha256), sha256)
    folder.put_of_model("metrics.json", metrics, sha256)
    folder.put_of_model("changes.json", canonical_json({"model_sha256": sha256}), sha256)


def put_manifest(folder: RunFolder, receipts: Sequence[PartReceipt], n_rows: int) -> str:
    sha256 = small_model().sha256
    return write_manifest(folder, receipts, n_rows=n_rows, published=PUBLISHED, model_sha256=sha256)


def publish_run(
    store: Store, run_id: str = RUN, n_parts: int = 3, note: str = "", noise: float = 0.0
) -> Version:
    """A whole run, as a driver does it: files, parts with receipts, manifest, version.

    One that is finished gets a version alone, where it is not the latest.
    """
    found = find_version(store, run_id)
    if found is not None:
        return publish_version(store, run_id, found.manifest_sha256, found.rows)
    folder = RunFolder(store, run_id)
    put_files(folder, note)
    receipts = []
    for index in range(n_parts):
        receipts.append(put_part(folder, index, noise))
        folder.put(
            f"receipts/{index:05d}.json", canonical_json(record(PartReceipt).dump(receipts[-1]))
        )
    manifest_sha256 = put_manifest(folder, receipts, n_parts * CHUNK)
    return publish_version(store, run_id, manifest_sha256, n_parts * CHUNK)


def published_rows(store: Store, version: Version) -> list[int]:
    """row_id of every published label, in the order of the manifest, every hash checked."""
    folder = RunFolder(store, version.run_id)
    manifest = read_manifest(store, version)
    rows: list[int] = []
    for name in manifest["labels"]:
        table = read_parquet_bytes(folder.get_verified(name, manifest))
        rows += table.column("row_id").to_pylist()
    return rows


def files_of(store: Store, run_id: str) -> Any:
    """What changes with any file of a run, found without reading it; None where nothing tells."""
    if isinstance(store, Between):
        return files_of(store.store, run_id)
    objects = getattr(store, "objects", None)
    if objects is not None:
        return {name: data for name, data in objects.items() if f"runs/{run_id}/" in name}
    if not isinstance(store, LocalStore):
        return None
    found = {}
    for folder, _, names in os.walk(Path(store.url, "runs", run_id)):
        for name in names:
            state = os.lstat(f"{folder}/{name}")
            times = (state.st_mtime_ns, state.st_ctime_ns)
            found[folder, name] = (state.st_ino, state.st_size, *times)
    return found


@dataclass
class Reader:
    """Looks at all versions again and again: each it ever saw is there, whole, with its rows.

    Those that are new have higher numbers. A version whose files did not change since they were
    read is not read again.
    """

    store: Store
    rows: list[int]
    seen: dict[int, Version] = field(default_factory=dict)
    files: dict[int, Any] = field(default_factory=dict)

    def look(self) -> None:
        try:
            found = {version.number: version for version in list_versions(self.store)}
            assert found.items() >= self.seen.items(), "a version that was seen is lost"
            new = found.keys() - self.seen.keys()
            assert all(number > max(self.seen, default=0) for number in new), "numbers only grow"
            for number, version in found.items():
                files = files_of(self.store, version.run_id)
                if files is not None and self.files.get(number) == files:
                    continue
                assert verify(self.store, version) == [], "a version is partial"
                if number not in self.seen:
                    rows = published_rows(self.store, version)
                    assert rows == self.rows, "rows are lost or double"
                self.files[number] = files
        except OutputError as error:
            raise AssertionError(f"a version is partial: {error}") from error
        self.seen |= found


def check_one_whole_version(store: Store) -> None:
    (version,) = list_versions(store)
    assert (version.number, version.run_id, version.rows) == (1, RUN, len(ROWS))
    assert verify(store, version) == []
    assert published_rows(store, version) == ROWS
