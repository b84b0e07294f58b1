"""Every section of the settings, and the two documents that they make up."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from gmm_dask.kinds import lies_between
from gmm_dask.sections import MISSING, ClusterSpec, Count, FitSettings, Flag, Number, Section
from gmm_dask.stage import text
from gmm_dask.stage.settings.complaints import no_text
from gmm_dask.stage.settings.grid_settings import SelectSettings, with_candidates

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
        ranges = [f"{key} {first} to {last}" for key, (first, last) in self.between.items()]
        return ", ".join([text.readable(self.path), *ranges])

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
        several = path if isinstance(path, list | tuple) else [path]
        for each in several:
            if not isinstance(each, str):
                raise no_text(each)
        if not all(several) or not several:
            raise ValueError("it must be a path, or a list of paths such as [data/a, data/b]")
        return several[0] if len(several) == 1 else path

    @model_validator(mode="after")
    def _columns_have_one_role(self) -> DataSettings:
        features = self.features or ()
        for name in features:
            if features.count(name) > 1:
                raise ValueError(f"the feature {name!r} is named twice")
        if self.weight_column in features:
            raise ValueError(f"{self.weight_column!r} is both a feature and the weight")
        return self


KINDS = ("threads", "processes", "address")  # beside the registered ones


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

    @model_validator(mode="after")
    def _address_is_complete(self) -> ClusterSettings:
        if (self.kind == "address") != (self.address is not None):
            raise ValueError("kind: address and address: tls://host:port go together")
        if self.options and self.kind in KINDS:
            raise ValueError("options are for a registered factory only")
        if self.memory_limit is not None and self.kind != "processes":
            raise ValueError("memory_limit applies to kind: processes only")
        tls = (self.tls_ca_file, self.tls_cert, self.tls_key)
        if any(tls) and not all(tls):
            raise ValueError("tls_ca_file, tls_cert and tls_key are given together or not at all")
        if self.address is not None:
            from gmm_dask.engine.cluster.address import check_address

            check_address(self.address, has_tls=all(tls), insecure=self.insecure)
        return self


REASONS = (  # columns of the labels that say why
    *("reason_columns", "reason_scores", "reason_expected"),
    *("next_label", "label_columns", "label_evidence"),
)


class LabelSettings(Section):
    """Whether labels are written, and which columns stand beside them."""

    enabled: Flag = Field(default=True, description="Write labels; false gives the model alone.")
    keep: Literal["ids", "all"] | tuple[str, ...] = Field(
        default="ids", description="Input columns to keep: the ids, all, or a list of names."
    )
    responsibilities: Flag = Field(
        default=False, description="Also write each row's responsibilities as a list column."
    )
    clusters: Flag = Field(
        default=False,
        description="Also write the cluster of each row: components that overlap are one.",
    )
    entropy: Flag = Field(
        default=False,
        description="Also write how unsure each label is: the entropy of the row's "
        "responsibilities, 0 where it is certain.",
    )
    severity: Flag = Field(
        default=False,
        description="Also write how unusual each row is: the share of the training data that is "
        "more usual, 0 to 100.",
    )
    anomaly: Number | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Flag the rows that are more unusual than this share of the training data, "
        "such as 0.99; writes severity, too.",
    )
    reasons: Literal["none", "flagged", "all"] = Field(
        default="none",
        description="Also write the columns that make each row unusual, with the values to be "
        "expected, and those that speak for its label and against the next: of flagged rows, or "
        "of all.",
    )
    compare: Flag = Field(
        default=False,
        description="Score each row under the version that the fit follows, too: changes.json has "
        "how many rows went from which component to which, metrics.json its log-likelihood.",
    )
    sticky: Number | None = Field(
        default=None,
        ge=0,
        description="The least gain of log-posterior for which a row gets another label than under "
        "the version that the fit follows, such as 0.7 for twice as probable; compares, too.",
    )
    delta_table: str | None = Field(
        default=None,
        min_length=1,
        description="Folder or s3:// URL of a Delta table that shall hold the labels of the latest "
        "version as well; needs gmm-dask[delta].",
    )

    @property
    def further(self) -> tuple[str, ...]:
        """The columns that stand beside label and density, responsibilities apart."""
        flagged = self.anomaly is not None
        found = ["cluster"] * self.clusters + ["entropy"] * self.entropy
        found += ["severity"] * (flagged or self.severity) + ["anomaly"] * flagged
        return (*found, *(() if self.reasons == "none" else REASONS))

    @model_validator(mode="after")
    def _flagged_rows_are_told_by_a_share(self) -> LabelSettings:
        if self.reasons == "flagged" and self.anomaly is None:
            raise ValueError("reasons: flagged needs anomaly, the share that is not flagged")
        return self

    @model_validator(mode="after")
    def _a_table_needs_labels(self) -> LabelSettings:
        if self.delta_table is not None and not self.enabled:
            raise ValueError("delta_table needs labels, and enabled: false writes none")
        return self

    @field_validator("keep", mode="before")
    @classmethod
    def _keep_is_a_word_or_a_list(cls, keep: Any) -> Any:
        if isinstance(keep, list | tuple):
            for value in keep:
                if not isinstance(value, str):
                    raise no_text(value)
            return keep
        if isinstance(keep, str) and keep in ("ids", "all"):
            return keep
        raise ValueError("it must be ids, all, or a list of column names such as [flower]")


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


class OutputSettings(Section):
    """Where the versions go."""

    path: str = Field(
        min_length=1, description="Folder of the published versions, or s3://bucket/prefix."
    )
    checkpoint_seconds: Number | None = Field(
        default=1.0,
        ge=0,
        description="Least time from one checkpoint of a fit to the next: no more than that, and "
        "the pass under way, is done again after a stop. Longer where writing would take over 2 % "
        "of the fit; 0 writes one after every pass, null writes none and looks at none.",
    )
    private: Flag = Field(
        default=False,
        description="Files and folders for this user alone (0600, 0700), whatever the umask.",
    )

    @model_validator(mode="after")
    def _only_a_folder_is_private(self) -> OutputSettings:
        if self.private and self.path.lower().startswith("s3://"):
            raise ValueError(
                "private applies to local folders; who may read a bucket is decided by its policy"
            )
        return self

    @field_validator("path")
    @classmethod
    def _path_is_no_version(cls, path: str) -> str:
        folder, at, word = path.rpartition("@")
        if at and word.isascii() and word.isdigit():
            raise ValueError(
                f"{path!r} reads as version {word} of {folder!r}: give the folder another name"
            )
        if at and re.fullmatch("[A-Za-z][0-9A-Za-z_-]*", word, re.ASCII):
            raise ValueError(
                f"{path!r} reads as the version {word} of {folder!r}: give the folder another name"
            )
        return path


class FitOutputSettings(OutputSettings):
    """Where the versions of a fit go, and which of them the fit follows."""

    follows: str = Field(
        default="latest",
        min_length=1,
        description="The version whose components a fit follows, so that they keep numbers and "
        "names: latest, an alias of the output such as champion, none, or a version as OUT@7. "
        "Components of a fit that follows none are numbered by weight.",
    )

    @field_validator("follows")
    @classmethod
    def _follows_a_version(cls, follows: str) -> str:
        from gmm_dask.storage import NO_ALIAS, is_alias, parse_ref

        if "@" in follows and parse_ref(follows)[1] is None and not follows.endswith("@latest"):
            raise ValueError(f"{follows!r} names no version: write OUT@7 or OUT@champion")
        if "@" not in follows and not (follows in NO_ALIAS or is_alias(follows)):
            raise ValueError(f"{follows!r} is no alias: letters, digits, _ and -, a letter first")
        return follows


Limited = Literal["psi", "severity_psi", "divergence", "log_density_drop", "missing_share"]


class RefreshSettings(Section):
    """How a published mixture is refreshed; `gmm-dask run` takes no notice of these."""

    polish: Count = Field(
        default=0,
        ge=0,
        description="Passes over all rows at most, after the one over new and changed partitions.",
    )
    warn: dict[Limited, Number] = Field(
        default={"psi": 0.25},
        description="Limits of the drift of new partitions from the data of the fit, above which "
        "a refresh warns: of psi, severity_psi, divergence, log_density_drop or missing_share.",
    )
    fail: dict[Limited, Number] = Field(
        default_factory=dict,
        description="Limits above which a refresh fails, before it publishes.",
    )


class PromotionSettings(Section):
    """When a version takes the place of another under an alias."""

    alias: str | None = Field(
        default=None,
        description="Alias that a run gets once it is published, such as champion, if the limits "
        "below hold against the version that has it; if not, it stays there, and that is told.",
    )
    log_likelihood_loss: Number | None = Field(
        default=None,
        description="The most that the log-likelihood per row may be less than under the version "
        "that has the alias, on the rows of this run; needs labels.compare.",
    )
    movers: Number | None = Field(
        default=None,
        ge=0,
        description="The largest share of rows that may have another component than under that "
        "version; needs labels.compare.",
    )
    drift: Number | None = Field(
        default=None,
        ge=0,
        description="The largest drift of the shares of components (psi) that a refresh may have "
        "measured in new partitions.",
    )

    @field_validator("alias")
    @classmethod
    def _alias_is_a_word(cls, alias: str | None) -> str | None:
        if alias is not None:
            from gmm_dask.storage import is_alias

            if not is_alias(alias):
                raise ValueError(
                    "it must be a letter, then letters, digits, _ and -; not latest or none"
                )
        return alias


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

    @model_validator(mode="after")
    def _inference_is_of_one_mixture_and_whole_rows(self) -> Settings:
        if self.fit.weight_concentration_prior_type is None:
            return self
        if self.select.is_asked:
            raise ValueError(
                "fit.weight_concentration_prior_type finds how many of n_components are used: give "
                "one number and one covariance_type, or leave it out to choose among several"
            )
        if self.data.missing == "em":
            raise ValueError(
                "fit.weight_concentration_prior_type asks for variational inference, which takes "
                "no missing values: set data.missing to drop"
            )
        return self

    @model_validator(mode="after")
    def _something_is_followed_where_labels_are_compared(self) -> Settings:
        compared = self.labels.compare or self.labels.sticky is not None
        if compared and self.output.follows == "none":
            raise ValueError(
                "labels.compare and labels.sticky are against the version that the fit follows, "
                "and output.follows is none"
            )
        return self

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

    @model_validator(mode="after")
    def _labels_alone_follow_nothing(self) -> ScoreSettings:
        if self.labels.compare or self.labels.sticky is not None:
            raise ValueError("labels.compare and labels.sticky are of fits, which follow a version")
        return self


AnySettings = Settings | ScoreSettings
