"""How much memory this process may take, by every limit that holds for the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gmm_dask.errors import MemoryLimitError

MIB = 1 << 20
# Beside its decoded rows a task holds pages of the file and what it computes of the rows: as much
# as the rows again, and a little more.
TASK_FACTOR, TASK_SPARE = 2.0, 32 * MIB
DRIVER_SPARE = 64 * MIB  # of the sample and of what libraries take later
SHARE_TO_HOLD = 0.5
WORKER_SPARE = 256 * MIB  # of the libraries of a worker process
RESERVED = 256 * MIB  # address space that threads and allocators reserve and do not use

_UNLIMITED = 1 << 60  # what a control group without a limit says, or more


@dataclass(frozen=True)
class MemoryLimit:
    """A limit of memory and what it leaves.

    Parameters
    ----------
    name : str
        What sets the limit, such as "control group /job_7" or "ulimit -v".
    n_bytes : int
        The limit.
    free : int
        Bytes of it that nobody uses; memory of cached files that the system can drop is free.
    """

    name: str
    n_bytes: int
    free: int

    def __str__(self) -> str:
        return f"{self.name} allows {_size(self.n_bytes)}, of which {_size(self.free)} are free"


def tightest_limit(root: Path = Path("/")) -> MemoryLimit:
    """The limit that leaves the least: of the machine, of control groups, or of `ulimit`.

    Parameters
    ----------
    root : Path
        Where the folders `proc` and `sys` of the system are.
    """
    import psutil

    machine = psutil.virtual_memory()
    found = [MemoryLimit("the machine", int(machine.total), int(machine.available))]
    found += [*group_limits(root), *_process_limits(psutil.Process().memory_info())]
    return min(found, key=lambda limit: limit.free)


def memory_to_hold(n_tasks: int, chunk_bytes: int) -> int:
    """Bytes of decoded chunks that may stay beside so many tasks: half of what they leave."""
    left = tightest_limit().free - DRIVER_SPARE - n_tasks * task_bytes(chunk_bytes)
    return max(0, int(SHARE_TO_HOLD * left))


def tasks_at_once(wanted: int, chunk_bytes: int) -> int:
    """How many tasks, of those wanted, may decode chunks of so many bytes at the same time.

    Raises
    ------
    MemoryLimitError
        Not even one may.
    """
    limit, task = tightest_limit(), task_bytes(chunk_bytes)
    fitting = (limit.free - DRIVER_SPARE) // task
    if fitting < 1:
        raise MemoryLimitError(
            f"Not enough memory: {limit}, and a task needs {_size(task + DRIVER_SPARE)} for a "
            f"chunk of {_size(chunk_bytes)}. Raise the limit, or make chunks smaller "
            "(memory.chunk_bytes)."
        )
    return min(wanted, fitting)


def worker_limit(n_workers: int, chunk_bytes: int) -> int:
    """Bytes that each of so many worker processes on this machine may take.

    Raises
    ------
    MemoryLimitError
        It is too little for the libraries of a worker and one chunk.
    """
    limit, needed = tightest_limit(), WORKER_SPARE + task_bytes(chunk_bytes)
    share = (limit.free - DRIVER_SPARE) // n_workers
    if share < needed:
        fewer = (limit.free - DRIVER_SPARE) // needed
        remedy = f"fewer workers ({fewer})" if fewer > 0 else "threads (cluster.kind: threads)"
        raise MemoryLimitError(
            f"Not enough memory: {limit}, and each of the {n_workers} worker processes needs "
            f"{_size(needed)}, for its libraries and a chunk of {_size(chunk_bytes)}. "
            f"Use {remedy}, raise the limit, or make chunks smaller (memory.chunk_bytes)."
        )
    return share


def task_bytes(chunk_bytes: int) -> int:
    """Bytes that a task takes which decodes a chunk and works on its rows."""
    return int(TASK_FACTOR * chunk_bytes) + TASK_SPARE


def group_limits(root: Path = Path("/")) -> Iterator[MemoryLimit]:
    """The limits of the process's control groups and of all groups above, of both versions.

    Each group counts what all processes in it use. See the kernel's documents cgroup-v1/memory.rst
    and cgroup-v2.rst.
    """
    for mount, folder, version in _groups(root):
        levels = [folder, *(each for each in folder.parents if each.is_relative_to(mount))]
        for level in levels:
            used = _number(level / version.usage)
            limits = [_number(level / name) for name in version.limits]
            known = [limit for limit in limits if limit is not None and 0 < limit < _UNLIMITED]
            if used is None or not known:
                continue
            used -= _droppable(level / "memory.stat", version.droppable)
            inside = level.relative_to(mount).as_posix().removeprefix(".")
            yield MemoryLimit(
                f"control group /{inside}", min(known), max(0, min(known) - max(0, used))
            )


@dataclass(frozen=True)
class _Version:
    """What the files of a version of control groups are called."""

    limits: tuple[str, ...]
    usage: str
    droppable: str


_FIRST = _Version(
    ("memory.limit_in_bytes", "memory.soft_limit_in_bytes"),
    "memory.usage_in_bytes",
    "total_inactive_file",
)
_SECOND = _Version(("memory.max", "memory.high"), "memory.current", "inactive_file")


def _groups(root: Path) -> Iterator[tuple[Path, Path, _Version]]:
    """Where control groups of memory are mounted, and the folder of this process there."""
    own: dict[_Version, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            own[_SECOND] = path
        elif "memory" in controllers.split(","):
            own[_FIRST] = path
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        is_first = kind == "cgroup" and "memory" in options.split(",")
        version = _FIRST if is_first else _SECOND if kind == "cgroup2" else None
        if version is None or version not in own:
            continue
        of_mount, mounted_at = before.split(" ")[3:5]
        mount = root / mounted_at.lstrip("/")
        group = Path(own[version])
        # In a container the mount may begin at its own group, whose path is that of the host.
        inside = group.relative_to(of_mount) if group.is_relative_to(of_mount) else Path()
        folder = mount / inside
        yield mount, folder if ".." not in inside.parts and folder.is_dir() else mount, version


def _process_limits(used: Any) -> Iterator[MemoryLimit]:
    """The limits that `ulimit` sets on this process.

    Parameters
    ----------
    used : psutil's pmem
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, which, field, reserved in (
        ("ulimit -v", resource.RLIMIT_AS, "vms", RESERVED),
        ("ulimit -d", resource.RLIMIT_DATA, "data", 0),
        ("ulimit -m", resource.RLIMIT_RSS, "rss", 0),
    ):
        limit, _ = resource.getrlimit(which)
        if limit != resource.RLIM_INFINITY:
            in_use = getattr(used, field, used.rss) + reserved
            yield MemoryLimit(name, limit, max(0, limit - in_use))


def _lines(path: Path) -> list[str]:
    with suppress(OSError):  # another system
        return path.read_text().splitlines()
    return []


def _number(path: Path) -> int | None:
    """The number in a file; None where there is no such file, or no number in it."""
    with suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def _droppable(path: Path, name: str) -> int:
    """Bytes of cached files that the system drops as soon as memory is needed."""
    return sum(int(line.split()[1]) for line in _lines(path) if line.split()[0] == name)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / MIB:,.0f} MiB"
