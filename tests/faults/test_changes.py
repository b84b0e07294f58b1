"""Files that change while a run is under way: an error at every stage, never a mix."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from gmm_dask.errors import InputChangedError
from gmm_dask.fitting import Pass
from gmm_dask.stage.settings import FitSettings
from gmm_dask.stage.watch import Watcher
from tests.faults import inputs
from tests.faults.inputs import Case, N, both, flip, one, run_case, xy
from tests.faults.test_input import CASES

pytestmark = pytest.mark.usefixtures("no_pictures")


def replace_file(folder: Path) -> None:
    other = inputs.write(folder.parent / "other", xy(N + 1))
    other.replace(folder / "a.parquet")


def rewrite_and_hide(folder: Path) -> None:
    """The same size, footer length and time of change; other values."""
    state = (folder / "a.parquet").stat()
    inputs.write(folder / "a.parquet", xy(x=np.roll(xy()["x"].to_numpy(), 1) + 1), **PLAIN)
    os.utime(folder / "a.parquet", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (folder / "a.parquet").stat().st_size == state.st_size


def rewrite_within(folder: Path) -> None:
    """The same size, footer and time of change; values deal places out anew, but the bounds."""
    path, table = folder / "a.parquet", xy()
    state, footer = path.stat(), pq.read_metadata(path)
    x = table["x"].to_numpy().copy()
    inner = np.flatnonzero((x > x.min()) & (x < x.max()))
    x[inner] = x[inner][::-1]
    inputs.write(path, xy(x=x), **PLAIN)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (path.stat().st_size, pq.read_metadata(path)) == (state.st_size, footer)


def append(folder: Path) -> None:
    with (folder / "a.parquet").open("ab") as file:
        file.write(b"more")


def delete(folder: Path) -> None:
    (folder / "a.parquet").unlink()


def rename(folder: Path) -> None:
    (folder / "a.parquet").rename(folder / "z.parquet")


def touch(folder: Path) -> None:
    os.utime(folder / "a.parquet")


def make_folder(folder: Path) -> None:
    delete(folder)
    (folder / "a.parquet").mkdir()


PLAIN: dict[str, Any] = {"compression": "none", "use_dictionary": False}
CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "H01 replaced": (replace_file, "size went from"),
    "H02 appended to": (append, "size went from"),
    "H03 deleted": (delete, "it is gone"),
    "H04 touched": (touch, "written to or replaced"),
    "H05 rewritten with size and time as before": (rewrite_and_hide, "its time of status"),
    "H06 renamed": (rename, "it is gone"),
    "H07 replaced by a folder": (make_folder, "a folder took its place"),
    "H08 rewritten with size, footer and time as before": (rewrite_within, "its time of status"),
}


class At(Watcher):
    """Does something once, when a phase begins or the first pass of EM has ended."""

    def __init__(self, when: str, what: Callable[[], None]) -> None:
        self.when, self.what = when, what

    def phase(self, name: str, detail: str) -> None:
        self._now(name)

    def passed(self, record: Pass, settings: FitSettings) -> None:
        self._now("pass")

    def _now(self, name: str) -> None:
        if name == self.when:
            self.when = ""
            self.what()


@pytest.mark.parametrize("when", ["fit", "pass", "label"])
@pytest.mark.parametrize("name", list(CHANGES))
def test_a_file_that_changes_during_a_run_is_an_error_never_a_mix(
    name: str, when: str, tmp_path: Path
) -> None:
    change, said = CHANGES[name]
    case = Case(both(one(xy(), **PLAIN), one(xy(5), "b.parquet")), fit={"n_components": 2})
    watcher = At(when, lambda: change(tmp_path / "data"))
    with pytest.raises(InputChangedError, match=rf"a\.parquet: changed .*{said}.*Run again"):
        run_case(case, tmp_path, watcher)
    assert not (tmp_path / "out" / "versions").exists()


def test_a_bit_that_no_checksum_guards_is_other_data_the_next_time(tmp_path: Path) -> None:
    """Nothing tells it from a value on the first look; that it changed does."""
    first = run_case(Case(one(xy(), **PLAIN)), tmp_path)
    path = tmp_path / "data" / "a.parquet"
    state = path.stat()
    path.write_bytes(flip(100)(path.read_bytes()))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    second = run_case(Case(lambda folder: None), tmp_path)
    assert (second.new, second.version.number) == (True, 2)
    assert second.run_id != first.run_id


def test_a_file_that_is_added_during_a_run_is_for_the_next_one(tmp_path: Path) -> None:
    more = inputs.write(tmp_path / "more", xy(5))
    watcher = At("fit", lambda: more.rename(tmp_path / "data" / "b.parquet") and None)
    assert run_case(Case(one(xy())), tmp_path, watcher).metrics["n_rows"] == N
    again = run_case(Case(lambda folder: None), tmp_path)
    assert (again.version.number, again.metrics["n_rows"]) == (2, N + 5)


@pytest.mark.parametrize("when", ["fit", "pass", "label"])
def test_an_object_that_is_overwritten_during_a_run_is_an_error(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same size, and a time that a store rounds to seconds: its ETag tells."""
    bucket = Objects()
    for module in ("inputs", "listing.places"):
        monkeypatch.setattr(f"gmm_dask.storage.input.{module}.remote_files", lambda scheme: bucket)

    def put(table: pa.Table) -> None:
        path = inputs.write(tmp_path / "object", table, **PLAIN)
        bucket.pipe_file("bucket/data/a.parquet", path.read_bytes())

    put(xy())
    data = {"path": "s3://bucket/data"}
    assert run_case(Case(lambda folder: None, data=data), tmp_path).metrics["n_rows"] == N
    case = Case(lambda folder: None, data=data, fit={"max_iter": 3})
    other = xy(x=xy()["x"].to_numpy()[::-1])
    with pytest.raises(InputChangedError, match=r"a\.parquet: changed"):
        run_case(case, tmp_path, At(when, lambda: put(other)))


class Objects(MemoryFileSystem):
    """An object store in memory, which tells an ETag and rounds its times."""

    store: ClassVar[dict[str, Any]] = {}
    cachable = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("s3:/"))).removeprefix("/")

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        found = super().info("/" + self._strip_protocol(path), **options)
        if found["type"] == "file":
            content = super().cat_file("/" + self._strip_protocol(path))
            found |= {"ETag": hashlib.md5(content).hexdigest(), "LastModified": 0, "created": None}
        return found


def test_there_are_as_many_cases_as_were_promised() -> None:
    assert len(CASES) + len(CHANGES) >= 80
