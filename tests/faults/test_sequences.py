"""Runs, promotions, kills and several drivers in any sequence: who succeeded is what readers see.

Four states of the data come and go, as when a partition is lost and restored.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask import load_model, read_labels
from gmm_dask.stage import job, outputs, publish
from gmm_dask.stage.identity import ATTEMPT
from gmm_dask.stage.lineage import registry
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.publish import promote
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import settings_from
from gmm_dask.storage import Store, Version, list_versions
from gmm_dask.storage.store import versions
from gmm_dask.storage.store.versions import LATEST
from tests.conftest import seeds
from tests.storage.stores import Between, Crash, MemoryStore, Turns, TurnStore

pytestmark = pytest.mark.filterwarnings("ignore:Best performing initialization did not converge")

STATES = {"whole": "abc", "one lost": "ab", "one rewritten": "abd", "one more": "abcd"}
OUT = "out"
Command = Callable[[str], Published]  # of the URL of an output
Seen = tuple[str, pd.DataFrame]  # of a reader: which model, which labels


@dataclass
class Counting(MemoryStore):
    """Remembers what was created, and what was replaced by other bytes."""

    created: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)

    def __dask_tokenize__(self) -> int:
        return id(self)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        if is_new := super().put_if_absent(name, data):
            self.created.append(name)
        return is_new

    def put(self, name: str, data: bytes) -> None:
        (self.replaced if name in self.objects else self.created).append(name)
        super().put(name, data)


@dataclass
class Mortal(Between):
    """A store of a driver that is killed before the operation of that index, or right after it."""

    at: int
    after: bool
    count: int = 0

    def around(self, operation: str, call: Callable[[], Any]) -> Any:
        at, self.count = self.count, self.count + 1
        if at > self.at or (at == self.at and not self.after):
            raise Crash
        done = call()
        if at == self.at:
            raise Crash
        return done


@dataclass
class Opened(Between):
    """A store under the URL that it was opened by, which a driver may open again."""

    opened_by: str

    @property
    def url(self) -> str:
        return self.opened_by


class Outputs(dict[str, Store]):
    """Stores by their URL: each driver has a view of its own of the same output."""

    def open(self, url: str, **_: Any) -> Store:
        return Opened(self[url], url)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each state, of the partitions that its letters name."""
    top, rng = tmp_path_factory.mktemp("states"), np.random.default_rng(0)
    rows = {name: np.concatenate([rng.normal(size=4), rng.normal(9, 1, 4)]) for name in "abcd"}
    for state, partitions in STATES.items():
        (top / state).mkdir()
        for name, partition in zip("123456", partitions, strict=False):
            pq.write_table(pa.table({"x": rows[partition]}), top / state / f"{name}.parquet")
    return {state: top / state for state in STATES}


