"""Shards: every chunk once and in order, and as many tasks as rows and large row groups ask for."""

from __future__ import annotations

from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.storage.input.plan import Chunk, Shard, shards_of
from gmm_dask.storage.input.planning import row_ranges

FILES = st.lists(st.lists(st.integers(0, 40), max_size=5), min_size=1, max_size=8)


def cut(files: list[list[int]], max_rows: int) -> tuple[list[Chunk], list[Shard]]:
    chunks: list[Chunk] = []
    firsts = [0, *accumulate(map(sum, files))]
    for partition, groups in enumerate(files):
        for start, stop in row_ranges(groups, max_rows):
            chunks.append(Chunk(len(chunks), partition, start, stop, firsts[partition] + start))
    return chunks, list(shards_of(chunks, files, max_rows))


@given(files=FILES, max_rows=st.integers(1, 30))
def test_shards_hold_every_chunk_once_and_are_few(files: list[list[int]], max_rows: int) -> None:
    chunks, shards = cut(files, max_rows)
    assert [chunk for shard in shards for chunk in shard.chunks] == chunks
    for shard in shards:
        assert all(sum(chunk.n_rows for chunk in array) <= max_rows for array in shard.arrays)
    split = [shard for shard in shards if shard.is_split]
    assert [sum(chunk.n_rows for chunk in shard.chunks) for shard in split] == [
        rows for groups in files for rows in groups if rows > max_rows
    ]
    assert all(len({chunk.partition for chunk in shard.chunks}) == 1 for shard in split)
    for one, other in pairwise(shards):
        if not one.is_split and not other.is_split:
            n_rows = sum(chunk.n_rows for chunk in one.chunks)
            assert n_rows + other.chunks[0].n_rows > max_rows


@given(n_files=st.integers(1, 300), rows=st.integers(1, 9))
def test_tasks_follow_the_rows_and_not_the_files(n_files: int, rows: int) -> None:
    _, shards = cut([[rows]] * n_files, 90)
    assert len(shards) == -(-n_files // (90 // rows))
