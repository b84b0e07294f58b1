"""What scikit-learn asks of an estimator: checks and documentation of its parameters, copies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from numbers import Integral, Real
from textwrap import fill
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import numpy as np
from pydantic.fields import FieldInfo
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.utils._param_validation import Interval, StrOptions

from gmm_dask.errors import SettingsError
from gmm_dask.mixture import COVARIANCE_FAMILIES
from gmm_dask.mixture.row_arithmetic import Missing
from gmm_dask.sections import MISSING, FitSettings

# scikit-learn's seed is no setting, the rows of a start are fixed, and a class of its own infers.
OF_THE_STAGE = ("random_state", "init_rows", "weight_concentration_prior_type")
COMMON = frozenset(SklearnMixture().get_params())
_FITTED = (
    *("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_", "converged_"),
    *("n_iter_", "lower_bound_", "lower_bounds_", "n_features_in_", "feature_names_in_"),
)


def sklearn_form(ours: Any) -> SklearnMixture:
    """scikit-learn's estimator of the same parameters, fitted if ours is."""
    if ours.covariance_type not in COVARIANCE_FAMILIES:
        known = ", ".join(COVARIANCE_FAMILIES)
        raise SettingsError(
            f"scikit-learn's GaussianMixture has no covariance_type {ours.covariance_type!r}; it "
            f"has {known}."
        )
    if ours.noise or getattr(ours, "noise_box_", None) is not None:
        raise SettingsError(
            "scikit-learn's GaussianMixture has no noise component: fit with noise=False."
        )
    theirs = SklearnMixture()
    theirs.set_params(**{k: v for k, v in ours.get_params().items() if k in COMMON})
    if theirs.init_params == "auto":  # theirs knows no search
        theirs.set_params(init_params="kmeans")
    if hasattr(ours, "weights_") and len(ours.weights_) != ours.n_components:
        # One was dropped, and start values of all of them fit no more.
        starts = dict.fromkeys(("weights_init", "means_init", "precisions_init"))
        theirs.set_params(n_components=len(ours.weights_), **starts)
    return copied(ours, theirs)


def copied(source: Any, target: Any) -> Any:
    """The target, with what the source was fitted to."""
    for name in _FITTED:
        if hasattr(source, name):
            value = getattr(source, name)
            setattr(target, name, value.copy() if hasattr(value, "copy") else value)
    return target


def declared() -> dict[str, FieldInfo]:
    """The parameters that are settings of a fit, with default, range and description."""
    fields = {k: v for k, v in FitSettings.model_fields.items() if k not in OF_THE_STAGE}
    missing: Any = Missing  # to a type checker a union of words is no type
    return fields | {"missing": FieldInfo.from_annotated_attribute(missing, MISSING)}


def constraints() -> dict[str, list[Any]]:
    """scikit-learn's check of each of these parameters, from its type and range."""
    found = {name: list(_checks(field)) for name, field in declared().items()}
    return found | {
        # scikit-learn's class takes 0, where a run of the stage would make no model.
        "max_iter": [_Range(Integral, 0, None, closed="left")],
        "weight_concentration_prior": [_Range(Real, 1, None, closed="left"), None],
    }


def documentation() -> str:
    """The entries of these parameters in the docstring of the class."""
    return "\n    ".join(
        f"{name} : {_type_of(field)}\n"
        + fill(field.description or "", 99, initial_indent=" " * 8, subsequent_indent=" " * 8)
        for name, field in declared().items()
    )


class _Range(Interval):  # type: ignore[misc]
    """Numbers between two bounds; true is none, as little as in a settings file."""

    def is_satisfied_by(self, val: Any) -> bool:
        """Whether the value is a number in the range."""
        is_flag = isinstance(val, bool | np.bool_)
        return not is_flag and bool(super().is_satisfied_by(val))


class _Pattern(StrOptions):  # type: ignore[misc]
    """Texts that match a pattern, as words of which scikit-learn knows no list."""

    def __init__(self, pattern: str) -> None:
        super().__init__({pattern})
        self.pattern = pattern

    def is_satisfied_by(self, val: Any) -> bool:
        """Whether the value is a text of this form."""
        return isinstance(val, str) and re.search(self.pattern, val) is not None

    def __str__(self) -> str:
        return f"a str that matches {self.pattern}"


def _checks(field: FieldInfo) -> Iterator[Any]:
    for kind in _kinds(field.annotation):
        if get_origin(kind) is Literal:
            yield StrOptions(set(get_args(kind)))
        elif (pattern := _pattern(kind)) is not None:
            yield _Pattern(pattern)
        elif kind is bool:
            yield "boolean"
        elif kind is NoneType:
            yield None
        else:
            limits = {name: at for each in field.metadata for name, at in _limit(each)}
            side = "left" if "ge" in limits else "neither"
            bound = limits.get("ge", limits.get("gt"))
            yield _Range(Integral if kind is int else Real, bound, None, closed=side)


def _pattern(kind: Any) -> str | None:
    """What pydantic was told that a text of this type matches; None for other types."""
    told = (each for each in getattr(kind, "__metadata__", ()) if isinstance(each, FieldInfo))
    of_text = (rule for field in told for rule in field.metadata if hasattr(rule, "pattern"))
    return next((rule.pattern for rule in of_text), None)


def _limit(metadata: Any) -> Iterator[tuple[str, Any]]:
    """The lower limit that pydantic was told, with its name there."""
    for name in ("ge", "gt"):
        if hasattr(metadata, name):
            yield name, getattr(metadata, name)


def _type_of(field: FieldInfo) -> str:
    kinds = list(_kinds(field.annotation))
    words = ", ".join(f'"{word}"' for word in get_args(kinds[0]))
    said = f"{{{words}}}" if get_origin(kinds[0]) is Literal else kinds[0].__name__
    default = f'"{field.default}"' if isinstance(field.default, str) else field.default
    return f"{said}, optional" if NoneType in kinds else f"{said}, default={default}"


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types of a union; but for a text's pattern without what pydantic is told beside them."""
    if _pattern(annotation) is not None:
        yield annotation
    elif hasattr(annotation, "__metadata__"):
        yield from _kinds(annotation.__origin__)
    elif get_origin(annotation) is Literal or not get_args(annotation):
        yield annotation
    else:
        for each in get_args(annotation):
            yield from _kinds(each)
