"""From Parquet to labels on disk, in fresh processes: the stage, scikit-learn and Spark."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks import machine
from benchmarks.data import write_parquet
from benchmarks.programs.job import Job, carry_out
from gmm_dask.mixture import Parameters, core

FEATURES, COMPONENTS, TOL = 8, 8, 1e-3
PROGRAMS = {
    "gmm_dask": "with_gmm_dask",
    "scikit-learn": "with_scikit_learn",
    "Spark": "with_spark",
}


def measure(
    rows: int = 1_000_000,
    rounds: int = 1,
    quick: bool = False,
    skip: Sequence[str] = (),
    give_up: float | None = None,
) -> dict[str, Any]:
    """Seconds, passes and the log-likelihood per row of each; and of copying the files.

    Parameters
    ----------
    give_up : float, optional
        A contender is stopped after so many times as long as gmm_dask took.
    """
    rows = 20_000 if quick else rows
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        write_parquet(data, rows, FEATURES, COMPONENTS)
        missing = [name for name in PROGRAMS if name in skip or not _installed(name)]
        found: dict[str, Any] = {
            "rows": rows,
            "threads": os.cpu_count(),
            "rounds": rounds,
            "load": machine.load(),
            "left_out": missing,
        }
        runs: dict[str, list[dict[str, Any]]] = {n: [] for n in PROGRAMS if n not in missing}
        for i in range(rounds):
            for name in runs:
                ours = runs["gmm_dask"]
                limit = give_up * _median(ours)["wall"] if give_up and ours else None
                runs[name].append(_run(name, data, Path(folder, f"{name}-{i}"), limit))
        found["contenders"] = {
            name: _median(of) | {"walls": [each["wall"] for each in of]}
            for name, of in runs.items()
        }
        found["copy_seconds"] = min(_copy(data, Path(folder, f"copy-{i}")) for i in range(3))
        labelling = found["contenders"]["gmm_dask"]["seconds"]["label"]
        found["label_rows_per_second"] = rows / labelling
        found["copy_rows_per_second"] = rows / found["copy_seconds"]
    return found


def _run(name: str, data: Path, out: Path, limit: float | None) -> dict[str, Any]:
    """Run one contender in a fresh process."""
    job = Job(str(data), str(out), COMPONENTS, TOL, os.cpu_count() or 1)
    record = carry_out(PROGRAMS[name], job, limit if name != "gmm_dask" else None)
    if not record["stopped"]:
        record["log_likelihood"] = _log_likelihood(data, out / "model.npz")
    print(f"{name:>13}: {line(record)}", flush=True)
    shutil.rmtree(out)
    return record


def _median(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The run of median time, of two the quicker."""
    return sorted(records, key=lambda record: record["wall"])[(len(records) - 1) // 2]


def line(record: dict[str, Any]) -> str:
    """One contender for the eye."""
    if record["stopped"]:
        return f"not done after {record['wall']:.1f} s, and stopped"
    return (
        f"{record['wall']:7.1f} s, {record['passes']} passes, "
        f"log-likelihood per row {record['log_likelihood']:.6f}"
    )


def _log_likelihood(data: Path, model: Path) -> float:
    """Per row of the data, by one function for all contenders."""
    stored = np.load(model)
    parameters = Parameters.from_covariances(
        stored["weights"], stored["means"], stored["covariances"], "full"
    )
    total = n = 0
    for X in _files(data):
        total += float(core.score_rows(X, parameters).log_density.sum())
        n += len(X)
    return total / n


def _files(data: Path) -> Iterator[np.ndarray]:
    for path in sorted(data.glob("*.parquet")):
        yield np.column_stack([column.to_numpy() for column in pq.read_table(path).columns])


def _copy(data: Path, out: Path) -> float:
    """Seconds of reading every file with pyarrow and writing it again."""
    out.mkdir()
    begun = time.perf_counter()
    for path in sorted(data.glob("*.parquet")):
        pq.write_table(pq.read_table(path), out / path.name)
    seconds = time.perf_counter() - begun
    shutil.rmtree(out)
    return seconds


def _installed(name: str) -> bool:
    """Spark needs Java beside its package."""
    if name != "Spark":
        return True
    return find_spec("pyspark") is not None and shutil.which("java") is not None
