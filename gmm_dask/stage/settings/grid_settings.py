"""Candidates in the settings: ranges and lists in the place of one number and one family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_core import PydanticCustomError

from gmm_dask.sections import Count, FitSettings, Section

MOST_CANDIDATES = 1000
RANGE = {"from", "to"}
NO_CANDIDATES = "no_candidates"


class SelectSettings(Section):
    """Which candidates the model is chosen among, and by what; one candidate is no choice."""

    n_components: tuple[Count, ...] = Field(
        default=(),
        max_length=MOST_CANDIDATES,
        description="Numbers of components to choose among. In short fit.n_components: "
        "{from: 2, to: 12}, or a list there.",
    )
    covariance_types: tuple[str, ...] = Field(
        default=(),
        description="Families to choose among. In short a list in fit.covariance_type.",
    )
    criterion: Literal["bic", "icl", "aic", "mml", "held_out", "prediction_strength"] = Field(
        default="bic",
        description="What the choice is made by. held_out leaves a fifth of the rows to a fit of "
        "the others; prediction_strength asks fits to two halves whether they part rows alike. "
        "mml, minimum message length, has components of one fit of the most die, and goes on with "
        "each number that it came to rest with.",
    )
    n_bootstrap: Count = Field(
        default=0,
        ge=0,
        description="Draws of a likelihood ratio test of the choice against one component more; 0 "
        "for none.",
    )

    @property
    def is_asked(self) -> bool:
        """Whether there are candidates."""
        return bool(self.n_components or self.covariance_types)

    def candidates(self, fit: FitSettings) -> list[tuple[int, str]]:
        """Number of components and family of each candidate, in order."""
        numbers = sorted(set(self.n_components)) or [fit.n_components]
        families = dict.fromkeys(self.covariance_types) or [fit.covariance_type]
        return [(n, each) for each in families for n in numbers]


def with_candidates(document: Any) -> Any:
    """The document with ranges and lists of `fit` in the section `select`, the most in `fit`.

    Raises
    ------
    PydanticCustomError
        A range is none, or candidates are in two places; its type is NO_CANDIDATES.
    """
    sections = [document.get(name, {}) for name in ("fit", "select")] if _is(document) else []
    if not sections or not all(map(_is, sections)):
        return document
    fit, select = map(dict, sections)
    several = {
        "n_components": ("n_components", _numbers(fit.get("n_components"))),
        "covariance_type": ("covariance_types", _families(fit.get("covariance_type"))),
    }
    for name, (place, found) in several.items():
        known = select.get(place)
        if found is not None:
            if known:
                raise _refused(name, f"names candidates, and so does select.{place}: leave one out")
            select[place] = found
        elif not known or not _are_proper(known, name):
            continue
        elif fit.get(name) is not None and fit[name] not in known:
            what = f"is {fit[name]}, none of select.{place}: leave one of the two out"
            raise _refused(name, what)
        fit[name] = max(select[place]) if name == "n_components" else select[place][0]
    changed = {"fit": fit, "select": select}
    return {**document, **{name: each for name, each in changed.items() if each}}


def _refused(name: str, what: str) -> PydanticCustomError:
    return PydanticCustomError(NO_CANDIDATES, "{said}", {"said": what, "place": ["fit", name]})


def _is(document: Any) -> bool:
    return isinstance(document, Mapping)


def _are_proper(several: Any, name: str) -> bool:
    kind = int if name == "n_components" else str
    return isinstance(several, list | tuple) and all(type(each) is kind for each in several)


def _numbers(value: Any) -> list[int] | None:
    """The numbers of a range or a list; None of anything else."""
    if _is(value) and set(value) == RANGE:
        first, last = value["from"], value["to"]
        if type(first) is not int or type(last) is not int or not 1 <= first <= last:
            what = f"a range such as {{from: 2, to: 12}} is expected, not {first!r} to {last!r}"
            raise _refused("n_components", what)
        if last - first >= MOST_CANDIDATES:
            raise _refused("n_components", f"are more than {MOST_CANDIDATES} candidates")
        return list(range(first, last + 1))
    if isinstance(value, list | tuple):
        if not value or not all(type(each) is int and each >= 1 for each in value):
            raise _refused("n_components", "a list of whole numbers from 1 is expected: [2, 4]")
        return list(value)
    return None


def _families(value: Any) -> list[str] | None:
    """The families of a list; None of anything else."""
    if not isinstance(value, list | tuple):
        return None
    try:
        found = [FitSettings(covariance_type=each).covariance_type for each in value]
    except ValidationError:
        found = []
    if not found:
        what = "a list of families is expected, such as [full, diag]"
        raise _refused("covariance_type", what)
    return found
