"""The M-step with its policies for components that starve, collapse or become singular."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import NotFiniteError, SingularCovarianceError, StarvedComponentError
from gmm_dask.fitting.events import Action, Event, columns_called, noted, under_floor
from gmm_dask.mixture import CovarianceFamily, Parameters, Prior, SufficientStatistics
from gmm_dask.mixture.estimate import SMALLEST, Cause, Fault, estimate, find_faults
from gmm_dask.mixture.parameters import Estimate, Noise
from gmm_dask.mixture.steps import log_density
from gmm_dask.sampling import ColumnSpread

Array = npt.NDArray[np.float64]

# Added variance, in variances of the data: reg_covar's default on standardised columns.
FLOOR = 1e-6
MAX_RESEEDS = 3  # of one component; a fourth time it gets the floor
IN_TROUBLE = (NotFiniteError, SingularCovarianceError, StarvedComponentError)


class ComponentPolicy(StrEnum):
    """What to do with a component that is no density any more."""

    FLOOR = "floor"
    RESEED = "reseed"
    DROP = "drop"
    RAISE = "raise"


_REMEDIES = {
    Cause.STARVED: "set n_components lower",
    Cause.COLLAPSED: "set n_components lower or reg_covar above 0",
    Cause.SINGULAR: "set reg_covar above 0, or leave out columns that follow from others",
}
_OTHER_POLICIES = {
    ComponentPolicy.RAISE: "Set component_policy to floor, reseed or drop",
    ComponentPolicy.DROP: "No component would be left. Set component_policy to floor",
}


class Step(NamedTuple):
    """The next parameters, and all events so far."""

    parameters: Parameters
    events: tuple[Event, ...]


@dataclass(frozen=True, eq=False)
class Maximisation:
    """The M-step and what guards it: statistics in, a mixture that is one out.

    Parameters
    ----------
    reg_covar : float
        Added to every variance, in squared units of the data.
    policy : {"floor", "reseed", "drop", "raise"}
        floor adds FLOOR of the data's variances to the component's, for as long as it needs it;
        reseed starts it anew at the row of the sample that the mixture explains worst; drop goes
        on without it. A tied covariance can only be floored.
    spread : ColumnSpread, optional
        The spread of the data, in the unit of weight of all sums; without it nothing is floored.
    prior : Prior, optional
    columns : tuple of str, optional
        Names of the features, for events and errors.
    start : int
        The number of the initialisation, for events.
    sample : (m, d), optional
        Rows that components are reseeded at; without them, none is.
    eigenvalue_ratio : float, optional
        At most so many times the least eigenvalue of all covariances is the largest one, as
        `CovarianceFamily.limited` says; needs `spread`.
    noise : Noise, optional
        The noise that a fit starts with; without it there is none.
    """

    reg_covar: float = 1e-6
    policy: str = ComponentPolicy.FLOOR
    spread: ColumnSpread | None = None
    prior: Prior | None = None
    columns: tuple[str, ...] | None = None
    start: int = 1
    sample: npt.NDArray[Any] | None = None
    eigenvalue_ratio: float | None = None
    noise: Noise | None = None

    @property
    def unit(self) -> float:
        """Weight that counts as 1 in the statistics it takes, and in its prior."""
        return 1.0 if self.spread is None else self.spread.unit

    def penalty(self, parameters: Parameters) -> float:
        """Log-prior of the parameters, up to a constant; 0 without a prior."""
        return 0.0 if self.prior is None else self.prior.log_density(parameters)

    def begin(self, found: Estimate) -> Step:
        """The start as a mixture; nothing can be reseeded before rows were looked at."""
        if self.prior is not None and self.spread is not None:
            found = self.prior.applied(found, float(self.spread.weight.max()))
        return self._guarded(self._limited(found, found.weights), None, 0, ())

    def adopt(self, given: Parameters) -> Step:
        """A start that is a mixture already; a prior on the weights leaves none at zero."""
        if self.prior is None or self.spread is None or given.weights.min() > 0:
            return Step(given, ())
        weights = self.prior.weights(float(self.spread.weight.max()) * given.weights)
        return Step(replace(given, weights=weights), ())

    def with_noise(self, given: Parameters) -> Parameters:
        """A start with the noise that there is to be."""
        if given.noise is not None or self.noise is None:
            return given
        return replace(given, noise=self.noise)

    def __call__(
        self,
        parameters: Parameters,
        statistics: SufficientStatistics,
        pass_number: int,
        events: tuple[Event, ...] = (),
    ) -> Step:
        """The M-step after a pass.

        Raises
        ------
        SingularCovarianceError, StarvedComponentError
            The policy is to stop, or there is nothing to put a floor on.
        NotFiniteError
            A mean or variance is beyond float64.
        """
        found = estimate(parameters, statistics, self.reg_covar, self.prior)
        rows = statistics.sum_resp
        if self.prior is not None:
            rows = rows + self.prior.rows_of_covariance(found.family) + self.prior.rows_of_mean
        step = self._guarded(self._limited(found, rows), parameters, pass_number, events)
        if parameters.noise is None:
            return step
        share = 1 - float(statistics.sum_resp.sum()) / statistics.sum_weight
        noise = parameters.noise.with_share(share)
        return step._replace(parameters=replace(step.parameters, noise=noise))

    def _limited(self, found: Estimate, rows: Array) -> Estimate:
        """With eigenvalues within the ratio; `rows` (k,) in any unit are behind the covariances."""
        if self.eigenvalue_ratio is None or self.spread is None:
            return found
        limits = (self.eigenvalue_ratio, rows, self.spread.variances)
        return replace(found, family=found.family.limited(*limits))

    def _guarded(
        self,
        found: Estimate,
        before: Parameters | None,
        pass_number: int,
        events: tuple[Event, ...],
    ) -> Step:
        faults = self._faults(found, under_floor(events, pass_number))
        if faults and self.policy == ComponentPolicy.RAISE:
            raise self._error(faults[0], pass_number)
        seeds = self._seeds(before, len(faults))
        chosen = self._chosen(faults, len(seeds), events)
        settled = self._carry_out(found, chosen, seeds, pass_number)
        for fault, action in chosen:
            events = noted(events, self._event(fault, action, pass_number))
        return Step(settled.factored(), events)

    def _faults(self, found: Estimate, floored: Mapping[int | None, Cause]) -> list[Fault]:
        resolved = self.reg_covar > 0 or (
            self.prior is not None and self.prior.variances is not None
        )
        try:
            variances = None if self.spread is None else self.spread.variances
            return find_faults(found, variances, resolved=resolved, floored=floored)
        except NotFiniteError as error:
            raise NotFiniteError(
                f"{self._named(error.features)}: {error}", error.features
            ) from None

    def _seeds(self, before: Parameters | None, size: int) -> Array:
        """Different complete rows of the sample that a mixture explains worst, (s, d)."""
        reseeds = self.policy == ComponentPolicy.RESEED and size > 0
        if not reseeds or before is None or self.sample is None:
            return np.empty((0, 0))
        complete = self.sample[~np.isnan(self.sample).any(axis=1)]
        different = np.unique(np.asarray(complete, dtype=np.float64), axis=0)
        order = np.argsort(log_density(different, before), kind="stable")
        return np.asarray(different[order[:size]])

    def _chosen(
        self, faults: Sequence[Fault], n_seeds: int, events: tuple[Event, ...]
    ) -> list[tuple[Fault, Action]]:
        """What is done about each fault; each row seeds one component, the others wait."""
        chosen: list[tuple[Fault, Action]] = []
        for fault in faults:
            action = self._action(fault, events, has_seed=n_seeds > 0)
            n_seeds -= action is Action.RESEEDED
            chosen.append((fault, action))
        return chosen

    def _action(self, fault: Fault, events: tuple[Event, ...], *, has_seed: bool) -> Action:
        j = fault.component
        if j is not None and self.policy == ComponentPolicy.DROP:
            return Action.DROPPED
        if j is not None and self.policy == ComponentPolicy.RESEED and has_seed:
            earlier = sum(e.component == j and e.action is Action.RESEEDED for e in events)
            if earlier < MAX_RESEEDS:
                return Action.RESEEDED
        return Action.EMPTIED if fault.cause is Cause.STARVED else Action.FLOORED

    def _carry_out(
        self,
        found: Estimate,
        chosen: Sequence[tuple[Fault, Action]],
        seeds: Array,
        pass_number: int,
    ) -> Estimate:
        doing = {action: [f for f, a in chosen if a is action] for action in Action}
        if floors := doing[Action.FLOORED]:
            found = self._floored(found, floors, pass_number)
        if reseeded := doing[Action.RESEEDED]:
            found = self._reseeded(found, [_index(f) for f in reseeded], seeds)
        if gone := doing[Action.DROPPED]:
            if len(gone) == len(found.weights):
                raise self._error(gone[0], pass_number)
            found = found.without([_index(f) for f in gone])
        return found

    def _floored(self, found: Estimate, faults: Sequence[Fault], pass_number: int) -> Estimate:
        at_fault, raised = [fault.component for fault in faults], found
        if self.spread is not None:
            family = found.family
            added = np.zeros_like(family.covariances)
            floor = FLOOR * family.one_of_variances(self.spread.variances)
            for component in at_fault:
                added[... if component is None else component] += floor
            raised = replace(found, family=family.plus(added))
        for fault in self._faults(raised, {}):
            if fault.component in at_fault and fault.cause is not Cause.STARVED:
                raise self._error(fault, pass_number)
        return raised

    def _reseeded(self, found: Estimate, components: Sequence[int], seeds: Array) -> Estimate:
        """Each component at a row of its own, as wide as the others on average."""
        k, weights, means = len(found.weights), found.weights.copy(), found.means.copy()
        sound = np.setdiff1d(np.arange(k), components)
        for place, j in enumerate(components):
            means[j], weights[j] = seeds[place], 1 / k
        weights[sound] *= (1 - len(components) / k) / max(
            weights[sound].sum(), np.finfo(float).tiny
        )
        family = found.family.replaced(components, self._usual(found, sound))
        return replace(found, weights=weights / weights.sum(), means=means, family=family)

    def _usual(self, found: Estimate, sound: npt.NDArray[np.intp]) -> CovarianceFamily:
        """The covariance that the sound components have on average, or that of the data."""
        share = found.weights[sound]
        if share.sum() > 0:
            return found.family.take(sound).average(share / share.sum())
        assert self.spread is not None
        return found.family.diagonal(1, self.spread.variances)

    def _event(self, fault: Fault, action: Action, number: int) -> Event:
        names = self.named(fault.features)
        return Event(number, fault.component, fault.cause, action, names, number, self.start)

    def _error(
        self, fault: Fault, pass_number: int
    ) -> SingularCovarianceError | StarvedComponentError:
        event = self._event(fault, Action.FLOORED, pass_number)
        j, other = fault.component or 0, _OTHER_POLICIES.get(ComponentPolicy(self.policy))
        remedy = f"{other}, or {_REMEDIES[fault.cause]}" if other else _REMEDIES[fault.cause]
        told = f"{event.message.partition(';')[0]}. {remedy[0].upper()}{remedy[1:]}."
        if fault.cause is Cause.STARVED:
            return StarvedComponentError(told, j)
        if of_data := self._faults_of_data(fault):
            told = of_data
        return SingularCovarianceError(told, j, fault.features)

    def _faults_of_data(self, fault: Fault) -> str:
        """What is wrong with columns of the fault in all rows, where no policy helps."""
        spread, told = self.spread, []
        if spread is None:
            return ""
        constant = [i for i in fault.features if spread.constant[i]]
        if constant:
            told.append(
                f"{self._named(constant)}: all rows have the same value. Leave "
                f"{_them(constant)} out, or set reg_covar above 0."
            )
        narrow = [i for i in fault.features if spread.variances[i] <= SMALLEST]
        if narrow := [i for i in narrow if i not in constant]:
            told.append(
                f"{self._named(narrow)}: the values differ by less than float64 can square (a "
                f"standard deviation under {np.sqrt(SMALLEST):.0e}). Rescale {_them(narrow)}, "
                "for example by a power of ten."
            )
        return " ".join(told)

    def named(self, features: Iterable[int]) -> tuple[str | int, ...]:
        """The names of these features; their numbers where they have none."""
        numbers = map(int, features)
        return tuple(numbers) if self.columns is None else tuple(self.columns[i] for i in numbers)

    def _named(self, features: Sequence[int]) -> str:
        called = columns_called(self.named(features))
        return called[:1].upper() + called[1:]


def _them(features: Sequence[int]) -> str:
    return "it" if len(features) == 1 else "them"


def _index(fault: Fault) -> int:
    assert fault.component is not None
    return fault.component
