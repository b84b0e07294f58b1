"""Names, counts and shares as people read them, in pictures and in texts."""

from __future__ import annotations

from gmm_dask.errors import shown

MAX_NAME = 40  # characters of a feature name in a picture or a table


def percent(share: float) -> str:
    """A share as a percentage with no more digits than it needs."""
    value = 100 * share
    if value in (0, 100):
        return f"{value:.0f} %"
    if 0 < value < 0.1:
        return "< 0.1 %"
    if 99.9 < value < 100:
        return "> 99.9 %"
    return f"{value:.1f} %" if value < 10 or value > 99 else f"{value:.0f} %"


def signed(value: float, digits: int) -> str:
    """A number with a real minus sign."""
    shown = f"{value:,.{digits}f}"
    return shown.lstrip("-") if not float(shown.replace(",", "")) else shown.replace("-", "−")


def short(name: str, limit: int = MAX_NAME) -> str:
    """The name on one line, cut in the middle where it is longer than the limit."""
    name = shown(name) if name.strip() else "(no name)"
    if len(name) <= limit:
        return name
    tail = limit // 3
    return f"{name[: limit - tail - 1]}…{name[-tail:]}"


def numbered(count_of: int, noun: str) -> str:
    """`1 row`, `2 rows`; the noun's plural takes an s, or es after s."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{count_of:,} {noun if count_of == 1 else plural}"
