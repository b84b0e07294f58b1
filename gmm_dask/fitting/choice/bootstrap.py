"""Whether one component more is more than chance: a likelihood ratio test on draws.

A fit of one component more starts from splits of the mixture of fewer.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.fitting.em import Fit, Rule, SharedPass, advance, passes
from gmm_dask.fitting.m_step import IN_TROUBLE, Maximisation, Step
from gmm_dask.fitting.outcome import best_of
from gmm_dask.fitting.sample import Method, Sample
from gmm_dask.fitting.starts import fits_to_come
from gmm_dask.mixture import Parameters, mixture_sample
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.sampling import ColumnSpread

Array = npt.NDArray[np.float64]

BOOTSTRAP_ROWS = 4096  # of the sample and of each draw
FEW_UNITS = 0.01  # of log-likelihood in all: what a pass may still gain where a fit is at its end
MAX_PASSES = 300
SHORT = 10  # passes that tell which component is best split
APART = 0.5  # standard deviations from the middle to each half of a component that was split


@dataclass(frozen=True)
class Bootstrap:
    """A test of k components against k + 1.

    Parameters
    ----------
    n_components : int
        The k of the hypothesis.
    ratio : float
        Twice the gain in log-likelihood of the rows.
    n_draws : int
        Sets of rows drawn from the mixture of k.
    n_as_large : int
        Sets in which the gain is as large as that of the rows.
    n_rows : int
        The number of rows in the sample, and in each set.
    """

    n_components: int
    ratio: float
    n_draws: int
    n_as_large: int
    n_rows: int

    @property
    def p_value(self) -> float:
        """Chance of such a gain where k components are the truth."""
        return (1 + self.n_as_large) / (1 + self.n_draws)

    @property
    def message(self) -> str:
        """The result as a sentence."""
        more = self.n_components + 1
        return (
            f"Bootstrap test of {self.n_components} against {more} components on {self.n_rows:,} "
            f"rows: p = {self.p_value:.3f}; {self.n_as_large} of {self.n_draws} draws gain as much."
        )

    def to_dict(self) -> dict[str, Any]:
        """For a JSON document."""
        return asdict(self) | {"p_value": self.p_value}


def bootstrap_test(
    parameters: Parameters,
    sample: Sample,
    method: Method,
    guard: Maximisation,
    n_draws: int,
    seed: np.random.SeedSequence,
) -> Bootstrap | None:
    """Compare the likelihood ratio of rows with those of rows drawn from the mixture.

    McLachlan 1987, Appl. Stat. 36: under the hypothesis the ratio has no chi-square distribution,
    but draws from the smaller mixture have the one that it has. Rows of the sample and draws are
    as many, so that one is measured as the other; no row is read for it.

    Parameters
    ----------
    parameters : Parameters
        The mixture of k components.
    sample : Sample
        The rows that starts are found on, of which BOOTSTRAP_ROWS complete ones are taken.
    method : Method
    guard : Maximisation
        The M-step of the fit.
    n_draws : int
    seed : numpy.random.SeedSequence

    Returns
    -------
    None where there are no complete rows, or fits to them are in trouble.
    """
    chosen, drawn, fitted = seed.spawn(3)
    rows = _complete_rows(sample, chosen)
    more = replace(method, n_components=parameters.n_components + 1, sample_em=False)
    test = _Test(parameters, more, replace(guard, prior=None, spread=None))
    observed = test.ratio(rows, fitted) if len(rows) > more.n_components else None
    if observed is None:
        return None
    n_compared = as_large = 0
    for each in drawn.spawn(n_draws):
        of_rows, of_fit = each.spawn(2)
        drawn_rows, _ = mixture_sample(parameters, len(rows), np.random.default_rng(of_rows))
        ratio = test.ratio(drawn_rows, of_fit)
        n_compared += ratio is not None
        as_large += ratio is not None and ratio >= observed
    return Bootstrap(parameters.n_components, observed, n_compared, as_large, len(rows))


@dataclass(frozen=True, eq=False)
class _Test:
    """The ratio of rows: the mixture refitted, and the best of a start of its own and a split.

    Parameters
    ----------
    parameters : Parameters
        The mixture of k components.
    method : Method
        How k + 1 components are fitted.
    guard : Maximisation
    """

    parameters: Parameters
    method: Method
    guard: Maximisation

    def ratio(self, rows: Array, seed: np.random.SeedSequence) -> float | None:
        """Twice the gain in log-likelihood; None where components are in trouble."""
        guard = replace(self.guard, spread=ColumnSpread.of(rows), sample=rows)
        rule = Rule(FEW_UNITS / len(rows), MAX_PASSES, accelerate=True)
        e_step = RowArithmetic.chosen("error").e_step
        shared = passes(lambda parameters: e_step(rows, parameters))
        with suppress(*IN_TROUBLE):
            starts = [fit.parameters for fit in self._own(rows, guard, seed)]
            k = self.method.n_components
            if step := split_starts(self.parameters, k, guard, shared):
                starts.append(step.parameters)
            begun = [Fit.begin(Step(one, ()), guard, rule) for one in (self.parameters, *starts)]
            fewer, *more = (fit.result.lower_bounds[-1] for fit in advance(begun, shared))
            return 2 * len(rows) * (max(more) - fewer)
        return None

    def _own(self, rows: Array, guard: Maximisation, seed: np.random.SeedSequence) -> list[Fit]:
        return fits_to_come(Sample(rows, None, None), self.method, [guard], [seed])


def _complete_rows(sample: Sample, seed: np.random.SeedSequence) -> Array:
    """Rows without missing values, drawn by weight where weights differ."""
    rng, X, weight = np.random.default_rng(seed), sample.X, sample.weight
    complete = np.flatnonzero(~np.isnan(X).any(axis=1))
    if weight is not None and np.ptp(weight[complete]) > 0:
        share = weight[complete] / weight[complete].sum()
        chosen = rng.choice(complete, min(BOOTSTRAP_ROWS, len(complete)), p=share)
    else:
        chosen = rng.permutation(complete)[:BOOTSTRAP_ROWS]
    return np.asarray(X[chosen], dtype=np.float64)


def split_starts(
    parameters: Parameters,
    n_components: int,
    maximise: Maximisation,
    shared_pass: SharedPass,
) -> Step | None:
    """A start of more components from a mixture of fewer: one of them split, the best after SHORT.

    Where several are to be added, the heaviest are split as well. None where every split got into
    trouble.
    """
    begun = []
    for j in np.flatnonzero(parameters.weights > 0):
        one = split(parameters, int(j))
        while one.n_components < n_components:
            one = split(one, int(one.weights.argmax()))
        begun.append(Fit.begin(Step(one, ()), maximise, Rule(0.0, SHORT)))
    results = [fit.result for fit in advance(begun, shared_pass, leaving=IN_TROUBLE)]
    return Step(best_of(results).parameters, ()) if results else None


def split(parameters: Parameters, j: int) -> Parameters:
    """The mixture with component j as two of half its weight, along its longest axis."""
    covariance = parameters.take([j]).dense_covariances()[0]
    values, vectors = np.linalg.eigh(covariance)
    step = APART * np.sqrt(values[-1]) * vectors[:, -1]
    parted = parameters.take([*range(parameters.n_components), j])
    weights, means = parted.weights.copy(), parted.means.copy()
    weights[[j, -1]] /= 2
    means[j] -= step
    means[-1] += step
    return Parameters(weights, means, parted.family)
