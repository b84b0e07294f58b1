"""The memory that a process may take: what Dask's own reading of the limits says."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from distributed.system import memory_limit as of_dask

from gmm_dask.engine.cache import memory


def test_limit_is_that_of_dask() -> None:
    assert memory.memory_limit() == of_dask()


@pytest.mark.parametrize(
    ("text", "limit"), [("1048576\n", 1 << 20), ("max\n", None), ("0", None), ("-1", None)]
)
def test_limit_of_a_container(
    text: str, limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(text)
    paths = (str(tmp_path / "memory.max"), str(tmp_path / "absent"))
    monkeypatch.setattr(memory, "LIMITS", paths)
    assert memory.memory_limit() == limit or (
        limit is None and 1 << 20 < memory.memory_limit() <= psutil.virtual_memory().total
    )
    used = psutil.Process().memory_info().rss
    assert memory.free_memory() <= memory.memory_limit() - used / 2
