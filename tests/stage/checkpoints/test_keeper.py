"""What a run keeps, when, and what a later attempt of it need not do again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gmm_dask import engine
from gmm_dask.errors import CheckpointError
from gmm_dask.stage import fit as stage_fit
from gmm_dask.stage.checkpoints import keeper
from gmm_dask.stage.outputs import label_parts
from gmm_dask.stage.run import run
from gmm_dask.storage import read_manifest, verify
from gmm_dask.storage.records.documents import canonical_json, sealed
from tests.stage.checkpoints.conftest import PASSES, Make, Stopped, Watching, assert_same_run


def checkpoints(out: Path) -> list[str]:
    return sorted(path.name for path in out.glob("runs/*/checkpoints/*"))


WAYS: dict[str, dict[str, Any]] = {
    "one start": {},
    "a start that was searched for": {"fit": {"init_params": "auto", "tol": 0.0, "max_iter": 12}},
    "two that were searched for on a part": {
        "fit": {"init_params": "auto", "n_init": 2, "init_rows": 200, "tol": 0.0, "max_iter": 8}
    },
    "three starts": {"fit": {"n_init": 3, "init_params": "random"}},
    "the best of three on the sample": {
        "fit": {"n_init": 3, "init_rows": 100, "init_params": "random", "tol": 1e-9}
    },
    "tied, with priors": {
        "fit": {"covariance_type": "tied", "covariance_prior": 0.1, "mean_precision_prior": 2.0}
    },
    "reseeded": {"fit": {"component_policy": "reseed", "n_components": 9, "reg_covar": 0.0}},
    "few values": {"fit": {"init_rows": 100}, "data": {"missing": "em"}},
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_stopped_run_ends_as_one_that_was_not(way: str, make: Make, tmp_path: Path) -> None:
    undisturbed = run(make(tmp_path / "undisturbed", **WAYS[way]))
    resumed, made, stop_after = None, 0, PASSES
    while resumed is None:
        attempt, stop_after = Watching(stop_after), 2 * stop_after
        try:
            resumed = run(make(tmp_path / "out", **WAYS[way]), attempt)
        except Stopped:
            made += attempt.passes
    assert resumed.metrics["n_resumed"] == made >= PASSES
    assert_same_run(resumed, undisturbed)
    assert verify(resumed.folder.store, resumed.version) == []


def test_a_stopped_run_goes_on_with_scratch_and_without(make: Make, tmp_path: Path) -> None:
    undisturbed = run(make(tmp_path / "undisturbed"))
    scratch = {"memory": {"held_bytes": 0, "scratch": str(tmp_path / "scratch")}}
    for name, first, second in (("a", scratch, {}), ("b", {}, scratch), ("c", scratch, scratch)):
        with pytest.raises(Stopped):
            run(make(tmp_path / name, **first), Watching(PASSES))
        resumed = run(make(tmp_path / name, **second))
        assert resumed.metrics["n_resumed"] == PASSES
        assert resumed.metrics["bytes_in_scratch"] == (600 * 16 if second else 0)
        assert resumed.folder.get("model.json") == undisturbed.folder.get("model.json")
        assert list((tmp_path / "scratch").iterdir()) == []


def test_no_pass_that_was_kept_is_made_again(out: Path, make: Make) -> None:
    attempt = Watching()
    published = run(make(out), attempt)
    assert published.metrics["n_resumed"] == PASSES
    assert (
        attempt.passes == published.metrics["n_passes"] + published.metrics["n_taken_back"] - PASSES
    )
    (told,) = (line for line in attempt.details if "goes on after" in line)
    assert "goes on after 3 passes, from" in told
    assert told.endswith("00003.json")


def test_killed_after_the_fit_none_is_made_again_and_nothing_decoded_for_one(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = run(make(tmp_path / "undisturbed"))
    held: list[int] = []
    monkeypatch.setattr(stage_fit, "hold", remembering(held, stage_fit.hold))
    with monkeypatch.context() as patch:
        patch.setattr(stage_fit, "write_model", stop)
        with pytest.raises(Stopped):
            run(make(tmp_path / "out"))
    attempt = Watching()
    resumed = run(make(tmp_path / "out"), attempt)
    assert attempt.passes == 0
    assert held[0] > 0 == held[1]
    assert_same_run(resumed, undisturbed)


def stop(*_: Any) -> None:
    raise Stopped


def remembering(budgets: list[int], hold: Any) -> Any:
    def call(chunks: Any, backend: Any, budget: int, *rest: Any) -> Any:
        budgets.append(budget)
        return hold(chunks, backend, budget, *rest)

    return call


@pytest.mark.parametrize("start", ["kmeans", pytest.param("auto", marks=pytest.mark.heavy)])
def test_a_survey_that_was_kept_is_not_made_again(
    start: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = {"init_params": start, "init_rows": 64, "n_init": 2, "tol": 1e-8, "max_iter": 6}
    sections: dict[str, Any] = {"fit": fit, "data": {"missing": "em"}}
    undisturbed = run(make(tmp_path / "undisturbed", **sections))
    with pytest.raises(Stopped):
        run(make(tmp_path / "out", **sections), Watching(PASSES))
    assert "survey.json" in checkpoints(tmp_path / "out")
    if start == "auto":  # as if stopped in the search, which is made again with the same bits
        for path in (tmp_path / "out").glob("runs/*/checkpoints/0*.json"):
            path.unlink()
    monkeypatch.setattr(engine, "survey", stop)  # whence a fit takes it
    resumed = run(make(tmp_path / "out", **sections))
    assert_same_run(resumed, undisturbed)


@pytest.mark.parametrize(("rate", "is_kept"), [(1.0, False), (1e9, True)])
def test_a_survey_is_kept_where_writing_it_takes_a_small_share_of_making_it(
    rate: float, is_kept: bool, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By this clock making it takes a second at least; at a byte a second writing is for ever."""
    monkeypatch.setattr(keeper, "time", Clock(always(1.0)))
    monkeypatch.setattr(keeper, "SAMPLE_RATE", rate)
    out = tmp_path / "out"
    run(make(out, output={"checkpoint_seconds": 1e-9}, fit={"init_rows": 64}))
    assert ("survey.json" in checkpoints(out)) is is_kept


