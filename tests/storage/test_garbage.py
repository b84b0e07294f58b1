"""What `gc` removes: checkpoints of published runs, and nothing that anybody reads."""

from __future__ import annotations

import pytest

from gmm_dask.errors import OutputError
from gmm_dask.storage.store.version_log import entry_name
from gmm_dask.storage.store.versions import find_garbage, remove_garbage
from tests.storage.stores import (
    FAULTS,
    OTHER,
    RUN,
    Crash,
    FaultStore,
    MemoryStore,
    check_one_whole_version,
    publish_run,
)

KEPT = {f"runs/{RUN}/checkpoints/{name}.json": b"x" for name in ("00000", "00002", "survey")}


def with_checkpoints() -> MemoryStore:
    """A published run and an unfinished one, both with checkpoints."""
    store = MemoryStore()
    publish_run(store)
    store.objects |= KEPT | {f"runs/{OTHER}/checkpoints/00000.json": b"xx"}
    return store


def test_checkpoints_of_published_runs_go_and_all_else_stays() -> None:
    store = with_checkpoints()
    garbage = find_garbage(store)
    assert (set(garbage.names), garbage.bytes) == (set(KEPT), 3)
    left = {name: data for name, data in store.objects.items() if name not in KEPT}
    remove_garbage(store, garbage)
    assert store.objects == left
    check_one_whole_version(store)
    assert find_garbage(store).names == ()


def test_a_run_whose_folder_was_moved_away_keeps_what_a_new_attempt_wrote() -> None:
    store = with_checkpoints()
    del store.objects[f"runs/{RUN}/MANIFEST.json"]
    assert find_garbage(store).names == ()


@pytest.mark.parametrize("damaged", [entry_name(1), f"runs/{RUN}/MANIFEST.json"])
def test_beside_a_damaged_version_nothing_is_removed(damaged: str) -> None:
    store = with_checkpoints()
    store.objects[damaged] = b"{}"
    with pytest.raises(OutputError):
        find_garbage(store)


@pytest.mark.parametrize("fault", FAULTS)
def test_stopped_at_any_removal_it_can_be_done_again(fault: str) -> None:
    for at in range(len(KEPT)):
        store = with_checkpoints()
        garbage = find_garbage(store)
        with pytest.raises((Crash, OutputError)):
            remove_garbage(FaultStore(store, at, fault), garbage)
        check_one_whole_version(store)
        remove_garbage(store, garbage)
        assert not set(KEPT) & set(store.objects)
