"""Small Delta tables, and entries of their logs by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable


def rows(*x: float, **columns: Any) -> pa.Table:
    return pa.table({"x": list(x), "y": [-value for value in x], **columns})


def log_entry(table: Path, *actions: dict[str, Any]) -> None:
    """Append an entry to the log of a table by hand."""
    log = table / "_delta_log"
    version = len(list(log.glob("*.json")))
    lines = "\n".join(map(json.dumps, actions))
    (log / f"{version:020}.json").write_text(lines)


def actions(table: Path, kind: str) -> list[dict[str, Any]]:
    """The actions of one kind in the log."""
    entries = sorted((table / "_delta_log").glob("*.json"))
    lines = [json.loads(line) for entry in entries for line in entry.read_text().splitlines()]
    return [line for line in lines if kind in line]


def active_files(table: Path) -> list[Path]:
    return [Path(uri).relative_to(table) for uri in DeltaTable(table).file_uris()]
