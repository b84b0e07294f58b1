"""A refresh reads what changed, and comes to where a fit of all rows comes to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import is_dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmm_dask import load_model
from gmm_dask.engine import open_backend
from gmm_dask.errors import CheckpointError, DataError, SettingsError
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.stage.job import plan
from gmm_dask.stage.outputs import open_output
from gmm_dask.stage.refresh import first_read, refreshing
from gmm_dask.stage.refresh.partition_sums import Under, partition_sums
from gmm_dask.stage.refresh.sites import merge
from gmm_dask.stage.run import refresh, run
from gmm_dask.stage.summary import Ending
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage import PartitionSums, latest, list_versions, open_store, verify
from gmm_dask.storage.store.local_store import LocalStore
from tests.stage.refresh.nightly import Lake, kept, per_row, rows
from tests.storage.stores import Crash

MONTH = 20


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(tmp_path / "lake", tmp_path / "out")
    for day in range(MONTH):
        made.write(f"day={day:03d}", rows(day))
    return made


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report takes longer than all else, and has tests of its own."""
    monkeypatch.setattr("gmm_dask.stage.publish.render_report", lambda data: "<html></html>")


def bits(sums: PartitionSums) -> list[bytes]:
    arrays: list[Any] = [*vars(sums.statistics).values(), *vars(sums.spread).values()]
    arrays += [*vars(sums.labels).values(), sums.n_missing, sums.n_by_severity]
    arrays = [each for each in arrays if not is_dataclass(each)]  # of labels that are written
    return [np.asarray(each, dtype=float).tobytes() for each in arrays if each is not None]


def about(published: Any) -> dict[str, Any]:
    return dict(published.metrics["refresh"])


def test_a_refresh_reads_new_partitions_alone_and_ends_where_a_refit_does(lake: Lake) -> None:
    """Adding 1 % reads at most 3 % of a refit's bytes; the log-likelihood is within 1e-3 a row."""
    first = refresh(lake.settings())
    assert about(first)["partitions_read"] == MONTH
    lake.write("day=900", rows(900, 80))  # one row for a hundred that were there
    second = refresh(lake.settings())
    refit = run(lake.settings(lake.out.with_name("refit")))
    found = about(second)
    assert (found["partitions"], found["partitions_read"]) == (MONTH + 1, 1)
    assert found["exact_for_version"] == 1
    assert found["exact_for_model"] == first.model.sha256
    assert second.metrics["bytes_decoded"] <= 0.03 * refit.metrics["bytes_decoded"]
    X = np.concatenate([*map(rows, range(MONTH)), rows(900, 80)])
    assert second.model.n_rows == len(X)
    assert per_row(second, X) == pytest.approx(per_row(refit, X), abs=1e-3)
    assert verify(second.folder.store, second.version) == []
    again = refresh(lake.settings())
    assert not again.new
    assert again.version == second.version


def test_after_a_removal_the_sums_are_those_without_it_bit_for_bit(lake: Lake) -> None:
    refresh(lake.settings())
    lake.write("day=900", rows(900))
    refresh(lake.settings())
    lake.remove("day=900")
    lake.remove("day=007")
    without = refresh(lake.settings())
    assert (about(without)["partitions_gone"], about(without)["partitions_read"]) == (2, 0)
    assert without.metrics["bytes_decoded"] == 0
    found = kept(without)
    other = Lake(lake.folder.with_name("other"), lake.out)
    for day in range(MONTH):
        if day != 7:
            other.write(f"day={day:03d}", rows(day))
    lake.remove("day=000")  # so that the refresh of the other folder is one of other data
    lake.write("day=000", rows(0)[:10])
    fresh = refresh(other.settings())
    again = kept(fresh)
    assert about(fresh)["partitions_read"] == 0  # known by content, wherever it lies
    assert [each.name for each in found.files] == [each.name for each in again.files]
    for mine, theirs in zip(
        (*found.sums, found.training), (*again.sums, again.training), strict=True
    ):
        assert bits(mine) == bits(theirs)
    assert fresh.model.parameters.means.tobytes() == without.model.parameters.means.tobytes()


def test_kept_sums_are_those_of_a_pass_over_the_partitions_alone(lake: Lake) -> None:
    """Whatever stands beside a partition, and through the file, its sums have the same bits."""
    everything = kept(refresh(lake.settings()))
    alone = Lake(lake.folder.with_name("alone"), lake.out.with_name("alone-out"))
    alone.write("day=003", rows(3))

    job = plan(alone.settings())
    with open_backend(job.settings.cluster, Watcher()) as backend:
        under = Under(everything.parameters, RowArithmetic.chosen("error"), None)
        (sums,) = partition_sums(job.plan, job.row_chunks(), backend, under)
    assert bits(sums)[:-1] == bits(everything.sums[3])[:-1]  # severities are not looked at


