"""The settings of the stage: one strict schema for YAML files, flags and Prefect's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gmm_dask.errors import SettingsError
from gmm_dask.redaction import secrets_in
from gmm_dask.sections import NO_SECRETS, FitSettings
from gmm_dask.stage.settings.complaints import Location, complaints, refusal
from gmm_dask.stage.settings.grid_settings import SelectSettings
from gmm_dask.stage.settings.output_settings import (
    FitOutputSettings,
    LabelSettings,
    OutputSettings,
    RefreshSettings,
)
from gmm_dask.stage.settings.run_settings import (
    AnySettings,
    ClusterSettings,
    DataSettings,
    MemorySettings,
    ScoreSettings,
    Settings,
)
from gmm_dask.stage.settings.settings_file import override, read_settings_file

__all__ = [
    "AnySettings",
    "ClusterSettings",
    "DataSettings",
    "FitSettings",
    "LabelSettings",
    "MemorySettings",
    "FitOutputSettings",
    "OutputSettings",
    "RefreshSettings",
    "ScoreSettings",
    "SelectSettings",
    "Settings",
    "load_settings",
    "override",
    "read_settings_file",
    "settings_from",
    "with_overrides",
]


def load_settings(
    path: str | Path, overrides: Sequence[str] = (), schema: type[AnySettings] | None = Settings
) -> Any:
    """Read a YAML settings file.

    Parameters
    ----------
    path : str or Path
    overrides : sequence of str
        `section.key=value` with YAML values, as `--set` takes them.
    schema : type, optional
        Where it is None, the document says itself which it is: settings to score have a `model`.

    Raises
    ------
    SettingsError
        Not readable, not YAML, an unknown key, a value out of range: all problems in one message.
    """
    document = read_settings_file(Path(path))
    origins = override(document, overrides)
    return settings_from(document, schema or schema_of(document), str(path), origins)


def schema_of(document: Mapping[str, Any]) -> type[AnySettings]:
    """The schema of a document: settings to label rows name a model, settings of a fit do not."""
    if "model" in document and "fit" in document:
        raise SettingsError(
            "The settings have fit and model: with fit a mixture is fitted, with model rows are "
            "labelled by one that is published. Leave one of them out."
        )
    return ScoreSettings if "model" in document else Settings


def with_overrides(settings: AnySettings, overrides: Sequence[str]) -> Any:
    """The settings with single values replaced, as `--set` does in those of a file.

    Raises
    ------
    SettingsError
        An override is not of the form `section.key=value`, or the settings cannot be so.
    """
    if not overrides:
        return settings
    document = settings.model_dump(mode="json", exclude_unset=True)
    return settings_from(document, type(settings), origins=override(document, overrides))


def settings_from(
    document: Mapping[str, Any],
    schema: type[AnySettings] = Settings,
    source: str = "",
    origins: Mapping[Location, str] | None = None,
) -> Any:
    """Validate a document.

    Parameters
    ----------
    document : mapping
    schema : type
    source : str
        What the document is called in a message.
    origins : mapping of location to str
        What else a value comes from: an option of the command line.

    Raises
    ------
    SettingsError
        With every problem, one a line.
    """
    told = partial(refusal, document=document, source=source, origins=origins or {})
    if found := list(secrets_in(document)):
        lines = (line.partition(": ") for line in found)
        problems = [(tuple(place.split(".")), what) for place, _, what in lines]
        raise SettingsError(*told(problems), f"  {NO_SECRETS}")
    try:
        return schema.model_validate(document)
    except ValidationError as error:
        raise SettingsError(*told(complaints(error, schema))) from None
