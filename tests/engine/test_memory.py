"""The memory that a process may take: every limit that holds for it, of either kind of group."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gmm_dask.engine.cache import memory
from gmm_dask.engine.cache.memory import MIB, MemoryLimit, group_limits, tightest_limit
from gmm_dask.errors import MemoryLimitError

FIRST = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
SECOND = ("memory.max", "memory.current", "inactive_file")
NO_LIMIT = {FIRST: str(2**63 - 4096), SECOND: "max"}


def system(
    root: Path,
    kind: tuple[str, str, str],
    levels: dict[str, tuple[str, int, int]],
    own: str,
    of_mount: str = "/",
) -> Path:
    """Files as the system shows them: each level has a limit, what is used, and what is cached."""
    limit_name, usage_name, cached_name = kind
    mount = root / "sys/fs/cgroup"
    for name, (limit, used, cached) in levels.items():
        folder = mount / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit_name).write_text(f"{limit}\n")
        (folder / usage_name).write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"rss 1\n{cached_name} {cached}\n")
    (root / "proc/self").mkdir(parents=True)
    line, fs = ("5:cpu,memory:", "cgroup") if kind == FIRST else ("0::", "cgroup2")
    (root / "proc/self/cgroup").write_text(f"9:pids:/other\n{line}{own}\n")
    options = "rw,memory" if kind == FIRST else "rw"
    (root / "proc/self/mountinfo").write_text(
        f"1 0 0:1 / / rw - ext4 /dev/x rw\n"
        f"35 31 0:32 {of_mount} /sys/fs/cgroup rw,relatime shared:9 - {fs} cgroup {options}\n"
    )
    return root


@pytest.mark.parametrize("kind", [FIRST, SECOND])
def test_every_group_from_the_own_one_to_the_mount_counts(
    kind: tuple[str, str, str], tmp_path: Path
) -> None:
    levels = {
        "": (NO_LIMIT[kind], 900 * MIB, 0),
        "job": (str(700 * MIB), 600 * MIB, 150 * MIB),
        "job/step": (str(500 * MIB), 100 * MIB, 0),
        "job/step/task": (NO_LIMIT[kind], 50 * MIB, 0),
    }
    root = system(tmp_path, kind, levels, "/job/step/task")
    assert list(group_limits(root)) == [
        MemoryLimit("control group /job/step", 500 * MIB, 400 * MIB),
        MemoryLimit("control group /job", 700 * MIB, 250 * MIB),
    ]
    assert tightest_limit(root).name == "control group /job"


@pytest.mark.parametrize("own", ["/docker/abc", "/../..", "/elsewhere"])
def test_in_a_container_the_mount_is_the_group(own: str, tmp_path: Path) -> None:
    levels = {"": (str(64 * MIB), 80 * MIB, 0)}
    root = system(tmp_path, SECOND, levels, own, of_mount="/docker/abc")
    assert list(group_limits(root)) == [MemoryLimit("control group /", 64 * MIB, 0)]


def test_what_is_odd_or_absent_is_no_limit(tmp_path: Path) -> None:
    levels = {"": ("max", 1, 0), "a": ("words", 1, 0), "a/b": ("0", 1, 0)}
    assert list(group_limits(system(tmp_path, SECOND, levels, "/a/b"))) == []
    assert list(group_limits(tmp_path / "nothing")) == []


def test_the_machine_is_a_limit(tmp_path: Path) -> None:
    limit = tightest_limit(tmp_path)
    assert 0 <= limit.free <= limit.n_bytes <= psutil.virtual_memory().total


def test_tasks_and_workers_fit_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = MemoryLimit("control group /job", 700 * MIB, 500 * MIB)
    monkeypatch.setattr(memory, "tightest_limit", lambda: limit)
    assert memory.tasks_at_once(8, 64 * MIB) == 2
    assert memory.tasks_at_once(1, 64 * MIB) == 1
    assert memory.memory_to_hold(2, 64 * MIB) < 100 * MIB
    assert memory.memory_to_hold(9, 64 * MIB) == 0
    assert memory.worker_limit(1, 16 * MIB) <= 500 * MIB
    said = r"control group /job allows 700 MiB, of which 500 MiB are free"
    with pytest.raises(MemoryLimitError, match=rf"{said}.*memory\.chunk_bytes"):
        memory.tasks_at_once(1, 300 * MIB)
    with pytest.raises(MemoryLimitError, match=rf"{said}.*fewer workers \(1\)"):
        memory.worker_limit(2, 16 * MIB)
    with pytest.raises(MemoryLimitError, match=rf"{said}.*kind: threads"):
        memory.worker_limit(2, 200 * MIB)


LIMITED = """
import resource
from gmm_dask.engine.cache.memory import RESERVED, tightest_limit
import psutil
used = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (used + RESERVED + (64 << 20), -1))
found = tightest_limit()
assert found.name == "ulimit -v", found
assert 0 < found.free <= 64 << 20, found
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of address space is Linux's")
def test_the_limit_of_the_shell_counts_what_the_process_has_mapped() -> None:
    subprocess.run([sys.executable, "-c", LIMITED], check=True)
