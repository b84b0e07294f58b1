"""Run all benchmarks and write what was measured to out/benchmarks.json."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import numpy as np

from benchmarks import end_to_end, per_pass


def main() -> None:
    """Print ratios as they are measured; keep everything as JSON."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("\nEM pass, full covariance, float64, one thread: ns per row (medians)")
    print(f"{'d':>4} {'k':>4} {'gmm_dask':>10} {'sklearn':>10} {'ratio':>7}")
    passes = []
    for row in per_pass.measure():
        passes.append(row)
        ratio = row["scikit-learn"] / row["gmm_dask"]
        print(
            f"{row['d']:>4} {row['k']:>4} {row['gmm_dask']:>10.0f} "
            f"{row['scikit-learn']:>10.0f} {ratio:>6.1f}x"
        )
    ratios = [row["scikit-learn"] / row["gmm_dask"] for row in passes]
    print(f"geometric mean {np.exp(np.mean(np.log(ratios))):.1f}x")
    whole = end_to_end.measure()
    print(f"\nParquet to labels, {whole['rows']} rows of 8 columns, 8 components")
    for name in ("gmm_dask", "scikit-learn"):
        print(
            f"{name:>13}: {whole[name]:6.1f} s, {whole[name + '_passes']} passes, "
            f"log-likelihood per row {whole[name + '_log_likelihood']:.6f}"
        )
    target = Path("out/benchmarks.json")
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({"per_pass": passes, "end_to_end": whole}, indent=1) + "\n")
    print(f"\nwritten to {target}")


if __name__ == "__main__":
    main()
