"""Numbers and names as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from reprlib import Repr
from typing import Any

from gmm_dask.redaction import redacted
from gmm_dask.words import numbered, percent, short, signed

MAX_VALUE = 600  # characters of one setting
MAX_INPUT = 200  # characters of a wrong setting that a message repeats
MAX_FEATURES = 30  # names in one line
PER_ROW, IN_TOTAL = 6, 4  # decimals of a log-likelihood, wherever it is shown
MAX_DECIMALS = 9  # beyond, scientific notation reads better

__all__ = [
    "bounded", "count", "data", "duration", "features", "flattened", "held_chunks", "in_total",
    "measured",
    "moment", "numbered", "per_row", "percent", "readable", "short", "signed", "size",
    "table_versions",
]  # fmt: skip

_BOUNDED = Repr()
_BOUNDED.maxlevel, _BOUNDED.maxstring, _BOUNDED.maxother = 2, MAX_INPUT, MAX_INPUT


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    return "unknown" if value is None else f"{round(value):,}"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if seconds < 0.01:
        return f"{1000 * seconds:.1f} ms"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def moment(time: Any) -> str:
    """A time of our documents to the second, as `2026-08-01 12:00:00 UTC`."""
    from gmm_dask.storage import is_time  # whose package is slow to load

    return f"{time[:10]} {time[11:19]} UTC" if is_time(time) else "unknown"


def size(n_bytes: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def measured(mean: float, spread: float) -> tuple[str, str]:
    """A mean and its spread, both to the third digit of the spread where that is not too many."""
    if not (math.isfinite(mean) and math.isfinite(spread)):
        return str(mean), str(spread)
    decimals = 2 - math.floor(math.log10(spread)) if spread > 0 else 3
    largest = max(abs(mean), spread)
    if decimals > MAX_DECIMALS and 1e-3 <= largest < 1e12:  # a component that is all but a point
        return f"{mean:,.6f}".replace("-", "−"), f"{spread:.2e}"
    if decimals > MAX_DECIMALS or largest >= 1e12:
        digits = decimals + math.floor(math.log10(largest)) if largest > 0 else 2
        return f"{mean:.{min(max(digits, 2), 15)}e}", f"{spread:.2e}"
    decimals = max(decimals, 0)
    return f"{mean:,.{decimals}f}".replace("-", "−"), f"{spread:,.{decimals}f}"


def per_row(log_likelihood: float) -> str:
    """A log-likelihood per row, with the digits that it has wherever it is shown."""
    return f"{log_likelihood:,.{PER_ROW}f}"


def in_total(log_likelihood: float) -> str:
    """A log-likelihood of all rows, with the digits that it has wherever it is shown."""
    return f"{log_likelihood:,.{IN_TOTAL}f}"


def features(names: Sequence[str], *, named: bool | None) -> str:
    """The features in one line, and whether somebody chose them.

    Parameters
    ----------
    names : sequence of str
    named : bool or None
        Whether the settings name them; None where nothing is known of it, as with a model's.
    """
    how = {True: ", as named", False: ", all numeric columns, for none was named", None: ""}[named]
    first = ", ".join(short(name) for name in names[:MAX_FEATURES])
    more = f" and {len(names) - MAX_FEATURES:,} more" if len(names) > MAX_FEATURES else ""
    return f"{numbered(len(names), 'feature')}{how}: {first}{more}"


def bounded(value: Any) -> str:
    """Any value on a short line: an alias in YAML can stand for more than memory holds."""
    written = _BOUNDED.repr(value)
    return written if len(written) <= MAX_INPUT else f"{written[: MAX_INPUT - 3]}..."


def held_chunks(
    total: int, held: int, n_bytes: int, in_scratch: int = 0, scratch_bytes: int = 0
) -> str:
    """How many chunks stay decoded between passes in memory and on disk, in one line."""
    parts = [(held, n_bytes, "decoded"), (in_scratch, scratch_bytes, "decoded in scratch")]
    lines = [
        f"{_which(n, total)} {where} between passes, {size(of)}" for n, of, where in parts if n
    ]
    return "; ".join(lines) or "every pass reads all chunks again"


def _which(n: int, total: int) -> str:
    return "all chunks stay" if n == total else f"{n:,} of {numbered(total, 'chunk')} stay"


def table_versions(tables: Mapping[str, int]) -> str:
    """Names and versions of the Delta tables that were read; a single table has no name."""
    return ", ".join(
        f"{name}, version {number}" if name else f"version {number}"
        for name, number in tables.items()
    )


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as `section.key` and a value to read, without secrets."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", readable(value)


def data(path: str | Sequence[str], between: Mapping[str, Sequence[str]]) -> str:
    """The paths of data and the ranges of keys that are read, as one short text."""
    ranges = [f"{key} {first} to {last}" for key, (first, last) in between.items()]
    return ", ".join([readable(path), *ranges])


def readable(value: Any) -> str:
    """A setting's value as a person would write it."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        text = ", ".join(readable(item) for item in value) or "none"
    else:
        text = str(value)
    return short(redacted(text), MAX_VALUE)
