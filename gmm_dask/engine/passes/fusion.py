"""Which tasks of a graph belong to one chunk alone, so that they can run as one with its work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dask._task_spec import Alias, DataNode, GraphNode, Task

SHARED = -1


def private_nodes(
    graph: Mapping[Any, GraphNode], chunk_keys: Sequence[tuple[Any, ...]]
) -> list[list[GraphNode]]:
    """For each chunk the tasks that only its arrays need, and that nothing forbids to fuse.

    Data held in memory and tasks that several chunks need stay nodes of their own.
    """
    owner: dict[Any, int] = {}
    for chunk, keys in enumerate(chunk_keys):
        for key in keys:
            _claim(key, chunk, graph, owner)
    for key, node in graph.items():
        if owner.get(key, SHARED) != SHARED and not _can_be_fused(node):
            _claim(key, SHARED, graph, owner)
    found: list[list[GraphNode]] = [[] for _ in chunk_keys]
    for key, chunk in owner.items():
        if chunk != SHARED:
            found[chunk].append(graph[key])
    return found


def _claim(key: Any, chunk: int, graph: Mapping[Any, GraphNode], owner: dict[Any, int]) -> None:
    """Note that the chunk needs the key and all before it; what two chunks need is shared."""
    waiting = [(key, chunk)]
    while waiting:
        key, chunk = waiting.pop()
        before = owner.get(key)
        if key not in graph or before in (chunk, SHARED):
            continue
        owner[key] = chunk if before is None else SHARED
        waiting.extend((each, owner[key]) for each in graph[key].dependencies)


def _can_be_fused(node: GraphNode) -> bool:
    if isinstance(node, DataNode):
        return False
    return isinstance(node, Alias) or (isinstance(node, Task) and not node.block_fusion)
