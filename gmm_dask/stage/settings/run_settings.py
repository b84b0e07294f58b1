"""The two documents that the sections of the settings make up; which rows, and which machines."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from gmm_dask.errors import SettingsError
from gmm_dask.kinds import lies_between
from gmm_dask.sections import MISSING, ClusterSpec, Count, FitSettings, Section
from gmm_dask.stage import text
from gmm_dask.stage.settings.complaints import texts
from gmm_dask.stage.settings.grid_settings import SelectSettings, with_candidates
from gmm_dask.stage.settings.output_settings import (
    FitOutputSettings,
    LabelSettings,
    OutputSettings,
    PromotionSettings,
    RefreshSettings,
)

_ENDS = (str, int, date)  # of a range
KINDS = ("threads", "processes", "address")  # beside the registered ones


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


class ClusterSettings(Section, ClusterSpec):
    """Where the work is done; the results have the same bits everywhere."""

    @field_validator("address")
    @classmethod
    def _scheme_is_in_lower_case(cls, address: str | None) -> str | None:
        scheme, separator, rest = (address or "").partition("://")
        return f"{scheme.lower()}://{rest}" if separator else address

    @field_validator("memory_limit")
    @classmethod
    def _memory_is_enough(cls, limit: str | None) -> str | None:
        if limit is not None:
            from gmm_dask.engine.cluster.opening import check_memory_limit

            check_memory_limit(limit)
        return limit

    @field_validator("kind")
    @classmethod
    def _kind_is_known(cls, kind: str) -> str:
        if kind not in KINDS:
            from gmm_dask.engine.cluster.factories import known_kinds, registered

            if kind not in registered():
                raise ValueError(known_kinds())
        return kind

    def conflicts(self) -> Iterator[str]:
        """Settings of another kind of cluster, and an address that is none or open to all."""
        if (self.kind == "address") != (self.address is not None):
            yield "kind: address and address: tls://host:port go together"
        if self.options and self.kind in KINDS:
            yield "options are for a registered factory only"
        if self.memory_limit is not None and self.kind != "processes":
            yield "memory_limit applies to kind: processes only"
        tls = (self.tls_ca_file, self.tls_cert, self.tls_key)
        if any(tls) and not all(tls):
            yield "tls_ca_file, tls_cert and tls_key are given together or not at all"
        elif self.address is not None:
            from gmm_dask.engine.cluster.address import check_address

            try:
                check_address(self.address, has_tls=all(tls), insecure=self.insecure)
            except SettingsError as error:
                yield str(error)


class MemorySettings(Section):
    """How much is held at once."""

    chunk_bytes: Count = Field(
        default=64 << 20,
        ge=1,
        description="Size of a chunk of rows in memory; part of the run's identity.",
    )
    held_bytes: Count | None = Field(
        default=None,
        ge=0,
        description="Decoded rows that stay in memory between passes, over all workers; the rest "
        "is read again. Where not given: half of what is free here, or a quarter of the workers'.",
    )
    scratch: str | None = Field(
        default=None,
        description="Folder on a local disk of whoever works, for decoded rows beyond held_bytes: "
        "passes read them there, and what does not fit from the input. Its parent must be there; "
        "the rows are gone with the fit or the process.",
    )

    @field_validator("scratch")
    @classmethod
    def _scratch_is_the_same_everywhere(cls, scratch: str | None) -> str | None:
        if scratch is not None and not Path(scratch).is_absolute():
            raise ValueError("it must be the absolute path of a folder, such as /mnt/disk/scratch")
        return scratch


class Settings(Section):
    """Everything one run of the stage needs: fit a mixture and label every row."""

    data: DataSettings
    fit: FitSettings = FitSettings()
    select: SelectSettings = SelectSettings()
    labels: LabelSettings = LabelSettings()
    cluster: ClusterSettings = ClusterSettings()
    memory: MemorySettings = MemorySettings()
    refresh: RefreshSettings = RefreshSettings()
    output: FitOutputSettings
    promotion: PromotionSettings = PromotionSettings()

    @model_validator(mode="before")
    @classmethod
    def _candidates_have_their_section(cls, document: Any) -> Any:
        return with_candidates(document)

    def conflicts(self) -> Iterator[str]:
        """What one section asks for and another rules out."""
        if self.fit.weight_concentration_prior_type is not None:
            yield from self._not_of_inference()
        said = self.select.n_bootstrap > 0 or self.select.criterion != "bic"
        if said and not self.select.is_asked:
            yield (
                "select.criterion and select.n_bootstrap are of a choice, and there is one "
                "candidate: give several numbers of components or families"
            )
        if self.labels.compares and self.output.follows == "none":
            yield (
                "labels.compare and labels.sticky are against the version that the fit follows, "
                "and output.follows is none"
            )

    def _not_of_inference(self) -> Iterator[str]:
        if self.select.is_asked:
            yield (
                "fit.weight_concentration_prior_type finds how many of n_components are used: give "
                "one number and one covariance_type, or leave it out to choose among several"
            )
        if self.data.missing == "em":
            yield (
                "fit.weight_concentration_prior_type asks for variational inference, which takes "
                "no missing values: set data.missing to drop"
            )

    @property
    def candidates(self) -> list[tuple[int, str]]:
        """Number of components and family of each candidate: one, where nothing is chosen."""
        return self.select.candidates(self.fit)

    @property
    def in_short(self) -> str:
        """Numbers of components and families, as the name of a run has them."""
        numbers = sorted({n for n, _ in self.candidates})
        families = ", ".join(dict.fromkeys(family for _, family in self.candidates))
        several = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])
        return f"{several}, {families}"


class ScoreSettings(Section):
    """Everything needed to label other data with a published model."""

    data: DataSettings
    model: str = Field(
        min_length=1, description="Output folder of a fit, with @version for one, or a model.json."
    )
    labels: LabelSettings = LabelSettings()
    cluster: ClusterSettings = ClusterSettings()
    memory: MemorySettings = MemorySettings()
    output: OutputSettings

    def conflicts(self) -> Iterator[str]:
        """What only a fit can do."""
        if self.labels.compares:
            yield "labels.compare and labels.sticky are of fits, which follow a version"


AnySettings = Settings | ScoreSettings
