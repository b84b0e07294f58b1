"""Which worker each held chunk should lie on, so that a pass takes all of them equally long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TOLERANCE = 1.1  # of the fair share: less is not worth reading a chunk again


def moves(
    holders: Sequence[str | None], sizes: Sequence[float], threads: Mapping[str, int]
) -> dict[int, str]:
    """Chunks that should lie elsewhere, and where; none where all are spread evenly enough.

    Parameters
    ----------
    holders : sequence of str or None
        The worker that holds each chunk; None, or one that is gone, where it has to be read anyway.
    sizes : sequence of float
        Bytes of each chunk, positive.
    threads : mapping
        Of each worker.
    """
    at = [holder if holder in threads else None for holder in holders]
    before, load = list(at), dict.fromkeys(threads, 0.0)
    for holder, size in zip(at, sizes, strict=True):
        if holder is not None:
            load[holder] += size / threads[holder]
    largest_first = sorted(range(len(at)), key=lambda chunk: (-sizes[chunk], chunk))
    for chunk in largest_first:
        if at[chunk] is None and load:
            at[chunk] = min(load, key=lambda worker: load[worker] + sizes[chunk] / threads[worker])
            load[at[chunk]] += sizes[chunk] / threads[at[chunk]]  # type: ignore[index]
    fair = sum(sizes) / max(1, sum(threads.values()))
    while load and (full := max(load, key=load.__getitem__)) and load[full] > TOLERANCE * fair:
        spare = min(load, key=load.__getitem__)
        better = [
            chunk
            for chunk in largest_first
            if at[chunk] == full and load[spare] + sizes[chunk] / threads[spare] < load[full]
        ]
        if not better:
            break
        load[full] -= sizes[better[0]] / threads[full]
        load[spare] += sizes[better[0]] / threads[spare]
        at[better[0]] = spare
    return {
        chunk: worker
        for chunk, worker in enumerate(at)
        if worker is not None and worker != before[chunk]
    }