def test_a_changed_partition_is_read_again_and_a_touched_one_is_not(lake: Lake) -> None:
    refresh(lake.settings())
    os.utime(lake.folder / "day=002.parquet", ns=(1, 1))
    lake.write("day=005", rows(5)[::-1].copy())
    found = refresh(lake.settings())
    assert about(found)["partitions_read"] == about(found)["partitions_changed"] == 1
    assert about(found)["partitions_gone"] == 1  # what it was before


def test_a_version_that_kept_no_sums_is_gone_on_from(lake: Lake) -> None:
    before = run(lake.settings())
    found = refresh(lake.settings())
    assert about(found)["partitions_read"] == MONTH
    assert found.version.number == 2
    assert found.metrics["lower_bounds"][0] >= before.metrics["lower_bounds"][-1] - 1e-12
    assert found.metrics["outcome"] == "refreshed"


@pytest.mark.heavy
def test_polishing_ends_where_em_does_and_the_sums_are_of_what_it_came_to(lake: Lake) -> None:
    refresh(lake.settings())
    for day in range(900, 905):
        lake.write(f"day={day}", rows(day, moved=0.3))
    polished = refresh(lake.settings(refresh={"polish": 200}))
    assert polished.metrics["outcome"] == "converged"
    assert about(polished)["polished"] > 0
    assert about(polished)["exact_for_version"] is None
    assert kept(polished).of_model == polished.model.sha256
    refit = run(lake.settings(lake.out.with_name("refit")))
    X = np.concatenate(
        [*map(rows, range(MONTH)), *(rows(day, moved=0.3) for day in range(900, 905))]
    )
    assert per_row(polished, X) == pytest.approx(per_row(refit, X), abs=1e-5)
    assert not refresh(lake.settings(refresh={"polish": 200})).new


def test_labels_are_of_the_refreshed_model_and_of_all_rows(lake: Lake) -> None:
    settings = lake.settings(labels={"enabled": True})
    refresh(settings)
    lake.write("day=900", rows(900))
    found = refresh(settings)
    assert found.metrics["n_rows"] == sum(found.metrics["n_labelled"]) == 400 * (MONTH + 1)
    assert found.metrics["n_reads"] == 1
    said = Ending.of(found.model, found.metrics).passes
    assert "1 of 21 partitions were read; they are exact for the parameters of version 1" in said
    assert verify(found.folder.store, found.version) == []


def test_noise_is_kept_with_the_mixture_that_the_sums_are_of(lake: Lake) -> None:
    lake.more = {"fit": {"noise": True}}
    X = rows(900)
    X[:40] += np.random.default_rng(0).uniform(-60, 60, (40, 2))
    lake.write("day=900", X)
    first = refresh(lake.settings())
    assert first.model.parameters.noise is not None
    lake.remove("day=003")
    second = refresh(lake.settings())
    assert about(second)["partitions_read"] == 0
    noises = [kept(each).parameters.noise for each in (first, second)]
    assert len({each.lower.tobytes() for each in noises if each is not None}) == 1
    assert noises[0] is not None
    assert noises[0].share == first.model.parameters.noise.share
    assert sum(each.labels.n_noise for each in kept(second).sums) > 10
    assert second.model.parameters.noise is not None


@pytest.mark.parametrize("missing", ["drop", "em"])
def test_weights_and_missing_values_are_in_the_sums(tmp_path: Path, missing: str) -> None:
    data = {"weight_column": "w", "missing": missing}
    lake = Lake(tmp_path / "lake", tmp_path / "out", {"data": data})
    for day in range(4):
        X = rows(day)
        X[::7, 0] = np.nan
        lake.write(f"day={day:03d}", X, w=np.full(400, 2.0**day))
    first = refresh(lake.settings())
    lake.remove("day=003")  # that of the largest weights, which their unit is made of
    second = refresh(lake.settings())
    assert about(second)["partitions_read"] == 0
    found = kept(second)
    assert [each.spread.unit for each in found.sums] == [1.0, 2.0, 4.0]
    assert [each.n_missing.tolist() for each in found.sums] == [[58, 0]] * 3
    assert second.model.sum_weight < first.model.sum_weight
    assert second.metrics["n_used"] == (1200 if missing == "em" else 1200 - 3 * 58)


@pytest.mark.parametrize("polish", [0, 3])
def test_a_refreshed_model_tells_of_narrow_components_by_its_own_numbers(
    lake: Lake, polish: int
) -> None:
    """As a fit does; a loaded model has what was published."""
    wide = {"fit": {"reg_covar": 1.5}, "refresh": {"polish": polish}}
    refresh(lake.settings(**wide))
    lake.write("day=900", rows(900))
    found = refresh(lake.settings(**wide))
    events = [each for each in found.metrics["events"] if each["kind"] == "narrow"]
    variances = np.einsum("kdd->kd", found.model.parameters.covariances)
    narrow = set(np.flatnonzero((variances <= 3.0).any(axis=1)).tolist())
    assert {each["component"] for each in events} == narrow != set()
    loaded = load_model(str(lake.out)).events_
    assert [each.to_dict() for each in loaded if each.cause == "narrow"] == events


