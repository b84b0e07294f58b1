"""Clusters of three spacings, and Parquet files of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gmm_dask.mixture import Parameters

SPACINGS = {"near": 1.0, "far": 3.0, "overlapping": 0.25}  # what the means are multiplied by
FILE_ROWS = 500_000


def mixture(d: int, k: int, spacing: str = "near", family: str = "full") -> Parameters:
    """Random covariances; the means of "near" are about as far apart as the clusters are wide."""
    rng = np.random.default_rng(0)
    roots = np.linalg.qr(rng.normal(size=(k, d, d)))[0] * rng.uniform(0.5, 1.5, (k, 1, d))
    means = rng.normal(size=(k, d)) * 2.0 * SPACINGS[spacing]
    covariances = _restrict(roots @ roots.swapaxes(1, 2), family)
    return Parameters.from_covariances(np.full(k, 1 / k), means, covariances, family)


def rows_of(parameters: Parameters, n: int, seed: int = 0) -> np.ndarray:
    """Rows drawn from a mixture with full covariances, (n, d)."""
    rng = np.random.default_rng(seed)
    k, d = parameters.means.shape
    component = rng.integers(0, k, n)
    noise, X = rng.normal(size=(n, d)), np.empty((n, d))
    for j, root in enumerate(np.linalg.cholesky(parameters.covariances)):
        chosen = component == j
        X[chosen] = parameters.means[j] + noise[chosen] @ root.T
    return X


def write_parquet(folder: Path, n_rows: int, d: int, k: int) -> list[str]:
    """Files of at most FILE_ROWS rows of "near" clusters; the names of their columns."""
    folder.mkdir(parents=True)
    names, model = [f"x{j}" for j in range(d)], mixture(d, k)
    for i, n in enumerate(_file_rows(n_rows)):
        columns = dict(zip(names, rows_of(model, n, seed=i).T, strict=True))
        pq.write_table(pa.table(columns), folder / f"part-{i:05d}.parquet", use_dictionary=False)
    return names


def read_parquet(folder: Path) -> np.ndarray:
    """All columns of all files, (n, d)."""
    table = pq.read_table(folder)
    return np.column_stack([column.to_numpy() for column in table.columns])


def _file_rows(n_rows: int) -> Iterator[int]:
    n_files = max(2, -(-n_rows // FILE_ROWS))
    return (n_rows * (i + 1) // n_files - n_rows * i // n_files for i in range(n_files))


def _restrict(covariances: np.ndarray, family: str) -> np.ndarray:
    if family == "full":
        return covariances
    if family == "tied":
        return covariances.mean(axis=0)
    variances = covariances.diagonal(axis1=1, axis2=2)
    return variances if family == "diag" else variances.mean(axis=1)
