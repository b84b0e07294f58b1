"""Run the benchmarks and keep what was measured in out/benchmarks.json."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import end_to_end, fits, machine, memory, out_of_core, per_pass, report, scaling

NAMES = ("per_pass", "fits", "end_to_end", "out_of_core", "scaling", "memory", "report")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is named, all by default; earlier results of the others stay in the file."""
    chosen = _parse(arguments)
    runs: dict[str, Callable[[], Any]] = {
        "per_pass": lambda: per_pass.measure(chosen.quick, chosen.patience),
        "fits": lambda: fits.measure(tuple(chosen.fit_rows), chosen.quick),
        "end_to_end": lambda: end_to_end.measure(
            chosen.rows, chosen.rounds, chosen.quick, chosen.skip, chosen.give_up
        ),
        "out_of_core": lambda: out_of_core.measure(chosen.quick, chosen.patience),
        "scaling": lambda: scaling.measure(chosen.quick, chosen.patience),
        "memory": lambda: memory.measure(chosen.memory_rows, chosen.quick),
        "report": lambda: report.measure(chosen.quick),
    }
    about = machine.describe()
    print(f"{about['cpu']}, {about['cores']} cores, Python {about['python']}, load {about['load']}")
    for name in chosen.names or NAMES:
        print(f"\n{name}", flush=True)
        _keep(chosen.out, name, {"machine": machine.describe(), "found": runs[name]()})
    print(f"\nwritten to {chosen.out}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="{" + ",".join(NAMES) + "}")
    parser.add_argument("--quick", action="store_true", help="tiny data, to see that it runs")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of end_to_end")
    parser.add_argument(
        "--fit-rows", type=int, nargs="*", default=fits.ROWS, help="of fits; up to 10^7 elsewhere"
    )
    parser.add_argument("--memory-rows", type=int, default=10_000_000, help="of memory")
    parser.add_argument("--rounds", type=int, default=1, help="of end_to_end")
    parser.add_argument("--skip", nargs="*", default=(), help="contenders to leave out end to end")
    parser.add_argument(
        "--give-up",
        type=float,
        metavar="TIMES",
        help="stop what takes so many times as long as gmm_dask end to end",
    )
    parser.add_argument(
        "--patience", type=float, default=0.0, help="seconds a round waits for quiet"
    )
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks.json"))
    chosen = parser.parse_args(arguments)
    for name in chosen.names:
        if name not in NAMES:
            parser.error(f"{name!r} is none of {', '.join(NAMES)}")
    return chosen


def _keep(target: Path, name: str, result: dict[str, Any]) -> None:
    """Replace one benchmark's results; end to end, those of the same number of rows."""
    kept = json.loads(target.read_text()) if target.exists() else {}
    if name == "end_to_end":
        others = [e for e in kept.get(name, []) if e["found"]["rows"] != result["found"]["rows"]]
        kept[name] = sorted([*others, result], key=lambda each: each["found"]["rows"])
    else:
        kept[name] = result
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
