"""What was found, as the tables of docs/quality.md and as lines of a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.quality.contest import SAME_PARTITION, WITHIN
from benchmarks.quality.real import FAMILIES
from benchmarks.tables import table

INTRODUCTION = f"""# How good the optimum is

`python -m benchmarks.quality` makes this page. On real data the target of each task (a set, a
family, a number of components) is the best log-likelihood of an admissible solution that anybody
is known to have found: a long search in plain NumPy that shares no code with gmm_dask (its targets
are kept in `benchmarks/quality/targets.json`), and all fits of this page. A fit is *within* if it
is admissible and its log-likelihood, of all rows together, is at most {WITHIN} below the target.

A solution is *inadmissible* if a component has one of four marks: it holds fewer distinct rows than
its shape needs (rows), it is thinner than so few rows are evidence for (thin), `reg_covar` alone
holds it up (floor), or it sits on one repeated value of a column (tie). Its likelihood says nothing
of the data: that of full, diagonal and spherical mixtures has no bound (Day 1969; Kiefer, Wolfowitz
1956). *Run on* are the same fits continued by EM for at most 300 passes. *All seeds* is the share
of tasks that are within from each seed. Seconds are CPU time on one core, all contenders in turn in
the same run.
"""
REAL_HEAD = ("fits", "within", "all seeds", "inadmissible", "within, run on", *FAMILIES)
REAL_HEAD += ("replicated", "CPU, s")


def page(results: dict[str, Any]) -> str:
    """The whole page from what the benchmark found."""
    about, real = results["machine"], results["real"]
    parts = [
        INTRODUCTION,
        f"Machine: {about['cpu']}, load {about['load']}, Python {about['python']}.\n",
        f"## Real data\n\n{_extent(results)}\n",
        table(REAL_HEAD, real_rows(real["contenders"])),
        "### Why fits are inadmissible\n",
        table(("fits", "rows", "thin", "floor", "tie", "no model"), _marks(real["contenders"])),
        "### By set\n\nShare of fits within.\n",
        _by_set(real["contenders"]),
    ]
    if results["synthetic"]:
        parts += [
            "## Data whose truth is known\n\nShare of fits that reach the log-likelihood (within "
            f"{WITHIN}) of EM started from the truth. *Same partition*: the rows and the rows "
            "after an affine map of condition\n1,000 are labelled alike (adjusted Rand index of "
            f"{SAME_PARTITION} at least), full covariances.\n",
            _synthetic(results["synthetic"]),
        ]
    return "\n".join(parts)


def short(results: dict[str, Any]) -> str:
    """The figures that a change of the search is steered by."""
    lines = [_extent(results), table(REAL_HEAD, real_rows(results["real"]["contenders"]))]
    if results["synthetic"]:
        lines.append(_synthetic(results["synthetic"]))
    return "\n".join(lines)


def real_rows(contenders: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """A line a contender; shares in per cent."""
    for name, of in contenders.items():
        within = _within(of["gap"], of["marks"])
        families = np.array(of["family"])
        tasks = np.array(of["task"])
        replicated = [n >= 2 for n in of["replicated"] if n is not None]
        yield (
            name,
            _percent(within),
            _percent([within[tasks == task].all() for task in dict.fromkeys(of["task"])]),
            _percent([bool(marks) for marks in of["marks"]]),
            _percent(_within(of["gap_run_on"], of["marks_run_on"])),
            *(_percent(within[families == family]) for family in FAMILIES),
            _percent(replicated),
            f"{sum(of['cpu']):.1f}",
        )


def _extent(results: dict[str, Any]) -> str:
    real = results["real"]
    of = next(iter(real["contenders"].values()))
    n_tasks, n_sets = len(set(of["task"])), len({task.split(", ")[0] for task in of["task"]})
    text = (
        f"{n_tasks} tasks on {n_sets} sets, {results['n_seeds']} seeds; "
        f"{results['n_confirmed']} of the targets were found by two independent searches."
    )
    if real["raised"]:
        text += f" A fit of this page surpassed the kept target in {len(real['raised'])} tasks."
    return text


def _marks(contenders: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, of in contenders.items():
        marks = of["marks"]
        kinds = ("rows", "thin", "floor", "tie", "raised")
        yield (name, *(str(sum(kind in each for each in marks)) for kind in kinds))


def _by_set(contenders: dict[str, Any]) -> str:
    sets = [task.split(", ")[0] for task in next(iter(contenders.values()))["task"]]
    shares = {name: _within(of["gap"], of["marks"]) for name, of in contenders.items()}
    rows = (
        (each, *(_percent(of[np.array(sets) == each]) for of in shares.values()))
        for each in dict.fromkeys(sets)
    )
    return table(("set", *contenders), rows)


def _synthetic(found: dict[str, Any]) -> str:
    kinds = list(next(iter(found.values())))
    gaps = {
        name: [np.array(of[kind]["gap"]) <= WITHIN for kind in kinds] for name, of in found.items()
    }
    rows = [(kind, *(_percent(of[i]) for of in gaps.values())) for i, kind in enumerate(kinds)]
    rows.append(("all", *(_percent(np.concatenate(of)) for of in gaps.values())))
    same = ([s for kind in kinds for s in of[kind]["same"]] for of in found.values())
    rows.append(("same partition", *(_percent(each) for each in same)))
    cpu = (sum(s for kind in kinds for s in of[kind]["cpu"]) for of in found.values())
    rows.append(("CPU, s", *(f"{each:.1f}" for each in cpu)))
    return table(("kind", *found), rows)


def _within(gaps: list[float], marks: list[list[str]]) -> np.ndarray:
    return (np.array(gaps) <= WITHIN) & np.array([not each for each in marks], dtype=bool)


def _percent(values: Any) -> str:
    return f"{100 * np.mean(values):.1f}" if len(values) else ""
