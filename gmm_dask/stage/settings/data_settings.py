"""The section of the settings that says which rows and columns are read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any, Literal

from pydantic import Field, field_validator

from gmm_dask.kinds import lies_between
from gmm_dask.sections import MISSING, Count, Section
from gmm_dask.stage import text
from gmm_dask.stage.settings.complaints import texts

_ENDS = (str, int, date)  # of a range


class DataSettings(Section):
    """Which rows and columns to read."""

    path: str | tuple[str, ...] = Field(
        description="Folder, file, glob or URL of Parquet files, or a list of them."
    )
    features: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Numeric columns to cluster on, or columns of lists of numbers of one length; "
        "where not given all numeric columns, or the one column of lists.",
    )
    id_columns: tuple[str, ...] = Field(
        default=(), description="Columns carried through to the labels unchanged."
    )
    weight_column: str | None = Field(
        default=None, description="Column of non-negative row weights."
    )
    missing: Literal["error", "drop", "em"] = MISSING
    cast: tuple[Literal["decimal", "bool"], ...] = Field(
        default=(),
        description="Types to take for numbers: decimals are rounded to double, true is 1.",
    )
    ignore: tuple[str, ...] = Field(
        default=(),
        description="Globs of files to leave out, by file name or by path below data.path.",
    )
    version: Count | None = Field(
        default=None,
        ge=0,
        description="Version of the Delta table to read; its latest where not given.",
    )

    between: dict[str, tuple[str, str]] = Field(
        default_factory=dict,
        description="Partitions to read, by the first and the last value of keys of their folders: "
        "{day: [2026-11-01, 2026-11-30]} reads those of November; integers count as such.",
    )

    @property
    def in_short(self) -> str:
        """The paths and the range as one short text."""
        return text.data(self.path, self.between)

    @field_validator("between", mode="before")
    @classmethod
    def _ranges_are_texts(cls, between: Any) -> Any:
        if not isinstance(between, dict):
            return between
        found = {}
        for key, ends in between.items():
            if not isinstance(ends, list | tuple) or len(ends) != 2:
                raise ValueError("it must be a key with a first and a last value: day: [1, 31]")
            if any(isinstance(end, bool) or not isinstance(end, _ENDS) for end in ends):
                raise ValueError(f"{key}: its values must be texts, integers or dates")
            found[key] = tuple(map(str, ends))  # dates of YAML in the form that folders have
        return found

    @field_validator("between")
    @classmethod
    def _ranges_begin_before_they_end(cls, between: dict[str, Any]) -> dict[str, Any]:
        for key, (first, last) in between.items():
            if not lies_between(first, first, last):
                raise ValueError(f"{key}: {first} comes after {last}")
        return between

    @field_validator("path", mode="before")
    @classmethod
    def _path_is_one_or_a_list(cls, path: Any) -> Any:
        several = texts(path if isinstance(path, list | tuple) else [path])
        if not all(several) or not several:
            raise ValueError("it must be a path, or a list of paths such as [data/a, data/b]")
        return several[0] if len(several) == 1 else path

    def conflicts(self) -> Iterator[str]:
        """Columns that are named twice."""
        features = self.features or ()
        for name in dict.fromkeys(each for each in features if features.count(each) > 1):
            yield f"the feature {name!r} is named twice"
        if self.weight_column in features:
            yield f"{self.weight_column!r} is both a feature and the weight"
