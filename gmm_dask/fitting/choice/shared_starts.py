"""Starts of all candidates on one sample: searches that begin from one another, and shared EM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gmm_dask.fitting.choice.ranking import Candidate
from gmm_dask.fitting.em import SharedPass
from gmm_dask.fitting.initial.initialize import prepare
from gmm_dask.fitting.m_step import Maximisation, Step
from gmm_dask.fitting.outcome import FitResult, Prelude, Report, unheard
from gmm_dask.fitting.sample import Method, Sample, refined
from gmm_dask.fitting.search.best_start import Found
from gmm_dask.fitting.search.ladder import searched
from gmm_dask.fitting.state import State


def shared_starts(
    sample: Sample,
    methods: Mapping[Candidate, Method],
    guard: Maximisation,
    seeds: Sequence[np.random.SeedSequence],
    report: Report = unheard,
) -> dict[Candidate, Found]:
    """The starts that searches find, those of each family beginning from one another's ends.

    Candidates that no search is made for are left out: of one component, of another `init_params`
    than auto, of a family or of rows that no search knows, and with noise.
    """
    by_family: dict[str, list[int]] = {}
    for (k, kind), method in sorted(methods.items()):
        if method.init_params == "auto" and guard.noise is None:
            by_family.setdefault(kind, []).append(k)
    if not any(k > 1 for numbers in by_family.values() for k in numbers):
        return {}
    ready, effort = prepare(sample.X, 1, sample.weight), next(iter(methods.values())).effort
    found: dict[Candidate, Found] = {}
    for kind, numbers in by_family.items():
        how = (guard, seeds, effort, sample.threads, report)
        of_family = searched(ready, numbers, kind, *how)
        found |= {Candidate(k, kind): each for k, each in of_family.items()}
    return found


def settled(
    starts: Mapping[Candidate, Found],
    guards: Mapping[Candidate, Maximisation],
    on_sample: SharedPass,
    on_larger: SharedPass | None,
    tol: float,
) -> dict[Candidate, State]:
    """Where EM on samples leads to from each start, all in shared passes.

    A start is left out where the sample gets a component in trouble. Of the larger sample the end
    is not taken then, for all rows are to decide.
    """
    paths: dict[Candidate, list[FitResult]] = {}
    for shared_pass in filter(None, (on_sample, on_larger)):
        at = {each: _end(paths[each][-1]) for each in paths} or {
            each: one.start for each, one in starts.items()
        }
        ended = refined(shared_pass, [(step, guards[each]) for each, step in at.items()], tol=tol)
        for each, result in zip(at, ended, strict=True):
            if result is not None:
                paths.setdefault(each, []).append(result)
    return {
        each: replace(
            State.begin(_end(path[-1])), search=starts[each].record, prelude=Prelude.of(*path)
        )
        for each, path in paths.items()
    }


def _end(result: FitResult) -> Step:
    return Step(result.parameters, result.events_)
