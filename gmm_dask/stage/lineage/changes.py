"""What became of the components of the version that a fit follows: `changes.json` of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SingularCovarianceError
from gmm_dask.fitting import Action, Event, FitResult
from gmm_dask.mixture import Parameters
from gmm_dask.mixture.classification import Migration
from gmm_dask.mixture.estimate import Cause
from gmm_dask.mixture.matching import SEPARATE, Matching, match, matching_distances, shifts
from gmm_dask.storage import (
    Document,
    LabelSums,
    Model,
    Name,
    Place,
    Positive,
    RunId,
    Sha256,
    Size,
    record,
)

LIMIT = -math.log(SEPARATE)  # farther than that no component is the same as another
MOVED = 0.5  # standard deviations from one version to the next that are told of
NOISE = 4.0  # standard errors of its own by which a component that moved is beyond chance

Array = npt.NDArray[np.float64]


class Kind(StrEnum):
    """What happened to components between two versions."""

    BORN = "born"
    DIED = "died"
    SPLIT = "split"
    MERGED = "merged"
    MOVED = "moved"
    RENUMBERED = "renumbered"


@dataclass(frozen=True)
class Change:
    """One thing that happened to components.

    Parameters
    ----------
    kind : Kind
    components : tuple of int
        Components of this version; none where one died.
    previous : tuple of int
        Components of the version before; none where one was born.
    message : str
        The change as a sentence.
    """

    kind: Kind
    components: tuple[int, ...]
    previous: tuple[int, ...]
    message: str

    def to_event(self) -> dict[str, Any]:
        """The change as an event of metrics.json."""
        found = {"kind": str(self.kind), "message": self.message}
        return found | {"components": list(self.components), "previous": list(self.previous)}


@dataclass(frozen=True)
class Followed:
    """The version that a fit follows, as run.json notes it.

    Parameters
    ----------
    output : str or None
        Output folder of the version that is followed; None where that is the run's own.
    version : int
    run_id, model_sha256 : str
    """

    output: Place | None
    version: Positive
    run_id: RunId
    model_sha256: Sha256


@dataclass(frozen=True)
class Descent:
    """Where a component comes from.

    Parameters
    ----------
    identity : str
        The checksum of the model in which it was born, and its number there; never another's.
    name : str or None
        As it was when the model was made; the log of versions has the newest.
    previous : int or None
        Number of the component in the version before; None where it was born, or nothing is
        followed.
    shift : float or None
        How far its mean moved, in standard deviations of the average of both covariances.
    """

    identity: Name
    name: str | None = None
    previous: int | None = None
    shift: Size | None = None


@dataclass(frozen=True)
class Changes:
    """Where the components of a model come from, and what happened to those before.

    Parameters
    ----------
    model_sha256 : str
    follows : Followed or None
    components : tuple of Descent
        In the order of the model.
    changes : tuple of Change
    migration : tuple of tuple of int, or None
        Rows by their label under the model before (first) and by the label that they have, where
        the label phase counted them. The last row and the last column are of no component.
    """

    model_sha256: Sha256
    follows: Followed | None
    components: tuple[Descent, ...]
    changes: tuple[Change, ...] = ()
    migration: tuple[tuple[int, ...], ...] | None = None

    @property
    def names(self) -> tuple[str | None, ...]:
        """Names of the components; None for one that has none."""
        return tuple(each.name for each in self.components)

    @property
    def partners(self) -> dict[int, int]:
        """The component of this version that each of those before is, by number."""
        found = ((each.previous, j) for j, each in enumerate(self.components))
        return {previous: j for previous, j in found if previous is not None}

    @property
    def n_movers(self) -> int | None:
        """Rows whose component is another one than before; None where they were not counted."""
        if self.migration is None:
            return None
        stayed = sum(self.migration[i][j] for i, j in self.partners.items())
        return sum(map(sum, self.migration)) - stayed - self.migration[-1][-1]


CHANGES = "changes.json"
CHANGES_FILE = Document(record(Changes), "gmm_dask.changes")


@dataclass(frozen=True, eq=False)
class Predecessor:
    """What a fit follows: the version, its mixture, and where its components come from.

    Parameters
    ----------
    followed : Followed
    parameters : Parameters
        Features in the order of the fit that follows.
    n_rows : int
        Rows that its model was fitted to.
    components : tuple of Descent
    """

    followed: Followed
    parameters: Parameters
    n_rows: int
    components: tuple[Descent, ...]


def order_of(parameters: Parameters, previous: Parameters | None) -> list[int]:
    """The order in which components are numbered: `parameters.take(order)` has it.

    Without a predecessor the largest weight comes first. With one, a component that has a partner
    there keeps its number; where there are fewer numbers than before, those beyond the last take
    the free ones. Those that are born take what is left, the largest weight first.
    """
    by_weight = [int(j) for j in np.argsort(-parameters.weights, kind="stable")]
    if previous is None:
        return by_weight
    k = parameters.n_components
    partner = dict(match(previous, parameters, LIMIT).pairs)
    taken = {number: j for number, j in partner.items() if number < k}
    displaced = [j for number, j in sorted(partner.items()) if number >= k]
    paired = set(partner.values())
    waiting = iter([*displaced, *(j for j in by_weight if j not in paired)])
    return [taken[number] if number in taken else next(waiting) for number in range(k)]


def numbered(result: FitResult, predecessor: Predecessor | None) -> FitResult:
    """The result with its components numbered as `order_of` says."""
    before = None if predecessor is None else predecessor.parameters
    return renumbered(result, order_of(result.parameters, before))


def renumbered(result: FitResult, order: Sequence[int]) -> FitResult:
    """The result with its components in that order, wherever they are numbered as at the end."""
    k, new = len(order), np.argsort(order)
    dropped = (each.pass_number for each in result.events_ if each.action is Action.DROPPED)
    last = max(dropped, default=-1)  # before, components had other numbers

    def taken(path: Sequence[Parameters]) -> tuple[Parameters, ...]:
        return tuple(each.take(order) if each.n_components == k else each for each in path)

    events = [
        replace(each, component=int(new[each.component]))
        if each.component is not None and (each.cause is Cause.NARROW or each.pass_number > last)
        else each
        for each in result.events_
    ]
    events.sort(key=_narrow_last)
    prelude = result.prelude
    return replace(
        result,
        parameters=result.parameters.take(order),
        trajectory=taken(result.trajectory),
        prelude=prelude and replace(prelude, trajectory=taken(prelude.trajectory)),
        events_=tuple(events),
    )


def _narrow_last(event: Event) -> int:
    """Narrow components are those of the result: they come last, in the order of their numbers."""
    return -1 if event.component is None or event.cause is not Cause.NARROW else event.component


def first_descents(model: Model, names: Sequence[str | None] = ()) -> tuple[Descent, ...]:
    """Components that follow nothing, each with an identity of its own."""
    k = model.parameters.n_components
    return tuple(
        Descent(f"{model.sha256[:16]}-{j}", name) for j, name in enumerate(names or (None,) * k)
    )


def changes_of(model: Model, predecessor: Predecessor | None) -> Changes:
    """Where the components of a model come from, and what happened to those of its predecessor.

    A pair of components is a split or a merger where their sum, as one Gaussian of the same
    moments, is closer to the one of the other version than its partner alone.
    """
    own = first_descents(model)
    if predecessor is None:
        return Changes(model.sha256, None, own)
    before, now = predecessor.parameters, model.parameters
    found = match(before, now, LIMIT)
    moved = shifts(before, now)
    components = list(own)
    for i, j in found.pairs:
        earlier = predecessor.components[i]
        components[j] = Descent(earlier.identity, earlier.name, i, float(moved[i, j]))
    names = tuple(each.name for each in predecessor.components)
    told = _Told(before, now, found, names)
    changes = (*told.splits(), *told.mergers(), *told.births(), *told.deaths())
    rows = predecessor.n_rows, model.n_rows
    changes += (*told.moves(moved, rows), *told.new_numbers())
    return Changes(model.sha256, predecessor.followed, tuple(components), tuple(changes))


def with_movers(changes: Changes, migration: Migration) -> Changes:
    """The changes with what the label phase counted."""
    return replace(changes, migration=migration.counts or None)


def before_of(changes: Changes, sums: LabelSums) -> dict[str, Any] | None:
    """What metrics.json says of the version before, on the rows that were labelled.

    None where the rows were not compared.
    """
    movers = with_movers(changes, sums.migration).n_movers
    if changes.follows is None or movers is None or not sums.sum_weight:
        return None
    n_rows = sum(map(sum, sums.migration.counts))
    return {
        "version": changes.follows.version,
        "log_likelihood_per_row": sums.migration.log_likelihood / sums.sum_weight,
        "movers": movers / n_rows if n_rows else 0.0,
    }


class _Told:
    """The changes from one mixture to the next, once it is known who is whose partner."""

    def __init__(
        self,
        before: Parameters,
        now: Parameters,
        found: Matching,
        names: Sequence[str | None],
    ) -> None:
        self._before, self._now, self._found, self._names = before, now, found, names
        self._split = _parted(found.pairs, found.only_second, before, now)
        turned = [(j, i) for i, j in found.pairs]
        self._merged = _parted(turned, found.only_first, now, before)

    def splits(self) -> Iterator[Change]:
        for born, i in self._split.items():
            kept = dict(self._found.pairs)[i]
            said = f"{self._said(i)} split: its rows went to components {kept} and {born}."
            yield Change(Kind.SPLIT, (kept, born), (i,), said)

    def mergers(self) -> Iterator[Change]:
        partner = {j: i for i, j in self._found.pairs}
        for gone, j in self._merged.items():
            kept = partner[j]
            said = f"{self._said(gone)} merged with {self._said(kept, start=False)}."
            yield Change(Kind.MERGED, (j,), (kept, gone), said)

    def births(self) -> Iterator[Change]:
        for j in self._found.only_second:
            if j not in self._split:
                weight = self._now.weights[j]
                yield Change(Kind.BORN, (j,), (), f"Component {j} is new, of weight {weight:.4g}.")

    def deaths(self) -> Iterator[Change]:
        for i in self._found.only_first:
            if i not in self._merged:
                weight = self._before.weights[i]
                said = f"{self._said(i)} is gone; its weight was {weight:.4g}."
                yield Change(Kind.DIED, (), (i,), said)

    def moves(self, shifts: Array, rows: tuple[int, int]) -> Iterator[Change]:
        d = self._now.n_features
        for i, j in self._found.pairs:
            if i in self._split.values() or j in self._merged.values():
                continue  # that says it already
            held = self._before.weights[i] * rows[0], self._now.weights[j] * rows[1]
            error = sum(1 / n if n > 0 else math.inf for n in held)
            chance = math.sqrt(error * (d + NOISE * math.sqrt(2 * d)))
            if shifts[i, j] > max(MOVED, chance):
                far = f"{shifts[i, j]:.3g} standard deviations"
                yield Change(Kind.MOVED, (j,), (i,), f"{self._said(i)} moved by {far}.")

    def new_numbers(self) -> Iterator[Change]:
        for i, j in self._found.pairs:
            if i != j:
                yield Change(Kind.RENUMBERED, (j,), (i,), f"{self._said(i)} is component {j} now.")

    def _said(self, i: int, start: bool = True) -> str:
        name = f" ({self._names[i]})" if self._names[i] else ""
        return f"{'Component' if start else 'component'} {i}{name}"


def _parted(
    pairs: Sequence[tuple[int, int]],
    lonely: Sequence[int],
    whole: Parameters,
    parts: Parameters,
) -> dict[int, int]:
    """Which lonely component of `parts` is, with a partner's, what one of `whole` is.

    Returns
    -------
    The component of `whole` by the lonely one; those that are no such part are absent.
    """
    found: dict[int, int] = {}
    alone = matching_distances(whole, parts)
    for j in lonely:
        together = {i: _distance(whole.take([i]), parts, (partner, j)) for i, partner in pairs}
        closer = {i: each for i, each in together.items() if each < alone[i, dict(pairs)[i]]}
        if closer and (best := min(closer, key=closer.__getitem__)) not in found.values():
            found[j] = best
    return found


def _distance(one: Parameters, parts: Parameters, pair: tuple[int, int]) -> float:
    """Distance from a component to two others taken as one; infinite if beyond float64."""
    try:
        return float(matching_distances(one, _sum(parts, *pair))[0, 0])
    except SingularCovarianceError:
        return math.inf


def _sum(parameters: Parameters, i: int, j: int) -> Parameters:
    """Two components as one of the same moments, which has the weight of both."""
    weights = parameters.weights[[i, j]]
    total = weights.sum()
    shares = weights / total if total > 0 else np.full(2, 0.5)
    means, dense = parameters.means[[i, j]], parameters.dense_covariances()[[i, j]]
    mean = shares @ means
    away = means - mean
    covariance = np.einsum("k,kde->de", shares, dense)
    covariance += np.einsum("k,kd,ke->de", shares, away, away)
    return Parameters.from_covariances([total], [mean], [covariance], "full")
