"""Labels counted by the values of kept columns: exact however rows are cut, and shown to people."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import adjusted_rand_score

from gmm_dask.stage.labels.certainty import agreement
from gmm_dask.stage.outputs import Published, read_labels
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import settings_from
from gmm_dask.stage.summary import measures
from gmm_dask.storage import CrossTables, LabelledPart

N, K = 600, 3
KINDS = np.array(["fir", "<b>oak</b>", "", None, "1"], dtype=object)
CATEGORIES = ("kind", "coded", "flag", "level", "day")


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    group = rng.integers(0, K, N)
    flag = rng.integers(0, 3, N).astype(object)
    return pd.DataFrame(
        {
            "x": np.where(np.arange(N) % 50 == 7, np.nan, rng.normal(6 * group, 1)),
            "y": rng.normal(-6 * group, 1),
            "kind": KINDS[(group + (rng.random(N) < 0.1)) % len(KINDS)],
            "coded": pd.Categorical(np.array(["a", "b"])[group % 2], ["never", "b", "a"]),
            "flag": np.where(flag == 2, None, flag == 1),
            "level": rng.integers(-2, 12, N).astype(np.int16),
            "day": np.arange(N) // 25,  # each chunk has a few
            "key": np.arange(N),
            "week": np.arange(N) // 12,  # 50: too many, but in no chunk alone
            "long": np.where(group == 0, "x" * 5000, "y"),
            "score": np.round(rng.normal(size=N)),
            "alone": "same",
        }
    )


def crosstab(column: pd.Series, labels: np.ndarray) -> list[dict[str, Any]]:
    """What is to be found, by pandas."""
    words = column.map(lambda v: str(v).lower() if isinstance(v, bool) else v, na_action="ignore")
    words = words.astype(object).where(column.notna(), "(none)").astype(str)
    table = pd.crosstab(words, labels).reindex(columns=[*range(K), -1], fill_value=0)
    return [
        {"value": None if value == "(none)" else value, "counts": counts}
        for value, counts in zip(table.index, table.to_numpy().tolist(), strict=True)
    ]


def by_value(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(table, key=lambda each: each["value"] or "")


@pytest.mark.parametrize("step", [1, 7, 100, N])
def test_counts_of_pieces_add_up_to_those_of_pandas_in_any_order(
    rows: pd.DataFrame, step: int
) -> None:
    rng = np.random.default_rng(step)
    labels = rng.integers(-1, K, N).astype(np.int32)
    kept = pa.Table.from_pandas(rows.drop(columns=["x", "y"]), preserve_index=False)
    found = [
        CrossTables.of(kept.slice(i, step), labels[i : i + step], K) for i in range(0, N, step)
    ]
    total = reduce(add, found)
    assert total == reduce(add, found[::-1])
    for name in CATEGORIES:
        table = [{"value": e.value, "counts": [*e.counts]} for e in total.columns[name] or ()]
        assert by_value(table) == by_value(crosstab(rows[name], labels)), name
    for name in ("key", "week", "long", "score"):
        assert total.columns[name] is None


def test_many_rows_in_uneven_pieces_are_all_counted() -> None:
    rng = np.random.default_rng(0)
    n, edges = 150_000, [0, 3, 3, 5000, 5001, 149_000, 150_000]
    words, labels = rng.choice(["a", "b", "c"], n), rng.integers(-1, K, n).astype(np.int32)
    pieces = [pa.array(words[i:j].tolist(), pa.string()) for i, j in pairwise(edges)]
    late = pa.array(np.where(np.arange(n) < n - 50, 0, np.arange(n)))
    kept = pa.table({"word": pa.chunked_array(pieces), "late": late})
    found = CrossTables.of(kept, labels, K).columns
    table = [{"value": e.value, "counts": [*e.counts]} for e in found["word"] or ()]
    assert table == crosstab(pd.Series(words), labels)
    assert found["late"] is None


def published(data: Path, out: Path, chunk_bytes: int, workers: int) -> Published:
    return run(
        settings_from(
            {
                "data": {"path": str(data), "features": ["x", "y"], "missing": "drop"},
                "fit": {"n_components": K, "init_params": "kmeans", "noise": True},
                "labels": {"keep": [*CATEGORIES, "key", "week", "alone"]},
                "cluster": {"workers": workers},
                "memory": {"chunk_bytes": chunk_bytes},
                "output": {"path": str(out)},
            }
        )
    )


@pytest.fixture(scope="module")
def data(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for i, part in enumerate((rows[:450], rows[450:])):
        table = pa.Table.from_pandas(part, preserve_index=False)
        pq.write_table(table, folder / f"{i}.parquet", row_group_size=100)
    return folder


@pytest.mark.parametrize(("chunk_bytes", "workers"), [(1600, 1), (1600, 3), (1 << 20, 2)])
def test_metrics_count_labels_by_kept_columns_of_few_values(
    rows: pd.DataFrame, data: Path, tmp_path: Path, chunk_bytes: int, workers: int
) -> None:
    found = published(data, tmp_path, chunk_bytes, workers)
    labels = read_labels(str(tmp_path)).compute().label.to_numpy()
    assert (labels < 0).sum() >= 12
    tables = found.metrics["cross_tables"]
    assert tables.keys() == {*CATEGORIES}
    for name in CATEGORIES:
        assert by_value(tables[name]) == by_value(crosstab(rows[name], labels)), name
        known = (labels >= 0) & rows[name].notna().to_numpy()
        expected = adjusted_rand_score(rows[name][known].astype(str), labels[known])
        assert agreement(tables[name]) == pytest.approx(expected, abs=1e-12)
    assert [each["value"] for each in tables["level"]] == [str(v) for v in range(-2, 12)]
    part, _ = LabelledPart.noted(found.folder, 0)
    assert part.sums.cross_tables.columns.keys() == {*CATEGORIES, "key", "week", "alone"}


def test_people_are_shown_the_counts_and_how_far_they_agree(data: Path, tmp_path: Path) -> None:
    found = published(data, tmp_path, 1 << 20, 1)
    index = agreement(found.metrics["cross_tables"]["kind"])
    assert f"kind {index:.3f}" in measures(found.metrics)["agreement"]
    page = Path(found.path("report")).read_text()
    section = page.partition("The labels beside kept columns")[2].partition("</section>")[0]
    assert f"Adjusted Rand index of kind and labels: {index:.3f}" in section
    for word in ("&lt;b&gt;oak&lt;/b&gt;", "(missing)", "(empty)", "No component", "component 0, "):
        assert word in section
    assert "<b>oak" not in page
    of_earlier = {k: v for k, v in found.metrics.items() if k != "cross_tables"}
    assert "agreement" not in measures(of_earlier)


@pytest.mark.parametrize("counts", [[[0, 0, 4], [0, 0, 3]], [[4, 0, 0], [3, 0, 0]], [[1, 0, 0]]])
def test_an_index_without_two_values_and_two_labels_is_none(counts: list[list[int]]) -> None:
    table = [{"value": str(i), "counts": each} for i, each in enumerate(counts)]
    assert agreement(table) is None
