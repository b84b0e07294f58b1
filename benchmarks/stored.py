"""Passes over chunks of Parquet files: the engine as a run drives it, one piece at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gmm_dask.engine import Backend, RowChunks, expectation, hold
from gmm_dask.engine.passes.chunk_map import ChunkMap
from gmm_dask.mixture import Parameters, m_step
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.stage.job import plan
from gmm_dask.stage.settings import settings_from

EVERYTHING = 1 << 60


def chunks_of(data: Path, out: Path, chunk_bytes: int | None = None) -> RowChunks:
    """The chunks that a run would make of the files."""
    memory = {} if chunk_bytes is None else {"chunk_bytes": chunk_bytes}
    settings = {"data": {"path": str(data)}, "memory": memory, "output": {"path": str(out)}}
    return plan(settings_from(settings)).row_chunks()


def decode(chunks: RowChunks, backend: Backend) -> None:
    """Read and decode every chunk once, and no more."""
    ChunkMap(chunks, backend)("decode", _length, None)


def em_pass(chunks: RowChunks, backend: Backend, start: Parameters) -> None:
    """One E-step over the chunks and one M-step."""
    statistics = expectation(chunks, backend, arithmetic=RowArithmetic(kernel="compiled"))(start)
    m_step(start, statistics, 1e-6)


def in_memory(chunks: RowChunks, backend: Backend) -> RowChunks:
    """A copy of the chunks that holds all of them decoded in memory."""
    return hold(chunks, backend, EVERYTHING).chunks


def in_scratch(chunks: RowChunks, backend: Backend, folder: Path) -> RowChunks:
    """A copy of the chunks that holds all of them decoded in a folder of a local disk."""
    found = hold(chunks, backend, 0, str(folder))
    assert found.bytes_read == 0, found.trouble
    return found.chunks


def _length(common: Any, X: Any, *weights: Any) -> int:
    return len(X)
