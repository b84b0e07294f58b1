"""Chunks held between passes: as many as fit, read once, and the same bits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from gmm_dask.engine import (
    Backend,
    LocalBackend,
    RowChunks,
    Unit,
    expectation,
    hold,
    release,
    rows_here,
)
from gmm_dask.engine.passes import chunk_map
from tests.conftest import Blobs
from tests.engine.test_passes import bits

LENGTHS = (500, 700, 800)
EDGES = tuple(pairwise(np.cumsum((0, *LENGTHS)).tolist()))


class Reader:
    """Loads rows and leaves a file for every read, whichever process it was in."""

    def __init__(self, X: np.ndarray, log: Path) -> None:
        self.X, self.log = X, log

    def __call__(self, edges: tuple[int, int]) -> np.ndarray:
        start, stop = edges
        n = len(list(self.log.glob(f"{start}-*")))
        (self.log / f"{start}-{n}").touch()
        return self.X[start:stop]

    def counts(self) -> list[int]:
        return [len(list(self.log.glob(f"{start}-*"))) for start, _ in EDGES]


def read_one(reader: Reader, edges: tuple[int, int], weights: np.ndarray | None = None):
    start, stop = edges
    yield reader(edges), None if weights is None else weights[start:stop]


def chunks_of(reader: Reader, weights: bool = False) -> RowChunks:
    heavy = np.linspace(0.5, 2, 2000) if weights else None
    units = tuple(
        Unit(partial(read_one, reader, edges, heavy), (length,))
        for edges, length in zip(EDGES, LENGTHS, strict=True)
    )
    return RowChunks(units, 4, weight_dtype="float64" if weights else None)


@pytest.mark.parametrize(
    ("budget", "n_held"), [(0, 0), (500 * 32 - 1, 0), (500 * 32, 1), (1999 * 32, 2), (1 << 30, 3)]
)
def test_the_first_chunks_that_fit_are_read_once(
    backend: Backend, blobs: Blobs, tmp_path: Path, budget: int, n_held: int
) -> None:
    reader = Reader(blobs.X, tmp_path)
    chunks = chunks_of(reader)
    expected = bits(expectation(chunks, LocalBackend(1))(blobs.truth))
    before = reader.counts()
    held = hold(chunks, backend, budget)
    assert held.n_held == n_held
    assert held.bytes_held == sum(LENGTHS[:n_held]) * 32
    assert held.bytes_held + held.bytes_read == 2000 * 32
    run = expectation(held.chunks, backend)
    assert bits(run(blobs.truth)) == expected
    assert bits(run(blobs.truth)) == expected
    reads = [after - b for after, b in zip(reader.counts(), before, strict=True)]
    assert reads == [1] * n_held + [2] * (3 - n_held)


@pytest.mark.parametrize(
    ("budget", "n_held"), [(0, 0), (500 * 40, 0), (1200 * 40, 2), (2000 * 40, 3)]
)
@pytest.mark.parametrize("in_scratch", [False, True])
def test_units_of_one_task_are_held_together_and_keep_the_bits(
    backend: Backend,
    blobs: Blobs,
    tmp_path: Path,
    budget: int,
    n_held: int,
    in_scratch: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = Reader(blobs.X, tmp_path)
    chunks = chunks_of(reader, weights=True)
    expected = bits(expectation(chunks, LocalBackend(1))(blobs.truth))
    monkeypatch.setattr(chunk_map, "MOST_TASKS", 2)
    before = reader.counts()
    held = hold(chunks, backend, budget, str(tmp_path / "scratch") if in_scratch else None)
    assert (held.n_held, held.n_scratch) == (n_held, 3 - n_held if in_scratch else 0)
    run = expectation(held.chunks, backend)
    assert [bits(run(blobs.truth)) for _ in range(2)] == [expected] * 2
    if isinstance(backend, LocalBackend):
        reads = [after - b for after, b in zip(reader.counts(), before, strict=True)]
        assert reads == [1] * 3 if in_scratch else [1] * n_held + [2] * (3 - n_held)
    release(held.chunks)


def test_weights_are_held_with_their_rows(backend: Backend, blobs: Blobs, tmp_path: Path) -> None:
    chunks = chunks_of(Reader(blobs.X, tmp_path), weights=True)
    expected = bits(expectation(chunks, LocalBackend(1))(blobs.truth))
    held = hold(chunks, backend, 1250 * 40)
    assert held.n_held == 2
    assert held.bytes_held == 1200 * 40
    assert bits(expectation(held.chunks, backend)(blobs.truth)) == expected


def test_what_cannot_be_read_is_an_error_at_once(backend: Backend) -> None:
    def broken() -> np.ndarray:
        raise RuntimeError("no such rows")

    units = tuple(Unit(broken, (length,)) for length in LENGTHS)
    with pytest.raises(RuntimeError, match="no such rows"):
        hold(RowChunks(units, 4), backend, 1 << 30)


def test_what_is_held_here_is_at_hand_piece_by_piece(blobs: Blobs, tmp_path: Path) -> None:
    chunks = chunks_of(Reader(blobs.X, tmp_path))
    first, second, third = chunks.units
    chunks = replace(chunks, units=(first, replace(second, pieces=((300, 0, 400),)), third))
    assert rows_here(chunks) == [None] * 5
    held = rows_here(hold(chunks, LocalBackend(2), 1200 * 32).chunks)
    assert held[4] is None
    found = [rows for rows in held[:4] if rows is not None]
    assert [len(rows) for rows in found] == [500, 300, 0, 400]
    assert np.array_equal(np.concatenate(found), blobs.X[:1200])


def test_only_what_is_held_in_this_process_is_at_hand(
    backend: Backend, blobs: Blobs, tmp_path: Path
) -> None:
    held = hold(chunks_of(Reader(blobs.X, tmp_path)), backend, 1 << 30)
    assert held.n_held == 3
    there = [rows is not None for rows in rows_here(held.chunks)]
    assert there == [isinstance(backend, LocalBackend)] * 3
