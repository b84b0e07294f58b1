"""Tasks without a scheduler: the values of Dask's own, and never where order matters."""

from __future__ import annotations

import operator
import threading

import dask
import pytest
from dask._task_spec import DataNode, Task, TaskRef
from dask.diagnostics import ProgressBar

from gmm_dask.engine import LocalBackend


def fan(n: int) -> tuple[dict, list]:
    """n tasks that add their own number to one that all ask for."""
    graph: dict = {"all": Task("all", operator.neg, -100)}
    for i in range(n):
        graph["own", i] = DataNode(("own", i), i)
        graph["sum", i] = Task(("sum", i), operator.add, TaskRef("all"), TaskRef(("own", i)))
    return graph, [("sum", i) for i in range(n)]


@pytest.mark.parametrize("n_workers", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 7])
def test_values_come_in_the_order_of_keys_and_each_is_told(n: int, n_workers: int) -> None:
    graph, keys = fan(n)
    told: list[int] = []
    found = LocalBackend(n_workers).compute(graph, keys, lambda: told.append(1))
    assert found == list(dask.get(graph, keys)) == [100 + i for i in range(n)]
    assert len(told) == n


def test_what_all_ask_for_is_computed_once() -> None:
    calls: list[int] = []
    graph: dict = {"all": Task("all", lambda: calls.append(1))}
    keys = [("task", i) for i in range(6)]
    graph |= {key: Task(key, lambda value: value, TaskRef("all")) for key in keys}
    LocalBackend(2).compute(graph, keys)
    assert len(calls) == 1


def test_a_graph_with_an_order_is_left_to_dask() -> None:
    graph, keys = fan(4)
    chain = graph | {"last": Task("last", operator.neg, TaskRef(keys[0]))}
    assert LocalBackend(2).compute(chain, [*keys, "last"])[-1] == -100
    own = graph | {"read": Task("read", int), "use": Task("use", operator.neg, TaskRef("read"))}
    assert LocalBackend(2).compute(own, [*keys, "use"])[-1] == 0


def test_who_listens_to_dask_hears_of_every_task(capsys: pytest.CaptureFixture[str]) -> None:
    graph, keys = fan(4)
    with ProgressBar():
        LocalBackend(2).compute(graph, keys)
    assert "100%" in capsys.readouterr().out


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_failure_ends_the_rest(n_workers: int) -> None:
    failed, ran = threading.Event(), []

    def work(i: int) -> None:
        if i == 0:
            failed.set()
            raise OSError("no more")
        failed.wait()
        ran.append(i)

    keys = [("task", i) for i in range(200)]
    graph = {key: Task(key, work, key[1]) for key in keys}
    with pytest.raises(OSError, match="no more"):
        LocalBackend(n_workers).compute(graph, keys)
    assert len(ran) < 199
    assert threading.active_count() < 20
