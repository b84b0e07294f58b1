"""Fits of gmm_dask and of scikit-learn, judged against the best that is known."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture as SklearnMixture

from benchmarks.contenders import quiet
from benchmarks.quality import real, synthetic
from benchmarks.quality.marks import Judge
from benchmarks.quality.plain_em import Mixtures, PlainEM, joined, log_likelihoods
from benchmarks.quality.targets import SAME, Target
from gmm_dask import GaussianMixture

WITHIN = 0.5  # of the log-likelihood of all rows
RUN_ON = 300  # steps at most of a fit that is run on until it has converged
SAME_PARTITION = 0.99  # adjusted Rand index of two labellings that count as one
CLASSES = {"gmm_dask": GaussianMixture, "scikit-learn": SklearnMixture}
WITHOUT_A_MODEL = "raised"


@dataclass(frozen=True)
class Contender:
    """A class and what it is called with, beside number, family and seed."""

    library: str
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """As tables have it."""
        words = (f"{key}={value}" for key, value in self.settings.items())
        return f"{self.library} {', '.join(words) or 'default'}"

    def fitted(self, X: np.ndarray, family: str, k: int, seed: int) -> Any:
        """A model fitted to the rows, or None where the fit ends without one."""
        model = CLASSES[self.library](k, covariance_type=family, random_state=seed, **self.settings)
        try:
            return model.fit(X)
        except (ValueError, ArithmeticError, RuntimeError) as error:
            print(f"{self.name}: {error}", flush=True)
            return None


@dataclass
class Found:
    """How the fits of one contender ended; each list has an entry a fit."""

    task: list[str] = field(default_factory=list)
    family: list[str] = field(default_factory=list)
    gap: list[float] = field(default_factory=list)
    marks: list[list[str]] = field(default_factory=list)
    gap_run_on: list[float] = field(default_factory=list)
    marks_run_on: list[list[str]] = field(default_factory=list)
    replicated: list[int | None] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)


def on_real_data(
    tasks: Iterable[real.Task],
    contenders: Sequence[Contender],
    targets: dict[str, Target],
    seeds: Sequence[int],
    *,
    run_on: bool,
) -> dict[str, Any]:
    """Every contender on every task that has a target; and the tasks where one was surpassed."""
    found = {each.name: Found() for each in contenders}
    raised: dict[str, float] = {}
    with quiet(threads=1):
        for task in tasks:
            if task.key in targets and np.isfinite(targets[task.key].admissible):
                target = targets[task.key].admissible
                best = _one_task(task, contenders, target, seeds, found, run_on=run_on)
                if best > target + SAME:
                    raised[task.key] = best
    return {"contenders": {name: vars(each) for name, each in found.items()}, "raised": raised}


def _one_task(
    task: real.Task,
    contenders: Sequence[Contender],
    target: float,
    seeds: Sequence[int],
    found: dict[str, Found],
    *,
    run_on: bool,
) -> float:
    """Fit and judge; the best log-likelihood of an admissible solution, the target included."""
    X = real.rows_of(task.name)
    em, judge = PlainEM(X, task.family), Judge(X)
    fits: list[tuple[Found, Mixtures | None]] = []
    for seed in seeds:
        for contender in contenders:
            of = found[contender.name]
            model = _timed(contender, X, task, seed, of)
            fits.append((of, None if model is None else _mixture(model, task.family)))
    there = [mixture for _, mixture in fits if mixture is not None]
    if not there:
        return -np.inf
    steps = RUN_ON if run_on else 0
    ends = [joined(there), em.outward(em.run(em.inward(joined(there)), steps, tol=1e-4)[0])]
    stages = [(log_likelihoods(X, each), judge.marks(each)) for each in ends]
    # A component on its way to a spurious end has no marks yet: only ends may raise the target.
    ended = zip(*stages[1], strict=True) if run_on else ()
    best = max([target, *(float(value) for value, marks in ended if not marks)])
    number = iter(range(len(there)))
    for of, mixture in fits:
        i = None if mixture is None else next(number)
        for (values, marks), gaps, names in (
            (stages[0], of.gap, of.marks),
            (stages[1], of.gap_run_on, of.marks_run_on),
        ):
            gaps.append(float("inf") if i is None else float(best - values[i]))
            names.append([WITHOUT_A_MODEL] if i is None else sorted(marks[i]))
        of.task.append(task.key)
        of.family.append(task.family)
    return best


def on_known_truth(
    kinds: Iterable[str], contenders: Sequence[Contender], seeds: Sequence[int]
) -> dict[str, Any]:
    """By contender and kind: fits that reach EM from the truth, same partitions after a map."""
    found: dict[str, Any] = {each.name: {} for each in contenders}
    with quiet(threads=1):
        for kind in kinds:
            for seed in seeds:
                X, family, truth = synthetic.draws(kind, seed)
                em = PlainEM(X, family)
                value = float(em.run(em.inward(truth), RUN_ON, tol=1e-4)[1][0])
                for contender in contenders:
                    of = found[contender.name].setdefault(kind, {"gap": [], "same": [], "cpu": []})
                    _one_truth(contender, X, truth, value, seed, of)
    return found


def _one_truth(
    contender: Contender, X: np.ndarray, truth: Mixtures, value: float, seed: int, of: Any
) -> None:
    k, begun = truth.weights.shape[1], time.process_time()
    model = contender.fitted(X, truth.family, k, seed)
    of["cpu"].append(time.process_time() - begun)
    if model is None:
        of["gap"].append(float("inf"))
        return
    of["gap"].append(value - float(log_likelihoods(X, _mixture(model, truth.family))[0]))
    if truth.family == "full":
        moved = synthetic.mapped(X, seed)
        other = contender.fitted(moved, truth.family, k, seed)
        labels = model.predict(X)
        alike = other is not None and adjusted_rand_score(labels, other.predict(moved))
        of["same"].append(bool(alike >= SAME_PARTITION))


def _timed(contender: Contender, X: np.ndarray, task: real.Task, seed: int, of: Found) -> Any:
    begun, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = contender.fitted(X, task.family, task.k, seed)
    of.wall.append(time.perf_counter() - begun)
    of.cpu.append(time.process_time() - cpu)
    replicated = getattr(model, "n_replicated_", None)
    of.replicated.append(None if replicated is None else int(replicated))
    return model


def _mixture(model: Any, family: str) -> Mixtures:
    """A fitted model's arrays, covariances as matrices."""
    means = np.asarray(model.means_)
    (k, d), given = means.shape, np.asarray(model.covariances_)
    if family == "tied":
        covariances = np.repeat(given[None], k, axis=0)
    elif family == "full":
        covariances = given
    else:
        covariances = given.reshape(k, -1, 1) * np.eye(d)
    return Mixtures(family, np.asarray(model.weights_)[None], means[None], covariances[None])
