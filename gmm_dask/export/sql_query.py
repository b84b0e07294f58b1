"""A query that scores the rows of a table: plain SQL, in the softmax form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SettingsError
from gmm_dask.export.scoring import LARGEST, Described, Scoring
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
    missing value get nulls, as do rows too far off to be scored: by 1e150 standard deviations where
    there is no noise. It needs LN, EXP, POWER, GREATEST and WITH, and was tried in DuckDB.

    Parameters
    ----------
    mixture : Model, or what `load_model` gives
    table : str
        What the rows are selected from, as it stands in the query.
    keep : sequence of str
        Columns of the table to select beside the features.
    quote : str
        Character that quotes names: " in standard SQL, ` in BigQuery.
    number : str
        The type of double precision: DOUBLE, DOUBLE PRECISION, or FLOAT64.
    first : int, optional
        The place of the first element of a list, for features such as `embedding[0]`: 1 in DuckDB,
        PostgreSQL and Trino, 0 in Spark and Snowflake. None where these are names of columns.

    Raises
    ------
    SettingsError
        Columns that differ in case alone, or have names of the result.
    """
    scoring = Scoring.of(mixture.parameters)
    k = len(scoring.means)
    read = [_read(name, quote, first) for name in mixture.feature_names]
    each = range(k)
    chosen = list(dict.fromkeys((*keep, *(column for column, _ in read))))
    _check_names(chosen, k)
    carried = ", ".join(_quoted(name, quote) for name in chosen)
    steps = list(_distances(scoring, [value for _, value in read], table, number))
    top = f"GREATEST({', '.join(f'gmm_j{j}' for j in each)})" if k > 1 else "gmm_j0"
    steps.append(("gmm_best", "gmm_joint", ["*", f"{top} AS gmm_top"]))
    shares = [f"EXP(gmm_j{j} - gmm_top) AS gmm_e{j}" for j in each]
    steps.append(("gmm_shares", "gmm_best", ["*", *shares]))
    base = "gmm_base + " if scoring.slopes is not None else ""
    total = f"{' + '.join(f'gmm_e{j}' for j in each)} AS gmm_total"
    highest = f"{base}gmm_top AS gmm_highest"
    steps.append(("gmm_totals", "gmm_shares", ["*", total, highest]))
    density = f"WHEN gmm_highest < {-LARGEST} THEN gmm_highest ELSE gmm_highest + LN(gmm_total)"
    steps.append(("gmm_densities", "gmm_totals", ["*", f"CASE {density} END AS gmm_density"]))
    if scoring.noise is not None:
        steps.extend(_with_noise(_literal(scoring.noise)))
    parts = [_step(*step, carried) for step in steps]
    select = ",\n  ".join([carried, *_results(k, scoring.noise)])
    return "WITH\n" + ",\n".join(parts) + f"\nSELECT\n  {select}\nFROM {steps[-1][0]}\n"


def _check_names(chosen: Sequence[str], k: int) -> None:
    """Refuse columns that a database may take for one another, or for those that the query makes.

    Most databases do not tell upper from lower case, and would take the wrong one in silence.
    """
    made = {"label", "log_density", *(f"p{j}" for j in range(k))}
    seen: dict[str, str] = {}
    problems = []
    for name in chosen:
        folded = name.casefold()
        if folded in made or folded.startswith("gmm_"):
            problems.append(f"The query makes a column {folded} of its own, so {name!r} is taken.")
        if folded in seen:
            problems.append(
                f"{seen[folded]!r} and {name!r} differ in upper and lower case alone, which most "
                "databases do not see."
            )
        seen.setdefault(folded, name)
    if problems:
        raise SettingsError(
            *problems,
            "Leave out what need not be kept; with features of other names, or as ONNX, a mixture "
            "can be exported.",
        )


def _with_noise(noise: str) -> Iterator[tuple[str, str, list[str]]]:
    """The steps that add noise: the density of all, and the share of what is no noise.

    Each is compared with the density of the components: against log-odds, whose base is far below
    where a row is far off, noise would lose its digits.
    """
    larger = f"GREATEST(gmm_density, {noise}) AS gmm_larger"
    yield "gmm_larger_ones", "gmm_densities", ["*", larger]
    added = f"LN(EXP(gmm_density - gmm_larger) + EXP({noise} - gmm_larger))"
    yield "gmm_sums", "gmm_larger_ones", ["*", f"gmm_larger + {added} AS gmm_all"]
    yield "gmm_ends", "gmm_sums", ["*", "EXP(gmm_density - gmm_all) AS gmm_share"]


def _results(k: int, noise: float | None) -> list[str]:
    """The columns of the result.

    A row whose squared distances are beyond double precision, or that has no finite value, gets
    nulls, as one with a missing value does. Databases take NaN for larger than all numbers.
    """
    labels = [f"WHEN gmm_j{j} = gmm_top THEN {j}" for j in range(k)]
    if noise is None:
        known = f"WHEN NOT gmm_highest BETWEEN {-LARGEST} AND {LARGEST} THEN NULL"
        shares = [f"gmm_e{j} / gmm_total" for j in range(k)]
        shares = [f"CASE {known} ELSE {each} END" for each in shares]
        density = f"CASE {known} ELSE gmm_density END"
    else:  # far from all components a row is noise
        known = f"WHEN NOT gmm_highest <= {LARGEST} THEN NULL"
        labels.insert(0, f"WHEN gmm_highest < {_literal(noise)} THEN -1")
        shares = [
            f"CASE {known} WHEN gmm_share > 0 THEN gmm_share * gmm_e{j} / gmm_total "
            "ELSE gmm_share END"
            for j in range(k)
        ]
        density = f"CASE {known} ELSE gmm_all END"
    return [
        f"CASE {' '.join((known, *labels))} END AS label",
        f"{density} AS log_density",
        *(f"{each} AS p{j}" for j, each in enumerate(shares)),
    ]


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
    """The name of the column that a feature is read from, and its value there."""
    found = None if first is None else element_of(name)
    if found is None or first is None:
        return name, _quoted(name, quote)
    return found[0], f"{_quoted(found[0], quote)}[{found[1] + first}]"


def _quoted(name: str, quote: str) -> str:
    return f"{quote}{name.replace(quote, quote * 2)}{quote}"
