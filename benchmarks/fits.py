"""Whole fits with default settings by wall time, in a warm process and in a new one."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from sklearn.mixture import GaussianMixture as SklearnMixture

from benchmarks import machine
from benchmarks.data import mixture, rows_of
from benchmarks.per_pass import OURS, SKLEARN
from benchmarks.timing import seconds
from gmm_dask import GaussianMixture

D, K = 8, 8
ROWS = (10**3, 10**4, 10**5)
CLASSES: dict[str, Any] = {OURS: GaussianMixture, SKLEARN: SklearnMixture}
NEW = """
import json, sys, time, warnings
import numpy as np
X = np.load(sys.argv[1])
warnings.simplefilter("ignore")
begun = time.perf_counter()
if sys.argv[2] == "gmm_dask":
    from gmm_dask import GaussianMixture
else:
    from sklearn.mixture import GaussianMixture
GaussianMixture(int(sys.argv[3]), random_state=0).fit(X)
print(json.dumps(time.perf_counter() - begun))
"""


def measure(rows: tuple[int, ...] = ROWS, quick: bool = False) -> dict[str, Any]:
    """Medians of interleaved rounds, all cores; and the log-likelihood per row of each."""
    rounds = 1 if quick else 3
    entries = [_entry(n, rounds) for n in (rows[:1] if quick else rows)]
    return {"d": D, "k": K, "entries": entries, "load": machine.load()}


def _entry(n: int, rounds: int) -> dict[str, Any]:
    X = rows_of(mixture(D, K), n)
    models = {name: each(K, random_state=0) for name, each in CLASSES.items()}
    warm: dict[str, list[float]] = {name: [] for name in models}
    cold: dict[str, list[float]] = {name: [] for name in models}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "X.npy")
        np.save(path, X)
        for model in models.values():
            model.fit(X[: 100 * K])  # what a process does once
        for _ in range(rounds):
            for name, model in models.items():
                warm[name].append(seconds(model.fit, X))
                cold[name].append(_in_new_process(path, name))
    entry = {
        "rows": n,
        "seconds": {
            kind: {name: median(each) for name, each in of.items()}
            for kind, of in (("warm", warm), ("cold", cold))
        },
        "log_likelihood": {name: float(model.score(X)) for name, model in models.items()},
        "passes": {name: int(model.n_iter_) for name, model in models.items()},
        "load": machine.load(),
    }
    print(entry, flush=True)
    return entry


def _in_new_process(path: Path, name: str) -> float:
    """Seconds from the import on."""
    command = [sys.executable, "-c", NEW, str(path), name, str(K)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))
