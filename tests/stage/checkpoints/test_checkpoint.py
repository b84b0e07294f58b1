"""Checkpoints hold a fit bit for bit, however few of them are written."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmm_dask.errors import CheckpointError
from gmm_dask.fitting import Method, Progress
from gmm_dask.stage.checkpoints.fit_record import HELD as COUNTS
from gmm_dask.stage.checkpoints.fit_record import (
    Checkpoint,
    Shapes,
    kept,
    kind_of_checkpoint,
    load_checkpoint,
)
from gmm_dask.storage.records.checkpoint_file import (
    Origin,
    checkpoint_name,
    checkpoint_numbers,
    read_checkpoint,
    write_checkpoint,
)
from gmm_dask.storage.store.runs import RunFolder
from tests.fitting.results import assert_same_mixture, assert_same_result, fits, methods, rows
from tests.fitting.test_progress import EVERY_WAY
from tests.storage.stores import MemoryStore

ORIGIN = Origin("a" * 64, "b" * 64, "0123456789abcdef", 0)
HELD = dict(zip(COUNTS, range(1, 7), strict=True))


def shapes_of(method: Method) -> Shapes:
    return Shapes(method.covariance_type, method.n_components, 2)


def written(steps: list[Progress], method: Method) -> RunFolder:
    """The folder after checkpoints of these were written, each number once."""
    folder, last = RunFolder(MemoryStore(), ORIGIN.run_id), None
    for progress in steps:
        if last is not None and progress.n_passes <= last.number:
            continue
        seconds = {progress.start: (0.25,) * progress.state.n_passes}
        found = Checkpoint(progress, seconds, 1.5, HELD, {"numpy": "2"})
        name, kind = checkpoint_name(found.number), kind_of_checkpoint(shapes_of(method))
        assert write_checkpoint(folder, name, ORIGIN, kind, kept(found, last))
        last = found
    return folder


def loaded(folder: RunFolder, method: Method, n_starts: int) -> Checkpoint:
    kind = kind_of_checkpoint(shapes_of(method))

    @cache
    def read(number: int) -> Any:
        return read_checkpoint(folder, checkpoint_name(number), ORIGIN, kind)

    return load_checkpoint(read, checkpoint_numbers(folder)[-1], "newest", n_starts)


@given(st.data(), methods, st.integers(0, 50), st.booleans(), st.fixed_dictionaries(EVERY_WAY))
@settings(max_examples=30)
def test_gone_on_with_from_a_checkpoint_a_fit_ends_the_same(
    data: st.DataObject, method: Method, seed: int, equal: bool, way: dict[str, Any]
) -> None:
    X, steps = rows(seed, equal=equal), []
    whole = fits(X, method, keep=steps.append, **way)
    stop = data.draw(st.integers(1, len(steps)))
    some = [each for each in steps[:stop] if data.draw(st.booleans())] or steps[:1]
    found = loaded(written(some, method), method, way["n_starts"])
    assert (found.seconds, found.held, found.software) == (1.5, HELD, {"numpy": "2"})
    resumed = fits(X, method, progress=found.progress, **way)
    assert len(resumed) == len(whole)
    best = max(whole, key=lambda result: result.lower_bounds[-1])
    for mine, theirs in zip(resumed, whole, strict=True):
        assert_same_result(mine, theirs, trajectory=theirs is best)


@given(methods, st.integers(0, 50), st.integers(3, 6))
@settings(max_examples=12)
def test_a_fit_stopped_again_and_again_ends_the_same(
    method: Method, seed: int, n_kept: int
) -> None:
    X, progress = rows(seed, equal=False), None
    way: dict[str, Any] = {"policy": "floor", "prior": False, "n_starts": 2, "is_part": False}
    (*_, whole) = fits(X, method, **way)
    steps: list[Progress] = []
    while progress is None or not progress.is_over(method.max_iter):
        fits(X, method, keep=(now := []).append, progress=progress, **way)
        steps += now[:n_kept]
        progress = loaded(written(steps, method), method, 2).progress
    (*_, resumed) = fits(X, method, progress=progress, **way)
    assert_same_result(resumed, whole, trajectory=False)
    assert_same_mixture(resumed.trajectory[-1], whole.trajectory[-1])


def test_each_state_is_written_once() -> None:
    method = Method(3, "full", "k-means++", 0.0, 12, sample_em=False, acceleration="none")
    steps: list[Progress] = []
    way: dict[str, Any] = {"policy": "floor", "prior": False, "n_starts": 1, "is_part": False}
    fits(rows(0, equal=False), method, keep=steps.append, **way)
    folder = written(steps, method)
    states = [
        len(segment["states"])
        for number in checkpoint_numbers(folder)
        for segment in folder.get_json(checkpoint_name(number))["body"]["trajectories"]
    ]
    assert states == [1] * 12
    sizes = [len(folder.get(checkpoint_name(number))) for number in checkpoint_numbers(folder)]
    assert sizes[-1] < 1.2 * sizes[2]


def test_a_checkpoint_in_between_that_is_gone_is_named() -> None:
    method = Method(2, "diag", "k-means++", 0.0, 5, sample_em=False, acceleration="none")
    steps: list[Progress] = []
    way: dict[str, Any] = {"policy": "floor", "prior": False, "n_starts": 1, "is_part": False}
    fits(rows(0, equal=False), method, keep=steps.append, **way)
    folder = written(steps, method)
    assert loaded(folder, method, 1).number == 5
    del folder.store.objects[f"runs/{ORIGIN.run_id}/checkpoints/00002.json"]
    with pytest.raises(CheckpointError, match=r"00002\.json is absent"):
        loaded(folder, method, 1)
