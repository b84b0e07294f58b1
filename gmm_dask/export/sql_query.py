"""A query that scores the rows of a table: plain SQL, in the softmax form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from gmm_dask.export.scoring import Described, Scoring
from gmm_dask.kinds import element_of

Array = npt.NDArray[np.float64]


def to_sql(
    mixture: Described,
    table: str = "data",
    keep: Sequence[str] = (),
    *,
    quote: str = '"',
    number: str = "DOUBLE",
    first: int | None = 1,
) -> str:
    """A SELECT that gives label, log-density and the probability of each component of each row.

    Means are subtracted first, in double precision, so that offsets cost no digits. Rows with a
    missing value get nulls. It needs LN, EXP, POWER, GREATEST and WITH, and was tried in DuckDB.

    Parameters
    ----------
    mixture : Model, or what `load_model` gives
    table : str
        What the rows are selected from, as it stands in the query.
    keep : sequence of str
        Columns of the table to select beside the features.
    quote : str
        Of names: " in the standard, ` in BigQuery.
    number : str
        The type of double precision: DOUBLE, DOUBLE PRECISION, or FLOAT64.
    first : int, optional
        The place of the first element of a list, for features such as `embedding[0]`: 1 in DuckDB,
        PostgreSQL and Trino, 0 in Spark and Snowflake. None where these are names of columns.
    """
    scoring, names = Scoring.of(mixture.parameters), mixture.feature_names
    k = len(scoring.means)
    read = [_read(name, quote, first) for name in names]
    columns = dict.fromkeys((*(_quoted(name, quote) for name in keep), *(each for each, _ in read)))
    carried = ", ".join(columns)
    steps = list(_distances(scoring, [value for _, value in read], table, number))
    shared = scoring.slopes is not None
    labels = [*range(k), *([] if scoring.noise is None else [-1])]  # the label of noise, last
    each = range(len(labels))
    if scoring.noise is not None:
        against = "gmm_base" if shared else "0e0 * gmm_j0"  # null where a value is missing
        noise = f"({_literal(scoring.noise)}) - {against} AS gmm_j{k}"
        steps.append(("gmm_noise", "gmm_joint", ["*", noise]))
    top = f"GREATEST({', '.join(f'gmm_j{j}' for j in each)})" if len(labels) > 1 else "gmm_j0"
    steps.append(("gmm_best", steps[-1][0], ["*", f"{top} AS gmm_top"]))
    shares = [f"EXP(gmm_j{j} - gmm_top) AS gmm_e{j}" for j in each]
    steps.append(("gmm_shares", "gmm_best", ["*", *shares]))
    total = " + ".join(f"gmm_e{j}" for j in each)
    steps.append(("gmm_totals", "gmm_shares", ["*", f"{total} AS gmm_total"]))
    parts = [_step(*step, carried) for step in steps]
    cases = " ".join(f"WHEN gmm_j{j} = gmm_top THEN {labels[j]}" for j in each)
    found = [
        f"CASE {cases} END AS label",
        f"{'gmm_base + ' if shared else ''}gmm_top + LN(gmm_total) AS log_density",
        *(f"gmm_e{j} / gmm_total AS p{j}" for j in range(k)),
    ]
    select = ",\n  ".join([carried, *found])
    return "WITH\n" + ",\n".join(parts) + f"\nSELECT\n  {select}\nFROM gmm_totals\n"


def _distances(
    scoring: Scoring, names: Sequence[str], table: str, number: str
) -> Iterator[tuple[str, str, list[str]]]:
    """The steps from the table to the log of weight times density: name, source and columns."""
    shared = scoring.slopes is not None
    yield (
        "gmm_deviations",
        table,
        [
            f"CAST({name} AS {number}) - ({_literal(mean)}) AS gmm_d{j}_{i}"
            for j in ([0] if shared else range(len(scoring.means)))
            for i, (name, mean) in enumerate(zip(names, scoring.means[j], strict=True))
        ],
    )
    source = "gmm_products" if shared else "gmm_deviations"
    joint = [f"{each} AS gmm_j{j}" for j, each in enumerate(_joint(scoring))]
    if shared:
        products = enumerate(_products(scoring.factors[0], 0))
        yield source, "gmm_deviations", [f"{each} AS gmm_z{i}" for i, each in products]
        squares = " + ".join(f"POWER(gmm_z{i}, 2)" for i in range(len(names)))
        joint.append(f"({_literal(scoring.constants[0])}) - 0.5e0 * ({squares}) AS gmm_base")
    yield "gmm_joint", source, joint


def _step(name: str, source: str, columns: Sequence[str], carried: str) -> str:
    """One step of the query; what has a star carries the columns already."""
    listed = ",\n    ".join(columns if columns[0] == "*" else [carried, *columns])
    return f"{name} AS (\n  SELECT {listed}\n  FROM {source}\n)"


def _joint(scoring: Scoring) -> Iterator[str]:
    """Log of weight times density of each component; against the first where a factor is shared."""
    if scoring.slopes is None:
        for j, constant in enumerate(scoring.constants):
            squares = " + ".join(f"POWER({each}, 2)" for each in _products(scoring.factors[j], j))
            yield f"({_literal(constant)}) - 0.5e0 * ({squares})"
        return
    for j, (constant, slope) in enumerate(zip(scoring.constants, scoring.slopes, strict=True)):
        terms = [f"({_literal(a)}) * gmm_z{i}" for i, a in enumerate(slope) if a]
        if j:
            yield f"({_literal(constant)})" + "".join(f" - {term}" for term in terms)
        else:  # 0 in every row, and null where a value is missing
            yield "0e0 * (" + " + ".join(f"gmm_z{i}" for i in range(len(slope))) + ")"


def _products(factor: Array, j: int) -> Iterator[str]:
    """The columns of (x - m) U."""
    if factor.ndim == 1:
        yield from (f"gmm_d{j}_{i} * {_literal(value)}" for i, value in enumerate(factor))
        return
    for column in factor.T:
        yield " + ".join(f"gmm_d{j}_{i} * ({_literal(u)})" for i, u in enumerate(column) if u)


def _literal(value: float) -> str:
    """The number with all its digits; with an exponent, since without one it may be a decimal."""
    return f"{value:.16e}"


def _read(name: str, quote: str, first: int | None) -> tuple[str, str]:
    """The column that a feature is read from, and its value there."""
    found = None if first is None else element_of(name)
    if found is None or first is None:
        return (_quoted(name, quote),) * 2
    column = _quoted(found[0], quote)
    return column, f"{column}[{found[1] + first}]"


def _quoted(name: str, quote: str) -> str:
    return f"{quote}{name.replace(quote, quote * 2)}{quote}"
