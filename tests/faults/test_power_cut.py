"""The stage with a power cut at any system call: what was told is there, nothing is partial."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gmm_dask.errors import GmmDaskError, OutputError
from gmm_dask.stage.outputs import Published, read_labels
from gmm_dask.storage import Store, Version, latest, list_versions, read_manifest
from gmm_dask.storage.records import manifest
from gmm_dask.storage.store import local_store, runs, versions
from gmm_dask.storage.store.local_store import LocalStore
from gmm_dask.storage.store.runs import RUN_FILES
from tests.faults.conftest import ROWS, Drive
from tests.faults.power import Disk, Powered, lay_out
from tests.faults.steps import intercept
from tests.storage.stores import Crash, Reader

pytestmark = [
    pytest.mark.filterwarnings("ignore:Best performing initialization did not converge"),
    pytest.mark.timeout(1800),
]

FLUSH_ABOVE = local_store._flush_above
OUT = "new/out"  # neither is there before the first run
SOME, SELDOM = 12, 40
MAKING = ("mkdir", "link")
Mutate = Callable[[pytest.MonkeyPatch], None]
Content = tuple[bytes, list[str]]  # a model, and names of label parts, made of their bytes


@pytest.fixture(scope="module")
def contents() -> dict[str, Content]:
    return {}


@dataclass
class Machine:
    """Runs of the stage, each a process of its own, and what their disk may hold afterwards.

    Parameters
    ----------
    drive : Drive
    folder : Path
        For disks.
    contents : dict
        Of undisturbed runs, by their identity.
    mutate : Mutate
        What is taken out of the protocol for the time of a run.
    """

    drive: Drive
    folder: Path
    contents: dict[str, Content]
    mutate: Mutate = lambda patch: None

    def __post_init__(self) -> None:
        for k in (1, 2) if not self.contents else ():
            whole = self.drive(LocalStore(str(self.folder / "whole")), n_components=k)
            self.contents[whole.run_id] = content_of(whole)

    def new_disk(self) -> Disk:
        shutil.rmtree(self.folder / "disk", ignore_errors=True)
        (self.folder / "disk").mkdir()
        return Disk(self.folder / "disk")

    def publish(self, lead: Powered, k: int = 2) -> None:
        """One attempt, and the word that it published."""
        FLUSH_ABOVE.cache_clear()  # what another process knew
        with pytest.MonkeyPatch.context() as patch:
            intercept(patch, lead.disk.path, lead)
            self.mutate(patch)
            published = self.drive(LocalStore(str(lead.disk.path / OUT)), n_components=k)
            lead.report(published.version)

    def publish_both(self, lead: Powered) -> None:
        """Two runs, one after the other."""
        for k in (1, 2):
            self.publish(lead, k)

    def check(self, lead: Powered, every: int) -> None:
        """After each power cut all is read, and after every so many a run goes on."""
        for at, (tree, reported) in enumerate(reversed(lead.cuts.items())):
            shutil.rmtree(self.folder / "left", ignore_errors=True)
            lay_out(tree, self.folder / "left")
            reader = Reader(LocalStore(str(self.folder / "left" / OUT)), list(range(ROWS)))
            self.read(reader, reported)
            if at % every == 0:
                self.go_on(reader)
                self.read(reader, reported)

    def read(self, reader: Reader, reported: tuple[Version, ...]) -> None:
        reader.look()
        found = list_versions(reader.store)
        assert set(found) >= set(reported), "a version that was reported is lost"
        for version in found:
            names = read_manifest(reader.store, version)["labels"]
            assert names == self.contents[version.run_id][1]

    def go_on(self, reader: Reader) -> None:
        published = self.drive(reader.store, n_components=2)
        assert latest(reader.store) == published.version, "readers see another run"
        assert content_of(published) == self.contents[published.run_id]
        labels = read_labels(reader.store.url).compute(scheduler="sync")
        assert labels["row_id"].tolist() == list(range(ROWS))


def content_of(published: Published) -> Content:
    listed = read_manifest(published.folder.store, published.version)
    return published.folder.get_verified("model.json", listed), listed["labels"]


def two_runs(machine: Machine, every: int) -> None:
    """A power cut at any call of two runs, of which the first makes the folders and is returned to.

    Returning to it is an entry alone.
    """
    lead = Powered(machine.new_disk())
    for k in (1, 2, 1):
        machine.publish(lead, k)
    assert len(lead.cuts) > 60
    machine.check(lead, every)


def killed_before(machine: Machine, every: int) -> None:
    """A power cut at any call of a run that goes on where another was killed."""
    machine.publish(first := Powered(machine.new_disk()))
    for at in killing_points(first.calls, every):
        disk = machine.new_disk()
        with suppress(Crash):
            machine.publish(Powered(disk, kill_at=at))
        machine.publish(lead := Powered(disk))
        machine.check(lead, every=SELDOM)


def killing_points(calls: list[str], every: int) -> list[int]:
    """Before any call; or after the first and last folder, the manifest and the version."""
    if every == 1:
        return list(range(len(calls)))
    made, linked = ([i for i, each in enumerate(calls) if each == call] for call in MAKING)
    return [at + 1 for at in (made[0], made[-1], *linked[-2:])]


def return_killed_before(machine: Machine, every: int) -> None:
    """A power cut at any call of a return to a run, where another return was killed."""
    machine.publish_both(first := Powered(machine.new_disk()))
    n_before = len(first.calls)
    machine.publish(first, k=1)
    of_return = first.calls[n_before:]
    linked = len(of_return) - of_return[::-1].index("link")
    for at in range(len(of_return)) if every == 1 else (linked,):
        machine.publish_both(before := Powered(disk := machine.new_disk()))
        with suppress(Crash):
            machine.publish(Powered(disk, kill_at=at), k=1)
        machine.publish(lead := Powered(disk, reported=before.reported), k=1)
        assert lead.reported[-1].number == 3
        machine.check(lead, every=SELDOM)


def flush_refused(machine: Machine, every: int) -> None:
    """A flush that fails without effect, that of a version among them, and a power cut later."""
    machine.publish(first := Powered(machine.new_disk()))
    of_the_version = first.calls.count("fsync") - 3
    for at in range(of_the_version % every, of_the_version + 3, every)[::-1]:
        lead = Powered(machine.new_disk(), refused=at)
        with suppress(GmmDaskError):
            machine.publish(lead)
        machine.check(lead, every=SELDOM)


Law = Callable[[Machine, int], None]
LAWS = (two_runs, killed_before, return_killed_before, flush_refused)


@pytest.mark.parametrize("every", [SOME, pytest.param(1, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("law", LAWS)
def test_after_a_power_cut_versions_are_whole_and_those_that_were_reported_are_there(
    law: Law, every: int, drive: Drive, tmp_path: Path, contents: dict[str, Content]
) -> None:
    law(Machine(drive, tmp_path, contents), every)


# --- the flushes, taken out one by one ---------------------------------------------------------


@dataclass
class Without:
    """The protocol without some flushes, and without LATEST, which need not be written.

    Parameters
    ----------
    what : str
        "content" of a file before it gets its name, "name" of a file after that, or "folder": the
        name of one that was made or found.
    of : str
        Pattern of its name in the output folder.
    """

    what: str
    of: str
    files: list[str] = field(default_factory=lambda: [""])
    folders: list[Path] = field(default_factory=list)

    def __call__(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(versions, "_point_people_to", lambda *_: None)
        for name in ("put", "put_if_absent"):
            patch.setattr(LocalStore, name, self._among(self.files, 1, getattr(LocalStore, name)))
        for name in ("_make_folder", "_flush_above"):
            patch.setattr(
                local_store, name, self._among(self.folders, 0, getattr(local_store, name))
            )
        patch.setattr(os, "fsync", self._some(os.fsync))

    @staticmethod
    def _among(names: list[Any], place: int, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            names.append(arguments[place])
            try:
                return real(*arguments)
            finally:
                names.pop()

        return call

    def _some(self, fsync: Callable[[int], None]) -> Callable[[int], None]:
        def flush(descriptor: int) -> None:
            what, name = "name", self.files[-1]
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                what = "content"
            elif self.folders:
                what, name = "folder", str(self.folders[-1]).partition(f"/{OUT}")[2]
            if what != self.what or not re.fullmatch(self.of, name):
                fsync(descriptor)

        return flush


def replacing(name: str, mutant: Any, *modules: Any) -> Mutate:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        for module in modules:
            patch.setattr(module, name, mutant)

    return mutate


put_if_absent = LocalStore.put_if_absent


def taken_unflushed(store: LocalStore, name: str, data: bytes) -> bool:
    return not store.exists(name) and put_if_absent(store, name, data)


def read_back(store: Store, name: str, data: bytes) -> bytes:
    try:
        return data if store.put_if_absent(name, data) else store.get(name)
    except OutputError:
        if store.exists(name):
            return store.get(name)
        raise


PARTIAL, LOST = "a version is partial", "a version that was reported is lost"
QUICK = {
    "content of label parts": (Without("content", "runs/.*/labels/.*"), two_runs, PARTIAL),
    "content of the manifest": (Without("content", "runs/.*/MANIFEST.json"), two_runs, PARTIAL),
    "content of an entry": (Without("content", "versions/.*"), two_runs, PARTIAL),
    "names of label parts": (Without("name", "runs/.*/labels/.*"), two_runs, PARTIAL),
    "name of the manifest": (Without("name", "runs/.*/MANIFEST.json"), two_runs, PARTIAL),
    "name of an entry": (Without("name", "versions/.*"), two_runs, LOST),
    "name of a run's folder": (Without("folder", "/runs/[^/]*"), two_runs, PARTIAL),
    "name of the folder of versions": (Without("folder", "/versions"), two_runs, LOST),
    "names of folders that are found": (
        replacing("_flush_above", lambda folder: None, local_store), killed_before, LOST
    ),
    "name of a version that is found": (
        replacing("_settle", lambda *_: None, versions), killed_before, LOST
    ),
    "name of a return that is found": (
        replacing("_settle", lambda *_: None, versions), return_killed_before, LOST
    ),
    "name that is found taken": (
        replacing("put_if_absent", taken_unflushed, LocalStore), killed_before, f"{PARTIAL}|{LOST}"
    ),
    "name whose flush failed": (
        replacing("create_once", read_back, runs, manifest, versions), flush_refused, LOST
    ),
}  # fmt: skip
OTHERS = {
    f"content of {name}": (Without("content", f"runs/.*/{name}"), two_runs, PARTIAL)
    for name in RUN_FILES
} | {
    "content of checkpoints": (
        Without("content", "runs/.*/checkpoints/0.*"), two_runs, "damaged or not one of our files"
    ),
    "names of checkpoints": (
        Without("name", "runs/.*/checkpoints/.*"), two_runs, "the checkpoints after it build on it"
    ),
    "names of a run's files": (
        Without("name", "runs/[^/]*/(?!MANIFEST)[^/]*"), two_runs, r"Run \w+ is not whole"
    ),
    "name of the output folder": (Without("folder", ""), two_runs, LOST),
    "name of any folder": (Without("folder", ".*"), two_runs, PARTIAL),
}  # fmt: skip
MUTANTS = QUICK | OTHERS


@pytest.mark.parametrize(
    "flush", [*QUICK, *(pytest.param(flush, marks=pytest.mark.heavy) for flush in OTHERS)]
)
def test_without_a_flush_a_power_cut_does_harm(
    flush: str, drive: Drive, tmp_path: Path, contents: dict[str, Content]
) -> None:
    mutate, law, harm = MUTANTS[flush]
    with pytest.raises((AssertionError, GmmDaskError), match=harm):
        law(Machine(drive, tmp_path, contents, mutate), SOME if flush in QUICK else 1)


# A flush by itself, and what covers it.
COVERED = {
    "names of folders in a run's": ("folder", "/runs/[^/]*/.*"),  # by those of the run's files
    "name of the folder of runs": ("folder", "/runs"),  # by that of the folder of versions
    "content of receipts": ("content", "runs/.*/receipts/.*"),  # one that is torn is as none
    "names of receipts": ("name", "runs/.*/receipts/.*"),
    "none": ("none", ""),  # but without LATEST, as all of these
}


@pytest.mark.heavy
@pytest.mark.parametrize("flush", COVERED)
def test_a_flush_that_is_covered_by_others_is_no_step_of_its_own(
    flush: str, drive: Drive, tmp_path: Path, contents: dict[str, Content]
) -> None:
    two_runs(Machine(drive, tmp_path, contents, Without(*COVERED[flush])), every=1)
