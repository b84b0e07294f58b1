"""Pictures and docs/benchmarks.md from out/benchmarks.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from benchmarks import tables
from benchmarks.per_pass import OURS, ratio

matplotlib.use("Agg")
from matplotlib import pyplot as plt

DOCS = Path("docs")


def main(source: str = "out/benchmarks.json", docs: Path = DOCS) -> None:
    """Write the page and a picture for each benchmark that there are results of."""
    results = json.loads(Path(source).read_text())
    (docs / "images").mkdir(parents=True, exist_ok=True)
    if "per_pass" in results:
        _save(_ratios(results["per_pass"]), docs, "ratios")
    if "end_to_end" in results:
        _save(_end_to_end(results["end_to_end"]), docs, "end-to-end")
    if "scaling" in results:
        _save(_scaling(results["scaling"]), docs, "scaling")
    (docs / "benchmarks.md").write_text(tables.page(results))
    if "per_pass" in results:
        print(tables.short(results))


def _save(figure: Any, docs: Path, name: str) -> None:
    figure.savefig(docs / "images" / f"benchmark-{name}.png", dpi=110, bbox_inches="tight")
    plt.close(figure)


def _named(machine: dict[str, Any]) -> str:
    names = ("gmm-dask", "numpy", "scikit-learn", "scikit-learn-intelex", "pomegranate", "pyspark")
    versions = [f"{n} {machine['packages'][n]}" for n in names if machine["packages"].get(n)]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']}, "
        f"Python {machine['python']}\n{', '.join(versions)}"
    )


def _ratios(result: dict[str, Any]) -> Any:
    """A bar for each library and size, at one thread and at two."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
    for axis, threads in zip(axes, (1, 2), strict=True):
        entries = [
            e for e in result["found"]["grid"] if (e["spacing"], e["threads"]) == ("near", threads)
        ]
        peers = [name for name in entries[0]["ns"] if not name.startswith(OURS)]
        for i, peer in enumerate(peers):
            x = np.arange(len(entries)) + (i - (len(peers) - 1) / 2) * 0.27
            bars = axis.bar(x, [ratio(e, peer) for e in entries], 0.25, label=peer)
            axis.bar_label(bars, fmt="%.1f", fontsize=7)
        axis.set_xticks(range(len(entries)), [f"d={e['d']}\nK={e['k']}" for e in entries])
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_yscale("log")
        axis.set_title(f"{threads} thread{'s' if threads > 1 else ''}")
    axes[0].set_ylabel("time of an EM pass / that of gmm_dask")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    figure.suptitle(_named(result["machine"]), fontsize=8)
    return figure


def _end_to_end(results: list[dict[str, Any]]) -> Any:
    """Seconds of each contender, a group for each number of rows."""
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    names = list(dict.fromkeys(n for r in results for n in r["found"]["contenders"]))
    for i, name in enumerate(names):
        there = [
            (j, r["found"]["contenders"][name])
            for j, r in enumerate(results)
            if name in r["found"]["contenders"]
        ]
        x = [j + (i - (len(names) - 1) / 2) * 0.27 for j, _ in there]
        bars = axis.bar(x, [record["wall"] for _, record in there], 0.25, label=name)
        labels = [f"{'over ' * r.get('stopped', False)}{r['wall']:.0f} s" for _, r in there]
        axis.bar_label(bars, labels, fontsize=8)
    axis.set_xticks(range(len(results)), [f"{r['found']['rows']:,} rows" for r in results])
    axis.set_yscale("log")
    axis.set_ylabel("seconds from Parquet to labels")
    axis.legend(frameon=False)
    figure.suptitle(_named(results[-1]["machine"]), fontsize=8)
    return figure


def _scaling(result: dict[str, Any]) -> Any:
    """Rows, workers and chunks side by side."""
    found = result["found"]
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    rows = [e["rows"] for e in found["rows"]]
    axes[0].plot(rows, [e["seconds"]["best"] for e in found["rows"]], "o-", label="measured")
    largest = found["rows"][-1]
    slope = largest["seconds"]["best"] / largest["rows"]
    axes[0].plot(rows, [slope * n for n in rows], "--", color="gray", label="proportional")
    axes[0].set(xlabel="rows", ylabel="seconds a pass", xlim=0, ylim=0)
    axes[0].legend(frameon=False)
    for axis, key, of in ((axes[1], "workers", "workers"), (axes[2], "chunks", "chunk_mib")):
        bars = axis.bar(
            [str(e[of]) for e in found[key]], [e["ns"]["best"] for e in found[key]], 0.6
        )
        axis.bar_label(bars, fmt="%.0f", fontsize=8)
        axis.set_ylabel("ns a row and pass")
    axes[2].set_xlabel("MiB a chunk")
    figure.suptitle(_named(result["machine"]), fontsize=8)
    return figure


if __name__ == "__main__":
    main(*sys.argv[1:2])
