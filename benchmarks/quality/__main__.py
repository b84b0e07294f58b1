"""Measure how good the optima are, and write docs/quality.md from what was found."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import machine
from benchmarks.quality import contest, page, real, synthetic, targets

OURS, PEERS = ("", "n_init=10"), ("", "n_init=10")
EVERY = 3  # task of a subset
SUBSET_KINDS = ("pancakes 0.5", "pancakes 0.2", "unequal scales", "nested")


def main(arguments: Sequence[str] | None = None) -> None:
    """Search for targets, or fit, print the table and write the page."""
    chosen = _parse(arguments)
    tasks = list(real.tasks(EVERY if chosen.subset else 1))
    if chosen.targets:
        targets.strengthen(tasks, chosen.targets)
        return
    logging.getLogger("gmm_dask").setLevel(logging.ERROR)  # the page says what was found
    known = targets.load()
    seeds = range(chosen.seeds)
    contenders = [contest.Contender("gmm_dask", _settings(text)) for text in chosen.ours]
    if not (chosen.no_peers or chosen.subset):
        contenders += [contest.Contender("scikit-learn", _settings(text)) for text in PEERS]
    kinds = SUBSET_KINDS if chosen.subset else tuple(synthetic.KINDS)
    results: dict[str, Any] = {
        "machine": machine.describe(),
        "n_seeds": chosen.seeds,
        "n_confirmed": sum(known[t.key].confirmed for t in tasks if t.key in known),
        "real": contest.on_real_data(tasks, contenders, known, seeds, run_on=not chosen.subset),
        "synthetic": {},
    }
    if not chosen.no_synthetic:
        results["synthetic"] = contest.on_known_truth(kinds, contenders, seeds)
    print(page.short(results))
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(results, indent=1) + "\n")
    if chosen.page:
        chosen.page.write_text(page.page(results))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument(
        "--ours",
        nargs="*",
        default=OURS,
        metavar="NAME=VALUE,...",
        help="keyword arguments of gmm_dask's class, a contender each; '' is the default",
    )
    parser.add_argument(
        "--subset", action="store_true", help="a third of the tasks, gmm_dask alone, no page"
    )
    parser.add_argument("--no-peers", action="store_true", help="gmm_dask alone")
    parser.add_argument("--no-synthetic", action="store_true", help="real data alone")
    parser.add_argument("--seeds", type=int, default=3, help="of every fit")
    parser.add_argument(
        "--targets",
        type=float,
        metavar="SECONDS",
        help="CPU time of a search for each target that is not confirmed; nothing is fitted",
    )
    parser.add_argument("--out", type=Path, default=Path("out/quality.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/quality.md"))
    chosen = parser.parse_args(arguments)
    if chosen.subset:
        chosen.page = None
    return chosen


def _settings(text: str) -> dict[str, Any]:
    """Keyword arguments from 'n_init=10,init_params=random'; values are YAML."""
    pairs = (pair.split("=", 1) for pair in text.split(",") if pair)
    return {name.strip(): yaml.safe_load(value) for name, value in pairs}


if __name__ == "__main__":
    main()
