"""Peak of resident memory, of this process alone, from where it was last set back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_mib() -> float:
    """VmHWM; `getrusage` would count the parent of before the exec as well."""
    return _status("VmHWM")


def resident_mib() -> float:
    """VmRSS."""
    return _status("VmRSS")


def beyond_the_chunk(d: int, k: int, n: int) -> float:
    """MiB that an E-step of n rows takes beyond what is there before it."""
    from benchmarks.data import mixture, rows_of
    from gmm_dask.mixture import core

    parameters = mixture(d, k)
    X = rows_of(parameters, n)
    core.e_step(X[:2000], parameters)
    RESET.write_text("5")
    before = resident_mib()
    core.e_step(X, parameters)
    return peak_mib() - before


def _status(name: str) -> float:
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name + ":"))


if __name__ == "__main__":
    print(json.dumps(beyond_the_chunk(*map(int, sys.argv[1:]))))