@pytest.mark.parametrize("name", ["survey.json", "00003.json"])
def test_what_gc_takes_away_while_it_is_read_is_made_again(
    name: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A twin may publish the run meanwhile, and somebody tidy up after it."""
    sections: dict[str, Any] = {"fit": {"init_rows": 64}}
    undisturbed = run(make(tmp_path / "undisturbed", **sections))
    with pytest.raises(Stopped):
        run(make(tmp_path / "out", **sections), Watching(PASSES))
    assert name in checkpoints(tmp_path / "out")

    def taken_away(folder: Any, wanted: str, *more: Any) -> Any:
        if wanted.endswith(name):
            folder.store.delete(f"runs/{folder.run_id}/{wanted}")
        return read_checkpoint(folder, wanted, *more)

    read_checkpoint = keeper.read_checkpoint
    monkeypatch.setattr(keeper, "read_checkpoint", taken_away)
    resumed = run(make(tmp_path / "out", **sections))
    assert resumed.metrics["n_resumed"] == (PASSES if name == "survey.json" else PASSES - 1)
    assert_same_run(resumed, undisturbed)


SURVEYS = {
    "cut": (lambda data: data[: len(data) // 2], "damaged or not one of our files"),
    "a pass of the fit": (None, "is_single is absent"),
    "a row less": (lambda d: d.update(n_sampled=63), "sample holds"),
    "no kind": (lambda d: d.update(is_single="object"), "not true or false"),
    "no moments": (lambda d: d["spread"].pop("mean"), "mean is absent"),
}


@pytest.mark.parametrize("case", sorted(SURVEYS))
def test_a_survey_that_is_not_one_is_refused(case: str, make: Make, tmp_path: Path) -> None:
    change, reason = SURVEYS[case]
    settings = make(tmp_path / "out", fit={"init_rows": 64})
    with pytest.raises(Stopped):
        run(settings, Watching(1))
    (path,) = (tmp_path / "out").glob("runs/*/checkpoints/survey.json")
    data = path.read_bytes()
    if change is None:
        shutil.copy(path.with_name("00000.json"), path)
    elif case == "cut":
        path.write_bytes(change(data))
    else:
        document = json.loads(data)
        del document["checksum"]
        change(document["body"])
        path.write_bytes(canonical_json(sealed(document)))
    with pytest.raises(CheckpointError, match=reason) as caught:
        run(settings)
    assert "survey.json" in str(caught.value)
    assert "the rows are then looked at once more" in str(caught.value)
    path.unlink()
    assert run(settings).new


def test_null_writes_none_and_looks_at_none(out: Path, checkpoint: Path, make: Make) -> None:
    checkpoint.write_bytes(b"damaged")
    before = checkpoints(out)
    published = run(make(out, output={"checkpoint_seconds": None}))
    assert published.metrics["n_resumed"] == 0
    assert checkpoints(out) == before


class Clock:
    """Time as the test makes it pass."""

    def __init__(self, steps: Iterator[float]) -> None:
        self.now, self._steps = 0.0, steps

    def perf_counter(self) -> float:
        self.now += next(self._steps)
        return self.now


def always(step: float) -> Iterator[float]:
    while True:
        yield step


@pytest.mark.parametrize(("seconds", "fewest", "most"), [(0.5, 5, 12), (1000.0, 0, 0)])
def test_there_is_one_after_so_many_seconds_at_most(
    seconds: float, fewest: int, most: int, make: Make, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(keeper, "time", Clock(always(0.25)))
    monkeypatch.setattr(keeper, "LEAST_SHARE", 0)
    run(make(tmp_path / "out", output={"checkpoint_seconds": seconds}))
    assert fewest <= len(checkpoints(tmp_path / "out")) <= most


def test_writing_takes_a_small_share_of_a_fit(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By this clock writing takes as long as what is between two passes, so 50 are left out."""
    monkeypatch.setattr(keeper, "time", Clock(always(1.0)))
    run(make(tmp_path / "out", output={"checkpoint_seconds": 1e-9}, fit={"tol": 0.0}))
    assert 0 < len(checkpoints(tmp_path / "out")) <= 2


def test_a_checkpoint_of_other_software_is_told_of(out: Path, checkpoint: Path, make: Make) -> None:
    document = json.loads(checkpoint.read_bytes())
    del document["checksum"]
    document["body"]["checkpoint"]["software"] |= {"numpy": "1.0"}
    checkpoint.write_bytes(canonical_json(sealed(document)))
    attempt = Watching()
    run(make(out), attempt)
    (warning,) = (line for line in attempt.warnings if "numpy" in line)
    assert "numpy 1.0 (now" in warning
    assert "scipy" not in warning


def test_a_state_too_large_is_told_of_once_and_the_fit_goes_on(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmm_dask.storage.records.checkpoint_file.MAX_MARKS", 10)
    attempt = Watching()
    assert run(make(tmp_path / "out"), attempt).new
    assert checkpoints(tmp_path / "out") == []
    assert [line for line in attempt.warnings if "too large" in line] == [
        "The state of the fit is too large for a checkpoint: none is kept."
    ]


def test_checkpoints_are_no_part_of_what_is_published(out: Path, make: Make) -> None:
    published = run(make(out))
    files = read_manifest(published.folder.store, published.version)["files"]
    assert not [name for name in files if "checkpoints" in name]
    before = checkpoints(out)
    assert before
    assert not run(make(out)).new
    assert checkpoints(out) == before
    shutil.rmtree(Path(published.path("folder")) / "checkpoints")
    assert verify(published.folder.store, published.version) == []
    assert not run(make(out)).new
    assert label_parts(str(out))
