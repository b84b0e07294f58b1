"""Everything that is wrong with an input, collected before it is said."""

from __future__ import annotations

from collections import Counter

from gmm_dask.errors import DataError

MAX_ALIKE = 20  # lines of one kind that are spelt out; the rest is counted


class Problems:
    """Collects problems in the order found, so that one error can name them all."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._counts.total()

    def add(self, kind: str, line: str) -> None:
        """Note one problem; `kind` says what it has in common with others."""
        self._counts[kind] += 1
        if self._counts[kind] <= MAX_ALIKE:
            self._lines.append(line)

    def lines(self) -> tuple[str, ...]:
        """One line a problem; of many alike, the first ones and their number."""
        more = [
            f"... and {count - MAX_ALIKE} more: {kind}."
            for kind, count in self._counts.items()
            if count > MAX_ALIKE
        ]
        return (*self._lines, *more)

    def raise_any(self) -> None:
        """Raise DataError with every problem; do nothing where there is none."""
        if self:
            raise DataError(self.lines())
