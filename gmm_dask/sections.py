"""Settings as strict sections, and the two that more than the stage takes: fit and cluster."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    ValidationInfo,
    field_validator,
    model_validator,
)

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
# As `mixture.covariance.family` takes it.
LOW_RANK = r"^low_rank:[1-9][0-9]{0,3}$"
LowRankName = Annotated[str, Field(pattern=LOW_RANK)]


class Section(BaseModel):
    """A part of the settings: immutable, and unknown keys are refused.

    What is wrong with one value is said by its field; what does not go together, by `conflicts`.
    """

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

    def conflicts(self) -> Iterator[str]:
        """Each contradiction between values that are right by themselves, with its remedy."""
        yield from ()

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        for name in type(self).model_fields:
            problem = _unstorable(getattr(self, name))
            if problem is not None:
                raise ValueError(f"{name} holds {problem}, which cannot be stored with the run")
        if found := list(self.conflicts()):
            raise ValueError("; ".join(found))
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


@dataclass(frozen=True)
class ClusterSpec:
    """Where the work is done; the results have the same bits everywhere.

    This record is checked when a backend is opened from it; the settings of the stage are the same
    record, checked when they are read.
    """

    kind: Annotated[
        str,
        Field(
            description="threads of this process, local worker processes, address of a scheduler, "
            "or the name of a registered factory, such as slurm, kubernetes or coiled."
        ),
    ] = "threads"
    workers: Annotated[
        Count | None,
        Field(
            ge=1,
            description="Threads or processes, all cores where not given; or workers to ask of a "
            "factory's cluster.",
        ),
    ] = None
    memory_limit: Annotated[
        str | None, Field(description="Memory of each local worker process, such as 1GiB.")
    ] = None
    address: Annotated[
        str | None,
        Field(description="Scheduler to connect to, tls://host:port or tcp://127.0.0.1:port."),
    ] = None
    tls_ca_file: Annotated[str | None, Field(description="Certificate authority, PEM file.")] = None
    tls_cert: Annotated[str | None, Field(description="Our certificate, PEM file.")] = None
    tls_key: Annotated[str | None, Field(description="Our private key, PEM file.")] = None
    insecure: Annotated[
        Flag,
        Field(description="Allow tcp:// beyond this machine: anyone there can run code."),
    ] = False
    timeout: Annotated[
        Number,
        Field(
            gt=0,
            description="Seconds that the scheduler, or every worker, may be away: at the start, "
            "and later.",
        ),
    ] = 60.0
    stuck_after: Annotated[
        Number,
        Field(
            gt=0,
            description="Seconds without a sign of life after which a worker is given up.",
        ),
    ] = 60.0
    retries: Annotated[
        Count,
        Field(
            ge=0,
            description="Times that a pass is repeated after workers or the scheduler were lost.",
        ),
    ] = 3
    options: Annotated[
        dict[str, Any],
        Field(
            default_factory=dict,
            description="What the registered factory is called with, by name.",
        ),
    ] = field(default_factory=dict)


# What a missing value means, to the class and to the section `data` of the stage.
MISSING: Any = Field(
    default="error",
    description="Rows with a missing feature: an error; label -1 and left out of the fit; or used "
    "for what they hold, by exact EM for values missing at random.",
)


class FitSettings(Section):
    """How to fit; scikit-learn's names and meanings."""

    n_components: Count = Field(default=1, ge=1, description="Number of mixture components.")
    covariance_type: Literal["full", "tied", "diag", "spherical"] | LowRankName = Field(
        default="full",
        description="What the components' covariances have in common. low_rank:5: correlations by "
        "5 factors and a variance of its own for each feature, for many features.",
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
    init_params: Literal["auto", "kmeans", "k-means++", "random", "random_from_data"] = Field(
        default="auto",
        description="How the start is found, on a random sample of rows. auto: by a search among "
        "many starts, with moves from optimum to optimum.",
    )
    effort: Literal["low", "medium", "high"] = Field(
        default="medium",
        description="What a search (init_params: auto) may spend: about 200, 6,000 or 30,000 "
        "passes over the rows of the sample; it ends earlier where the best was found again.",
    )
    random_state: Count = Field(
        default=0, ge=0, le=2**63 - 1, description="Seed; the same seed gives the same bits."
    )
    init_rows: Count = Field(
        default=65536, ge=2, description="Rows at most in the sample that the start is found on."
    )
    sample_em: Flag = Field(
        default=True,
        description="With at least four times as many rows as the start's sample holds, run EM on "
        "the sample until it settles before the first pass over all rows, from several starts, and "
        "go on from what is best there. Where rows are many that settles on a larger sample once "
        "more.",
    )
    acceleration: Literal["auto", "anderson", "none"] = Field(
        default="auto",
        description="Extrapolate from the steps so far; a step that made it worse is taken back. "
        "auto: with more rows than the start's sample holds.",
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
    eigenvalue_ratio: Number | None = Field(
        default=None,
        ge=1,
        description="The largest eigenvalue of all covariances is at most so many times the least "
        "one, on columns scaled to unit variances (spherical: in the data's units), so that no "
        "component shrinks onto a few rows. Not for low_rank.",
    )
    noise: Flag = Field(
        default=False,
        description="A component for rows that belong to no other: uniform over the volume of the "
        "data, its share estimated. Rows that are noise most probably get the label -1.",
    )
    weight_concentration_prior_type: (
        Literal["dirichlet_process", "dirichlet_distribution"] | None
    ) = Field(
        default=None,
        description="Where given, variational inference with this prior of the weights, as in "
        "scikit-learn's BayesianGaussianMixture: of n_components as many are used as the data ask "
        "for. The other priors then have the defaults of that class, a start is by kmeans where "
        "init_params is auto, and tol is the change of the lower bound of all rows together.",
    )
    weight_concentration_prior: Number | None = Field(
        default=None,
        gt=0,
        description="Concentration of a Dirichlet prior on the weights, at least 1, which says "
        "nothing. In variational inference below 1, too: the lower, the fewer components are used.",
    )
    mean_precision_prior: Number | None = Field(
        default=None, gt=0, description="Rows that the overall mean counts for in each component."
    )
    degrees_of_freedom_prior: Number | None = Field(
        default=None,
        gt=0,
        description="Degrees of freedom of an inverse-Wishart prior on the covariances; the number "
        "of features plus 2 where not given.",
    )
    covariance_prior: Number | None = Field(
        default=None,
        gt=0,
        description="Scale of the inverse-Wishart prior, in units of the columns' variances in the "
        "data.",
    )
    n_clusters: Count | None = Field(
        default=None,
        ge=1,
        description="Clusters that the components are merged into, those that overlap most first; "
        "where not given, until two would be five standard deviations apart.",
    )

    @property
    def objective(self) -> str:
        """What a fit makes as large as it can."""
        if self.weight_concentration_prior_type is not None:
            return "lower bound"
        names = (name for name in type(self).model_fields if name.endswith("_prior"))
        has_prior = any(getattr(self, name) is not None for name in names)
        return "log-posterior" if has_prior else "log-likelihood"

    def of_a_row(self, n_rows: int) -> FitSettings:
        """These settings with `tol` per row, which variational inference has of all rows."""
        if self.weight_concentration_prior_type is None:
            return self
        return self.model_copy(update={"tol": self.tol / max(1, n_rows)})

    @field_validator("weight_concentration_prior")
    @classmethod
    def _a_mode_has_no_less_than_one(
        cls, value: float | None, info: ValidationInfo
    ) -> float | None:
        inferred = info.data.get("weight_concentration_prior_type") is not None
        if value is not None and value < 1 and not inferred:
            raise ValueError(
                f"{value:g} is less than 1, which only variational inference takes: set "
                "weight_concentration_prior_type"
            )
        return value

    @property
    def clusters_problem(self) -> str | None:
        """Why so many clusters cannot be made of the components; None where they can."""
        if self.n_clusters is None or self.n_clusters <= self.n_components:
            return None
        return (
            f"n_clusters is {self.n_clusters}; {self.n_components} components cannot be merged "
            "into more clusters than there are components"
        )

    def conflicts(self) -> Iterator[str]:
        """What inference or EM cannot do, and numbers that are too small for the components."""
        if self.weight_concentration_prior_type is not None:
            yield from self._not_of_inference()
        elif self.degrees_of_freedom_prior is not None and self.covariance_prior is None:
            yield "degrees_of_freedom_prior needs covariance_prior, the spread that is believed in"
        if (problem := self.clusters_problem) is not None:
            yield problem
        if self.init_rows < self.n_components:
            yield (
                f"init_rows is {self.init_rows}; a start of {self.n_components} components needs "
                "at least as many rows"
            )

    def _not_of_inference(self) -> Iterator[str]:
        not_known = {
            "noise": self.noise,
            "eigenvalue_ratio": self.eigenvalue_ratio is not None,
            "covariance_type low_rank": self.covariance_type.startswith("low_rank"),
            "arithmetic single": self.arithmetic == "single",
            "acceleration anderson": self.acceleration == "anderson",
        }
        if found := [name for name, is_set in not_known.items() if is_set]:
            yield (
                f"weight_concentration_prior_type asks for variational inference, which has no "
                f"{' and no '.join(found)}: leave one of them out"
            )
