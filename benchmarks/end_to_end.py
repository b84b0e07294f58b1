"""From Parquet to published labels: the stage against reading, fitting and labelling by hand."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.mixture import GaussianMixture

from benchmarks.per_pass import clusters
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import settings_from

ROWS, FEATURES, COMPONENTS = 1_000_000, 8, 8


def measure() -> dict[str, Any]:
    """Seconds and final log-likelihood per row of both."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        names = _write(data)
        begun = time.perf_counter()
        published = run(
            settings_from(
                {
                    "data": {"path": str(data), "features": names},
                    "fit": {"n_components": COMPONENTS},
                    "output": {"path": str(Path(folder, "out"))},
                }
            )
        )
        ours = time.perf_counter() - begun
        begun = time.perf_counter()
        X = pq.read_table(data).to_pandas().to_numpy()
        model = GaussianMixture(COMPONENTS, random_state=0).fit(X)
        labels = pa.table({"label": model.predict(X)})
        pq.write_table(labels, Path(folder, "labels.parquet"))
        theirs = time.perf_counter() - begun
        return {
            "rows": ROWS,
            "gmm_dask": ours,
            "gmm_dask_log_likelihood": published.metrics["log_likelihood_per_row"],
            "gmm_dask_passes": published.metrics["n_passes"],
            "scikit-learn": theirs,
            "scikit-learn_log_likelihood": float(model.score(X)),
            "scikit-learn_passes": int(model.n_iter_),
        }


def _write(folder: Path) -> list[str]:
    folder.mkdir()
    names = [f"x{j}" for j in range(FEATURES)]
    X, _ = clusters(ROWS, FEATURES, COMPONENTS)
    for i, part in enumerate(np.array_split(X, 8)):
        pq.write_table(
            pa.table(dict(zip(names, part.T, strict=True))),
            folder / f"part-{i}.parquet",
            use_dictionary=False,
        )
    return names
