"""Where the work is done, and how long to wait for it."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from gmm_dask.stage.sections import Count, Flag, Number, Section

KINDS = ("threads", "processes", "address")  # beside the registered ones


class ClusterSettings(Section):
    """Where the work is done; the results have the same bits everywhere."""

    kind: str = Field(
        default="threads",
        description="threads of this process, local worker processes, address of a scheduler, or "
        "the name of a registered factory, such as slurm, kubernetes or coiled.",
    )
    workers: Count | None = Field(
        default=None,
        ge=1,
        description="Threads or processes, all cores where not given; or workers to ask of a "
        "factory's cluster.",
    )
    memory_limit: str | None = Field(
        default=None, description="Memory of each local worker process, such as 1GiB."
    )
    address: str | None = Field(
        default=None,
        description="Scheduler to connect to, tls://host:port or tcp://127.0.0.1:port.",
    )
    tls_ca_file: str | None = Field(default=None, description="Certificate authority, PEM file.")
    tls_cert: str | None = Field(default=None, description="Our certificate, PEM file.")
    tls_key: str | None = Field(default=None, description="Our private key, PEM file.")
    insecure: Flag = Field(
        default=False, description="Allow tcp:// beyond this machine: anyone there can run code."
    )
    timeout: Number = Field(
        default=60,
        gt=0,
        description="Seconds that the scheduler, or every worker, may be away: at the start, and "
        "later.",
    )
    stuck_after: Number = Field(
        default=60,
        gt=0,
        description="Seconds without a sign of life after which a worker is given up.",
    )
    retries: Count = Field(
        default=3,
        ge=0,
        description="Times that a pass is repeated after workers or the scheduler were lost.",
    )
    options: dict[str, Any] = Field(
        default={}, description="What the registered factory is called with, by name."
    )

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
