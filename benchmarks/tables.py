"""What was measured, as markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.goals import goals
from benchmarks.per_pass import KERNEL, OURS, ratio

SPACING = {
    "near": "Clusters about as far apart as they are wide",
    "far": "Clusters three times as far apart",
    "overlapping": "Clusters a quarter as far apart",
}
INTRODUCTION = """# Benchmarks

`make bench` measures; `python -m benchmarks.plots out/benchmarks.json` writes this page and its
pictures. Libraries that are not installed are left out (`pip install scikit-learn-intelex
pomegranate pyspark`; Spark needs Java). All run on one machine, in interleaved rounds; ratios hold
better than seconds. A ratio of 10 means that the other takes ten times as long as gmm_dask. "Load"
is the number of processes that wanted to run in the minute before, these included: where it is
above the number of threads, others took part of the machine.
"""


def page(results: dict[str, Any]) -> str:
    """The whole of docs/benchmarks.md."""
    parts = [INTRODUCTION, _machine(results), goals_section(results)]
    if "per_pass" in results:
        parts += [_picture("ratios", "EM passes"), *_per_pass(results["per_pass"]["found"])]
    if "fits" in results:
        parts += [_fits(results["fits"]["found"])]
    if "end_to_end" in results:
        parts += [_end_to_end([each["found"] for each in results["end_to_end"]])]
    if "out_of_core" in results:
        parts += [_out_of_core(results["out_of_core"]["found"])]
    if "scaling" in results:
        parts += [_scaling(results["scaling"]["found"])]
    return "\n".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A markdown table, numbers to the right."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, *rows)]
    lines.insert(1, "|" + " --- |" + " ---: |" * (len(head) - 1))
    return "\n".join(lines) + "\n"


def goals_section(results: dict[str, Any]) -> str:
    """What was aimed at, what was measured, and whether that is enough."""
    rows = [
        (each.text, each.figure, "yes" if each.reached else "**no**") for each in goals(results)
    ]
    return "## Goals\n\n" + table(("goal", "measured", "reached"), rows)


def _machine(results: dict[str, Any]) -> str:
    of = [r["machine"] for name, r in results.items() if name != "end_to_end"]
    of += [each["machine"] for each in results.get("end_to_end", [])]
    first, loads = of[0], [each["load"] for each in of]
    packages = ", ".join(f"{name} {v}" for name, v in first["packages"].items() if v)
    blas = ", ".join(first["blas"])
    return (
        f"Machine: {first['cpu']}, {first['cores']} cores, level {first.get('level', 'unknown')}, "
        f"{first['memory_gib']} GiB, {first['system']}, Python {first['python']}; BLAS {blas}.\n"
        f"Versions: {packages}.\n"
        f"Load as each benchmark began: {min(loads)} to {max(loads)}.\n"
    )


def _picture(name: str, what: str) -> str:
    return f"![{what}](images/benchmark-{name}.png)\n"


def _per_pass(found: dict[str, Any]) -> list[str]:
    parts = [
        "## EM passes\n\nNanoseconds per row and pass, full covariance, float64, through the "
        "class as a user\ncalls it. The difference of "
        "many iterations and one, from the same start. Medians of rounds; in\nbrackets the ratio "
        "of the best times. The dgemm column is the time that 2 K d^2 operations take at the rate "
        "NumPy's\nmatrix product had in the same minute.\n"
    ]
    tables: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for entry in found["grid"]:
        tables.setdefault((entry["spacing"], entry["threads"]), []).append(entry)
    for (spacing, threads), entries in tables.items():
        title = f"### {SPACING[spacing]}, {threads} thread{'s' if threads > 1 else ''}\n\n"
        parts.append(title + _entries(entries, lambda e: f"{e['d']}, {e['k']}", "d, K"))
        parts.append(_ratios(found["ratios"], spacing, threads))
    parts.append("### Covariance families, d = K = 16, 1 thread\n")
    parts.append(_entries(found["families"], lambda e: e["family"], "family"))
    parts.append(
        "### The kernel by itself, near clusters, 1 thread\n\nThe core's E-step and the M-step, "
        "without the class; float32: rows in float32 and passes in single precision.\n"
    )
    parts.append(_entries(found["kernel"], lambda e: f"{e['d']}, {e['k']}", "d, K", KERNEL))
    return parts


def _entries(entries: list[dict[str, Any]], label: Any, first: str, ours: str = OURS) -> str:
    names = list(entries[0]["ns"])
    peers = [name for name in names if name != ours]
    head = (first, *names, "dgemm", *(f"{p} / {ours}" for p in peers), "load")
    return table(head, (_row(entry, names, peers, label, ours) for entry in entries))


def _row(
    entry: dict[str, Any], names: list[str], peers: list[str], label: Any, ours: str
) -> list[str]:
    ns = [f"{entry['ns'][name]['median']:.0f}" for name in names]
    ratios = [
        f"{ratio(entry, p, ours):.1f} ({ratio(entry, p, ours, kind='best'):.1f})" for p in peers
    ]
    return [label(entry), *ns, f"{entry['dgemm_bound']:.0f}", *ratios, f"{entry['load']:.1f}"]


def _ratios(found: list[dict[str, Any]], spacing: str, threads: int) -> str:
    of = [r for r in found if (r["spacing"], r["threads"]) == (spacing, threads)]
    return "".join(
        f"{r['peer']} / {OURS}: geometric mean {r['median']['geometric_mean']:.1f}, least "
        f"{r['median']['least']:.1f} (best times: {r['best']['geometric_mean']:.1f}, "
        f"{r['best']['least']:.1f}).  \n"
        for r in of
    )


def _fits(found: dict[str, Any]) -> str:
    rows = []
    for entry in found["entries"]:
        for name in entry["seconds"]["warm"]:
            times = [entry["seconds"][kind][name] for kind in ("warm", "cold")]
            ours = [entry["seconds"][kind][OURS] for kind in ("warm", "cold")]
            figures = [f"{t:.3f} ({t / o:.1f})" for t, o in zip(times, ours, strict=True)]
            left = (entry["passes"][name], f"{entry['log_likelihood'][name]:.4f}", entry["load"])
            rows.append((f"{entry['rows']:,}", name, *figures, *left))
    head = ("rows", "who", "warm, s (ratio)", "new process, s (ratio)", "passes")
    return (
        f"## Whole fits\n\nDefault settings, d = {found['d']}, K = {found['k']}, all cores, "
        "medians of rounds. A new process counts from the import of\nthe class on.\n\n"
        + table((*head, "log-likelihood per row", "load"), rows)
    )


def _end_to_end(found: list[dict[str, Any]]) -> str:
    rows = []
    for each in found:
        ours = each["contenders"][OURS]["wall"]
        for name, c in each["contenders"].items():
            more = "over " if c.get("stopped") else ""
            left = ("stopped", "", "")
            if not more:
                left = (c["passes"], f"{c['log_likelihood']:.6f}", f"{c['peak_mib']:.0f}")
            times = (f"{more}{c['wall']:.1f}", f"{more}{c['wall'] / ours:.1f}")
            rows.append((f"{each['rows']:,}", name, *times, *left, each["load"]))
    head = (
        "rows",
        "who",
        "seconds",
        "ratio",
        "passes",
        "log-likelihood per row",
        "peak MiB",
        "load",
    )
    return (
        "## From Parquet to labels on disk\n\n"
        + _picture("end-to-end", "From Parquet to labels")
        + "\n8 columns, 8 components, all cores, each in a fresh process: imports, reading, start, "
        "EM, labels. The same tolerance\nof 1e-3 per row and iteration; the log-likelihood is "
        "computed by one function from the parameters that each left.\nMedians of rounds, in which "
        "one comes after the other. Spark's peak is that of its Python side alone.\n\n"
        + table(head, rows)
        + "".join(_round_by_round(each) + _labelling(each) for each in found)
    )


def _round_by_round(found: dict[str, Any]) -> str:
    walls = {name: c["walls"] for name, c in found["contenders"].items()}
    seconds = (f"{name} {', '.join(f'{w:.1f}' for w in of)}" for name, of in walls.items())
    return f"\n{found['rows']:,} rows, seconds round by round: {'; '.join(seconds)}.\n"


def _labelling(found: dict[str, Any]) -> str:
    label, copy = found["label_rows_per_second"], found["copy_rows_per_second"]
    return (
        f"\n{found['rows']:,} rows: labels for {label / 1e6:.2f} million rows a second; pyarrow "
        f"reads and writes {copy / 1e6:.2f} million a second.\n"
    )


def _out_of_core(found: dict[str, Any]) -> str:
    rows = [
        (
            f"{e['d']}, {e['k']}",
            f"{e['rows']:,}",
            *(f"{e[part]['median']:.2f} ({e[part]['best']:.2f})" for part in _PARTS),
            f"{e['overhead_of_medians']:.2f} ({e['overhead']:.2f})",
            f"{e['scratch_overhead_of_medians']:.2f} ({e['scratch_overhead']:.2f})",
            f"{e['decoded_mib']:.0f}",
            f"{e['budget_mib']:.0f}",
            f"{e['peak_mib']:.0f}, {e['with_scratch']['peak_mib']:.0f}",
            e["load"],
        )
        for e in found["entries"]
    ]
    head = ("d, K", "rows", "pass, s", "with scratch, s", "decode alone, s", "compute alone, s")
    head += ("pass / larger", "with scratch / larger", "rows, MiB", "budget, MiB")
    head += ("peak of the process, and with scratch, MiB", "load")
    return (
        f"## More rows than memory\n\n{found['threads']} threads. Every pass decodes what the "
        f"budget does not hold, or reads it from scratch, a file on a local disk (in the page "
        "cache here); nothing is held in the timed passes, and the\nwhole stage "
        f"with a budget of a {found['times_the_budget']}th of the rows in a process of its own "
        "gives the peak, libraries included (about 300 MiB). Medians;\nin brackets best times.\n\n"
        + table(head, rows)
    )


_PARTS = ("pass", "pass with scratch", "decode", "compute")


def _scaling(found: dict[str, Any]) -> str:
    parts = ["## Scaling\n", _picture("scaling", "Scaling")]
    parts.append(f"d = {found['d']}, K = {found['k']}, rows in memory; load {found['load']}.\n")
    for key, first in (("rows", "rows"), ("workers", "workers"), ("chunks", "chunk, MiB")):
        parts.append(_scaled(found[key], first))
    memory = [(f"{m['d']}, {m['k']}", f"{m['beyond_mib']:.2f}") for m in found["memory"]]
    parts.append("Memory of one E-step on one thread beyond its chunk:\n")
    parts.append(table(("d, K", "MiB"), memory))
    return "\n".join(parts)


def _scaled(entries: list[dict[str, Any]], first: str) -> str:
    key = next(iter(entries[0]))
    rows = [
        (
            f"{e[key]:,}" if isinstance(e[key], int) else e[key],
            f"{e['seconds']['median']:.3f} ({e['seconds']['best']:.3f})",
            f"{e['ns']['median']:.0f} ({e['ns']['best']:.0f})",
            f"{entries[0]['seconds']['best'] / e['seconds']['best']:.2f}",
        )
        for e in entries
    ]
    return table((first, "seconds a pass (best)", "ns a row (best)", "first / this"), rows)


def short(results: dict[str, Any]) -> str:
    """The table of the README: ratios alone."""
    found = results["per_pass"]["found"]
    rows = []
    for r in found["ratios"]:
        if r["spacing"] == "near" and not r["peer"].startswith(OURS):
            mean, least = (f"{r['median'][key]:.1f}" for key in ("geometric_mean", "least"))
            threads = f"{r['threads']} thread{'s' if r['threads'] > 1 else ''}"
            rows.append((f"EM pass, {threads}", r["peer"], mean, least))
    for each in results.get("end_to_end", []):
        ours = each["found"]["contenders"][OURS]["wall"]
        for name, c in each["found"]["contenders"].items():
            if name != OURS:
                of = f"Parquet to labels, {each['found']['rows']:,} rows"
                rows.append((of, name, f"{c['wall'] / ours:.1f}", ""))
    return table(("how many times as long as gmm_dask", "who", "mean", "least"), rows)
