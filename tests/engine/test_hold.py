"""Chunks held between passes: as many as fit, read once, and the same bits."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from gmm_dask.engine import Backend, LocalBackend, expectation
from gmm_dask.engine.cache.hold import hold, rows_here
from gmm_dask.engine.passes.chunks import RowChunks, array_from_sources
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


def chunks_of(reader: Reader, weights: bool = False) -> RowChunks:
    load = {"lengths": LENGTHS, "dtype": "float64"}
    X = array_from_sources(reader, EDGES, n_features=4, name="x", **load)
    if not weights:
        return RowChunks(X)
    heavy = Reader(np.linspace(0.5, 2, 2000), reader.log)
    heavy.counts = reader.counts  # type: ignore[method-assign]
    return RowChunks(X, array_from_sources(heavy, EDGES, n_features=None, name="w", **load))


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


def test_weights_are_held_with_their_rows(backend: Backend, blobs: Blobs, tmp_path: Path) -> None:
    chunks = chunks_of(Reader(blobs.X, tmp_path), weights=True)
    expected = bits(expectation(chunks, LocalBackend(1))(blobs.truth))
    held = hold(chunks, backend, 1250 * 40)
    assert held.n_held == 2
    assert held.bytes_held == 1200 * 40
    assert bits(expectation(held.chunks, backend)(blobs.truth)) == expected


def test_a_held_chunk_is_one_task_and_its_rows(blobs: Blobs, tmp_path: Path) -> None:
    held = hold(chunks_of(Reader(blobs.X, tmp_path)), LocalBackend(1), 1 << 30)
    graph, keys = expectation(held.chunks, LocalBackend(1)).chunk_map.graph("x", len, None, None)
    assert len(keys) == 3
    assert len(graph) == 3 + 3 + 1  # rows, tasks, and the parameters


def test_what_cannot_be_read_is_an_error_at_once(backend: Backend) -> None:
    def broken(edges: tuple[int, int]) -> np.ndarray:
        raise RuntimeError("no such rows")

    X = array_from_sources(broken, EDGES, LENGTHS, n_features=4, dtype="float64", name="x")
    with pytest.raises(RuntimeError, match="no such rows"):
        hold(RowChunks(X), backend, 1 << 30)


def test_what_is_held_here_is_at_hand_piece_by_piece(blobs: Blobs, tmp_path: Path) -> None:
    chunks = replace(chunks_of(Reader(blobs.X, tmp_path)), pieces=((500,), (300, 0, 400), (800,)))
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