@dataclass
class World:
    """The output as readers and drivers see it.

    Parameters
    ----------
    data : dict
        Folders by state.
    known : dict
        What readers must see of each run, by its identity.
    run_ids : dict
        By state.
    """

    data: dict[str, Path]
    urls: Outputs
    known: dict[str, Seen] = field(default_factory=dict)
    run_ids: dict[str, str] = field(default_factory=dict)
    finished: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Publish each state once, undisturbed."""
        self.urls[OUT] = store = Counting()
        for state in STATES:
            self.run_ids[state] = run_id = self.run(state)(OUT).run_id
            self.known[run_id] = seen()
        self.finished = dict(store.objects)
        assert len(self.known) == len(STATES)

    def run(self, state: str) -> Command:
        def command(url: str) -> Published:
            document = {
                "data": {"path": str(self.data[state])},
                "fit": {"n_components": 2, "max_iter": 3},
                "cluster": {"workers": 1},
                "output": {"path": url, "checkpoint_seconds": 0},
            }
            return run(settings_from(document))

        return command


def seen() -> Seen:
    return load_model(OUT).sha256, read_labels(OUT).compute(scheduler="sync")


@pytest.fixture(scope="module")
def world(data: dict[str, Path]) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "render_report", lambda report: f"<html>{report.run_id}</html>")
        urls = Outputs()
        for module in (job, outputs, registry):
            patch.setattr(module, "open_store", urls.open)
        yield World(data, urls)


@dataclass
class Sequence:
    """Commands drawn by a seed, one after the other, and what must hold after each of them."""

    world: World
    seed: int
    store: Counting = field(default_factory=Counting)
    log: list[Version] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        if self.seed % 10:  # else nothing was published before
            self.store.objects |= self.world.finished
        self.world.urls[OUT] = self.store
        self.log = list_versions(self.store)

    def go(self, n_commands: int) -> None:
        for _ in range(n_commands):
            act = self.dice.choice((self.succeed, self.succeed, self.be_killed, self.be_two))
            with self.nothing_is_written_twice():
                act()

    def draw(self) -> tuple[Command, str]:
        """A command and the identity of its run."""
        if self.log and self.dice.random() < 0.4:
            version = self.dice.choice(self.log)
            return lambda url: promote(f"{url}@{version.number}"), version.run_id
        state = self.dice.choice(list(STATES))
        return self.world.run(state), self.world.run_ids[state]

    def succeed(self) -> None:
        command, run_id = self.draw()
        was_latest = bool(self.log) and self.log[-1].run_id == run_id
        published = command(OUT)
        self.check_log()
        assert published.version == self.log[-1], "a command that succeeded is not the latest"
        assert published.new is not was_latest
        self.check_readers(run_id)

    def be_killed(self) -> None:
        command, run_id = self.draw()
        at = self.dice.randrange(self.dice.choice((40, 100)))
        self.world.urls["killed"] = Mortal(self.store, at, self.dice.random() < 0.5)
        before, lived = len(self.log), True
        try:
            command("killed")
        except Crash:
            lived = False
        self.check_log()
        assert not lived or self.log[-1].run_id == run_id
        if len(self.log) > before:  # whole, even if nobody was told of it
            self.check_readers(run_id)

    def be_two(self) -> None:
        drawn = [self.draw() for _ in range(2)]
        turns = Turns(2, self.seed, self.dice.choice((0.0, 0.8)))

        def work(who: int) -> Version:
            url = f"driver {who}"
            self.world.urls[url] = TurnStore(self.store, turns, who)
            try:
                return drawn[who][0](url).version
            finally:
                turns.leave(who)

        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(work, (0, 1)))
        self.check_log()
        assert [version.run_id for version in found] == [run_id for _, run_id in drawn]
        assert set(found) <= set(self.log)
        assert self.log[-1] in found, "neither of two that succeeded is the latest"
        if drawn[0][1] == drawn[1][1]:
            assert found[0] == found[1], "two drivers of one run made two versions"
        self.check_readers(self.log[-1].run_id)

    def check_log(self) -> None:
        """Entries are never changed, and numbers only grow; no run follows itself."""
        log = list_versions(self.store)
        assert log[: len(self.log)] == self.log, "an entry was changed or lost"
        assert [version.number for version in log] == list(range(1, len(log) + 1))
        assert all(one.run_id != two.run_id for one, two in pairwise(log)), "an extra version"
        self.log = log

    def check_readers(self, run_id: str) -> None:
        model, labels = seen()
        known_model, known_labels = self.world.known[run_id]
        assert model == known_model, "readers see another run"
        pd.testing.assert_frame_equal(labels, known_labels)

    @contextmanager
    def nothing_is_written_twice(self) -> Iterator[None]:
        """Files are created once, and of a run that was finished before none at all.

        Only when its last attempt began is noted anew, of a run that is under way.
        """
        finished = {f"runs/{version.run_id}/" for version in self.log}
        before, replaced_before = len(self.store.created), len(self.store.replaced)
        yield
        assert len(set(self.store.created)) == len(self.store.created)
        new = self.store.created[before:] + self.store.replaced[replaced_before:]
        assert not [name for name in new if name.startswith(tuple(finished))]
        replaced = {name for name in self.store.replaced if "/receipts/" not in name}
        assert {name for name in replaced if not name.endswith(f"/{ATTEMPT}")} <= {LATEST}
        parts = {name for name in self.store.objects if "/labels/" in name}
        assert parts <= self.world.finished.keys(), "labels of other bits were written"


OTHERS = [pytest.param(tens, marks=pytest.mark.heavy) for tens in range(1, 10)]


@pytest.mark.parametrize("tens", [0, *OTHERS])
def test_who_succeeded_is_what_readers_see_in_200_sequences(tens: int, world: World) -> None:
    for seed in seeds(range(20 * tens, 20 * tens + 20)):
        Sequence(world, seed).go(6)


def any_version_will_do(store: Store, run_id: str, manifest_sha256: str, *more: Any) -> Version:
    for version in list_versions(store):
        if version.points_to(run_id, manifest_sha256):
            return version
    return versions.publish_version(store, run_id, manifest_sha256, *more)


def test_if_any_version_of_a_run_would_do_readers_would_see_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail."""
    monkeypatch.setattr(publish, "publish_version", any_version_will_do)
    with pytest.raises(AssertionError, match=r"is not the latest|neither of two|another run"):
        Sequence(world, 1).go(40)
