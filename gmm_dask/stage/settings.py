"""The settings of the stage: one strict schema for YAML files, flags and Prefect's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from gmm_dask.errors import SettingsError
from gmm_dask.redaction import secrets_in
from gmm_dask.stage import text
from gmm_dask.stage.cluster_settings import ClusterSettings
from gmm_dask.stage.complaints import Location, complaints, no_text, refusal
from gmm_dask.stage.sections import NO_SECRETS, Count, Flag, Number, Section
from gmm_dask.stage.settings_file import override, read_settings_file


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
    missing: Literal["error", "drop", "em"] = Field(
        default="error",
        description="Rows with a missing feature: an error; label -1 and left out of the fit; or "
        "used for what they hold, by exact EM for values missing at random.",
    )
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

    @property
    def in_short(self) -> str:
        """The paths as one short text."""
        return text.readable(self.path)

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


class FitSettings(Section):
    """How to fit; scikit-learn's names and meanings."""

    n_components: Count = Field(default=1, ge=1, description="Number of mixture components.")
    covariance_type: Literal["full", "tied", "diag", "spherical"] = Field(
        default="full", description="What the components' covariances have in common."
    )
    tol: Number = Field(
        default=1e-3, ge=0, description="Stop when the log-likelihood per row changes by less."
    )
    reg_covar: Number = Field(
        default=1e-6, ge=0, description="Added to every variance, in squared units of the data."
    )
    max_iter: Count = Field(
        default=100, ge=1, le=1_000_000, description="Passes over the data at most."
    )
    n_init: Count = Field(default=1, ge=1, description="Starts; the best result is kept.")
    init_params: Literal["kmeans", "k-means++", "random", "random_from_data"] = Field(
        default="kmeans", description="How the start is found, on a random sample of rows."
    )
    random_state: Count = Field(
        default=0, ge=0, le=2**63 - 1, description="Seed; the same seed gives the same bits."
    )
    init_rows: Count = Field(
        default=65536, ge=2, description="Rows at most in the sample that the start is found on."
    )
    sample_em: Flag = Field(
        default=True,
        description="With more rows than init_rows, run EM on the sample until it settles before "
        "the first pass over all rows, from several starts, and go on from what is best there. "
        "Where rows are many that settles on a larger sample once more.",
    )
    acceleration: Literal["auto", "anderson", "none"] = Field(
        default="auto",
        description="Extrapolate from the steps so far; a step that made it worse is taken back. "
        "auto: with more rows than init_rows.",
    )
    arithmetic: Literal["double", "single"] = Field(
        default="double",
        description="Precision of a pass. single: in float32 until the fit has nearly converged, "
        "then in float64, which decides; for many complete rows. Sums are float64 in both.",
    )
    component_policy: Literal["floor", "reseed", "drop", "raise"] = Field(
        default="floor",
        description="A component that holds no rows, collapses to a point or becomes singular: "
        "widen it by 1e-6 of the data's variances, start it anew where the mixture is worst, go "
        "on without it, or stop.",
    )
    weight_concentration_prior: Number | None = Field(
        default=None, ge=1, description="Of a Dirichlet prior on the weights; 1 says nothing."
    )
    mean_precision_prior: Number | None = Field(
        default=None, gt=0, description="Rows that the overall mean counts for in each component."
    )
    degrees_of_freedom_prior: Number | None = Field(
        default=None,
        gt=0,
        description="Of an inverse-Wishart prior; the number of features plus 2 where not given.",
    )
    covariance_prior: Number | None = Field(
        default=None,
        gt=0,
        description="Scale of that prior, in units of the columns' variances in the data.",
    )

    @property
    def objective(self) -> str:
        """What EM makes as large as it can."""
        names = (name for name in type(self).model_fields if name.endswith("_prior"))
        has_prior = any(getattr(self, name) is not None for name in names)
        return "log-posterior" if has_prior else "log-likelihood"

    @model_validator(mode="after")
    def _the_prior_is_whole(self) -> FitSettings:
        if self.degrees_of_freedom_prior is not None and self.covariance_prior is None:
            raise ValueError(
                "degrees_of_freedom_prior needs covariance_prior, the spread that is believed in"
            )
        return self

    @model_validator(mode="after")
    def _the_sample_can_start_it(self) -> FitSettings:
        if self.init_rows < self.n_components:
            raise ValueError(
                f"init_rows is {self.init_rows}; a start of {self.n_components} components needs "
                "at least as many rows"
            )
        return self


class LabelSettings(Section):
    """What the label files hold beside the label."""

    enabled: Flag = Field(default=True, description="Write labels; false gives the model alone.")
    keep: Literal["ids", "all"] | tuple[str, ...] = Field(
        default="ids", description="Input columns to keep: the ids, all, or a list of names."
    )
    responsibilities: Flag = Field(
        default=False, description="Also write each row's responsibilities as a list column."
    )
    delta_table: str | None = Field(
        default=None,
        min_length=1,
        description="Folder or s3:// URL of a Delta table that shall hold the labels of the latest "
        "version as well; needs gmm-dask[delta].",
    )

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
        folder, at, digits = path.rpartition("@")
        if at and digits.isascii() and digits.isdigit():
            raise ValueError(
                f"{path!r} reads as version {digits} of {folder!r}: give the folder another name"
            )
        return path


class Settings(Section):
    """Everything one run of the stage needs: fit a mixture and label every row."""

    data: DataSettings
    fit: FitSettings = FitSettings()
    labels: LabelSettings = LabelSettings()
    cluster: ClusterSettings = ClusterSettings()
    memory: MemorySettings = MemorySettings()
    output: OutputSettings


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


AnySettings = Settings | ScoreSettings


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
    """What a document is: settings to label with a published model name it."""
    if "model" in document and "fit" in document:
        raise SettingsError(
            "The settings have fit and model: with fit a mixture is fitted, with model rows are "
            "labelled by one that is published. Leave one of them out."
        )
    return ScoreSettings if "model" in document else Settings


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
