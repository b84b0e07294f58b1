"""The sections of the settings about what comes out: labels, versions, refresh, promotion."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, field_validator

from gmm_dask.redaction import secret_problem
from gmm_dask.sections import Count, Flag, Number, Section
from gmm_dask.stage.settings.complaints import texts

REASONS = (  # columns of the labels that say why
    *("reason_columns", "reason_scores", "reason_expected"),
    *("next_label", "label_columns", "label_evidence"),
)
OF_LABELS = (  # settings of what is written with the labels alone
    *("responsibilities", "clusters", "entropy", "severity", "anomaly", "reasons", "delta_table"),
)


class LabelSettings(Section):
    """Whether labels are written, and which columns stand beside them."""

    enabled: Flag = Field(default=True, description="Write labels; false gives the model alone.")
    keep: Literal["ids", "all"] | tuple[str, ...] = Field(
        default="ids",
        description="Input columns to keep: the ids, all, or a list of names. Rows are counted by "
        "label and the values of those that have few, in metrics.json and the report.",
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

    @property
    def compares(self) -> bool:
        """Whether rows are scored under another version, too."""
        return self.compare or self.sticky is not None

    def conflicts(self) -> Iterator[str]:
        """What is asked for without what it is made of."""
        if self.reasons == "flagged" and self.anomaly is None:
            yield "reasons: flagged needs anomaly, the share that is not flagged"
        asked = [name for name in OF_LABELS if getattr(self, name) not in (False, None, "none")]
        if asked and not self.enabled:
            need = "need" if len(asked) > 1 else "needs"
            yield f"{', '.join(asked)} {need} labels, and enabled: false writes none"

    @field_validator("keep", mode="before")
    @classmethod
    def _keep_is_a_word_or_a_list(cls, keep: Any) -> Any:
        if isinstance(keep, list | tuple):
            return texts(keep)
        if isinstance(keep, str) and keep in ("ids", "all"):
            return keep
        raise ValueError("it must be ids, all, or a list of column names such as [flower]")


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

    def conflicts(self) -> Iterator[str]:
        """Rights of files where there are none."""
        if self.private and self.path.lower().startswith("s3://"):
            yield "private applies to local folders; who may read a bucket is decided by its policy"

    @field_validator("path")
    @classmethod
    def _path_is_no_version(cls, path: str) -> str:
        folder, at, word = path.rpartition("@")
        if at and re.fullmatch("[0-9]+|[A-Za-z][0-9A-Za-z_-]*", word, re.ASCII):
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
            if problem := secret_problem(alias):
                raise ValueError(f"{problem}; choose another")
        return alias
