"""Options of the command line as sections of the settings."""

from __future__ import annotations

from typing import Any


def given(**values: Any) -> dict[str, Any]:
    """The options that were given; what was not keeps the default of the settings."""
    return {name: value for name, value in values.items() if value is not None}


def names(options: list[str] | None) -> list[str] | None:
    """Column names, separated by commas or given in several options."""
    if not options:
        return None
    return [name.strip() for option in options for name in option.split(",") if name.strip()]


def labels(keep: str | None, responsibilities: bool, *, enabled: bool) -> dict[str, Any]:
    """The section `labels`."""
    kept = keep if keep in (None, "ids", "all") else names([str(keep)])
    return given(keep=kept) | {"responsibilities": responsibilities, "enabled": enabled}


def cluster(
    where: str | None, workers: int | None, ca_file: str | None, cert: str | None, key: str | None
) -> dict[str, Any]:
    """The section `cluster`; an address is known by its `://`."""
    kind = {"kind": "address", "address": where} if "://" in (where or "") else {"kind": where}
    return given(**kind, workers=workers, tls_ca_file=ca_file, tls_cert=cert, tls_key=key)
