"""A dataset that grows by partitions, and what a refresh of it is compared with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gmm_dask.mixture import log_density
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.settings import Settings, settings_from
from gmm_dask.storage import KeptStatistics, load_statistics

NAMES = ("x", "y")
CENTRES = np.array([[-4.0, 0.0], [3.0, 3.0], [4.0, -3.0]])


def rows(seed: int, n: int = 400, moved: float = 0.0) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    which = rng.choice(3, size=n, p=[0.5, 0.3, 0.2])
    return np.asarray(1e6 + CENTRES[which] + moved + rng.normal(size=(n, 2)))


@dataclass
class Lake:
    """Partitions of a folder, and the settings of the stage that works on it."""

    folder: Path
    out: Path
    more: dict[str, Any] = field(default_factory=dict)

    def write(self, name: str, X: npt.NDArray[np.float64], **columns: Any) -> None:
        self.folder.mkdir(exist_ok=True)
        table = pa.table(dict(zip(NAMES, X.T, strict=True)) | columns)
        pq.write_table(table, self.folder / f"{name}.parquet", row_group_size=150)

    def remove(self, name: str) -> None:
        (self.folder / f"{name}.parquet").unlink()

    def settings(self, out: Path | None = None, **sections: Any) -> Settings:
        document: dict[str, Any] = {
            "data": {"path": str(self.folder), "features": list(NAMES)},
            "fit": {"n_components": 3, "tol": 1e-6, "max_iter": 500},
            "labels": {"enabled": False},
            "memory": {"chunk_bytes": 200 * 16},
            "output": {"path": str(out or self.out)},
        }
        for name, section in (self.more | sections).items():
            document[name] = document.get(name, {}) | section
        return settings_from(document)  # type: ignore[no-any-return]


def kept(published: Published) -> KeptStatistics:
    found = load_statistics(published.folder)
    assert found is not None
    return found


def per_row(published: Published, X: npt.NDArray[np.float64]) -> float:
    """Mean log-likelihood of rows under the model of a version."""
    return float(log_density(X, published.model.parameters).mean())
