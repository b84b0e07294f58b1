"""Draws the README's picture: the components of the Iris data at the start and at the end.

python examples/make_picture.py [FILE]     FILE is docs/images/iris.png where not given
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from gmm_dask.stage.fit import fit
from gmm_dask.stage.job import plan
from gmm_dask.stage.labels.labelling import label
from gmm_dask.stage.publish import report_data, summarise
from gmm_dask.stage.report.figures import cluster_figure
from gmm_dask.stage.settings import load_settings

ROOT = Path(__file__).parents[1]


def main(target: Path) -> None:
    """Fit as config/iris.yaml says, and draw; nothing is published."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"output.path={folder}", f"data.path={ROOT / 'examples' / 'iris'}"]
        job = plan(load_settings(ROOT / "config" / "iris.yaml", overrides))
        fitted = fit(job)
        metrics = summarise(job, fitted, label(job, fitted.model))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(cluster_figure(report_data(job, fitted, metrics)))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images" / "iris.png")
