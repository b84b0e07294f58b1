"""What people are shown of a version, the same on a terminal, in the report and in Prefect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.fitting import Outcome
from gmm_dask.mixture import Parameters
from gmm_dask.mixture.estimate import Cause
from gmm_dask.pictures.telling import most_telling
from gmm_dask.roads.cautions import LACKS_NOISE, gist
from gmm_dask.sampling import Oddity
from gmm_dask.stage import text
from gmm_dask.stage.labels.certainty import in_words, profile_lines, profile_records
from gmm_dask.storage import (
    Model,
)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Components:
    """The components of a mixture as every table of them shows them.

    Parameters
    ----------
    names : (d,)
        Names of the features.
    parameters : Parameters
    n_rows : int or None
        Rows that the weights are shares of; None if sizes are not to be shown.
    labelled : (k,) or None
        Rows that got the label of each component.
    called : sequence of str or None
        Names of the components; empty where none is known.
    """

    names: tuple[str, ...]
    parameters: Parameters
    n_rows: int | None = None
    labelled: Sequence[int] | None = None
    called: Sequence[str | None] = ()

    @property
    def sizes(self) -> Array | None:
        """Weight of each component times the rows that are no noise, (k,)."""
        if self.n_rows is None:
            return None
        noise = self.parameters.noise
        share = 0.0 if noise is None else noise.share
        return np.asarray(self.parameters.weights * (1 - share) * self.n_rows)

    @property
    def spreads(self) -> Array:
        """Standard deviation of each feature in each component, (k, d)."""
        return np.asarray(np.sqrt(self.parameters.family.variances))

    def heaviest(self, at_most: int) -> list[int]:
        """The components of largest weight, in their own order."""
        return _foremost(self.parameters.weights, at_most)

    def most_telling(self, at_most: int) -> list[int]:
        """The features that separate the components best, in their own order."""
        return [int(j) for j in most_telling(self.parameters, at_most)]

    def heads(self, j: int) -> dict[str, str]:
        """Number, weight, size and labelled rows of a component, as far as they are known."""
        found = {"component": str(j)}
        if any(self.called):
            found["name"] = text.short(self.called[j] or "–")
        found["weight"] = text.percent(float(self.parameters.weights[j]))
        if self.sizes is not None:
            found["size"] = text.count(self.sizes[j])
        if self.labelled is not None:
            found["labelled"] = text.count(self.labelled[j])
        return found

    def measured(self, j: int, features: Sequence[int]) -> list[tuple[str, str]]:
        """Mean and standard deviation of some features in a component, in units of the data."""
        means, spreads = self.parameters.means[j], self.spreads[j]
        return [text.measured(float(means[f]), float(spreads[f])) for f in features]


class Ending(NamedTuple):
    """How the fit of a model ended.

    Parameters
    ----------
    outcome : str
        Outcome of the fit, or "labelled" in a run that fitted nothing.
    passes : str
        The passes that were made; where nothing was fitted, which model it is.
    advice : str
        What to do next; empty where nothing was fitted.
    """

    outcome: str
    passes: str
    advice: str

    @classmethod
    def of(cls, model: Model, metrics: Mapping[str, Any]) -> Ending:
        """Made from a model and the metrics of its version; a model alone has no metrics."""
        outcome = Outcome(model.outcome)
        if source := metrics.get("model_from"):
            rows, passes = text.numbered(model.n_rows, "row"), text.numbered(model.n_passes, "pass")
            ended = f"{outcome.replace('_', ' ')} after {passes}"
            source = text.readable(source)
            return cls("labelled", f"the model is that of {source}, fitted to {rows}; {ended}", "")
        return cls(model.outcome, passes_made(model.n_passes, metrics), outcome.advice)


@dataclass(frozen=True, eq=False)
class Summary:
    """Everything that people are told of a version, or of a model alone.

    Parameters
    ----------
    components : Components
    features : str
        Names of the features, and whether somebody chose them.
    cautions : tuple of str
        What ought to be known before anything else.
    events : tuple of dict
        What else happened to components.
    ending : Ending
    profiles : dict of int to str
        What components are known by.
    """

    components: Components
    features: str
    cautions: tuple[str, ...]
    events: tuple[Mapping[str, Any], ...]
    ending: Ending
    profiles: Mapping[int, str]

    @classmethod
    def of(
        cls, model: Model, metrics: Mapping[str, Any], called: Sequence[str | None] = ()
    ) -> Summary:
        """Made from a model and the metrics of its version; a model alone has no metrics.

        `called` are the names of the components, where any is known.
        """
        cautions, events = told_apart(metrics.get("events") or ())
        n_rows = None if metrics.get("model_from") else model.n_rows
        names, records = model.feature_names, metrics.get("profiles")
        if records is None:
            records = profile_records(model.parameters, names)
        return cls(
            Components(names, model.parameters, n_rows, metrics.get("n_labelled"), called),
            text.features(names, named=metrics.get("features_named")),
            tuple(cautions),
            tuple(events),
            Ending.of(model, metrics),
            profile_lines(model.parameters, names, records),
        )


def rows_used(metrics: Mapping[str, Any]) -> str:
    """How many rows were read, and what became of those that are not as others."""
    if metrics.get("given"):
        return f"{metrics['n_rows']:,} of the fit" if metrics["n_rows"] else "nobody knows how many"
    rows = f"{metrics['n_rows']:,}" if metrics["n_rows"] else "0: no file holds a row"
    if dropped := metrics["n_rows"] - metrics["n_used"]:
        rows += f", {dropped:,} of them without a label: a value is missing"
    if noise := metrics.get("n_noise"):
        rows += f", {noise:,} of them noise with the label -1"
    if incomplete := metrics.get("n_incomplete"):
        rows += f", {incomplete:,} of them used though values are missing"
    if tables := metrics.get("tables"):
        rows += f"; of the Delta table, {text.table_versions(tables)}"
    if ignored := metrics.get("n_ignored"):
        rows += f"; {text.numbered(ignored, 'file')} ignored, as asked"
    if cast := metrics.get("cast"):
        rows += f"; taken for numbers, as asked: {', '.join(cast)}"
    return rows


def measures(metrics: Mapping[str, Any]) -> dict[str, str]:
    """How well the mixture describes the rows; without rows that count there is no saying."""
    if metrics["log_likelihood_per_row"] is None:
        if metrics.get("given") and (bounds := metrics["lower_bounds"]):
            what = metrics["objective"]
            return {str(what): f"{text.per_row(bounds[-1])} per row in the last pass"}
        return {"log-likelihood": "none: no row counts"}
    refresh = metrics.get("refresh")
    of_sums = (
        ""
        if refresh is None or metrics["n_reads"]
        else (f", both of the mixture of version {refresh['exact_for_version']}")
    )
    found = {
        "log-likelihood": f"{text.in_total(metrics['log_likelihood'])} in total, "
        f"{text.per_row(metrics['log_likelihood_per_row'])} per row{of_sums}",
        "criteria": ", ".join(
            f"{name.upper()} {metrics[name]:,.2f}" for name in ("bic", "aic", "icl")
        ),
        **in_words(metrics),
    }
    if used := in_use(metrics):
        found["in use"] = used
    if search := metrics.get("search"):
        spent = f"{text.numbered(search['n_passes'], 'pass')} over the sample"
        found["search"] = f"{search['message']}; {spent}"
    return found


def in_use(metrics: Mapping[str, Any]) -> str:
    """How many components variational inference uses: those that are the label of a row."""
    labelled = metrics.get("n_labelled")
    if metrics.get("objective") != "lower bound" or not labelled:
        return ""
    used = sum(n > 0 for n in labelled)
    return f"{used:,} of {text.numbered(len(labelled), 'component')}"


class Ranked(NamedTuple):
    """The candidates that a model was chosen among, as tables show them.

    Parameters
    ----------
    heading : str
        The criterion, and which of its values are good.
    reason : sequence of str
        Why the first was chosen, and what ought to be known: sentences.
    heads : tuple of str
    rows : list of tuple of str
        The best first.
    """

    heading: str
    reason: Sequence[str]
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]

    @classmethod
    def of(cls, metrics: Mapping[str, Any], at_most: int) -> Ranked | None:
        """Made from the metrics of a version; None where nothing was chosen."""
        if (selection := metrics.get("selection")) is None:
            return None
        table, criterion = selection["table"], selection["criterion"]
        names = dict.fromkeys((criterion, "difference", "icl", "bic", "log_likelihood", "gain"))
        shown = [name for name in names if name in table]
        columns = [[_figure(value) for value in table[name]] for name in shown]
        kinds = table["n_components"], table["covariance_type"]
        heads = ("K", "family", *(name.replace("_", " ") for name in shown))
        lines = zip(map(str, kinds[0]), kinds[1], *columns, strict=False)
        return cls(selection["heading"], selection["reason"], heads, list(lines)[:at_most])


def _figure(value: float | None) -> str:
    return "" if value is None else text.signed(value, 2 if abs(value) >= 100 else 4)


def passes_made(n_passes: int, metrics: Mapping[str, Any]) -> str:
    """The passes of the start that was kept, and what else was read."""
    refresh = metrics.get("refresh") or {}
    if refresh.get("exact_for_version") is not None or refresh.get("polished"):
        return _refreshed(refresh)
    passes = text.numbered(n_passes, "pass")
    if taken_back := metrics.get("n_taken_back"):
        passes += f", and {taken_back:,} that were taken back,"
    if (starts := metrics.get("n_starts", 1)) == 1:
        return f"{passes} over the data"
    reads = text.numbered(metrics["n_reads"], "time")
    return f"{passes.rstrip(',')}, the best of {starts} starts; all rows were read {reads}"


def _refreshed(refresh: Mapping[str, Any]) -> str:
    read = f"{refresh['partitions_read']:,} of {text.numbered(refresh['partitions'], 'partition')}"
    if refresh["polished"]:
        passes = text.numbered(refresh["polished"], "pass")
        return f"one step from sums, for which {read} were read, and {passes} over all rows"
    return (
        f"one step from sums, for which {read} were read; they are exact for the parameters of "
        f"version {refresh['exact_for_version']}"
    )


def told_apart(
    events: Sequence[Mapping[str, Any]],
) -> tuple[list[str], list[Mapping[str, Any]]]:
    """The cautions among the events of metrics.json, in a few lines, and the other events."""
    odd = (*map(str, Oddity), LACKS_NOISE)
    lines = [str(each["message"]) for each in events if each.get("kind") in odd]
    narrow = [each for each in events if each.get("kind") == Cause.NARROW]
    others = [each for each in events if each.get("kind") not in (*odd, Cause.NARROW)]
    return lines + ([gist(narrow)] if narrow else []), others


def _foremost(values: npt.NDArray[np.float64], at_most: int) -> list[int]:
    """Positions of the largest values, in order of position."""
    return sorted(np.argsort(-values, kind="stable")[:at_most].tolist())
