"""The best admissible log-likelihood that a long search of our own finds for each task.

The search has nothing from gmm_dask: EM from very many starts, then pieces of good solutions put
together, removed and split, until its time is over. Two searches from different seeds must agree
for a target to count as confirmed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.quality import real
from benchmarks.quality.marks import Judge
from benchmarks.quality.plain_em import Mixtures, PlainEM, joined, log_likelihoods

KEPT = Path(__file__).with_name("targets.json")
STARTS, SURVIVORS = 64, 16  # of a round
SHORT, LONG, LAST = 25, 150, 4000  # steps
POOL, FINALISTS = 16, 6
SAME = 0.05  # log-likelihoods closer than this are of one optimum
SHARE_OF_STARTS = 0.4  # of the time; the rest is spent on moves


@dataclass(frozen=True)
class Target:
    """What is to be reached.

    Parameters
    ----------
    admissible : float
        The best log-likelihood of an admissible solution; minus infinity, and null in the file,
        where none was found.
    any : float
        The best one of all.
    confirmed : bool
        Whether both searches, or a search and a contender, found the admissible one.
    """

    admissible: float
    any: float
    confirmed: bool


def load() -> dict[str, Target]:
    """The targets that are kept with the code."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    return {
        key: Target(-np.inf if admissible is None else admissible, best, confirmed)
        for key, (admissible, best, confirmed) in kept.items()
    }


def save(targets: dict[str, Target]) -> None:
    """Keep them with the code, one task a line."""
    lines = (f"{json.dumps(key)}: {_line(targets[key])}" for key in sorted(targets))
    KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _line(target: Target) -> str:
    admissible = round(target.admissible, 4) if np.isfinite(target.admissible) else None
    return json.dumps([admissible, round(target.any, 4), target.confirmed])


def searched(task: real.Task, seconds: float, seed: int = 0) -> Target:
    """The target of a task by two searches of half of the CPU seconds each."""
    X = real.rows_of(task.name)
    halves = [_search(X, task.family, task.k, seconds / 2, 2 * seed + i) for i in range(2)]
    admissible, best = (max(half[i] for half in halves) for i in range(2))
    agreed = bool(np.isfinite(admissible)) and abs(halves[0][0] - halves[1][0]) < SAME
    return Target(admissible, best, agreed)


def strengthen(tasks: Iterable[real.Task], seconds: float) -> None:
    """Search longer for what is not confirmed yet, and keep the better of old and new."""
    known = load()
    for i, task in enumerate(tasks):
        old = known.get(task.key)
        if old is None or not old.confirmed:
            new = searched(task, seconds, seed=0 if old is None else 1 + i)
            known[task.key] = new if old is None else merged(old, new)
            print(task.key, known[task.key], flush=True)
            save(known)


def merged(one: Target, other: Target) -> Target:
    """The better of two targets of a task, confirmed if they agree or the better one was."""
    better = one if one.admissible >= other.admissible else other
    agreed = abs(one.admissible - other.admissible) < SAME
    return Target(better.admissible, max(one.any, other.any), better.confirmed or agreed)


def _search(X: np.ndarray, family: str, k: int, seconds: float, seed: int) -> tuple[float, float]:
    """The best admissible log-likelihood and the best of all; -inf where there is none."""
    rng, em = np.random.default_rng(seed), PlainEM(X, family)
    pool = _Pool(em, Judge(X))
    begun = time.process_time()
    views = [em.rows, X / np.where(X.std(axis=0) > 0, X.std(axis=0), 1), X, _white(X)]
    while (used := (time.process_time() - begun) / seconds) < 1 or not len(pool.mixtures):
        if used < SHARE_OF_STARTS or len(pool.mixtures) < 2:
            new = _starts(em, views, k, rng)
        else:
            new = _moved(em, pool.mixtures, rng)
        pool.add(new)
    return pool.converged()


