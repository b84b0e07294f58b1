"""What was aimed at, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.per_pass import KERNEL, OURS, SKLEARN, ratio
from benchmarks.timing import summary

FLOAT32 = "kernel float32"

WHOLE = {10**3: 1.5, 10**4: 4.0, 10**5: 12.0, 10**6: 25.0}  # times as long, by rows


@dataclass(frozen=True)
class Goal:
    """A goal, the figure that was measured, and whether it is enough."""

    text: str
    figure: str
    reached: bool


def goals(results: dict[str, Any]) -> Iterator[Goal]:
    """Those that the results say something about."""
    if "per_pass" in results:
        yield from _per_pass(results["per_pass"]["found"])
    for each in results.get("end_to_end", []):
        yield from _end_to_end(each["found"])
    if "fits" in results:
        yield from _fits(results["fits"]["found"])
    if "scaling" in results:
        yield from _scaling(results["scaling"]["found"])
    if "out_of_core" in results:
        yield from _out_of_core(results["out_of_core"]["found"])
    if "report" in results:
        yield from _report(results["report"]["found"])


def _per_pass(found: dict[str, Any]) -> Iterator[Goal]:
    for peer, mean, least in ((SKLEARN, 25.0, 15.0), ("oneDAL", 3.5, 2.0)):
        for r in found["ratios"]:
            if r["peer"] == peer and r["spacing"] == "near":
                yield _ratio(r, mean, least)
    yield _float32(found["kernel"])
    yield _dense(found["grid"])
    yield _two_threads(found["grid"])


def _ratio(r: dict[str, Any], mean: float, least: float) -> Goal:
    got = r["median"]
    return Goal(
        f"EM pass, {r['threads']} thread(s): {r['peer']} takes {mean:g} times as long "
        f"(geometric mean), {least:g} at least",
        f"{got['geometric_mean']:.1f}, {got['least']:.1f}",
        got["geometric_mean"] >= mean and got["least"] >= least,
    )


def _float32(grid: list[dict[str, Any]]) -> Goal:
    wide = [entry for entry in grid if entry["d"] >= 8]
    got = summary([1 / ratio(entry, FLOAT32, KERNEL) for entry in wide])
    return Goal(
        "float32 rows in single precision 1.5 times faster where d >= 8",
        f"{got['geometric_mean']:.2f}, least {got['least']:.2f}",
        got["least"] >= 1.5,
    )


def _dense(grid: list[dict[str, Any]]) -> Goal:
    far = [e for e in grid if e["spacing"] == "far" and min(e["d"], e["k"]) >= 16]
    ratios = [e["dgemm_bound"] / e["ns"][OURS]["median"] for e in far]
    return Goal(
        "separated clusters, d and K >= 16: faster than 2 K d^2 operations at the dgemm rate",
        "dgemm / ours " + (", ".join(f"{r:.2f}" for r in ratios) or "not measured"),
        bool(ratios) and min(ratios) > 1,
    )


def _two_threads(grid: list[dict[str, Any]]) -> Goal:
    near = {(e["threads"], e["d"]): e for e in grid if e["spacing"] == "near"}
    gains = {
        f"d = {d}": one["ns"][OURS]["median"] / near[2, d]["ns"][OURS]["median"]
        for (threads, d), one in near.items()
        if threads == 1 and one["ns"][OURS]["median"] > 2 * one["dgemm_bound"]
    }
    return Goal(
        "two threads 1.7 times as fast as one, where one is below half of the dgemm rate",
        ", ".join(f"{gain:.2f} ({where})" for where, gain in gains.items()) or "none is",
        all(gain >= 1.7 for gain in gains.values()),
    )


def _end_to_end(found: dict[str, Any]) -> Iterator[Goal]:
    contenders, rows = found["contenders"], found["rows"]
    ours = contenders[OURS]
    for peer, aim in ((SKLEARN, 20.0), ("Spark", 30.0)):
        if peer in contenders:
            got = contenders[peer]["wall"] / ours["wall"]
            text = f"Parquet to labels, {rows:,} rows: {peer} takes {aim:g} times as long"
            if contenders[peer].get("stopped"):
                yield Goal(text, f"more than {got:.1f}: it was stopped there", got >= aim)
                continue
            yield Goal(text, f"{got:.1f}", got >= aim)
            gain = ours["log_likelihood"] - contenders[peer]["log_likelihood"]
            text = f"{rows:,} rows: log-likelihood per row not below that of {peer}"
            yield Goal(text, f"{gain:+.1e}", gain >= 0)


def _fits(found: dict[str, Any]) -> Iterator[Goal]:
    for entry in found["entries"]:
        warm, cold = (
            entry["seconds"][kind][SKLEARN] / entry["seconds"][kind][OURS]
            for kind in ("warm", "cold")
        )
        aim = WHOLE.get(entry["rows"])
        if aim:
            text = f"whole fit of {entry['rows']:,} rows: {SKLEARN} takes {aim:g} times as long"
            yield Goal(text, f"{warm:.1f}", warm >= aim)
        text = f"whole fit of {entry['rows']:,} rows in a new process: not slower than {SKLEARN}"
        yield Goal(text, f"{cold:.1f}", cold >= 1)


def _scaling(found: dict[str, Any]) -> Iterator[Goal]:
    seconds = {e["workers"]: e["seconds"] for e in found["workers"]}
    got = [seconds["1 threads"][kind] / seconds["2 threads"][kind] for kind in ("median", "best")]
    figure = f"{got[0]:.2f} (best times {got[1]:.2f})"
    yield Goal("two threads 1.7 times as fast as one, d = K = 16", figure, got[0] >= 1.7)
    most = max(m["beyond_mib"] for m in found["memory"])
    yield Goal("E-step: less than 4 MiB a thread beyond the chunk", f"{most:.2f} MiB", most < 4)


def _out_of_core(found: dict[str, Any]) -> Iterator[Goal]:
    for e in found["entries"]:
        got = e["scratch_overhead_of_medians"]
        without = e["overhead_of_medians"]
        yield Goal(
            f"rows {found['times_the_budget']} times the budget, d, K = {e['d']}, {e['k']}: a pass "
            "with scratch takes 1.25 times the larger of decoding and computing at most",
            f"{got:.2f} (best times {e['scratch_overhead']:.2f}); without scratch {without:.2f}",
            got <= 1.25,
        )


def _report(found: dict[str, Any]) -> Iterator[Goal]:
    for each in found["entries"]:
        allowed = 2.0 if each["d"] < 5000 else 5.0
        yield Goal(
            f"report of {each['d']:,} columns, K = {each['k']}, {each['family']}: 3 MB and "
            f"{allowed:g} s at most",
            f"{each['megabytes']:.1f} MB, {each['drawing']:.1f} s of CPU",
            each["megabytes"] <= 3 and each["drawing"] <= allowed,
        )
