"""How much memory this process may take, in a container too."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

# Of control groups, the first version and the second.
LIMITS = (
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/fs/cgroup/memory/memory.soft_limit_in_bytes",
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory.high",
    "/sys/fs/cgroup/memory.low",
)


def free_memory() -> int:
    """Bytes that the machine has and the limits of the process leave.

    As Dask's `distributed.system.memory_limit` has it; importing that takes longer than a start.
    """
    import psutil

    in_use = psutil.Process().memory_info().rss
    return int(min(psutil.virtual_memory().available, memory_limit() - in_use))


def memory_limit() -> int:
    """Bytes of the machine, of its container, or as the system limits the process."""
    import psutil

    limits = [int(psutil.virtual_memory().total), _resident_limit()]
    for path in LIMITS:
        with suppress(OSError, ValueError):  # another version; "max" is no limit
            limits.append(int(Path(path).read_text()))
    return min(limit for limit in limits if limit > 0)


def _resident_limit() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return -1
    return resource.getrlimit(resource.RLIMIT_RSS)[1]
