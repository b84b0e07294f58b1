"""What can be fitted and is hardly what was meant: odd columns, spreads made by `reg_covar`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gmm_dask.fitting import Action, Event, FitResult, Maximisation, listed, quoted
from gmm_dask.fitting.initial.clutter import lacking_noise
from gmm_dask.mixture import Cause
from gmm_dask.sampling import Oddity, Seen, odd_columns

if TYPE_CHECKING:
    from gmm_dask.engine import Survey
    from gmm_dask.sections import FitSettings

LACKS_NOISE = "lacks_noise"
MOST = 2.0  # a variance of at most so many reg_covar is mostly reg_covar


@dataclass(frozen=True)
class Caution:
    """What stops no fit and is hardly what was meant: of columns, or of all rows.

    Parameters
    ----------
    kind : str
        An Oddity of columns, or LACKS_NOISE.
    columns : tuple of str
    message : str
        What was seen, and the remedy.
    """

    kind: str
    columns: tuple[str, ...]
    message: str

    def to_dict(self) -> dict[str, Any]:
        """For a JSON document."""
        return {"kind": str(self.kind), "columns": list(self.columns), "message": self.message}


# Of one column, of several, and what follows from it.
_SAYS = {
    Oddity.CONSTANT: ("is constant", "are constant", "that tells no rows apart"),
    Oddity.CODE: (
        "holds few different whole numbers",
        "hold few different whole numbers",
        "if they are codes of classes, their differences mean nothing",
    ),
    Oddity.KEY: (
        "looks like a key",
        "look like keys",
        "whole numbers that belong to one row each, or are named so, say nothing of clusters",
    ),
}


def noise_caution(surveyed: Survey, result: FitResult, settings: FitSettings) -> list[Caution]:
    """The caution that a fit lacks a noise component, where the rows of the sample say so.

    There is none where components were dropped or are as wide as `reg_covar`, for that is told.
    """
    fitted = result.parameters
    has_trouble = any(
        event.cause is Cause.NARROW or event.action is Action.DROPPED for event in result.events_
    )
    if settings.noise or settings.weight_concentration_prior_type is not None or has_trouble:
        return []
    seed = np.random.SeedSequence(settings.random_state)
    sample = surveyed.sample, surveyed.sample_weight
    share = lacking_noise(*sample, fitted, settings.reg_covar, seed)
    message = (
        f"About {share:.0%} of the rows look like noise, spread over all of the data, which the "
        "components are wider for. Set noise to true, which gives such rows the label -1, or more "
        "components if these rows are clusters."
    )
    return [Caution(LACKS_NOISE, (), message)] if share else []


def column_cautions(surveyed: Survey, names: Sequence[str], remedy: str) -> tuple[Caution, ...]:
    """One caution for each oddity that some of the columns have; they name it and these columns.

    Parameters
    ----------
    surveyed : Survey
        The survey of the rows, which are not looked at again.
    names : (d,)
    remedy : str
        How features are named where these were not.
    """
    spread = surveyed.spread
    seen = Seen(
        surveyed.sample,
        spread.least,
        spread.greatest,
        surveyed.n_eligible,
        surveyed.is_drawn,
        surveyed.copies,
    )
    return tuple(
        _of_columns(oddity, tuple(names[j] for j in columns), remedy)
        for oddity, columns in odd_columns(seen, names).items()
    )


def narrow_events(result: FitResult, guard: Maximisation) -> tuple[Event, ...]:
    """An event for each component of which `reg_covar` is at least half of some variance.

    Columns that are constant in all rows do not count, and components of weight 0 neither.

    Parameters
    ----------
    result : FitResult
    guard : Maximisation
        The M-step of the fit, with the spread of the data.
    """
    found, owners = result.parameters, result.parameters.family.owners
    variances = found.family.variances
    constant = False if guard.spread is None else guard.spread.constant
    counted = (found.weights > 0)[:, None] & np.logical_not(constant)
    narrow = np.asarray((variances <= MOST * guard.reg_covar) & counted)
    return tuple(
        Event(
            result.n_passes,
            owner,
            Cause.NARROW,
            Action.LEFT,
            guard.named(np.flatnonzero(columns)),
            result.n_passes,
            result.start,
        )
        for owner in owners
        if (columns := narrow.any(axis=0) if owner is None else narrow[owner]).any()
    )


def gist(narrow: Sequence[Mapping[str, Any]]) -> str:
    """Narrow components as one message: that of the first, and which others there are.

    Parameters
    ----------
    narrow : sequence of dict
        Events as in metrics.json.
    """
    first, *others = narrow
    if not others:
        return str(first["message"])
    components = "component" if len(others) == 1 else "components"
    which = listed([str(each["component"]) for each in others])
    return f"{first['message']} So it is with {components} {which}."


def _of_columns(oddity: Oddity, columns: tuple[str, ...], remedy: str) -> Caution:
    one, several, why = _SAYS[oddity]
    word, verb = ("Column", one) if len(columns) == 1 else ("Columns", several)
    message = f"{word} {listed(quoted(columns))} {verb}: {why}. {remedy}"
    return Caution(oddity, columns, message)
