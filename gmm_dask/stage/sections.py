"""What every section of the settings is: strict, immutable, and free of secrets."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Strict, model_validator

from gmm_dask.redaction import secrets_in

NO_SECRETS = (
    "Settings are stored and shown, so they hold no secrets: give it by the environment, a profile "
    "or the role of the machine."
)

# Numbers and flags are taken as they are meant: neither true nor "3" is a count.
Count = Annotated[int, Strict()]
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