class _Pool:
    """The best different solutions so far: most places are for admissible ones."""

    def __init__(self, em: PlainEM, judge: Judge) -> None:
        self._em, self._judge = em, judge
        self.mixtures = Mixtures(em.family, *(np.empty((0,) * i) for i in (2, 3, 4)))
        self._values = np.empty(0)
        self._admissible = np.empty(0, dtype=bool)

    def add(self, new: Mixtures) -> None:
        """Some steps for all, more for the best, and the best of them into the pool."""
        mixtures, values = self._em.run(new, SHORT)
        chosen = self._best(values, self._admissibles(mixtures), SURVIVORS)
        mixtures, values = self._em.run(mixtures[chosen], LONG, tol=1e-4)
        allowed = self._admissibles(mixtures)
        if len(self.mixtures):
            mixtures = joined([self.mixtures, mixtures])
            values = np.concatenate([self._values, values])
            allowed = np.concatenate([self._admissible, allowed])
        chosen = self._best(values, allowed, POOL)
        self.mixtures, self._values = mixtures[chosen], values[chosen]
        self._admissible = allowed[chosen]

    def converged(self) -> tuple[float, float]:
        """The finalists run on to the end and weighed by the rows themselves."""
        chosen = self._best(self._values, self._admissible, FINALISTS)
        mixtures, _ = self._em.run(self.mixtures[chosen], LAST, tol=1e-6)
        outward = self._em.outward(mixtures)
        values = log_likelihoods(self._em.X, outward)
        allowed = self._judge.admissible(outward)
        return float(values[allowed].max(initial=-np.inf)), float(values.max())

    def _admissibles(self, mixtures: Mixtures) -> np.ndarray:
        return self._judge.admissible(self._em.outward(mixtures))

    def _best(self, values: np.ndarray, allowed: np.ndarray, places: int) -> np.ndarray:
        """The best different ones: three quarters of the places for admissible ones."""
        order = np.argsort(-values)
        order = order[np.isfinite(values[order])]
        distinct = order[np.diff(values[order], prepend=np.inf) < -SAME / 5]
        first = distinct[allowed[distinct]][: places * 3 // 4]
        others = [i for i in distinct if i not in set(first)][: places - len(first)]
        return np.array([*first, *others], dtype=int)


def _starts(em: PlainEM, views: list[np.ndarray], k: int, rng: np.random.Generator) -> Mixtures:
    """From the nearest of random rows, after some steps of k-means or none, in several views."""
    held = np.zeros((em.n, STARTS, k))
    for i in range(STARTS):
        view = views[i % len(views)]
        centres = view[_seeds(view, k, rng, far=bool(i // len(views) % 2))]
        for _ in range(1 + int(rng.integers(6))):
            nearest = ((view[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
            sizes = np.bincount(nearest, minlength=k)
            for j in np.flatnonzero(sizes):
                centres[j] = view[nearest == j].mean(axis=0)
        held[np.arange(em.n), i, nearest] = 1
    held += 1e-3 / k
    return em.from_responsibilities(held / held.sum(axis=2, keepdims=True))


def _seeds(view: np.ndarray, k: int, rng: np.random.Generator, *, far: bool) -> np.ndarray:
    """Rows at random; or far from those that are chosen already (k-means++)."""
    if not far:
        return rng.choice(len(view), k, replace=False)
    chosen = [int(rng.integers(len(view)))]
    while len(chosen) < k:
        away = ((view[:, None] - view[chosen]) ** 2).sum(axis=2).min(axis=1)
        away = away / away.sum() if away.sum() > 0 else None
        chosen.append(int(rng.choice(len(view), p=away)))
    return np.array(chosen)


def _moved(em: PlainEM, pool: Mixtures, rng: np.random.Generator) -> Mixtures:
    """Children of the pool: a component put elsewhere, or components of two parents."""
    weights, means, covariances = [], [], []
    k = pool.weights.shape[1]
    for _ in range(STARTS):
        i, other = rng.integers(len(pool), size=2)
        w, m, c = (np.copy(a[i]) for a in (pool.weights, pool.means, pool.covariances))
        if rng.random() < 0.25 and i != other:
            chosen = rng.choice(2 * k, k, replace=False)
            pairs = zip((w, m, c), (pool.weights, pool.means, pool.covariances), strict=True)
            w, m, c = (np.concatenate([a, b[other]])[chosen] for a, b in pairs)
        else:
            for _ in range(1 + (rng.random() < 0.3)):
                _put_elsewhere(em, w, m, c, rng)
        weights.append(w / w.sum())
        means.append(m)
        covariances.append(c)
    stacked = Mixtures(em.family, np.stack(weights), np.stack(means), np.stack(covariances))
    if em.family == "tied":
        shared = np.repeat(stacked.covariances[:, :1], k, axis=1)
        return Mixtures("tied", stacked.weights, stacked.means, shared)
    return stacked


def _put_elsewhere(
    em: PlainEM, w: np.ndarray, m: np.ndarray, c: np.ndarray, rng: np.random.Generator
) -> None:
    """A component leaves its place for a half of another one, or for a row."""
    k = len(w)
    if k < 2:
        return
    j, of = rng.choice(k, 2, replace=False)
    step = np.linalg.cholesky(c[of]) @ rng.normal(size=m.shape[1])
    w[j] = w[of] = w[of] / 2
    if rng.random() < 0.5:
        m[j], m[of] = m[of] + step, m[of] - step
        c[j] = c[of]
    else:
        m[j] = em.rows[rng.integers(em.n)]
        c[j] = np.einsum("k,kij->ij", w / w.sum(), c) * rng.choice([0.1, 0.5, 1.0])


def _white(X: np.ndarray) -> np.ndarray:
    return PlainEM(X, "full").rows
