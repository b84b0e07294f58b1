"""What every section of the settings is: strict, immutable, and free of secrets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

from gmm_dask.redaction import secrets_in

NO_SECRETS = (
    "Settings are stored and shown, so they hold no secrets: give it by the environment, a profile "
    "or the role of the machine."
)

MAX_INTEGER = 2**63 - 1  # as records of a run have them
MAX_VALUES = 10_000  # of one setting, with all that is inside

# Numbers and flags are taken as they are meant: neither true nor "3" is a count.
Count = Annotated[int, Strict(), Field(le=MAX_INTEGER)]
Number = Annotated[float, Strict()]
Flag = Annotated[bool, Strict()]


class Section(BaseModel):
    """A part of the settings: immutable, and unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # a wrong value may be a secret in the wrong place
    )

    @model_validator(mode="before")
    @classmethod
    def _holds_no_secret(cls, document: Any) -> Any:
        if found := list(secrets_in(document)):
            raise ValueError("; ".join((*found, NO_SECRETS)))
        return document

    @model_validator(mode="after")
    def _is_stored_as_it_is(self) -> Self:
        for name in type(self).model_fields:
            problem = _unstorable(getattr(self, name))
            if problem is not None:
                raise ValueError(f"{name} holds {problem}, which cannot be stored with the run")
        return self


def _unstorable(value: Any) -> str | None:
    """What in a value JSON cannot hold as it is, in words; None where there is no such thing."""
    waiting, n = [value], 0
    while waiting:
        each, n = waiting.pop(), n + 1
        if isinstance(each, str):
            if _is_torn(each):
                return "half of a character (a surrogate)"
        elif isinstance(each, Mapping):
            if not all(isinstance(key, str) for key in each):
                return "a key that is no text"
            waiting += [*each, *each.values()]
        elif isinstance(each, list | tuple):
            waiting += each
        elif isinstance(each, int) and abs(each) > MAX_INTEGER:
            return "an integer of more than 64 bits"
        elif isinstance(each, float) and not math.isfinite(each):
            return "a number that is not finite"
        elif not isinstance(each, int | float | BaseModel | None):
            return f"a value of the type {type(each).__name__}"
        if n > MAX_VALUES:
            return "more values than anyone writes, by an alias of YAML"
    return None


def _is_torn(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