@pytest.mark.parametrize("seconds", [0, None])
def test_a_refresh_that_was_stopped_reads_what_it_has_no_sums_of_and_says_so(
    lake: Lake, seconds: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the bits of one in one go; `seconds` None keeps nothing."""
    settings = lake.settings(output={"checkpoint_seconds": seconds})
    refresh(settings)
    monkeypatch.setattr(first_read, "BATCH_BYTES", 1)
    names = ["day=900.parquet", "day=901.parquet", "day=902.parquet"]
    for day in (900, 901, 902):
        lake.write(f"day={day}", rows(day))
    before = lake.out.with_name("before")
    shutil.copytree(lake.out, before)
    whole = refresh(settings)
    shutil.rmtree(lake.out)
    shutil.copytree(before, lake.out)
    said: list[str] = []
    read: list[str] = []
    watcher = Watcher()
    monkeypatch.setattr(watcher, "detail", said.append)

    def summed(plan: Any, *rest: Any) -> Any:
        if stops and names[2] in {each.name for each in plan.partitions}:
            raise Crash
        read.extend(each.name for each in plan.partitions)
        return partition_sums(plan, *rest)

    monkeypatch.setattr(first_read, "partition_sums", summed)
    stops = True
    with pytest.raises(Crash):
        refresh(settings, watcher)
    assert read == names[:2]
    assert not any("did not end" in line for line in said)
    read.clear()
    stops = False
    again = refresh(settings, watcher)
    assert read == (names[2:] if seconds == 0 else names)
    (line,) = [each for each in said if "did not end" in each]
    assert f"of 3 new or changed partitions it kept the sums of {3 - len(read)};" in line
    for name in ("model.json", "statistics.json", "drift.parquet"):
        assert again.folder.get(name) == whole.folder.get(name)
    assert about(again) == about(whole)


def test_sums_that_an_earlier_attempt_kept_are_read_strictly(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged checkpoint is refused by name; one of other contents is not looked at."""
    settings = lake.settings(output={"checkpoint_seconds": 0})
    refresh(settings)
    lake.write("day=900", rows(900))

    def stopped(*_: Any) -> Any:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(refreshing, "write_model", stopped)
        with pytest.raises(Crash):
            refresh(settings)
    (kept_sums,) = lake.out.glob("runs/*/checkpoints/sums-*.json")
    kept_sums.write_bytes(kept_sums.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match=f"{kept_sums.name}.*looked at once more"):
        refresh(settings)
    lake.write("day=900", rows(901))
    assert about(refresh(settings))["partitions_read"] == 1


@pytest.mark.parametrize("at", [2, None])
def test_polishing_that_was_stopped_goes_on_from_the_passes_that_are_done(
    lake: Lake, at: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`at` is the last pass that is done before the stop; None where all are."""
    asked: dict[str, Any] = {"refresh": {"polish": 6}, "output": {"checkpoint_seconds": 0}}
    polishing = lake.settings(**asked, fit={"tol": 0, "max_iter": 20})
    refresh(polishing)
    lake.write("day=900", rows(900, moved=0.5))
    before = lake.out.with_name("before")
    shutil.copytree(lake.out, before)
    whole = refresh(polishing)
    shutil.rmtree(lake.out)
    shutil.copytree(before, lake.out)

    class Stopping(Watcher):
        def passed(self, record: Any, settings: Any) -> None:
            if at is not None and record.number > at:
                raise Crash

        def detail(self, message: str) -> None:
            said.append(message)

    def stopped(*_: Any) -> Any:
        raise Crash

    said: list[str] = []
    with monkeypatch.context() as patch:
        if at is None:
            patch.setattr(refreshing, "write_model", stopped)
        with pytest.raises(Crash):
            refresh(polishing, Stopping())
    made: list[int] = []
    patched = Stopping()
    monkeypatch.setattr(patched, "passed", lambda record, settings: made.append(record.number))
    again = refresh(polishing, patched)
    n_done = at or 6
    assert made == [*range(n_done + 1, 7)]
    assert again.metrics["n_resumed"] == n_done
    assert sum(f"goes on after {n_done} pass" in line for line in said) == 1
    for name in ("model.json", "statistics.json", "drift.parquet"):
        assert again.folder.get(name) == whole.folder.get(name)
    assert again.metrics["lower_bounds"] == whole.metrics["lower_bounds"]


def test_other_settings_and_bad_rows_are_refused_and_nothing_is_published(lake: Lake) -> None:
    refresh(lake.settings())
    with pytest.raises(SettingsError, match=r"Version 1 of .* was not fitted with these settings"):
        refresh(lake.settings(fit={"n_components": 2}))
    X = rows(900)
    X[5, 1] = np.nan
    lake.write("day=900", X)
    with pytest.raises(DataError, match=r"day=900.parquet.*\n?.*y"):
        refresh(lake.settings())
    assert len(list_versions(open_store(str(lake.out)))) == 1


def test_what_is_left_must_be_enough_for_the_mixture(lake: Lake) -> None:
    """One row that was left made a version of all components, and nothing was said."""
    refresh(lake.settings())
    shutil.rmtree(lake.folder)
    lake.write("day=900", rows(900, 1))
    with pytest.raises(DataError, match="1 usable row of weight 1 in all are too few"):
        refresh(lake.settings())
    assert len(list_versions(open_store(str(lake.out)))) == 1


def test_sums_of_two_sites_make_the_step_that_all_rows_make(tmp_path: Path) -> None:
    """Bit for bit, and no row leaves its site."""
    whole = Lake(tmp_path / "whole", tmp_path / "out")
    for day in range(3):
        whole.write(f"day={day:03d}", rows(day))
    refresh(whole.settings())
    here, there = (Lake(tmp_path / name, tmp_path / f"{name}-out") for name in ("here", "there"))
    for day in range(5):
        for lake in (whole, here if day < 2 else there):
            lake.write(f"day={day:03d}", rows(day, moved=0.1))
    follows = {"output": {"follows": f"{whole.out}@1"}}
    for lake in (here, there):
        found = about(refresh(lake.settings(**follows)))
        assert found["exact_for_version"] == 1
    out = str(tmp_path / "central")
    assert merge([str(here.out), str(there.out)], out) == f"{out}@1"
    step, expected = open_output(out), refresh(whole.settings()).model.parameters
    assert step.model.parameters.means.tobytes() == expected.means.tobytes()
    assert step.model.parameters.covariances.tobytes() == expected.covariances.tobytes()
    assert (step.model.n_rows, step.metrics["outcome"]) == (5 * 400, "refreshed")
    follows = {"output": {"follows": f"{out}@1"}}
    for lake in (here, there):  # the next step goes on from there
        assert about(refresh(lake.settings(**follows)))["exact_for_model"] == step.model.sha256
    assert merge([str(here.out), str(there.out)], out) == f"{out}@2"
    with pytest.raises(SettingsError, match="would count twice"):
        merge([str(here.out), str(there.out), f"{here.out}@2"], out)
    polished = refresh(there.settings(refresh={"polish": 1}, **follows))
    with pytest.raises(SettingsError, match="sums of another mixture"):
        merge([str(here.out), polished.folder.store.url], out)


@pytest.mark.heavy
@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("polish", [0, 2])
def test_a_refresh_that_is_killed_at_any_write_is_done_again_to_the_same_version(
    tmp_path: Path, polish: int, is_done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a write or after it: readers see the version before or the new one, whole."""
    lake = Lake(tmp_path / "lake", tmp_path / "out")
    for day in range(3):
        lake.write(f"day={day:03d}", rows(day, 150))
    settings = lake.settings(
        refresh={"polish": polish}, labels={"enabled": True}, output={"checkpoint_seconds": 0}
    )
    refresh(settings)
    lake.write("day=900", rows(900, 150))
    lake.remove("day=001")
    before = lake.out.with_name("before")
    shutil.copytree(lake.out, before)
    undisturbed = refresh(settings).folder
    files = ("model.json", "statistics.json", "drift.parquet", "contents.json")
    expected = {name: undisturbed.get(name) for name in files}
    number, was_killed = 0, True
    while was_killed:
        number += 1
        shutil.rmtree(lake.out)
        shutil.copytree(before, lake.out)
        with monkeypatch.context() as patch:
            writes = count(1)
            for name in ("put", "put_if_absent"):
                patch.setattr(LocalStore, name, killed(name, writes, number, is_done=is_done))
            try:
                refresh(settings)
                was_killed = False
            except Crash:
                store = open_store(str(lake.out))
                newest = latest(store)
                assert newest is not None
                assert verify(store, newest) == []
        again = refresh(settings)
        assert again.version.number == 2
        assert {name: again.folder.get(name) for name in files} == expected
        assert verify(again.folder.store, again.version) == []
    assert number > 10


def killed(name: str, writes: Iterator[int], number: int, *, is_done: bool) -> Any:
    real = getattr(LocalStore, name)

    def write(self: LocalStore, *arguments: Any) -> Any:
        if next(writes) != number:
            return real(self, *arguments)
        if is_done:
            real(self, *arguments)
        raise Crash

    return write
