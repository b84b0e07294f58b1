"""Values that must not be there, found by the survey and named by file, row group and column."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gmm_dask.engine.passes.survey import ChunkSurvey, Survey
from gmm_dask.errors import DataError
from gmm_dask.storage import Chunk, Plan
from gmm_dask.words import numbered

MAX_PROBLEMS = 20  # a list people can read; the rest is counted


def check_survey(survey: Survey, plan: Plan, *, missing: str, at_least: int) -> None:
    """Raise DataError with every value that cannot be used, or with too few rows for a fit.

    Parameters
    ----------
    missing : {"error", "drop", "em"}
        Whether a missing value is a problem.
    at_least : int
        Components to start, each on a row of its own; 0 where nothing is fitted.
    """
    problems = (
        _values(survey, plan, missing)
        or (_no_rows(survey, plan) if at_least else [])
        or _weights(survey, plan, none_will_do=not at_least)
        or (_no_values(survey, plan) if at_least and missing == "em" else [])
        or _too_few(survey, plan, at_least)
    )
    if len(problems) > MAX_PROBLEMS:
        more = len(problems) - MAX_PROBLEMS
        problems = [*problems[:MAX_PROBLEMS], f"... and {more} more like these."]
    if problems:
        raise DataError(problems)


def check_total(largest: float, sum_weight: float, name: str, weight_column: str | None) -> None:
    """Raise DataError where sums over all rows are beyond float64.

    Parameters
    ----------
    largest : float
        The sum of the largest magnitude.
    sum_weight : float
    name : str
        What the rows are of.
    weight_column : str or None
    """
    # By a margin: criteria are multiples, and labels are scored with other parameters than passes.
    if not math.isfinite(16 * largest):
        raise DataError(
            f"{name}, column {weight_column!r}: the weights add up to {sum_weight:.3g}, and the "
            "log-likelihood of so much is beyond float64. Divide the weights by a number."
        )


def _values(survey: Survey, plan: Plan, missing: str) -> list[str]:
    return [
        problem
        for chunk, seen in zip(plan.chunks, survey.chunks, strict=True)
        for problem in _chunk_problems(chunk, seen, plan, missing)
    ]


def _no_rows(survey: Survey, plan: Plan) -> list[str]:
    if survey.n_usable:
        return []
    n_missing = np.sum([chunk.n_missing for chunk in survey.chunks], axis=0)
    empty = [plan.features[j] for j in np.flatnonzero(n_missing == survey.n_rows)]
    remedy = (
        f"Without a value in any row: {', '.join(map(repr, empty))}; leave it out of data.features."
        if empty
        else "Each has a missing value: data.missing: em uses what they hold."
    )
    return [f"{plan.root}: none of the {survey.n_rows} rows can be used. {remedy}"]


def _weights(survey: Survey, plan: Plan, *, none_will_do: bool) -> list[str]:
    total = survey.sum_weight
    if 0 < total < float("inf") or (none_will_do and total == 0):
        return []
    return [
        f"{plan.root}, column {plan.weight_column!r}: the weights of the usable rows add up to "
        f"{total}. Give them positive weights of moderate size."
    ]


def _no_values(survey: Survey, plan: Plan) -> list[str]:
    """Columns that EM would have to make up."""
    return [
        f"{plan.root}, column {plan.features[j]!r}: it has no value in any row that counts, so "
        "nothing can be learnt of it. Leave it out of data.features."
        for j in np.flatnonzero(survey.spread.weight == 0)
    ]


def _too_few(survey: Survey, plan: Plan, at_least: int) -> list[str]:
    if survey.n_eligible >= at_least:
        return []
    unused = survey.n_rows - survey.n_eligible
    return [
        f"{plan.root}: {numbered(survey.n_eligible, 'usable row')} ({unused} have missing values "
        f"or no weight) for {at_least} components is too few. Set fit.n_components lower or give "
        "more rows."
    ]


def _chunk_problems(chunk: Chunk, seen: ChunkSurvey, plan: Plan, missing: str) -> Iterator[str]:
    for j, name in enumerate(plan.features):
        if missing == "error" and seen.n_missing[j]:
            where = _where(plan, chunk, int(seen.first_missing[j]), name)
            yield (
                f"{where}: {seen.n_missing[j]} missing values (null or NaN). "
                "Fill them, or set data.missing: drop or em."
            )
        if seen.n_infinite[j]:
            where = _where(plan, chunk, int(seen.first_infinite[j]), name)
            yield f"{where}: {seen.n_infinite[j]} infinite values. Remove or replace them."
    if seen.n_bad_weights:
        where = _where(plan, chunk, seen.first_bad_weight, str(plan.weight_column))
        yield f"{where}: {seen.n_bad_weights} weights that are negative, missing or infinite."


def _where(plan: Plan, chunk: Chunk, row: int, column: str) -> str:
    """File, row group and row of a row of a chunk, and the column."""
    partition = plan.partitions[chunk.partition]
    row += chunk.start
    group = int(np.searchsorted(np.cumsum(partition.row_groups), row, side="right"))
    return f"{partition.name}, row group {group}, column {column!r}, first at row {row}"
