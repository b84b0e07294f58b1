"""The machine that measured, its load, and the rate of its matrix products."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from threadpoolctl import threadpool_info

from gmm_dask.mixture.core import level_name

QUIET = 0.25
PACKAGES = (
    "gmm-dask",
    "numpy",
    "scikit-learn",
    "dask",
    "pyarrow",
    "scikit-learn-intelex",
    "pomegranate",
    "torch",
    "pyspark",
)


def describe() -> dict[str, Any]:
    """Processor, cores, memory, versions, and how busy the machine is."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "level": level_name(),  # of the compiled core
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "blas": [f"{each['internal_api']} {each['version']}" for each in threadpool_info()],
        "load": load(),
    }


def load() -> float:
    """Processes that wanted to run in the last minute, on average."""
    return round(os.getloadavg()[0], 2)


def quiet_moment(patience: float) -> float:
    """Wait until a quarter of the cores at most is busy, or patience ends; the share that is."""
    until = time.monotonic() + patience
    while True:
        busy = psutil.cpu_percent(interval=0.2) / 100
        if busy <= QUIET or time.monotonic() > until:
            return busy


def dgemm_rate(size: int = 1024, rounds: int = 5) -> float:
    """Floating point operations per second of NumPy's product of float64 matrices, the best."""
    a = np.random.default_rng(0).normal(size=(size, size))
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - begun)
    return 2 * size**3 / min(seconds)


def dense_bound(d: int, k: int, rate: float) -> float:
    """Nanoseconds a row that half of all products of dense EM take at this rate: 2 k d^2.

    Distances need k d^2 multiplications, sums of products as many; symmetry saves half of each.
    """
    return 2 * k * d**2 / rate * 1e9


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    facts = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return facts[0] if facts else platform.processor() or "unknown"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
