"""Two versions side by side: components that are each other's, movers, criteria and drift."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gmm_dask.errors import OutputError
from gmm_dask.redaction import redacted
from gmm_dask.stage import text
from gmm_dask.stage.lineage.changes import Changes, Followed, Predecessor, changes_of
from gmm_dask.stage.outputs import Published, open_output
from gmm_dask.storage import version_numbers

MAX_FEATURES = 12  # side by side; those whose means moved farthest
NONE = "–"


@dataclass(frozen=True)
class Sheet:
    """A table of texts; the first column says what a row is of.

    Parameters
    ----------
    title : str
    heads : tuple of str
    rows : tuple of tuple of str
    remark : str
        What readers need to know of it.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remark: str = ""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What changed from one version to another.

    Parameters
    ----------
    first, second : Published
    changes : Changes
        Changes from the first version to the second, whichever version the second follows.
    """

    first: Published
    second: Published
    changes: Changes

    @property
    def title(self) -> str:
        """What is compared, in a line."""
        one, other = (
            f"{redacted(each.folder.store.url)}@{each.version.number}"
            for each in (self.first, self.second)
        )
        return f"{one} and {other}"

    @property
    def events(self) -> list[str]:
        """What happened to components, in sentences."""
        found = [each.message for each in self.changes.changes]
        return found or ["No component was born, died, split, merged or moved."]

    @property
    def sheets(self) -> list[Sheet]:
        """All tables; what was not measured is left out, and said."""
        found = [_criteria(self), _components(self), _means(self), _movers(self), _drift(self)]
        return [each for each in found if each is not None]


def compare(first: str, second: str) -> Comparison:
    """Compare two versions, which may be of different outputs.

    Parameters
    ----------
    first, second : str
        OUT, OUT@7 or OUT@champion.

    Raises
    ------
    OutputError
        There is no such version, or they have different features.
    """
    before, now = open_output(first), open_output(second)
    names = now.model.feature_names
    if set(before.model.feature_names) != set(names):
        raise OutputError(
            f"{first} has the features {', '.join(before.model.feature_names)}, {second} has "
            f"{', '.join(names)}: components of other features have nothing in common."
        )
    order = np.array([before.model.feature_names.index(name) for name in names])
    parameters = before.model.parameters
    if before.model.feature_names != names:
        parameters = parameters.marginal(order)
    number, run_id = before.version.number, before.run_id
    followed = Followed(None, number, run_id, before.model.sha256)
    assert before.changes is not None
    predecessor = Predecessor(followed, parameters, before.model.n_rows, before.changes.components)
    return Comparison(before, now, changes_of(now.model, predecessor))


def one_before(ref: str) -> str:
    """The version that a version follows; the one before it where it follows none.

    Raises
    ------
    OutputError
        There is no such version, or it is the first.
    """
    found = open_output(ref)
    store, number = found.folder.store, found.version.number
    follows = None if found.changes is None else found.changes.follows
    if follows is not None:
        return f"{follows.output or store.url}@{follows.version}"
    earlier = [n for n in version_numbers(store) if n < number]
    if not earlier:
        raise OutputError(
            f"{store.url}@{number} is the first version, and follows none: name the version to "
            "compare it with."
        )
    return f"{store.url}@{max(earlier)}"


def _criteria(found: Comparison) -> Sheet:
    both = found.first, found.second
    rows = [
        ("run", *(each.run_id for each in both)),
        ("published", *(text.moment(each.version.published) for each in both)),
        ("rows", *(f"{each.metrics['n_rows']:,}" for each in both)),
        ("components", *(str(each.model.parameters.n_components) for each in both)),
        ("covariance type", *(each.model.parameters.covariance_type for each in both)),
        ("outcome", *(each.model.outcome.replace("_", " ") for each in both)),
    ]
    for name, said in _MEASURES.items():
        values = [each.metrics.get(name) for each in both]
        if any(value is not None for value in values):
            digits = text.PER_ROW if name.endswith("per_row") else text.IN_TOTAL
            rows.append((said, *(NONE if v is None else text.signed(v, digits) for v in values)))
    before = _before(found)
    if before is not None:
        said = text.signed(before["log_likelihood_per_row"], 6)
        rows.append(("of the second's rows, per row", said, _own(found)))
    remark = "Each log-likelihood is of the rows of its own version, so two are comparable only "
    remark += "where the rows are the same, or where the second's rows were scored under both."
    return Sheet("Criteria", _heads(found), tuple(rows), remark)


def _own(found: Comparison) -> str:
    value = found.second.metrics.get("log_likelihood_per_row")
    return NONE if value is None else text.signed(value, 6)


_MEASURES = {
    "log_likelihood_per_row": "log-likelihood per row",
    "bic": "BIC",
    "aic": "AIC",
    "icl": "ICL",
}


def _components(found: Comparison) -> Sheet:
    """One row for each component of either version, partners side by side."""
    before, now = found.first.model.parameters, found.second.model.parameters
    assert found.first.changes is not None
    old, new = found.first.changes.names, found.second.names
    rows = []
    for j, each in enumerate(found.changes.components):
        i = each.previous
        rows.append(
            (
                _called(new[j] if new else None) or _called(None if i is None else old[i]) or NONE,
                NONE if i is None else str(i),
                str(j),
                NONE if i is None else text.percent(float(before.weights[i])),
                text.percent(float(now.weights[j])),
                "new" if each.shift is None else f"{each.shift:.2f}",
            )
        )
    partners = found.changes.partners
    for i in range(before.n_components):
        if i not in partners:
            weight = text.percent(float(before.weights[i]))
            rows.append((_called(old[i]) or NONE, str(i), NONE, weight, NONE, "gone"))
    one, other = found.first.version.number, found.second.version.number
    heads = ("name", f"in {one}", f"in {other}", f"weight in {one}", f"weight in {other}", "shift")
    remark = "The shift is that of the mean, in standard deviations of the average covariance."
    return Sheet("Components", heads, tuple(rows), remark)


def _called(name: str | None) -> str:
    return text.short(name) if name else ""


def _means(found: Comparison) -> Sheet | None:
    """Means of partners feature by feature, those first that moved farthest."""
    before, now = found.first.model, found.second.model
    pairs = sorted(found.changes.partners.items(), key=lambda pair: pair[1])
    if not pairs:
        return None
    old = [before.feature_names.index(name) for name in now.feature_names]
    spreads = np.sqrt(np.einsum("kdd->kd", now.parameters.dense_covariances()))
    olds, news = [i for i, _ in pairs], [j for _, j in pairs]
    moved = (now.parameters.means[news] - before.parameters.means[olds][:, old]) / spreads[news]
    chosen = np.argsort(-np.abs(moved).max(axis=0), kind="stable")[:MAX_FEATURES]
    rows = []
    for f in chosen.tolist():
        cells = []
        for i, j in pairs:
            spread = float(spreads[j, f])
            values = before.parameters.means[i, old[f]], now.parameters.means[j, f]
            cells.append(" → ".join(text.measured(float(value), spread)[0] for value in values))
        rows.append((text.short(now.feature_names[f]), *cells))
    more = len(now.feature_names) - len(rows)
    remark = f"{text.numbered(more, 'more feature')} moved less." if more else ""
    return Sheet("Means", ("feature", *(f"component {j}" for j in news)), tuple(rows), remark)


def _movers(found: Comparison) -> Sheet | None:
    """Rows by label before and now, where the label phase counted them against the first."""
    counted = found.second.changes
    if counted is None or counted.migration is None or not _follows(found):
        return None
    *_, last = counted.migration
    nobody = "no component"
    k = len(counted.migration) - 1
    with_none = any(last) or any(row[-1] for row in counted.migration)
    shown = counted.migration if with_none else [row[:-1] for row in counted.migration[:-1]]
    heads = [f"{j} now" for j in range(len(last) - 1)] + [nobody] * with_none
    rows = tuple(
        (f"{i} before" if i < k else nobody, *(f"{n:,}" for n in row))
        for i, row in enumerate(shown)
    )
    total = sum(map(sum, counted.migration))
    share = text.percent((counted.n_movers or 0) / total) if total else NONE
    remark = f"{share} of the rows have another component than under the first version."
    return Sheet("Rows by component", ("", *heads), rows, remark)


def _drift(found: Comparison) -> Sheet | None:
    measured: Mapping[str, Any] = (found.second.metrics.get("refresh") or {}).get("drift") or {}
    rows = tuple((name.replace("_", " "), f"{value:.4g}") for name, value in measured.items())
    remark = "Of the new partitions of the second version, from the data of its fit."
    return Sheet("Drift", ("metric", "value"), rows, remark) if rows else None


def _heads(found: Comparison) -> tuple[str, ...]:
    return ("", *(f"version {each.version.number}" for each in (found.first, found.second)))


def _follows(found: Comparison) -> bool:
    follows = None if found.second.changes is None else found.second.changes.follows
    return follows is not None and follows.run_id == found.first.run_id


def _before(found: Comparison) -> Mapping[str, Any] | None:
    before: Mapping[str, Any] | None = found.second.metrics.get("before")
    return before if _follows(found) else None


def lines_of(sheet: Sheet) -> Iterator[str]:
    """A table as lines of text, its columns aligned."""
    table: Sequence[tuple[str, ...]] = (sheet.heads, *sheet.rows)
    widths = [max(len(row[i]) for row in table) for i in range(len(sheet.heads))]
    for row in table:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
    if sheet.remark:
        yield sheet.remark
