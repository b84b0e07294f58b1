"""The benchmarks run and leave what the page of results is made of; no time is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import end_to_end, goals, tables
from benchmarks.data import write_parquet
from benchmarks.programs.job import Job, carry_out

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("out") / "benchmarks.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--skip", "Spark", "--out", str(out)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


def test_an_entry_says_what_was_measured(results: dict) -> None:
    names = {"per_pass", "fits", "end_to_end", "out_of_core", "scaling", "memory", "report"}
    assert set(results) == names
    entry = results["per_pass"]["found"]["grid"][0]
    assert {"d", "k", "rows", "spacing", "threads", "dgemm_bound", "load", "ns"} <= set(entry)
    assert {"gmm_dask", "scikit-learn"} <= set(entry["ns"])
    kernel = results["per_pass"]["found"]["kernel"][0]
    assert set(kernel["ns"]) == {"kernel", "kernel float32"}
    assert all(each["median"] > 0 and each["best"] > 0 for each in entry["ns"].values())
    families = [entry["family"] for entry in results["per_pass"]["found"]["families"]]
    assert families == ["full", "tied", "diag", "spherical"]


def test_whole_fits_are_timed_warm_and_in_a_new_process(results: dict) -> None:
    (entry,) = results["fits"]["found"]["entries"]
    for kind in ("warm", "cold"):
        assert set(entry["seconds"][kind]) == {"gmm_dask", "scikit-learn"}
    assert "## Whole fits" in tables.page(results)


def test_end_to_end_says_who_found_what(results: dict) -> None:
    (run,) = results["end_to_end"]
    for name in ("gmm_dask", "scikit-learn"):
        fields = {"wall", "passes", "log_likelihood", "peak_mib"}
        assert fields <= set(run["found"]["contenders"][name])
    assert run["found"]["left_out"] == ["Spark"]
    assert run["found"]["copy_rows_per_second"] > 0


def test_of_the_rounds_that_of_median_time_is_kept() -> None:
    rounds = [{"wall": wall} for wall in (7.5, 6.3, 6.6)]
    assert end_to_end._median(rounds) == {"wall": 6.6}
    assert end_to_end._median(rounds[:2]) == {"wall": 6.3}


def test_who_takes_too_long_is_stopped_and_said_to_be(tmp_path: Path) -> None:
    """With all its processes; the time until then counts as the least that it takes."""
    write_parquet(tmp_path / "data", 20_000, 2, 2)
    job = Job(str(tmp_path / "data"), str(tmp_path / "out"), 2)
    stopped = carry_out("with_scikit_learn", job, 0.1)
    assert stopped["stopped"]
    assert stopped["wall"] >= 0.1
    ours = {"wall": 0.001, "log_likelihood": 0.0, "passes": 1, "peak_mib": 1.0}
    contenders = {"gmm_dask": ours, "scikit-learn": stopped}
    (goal,) = goals.goals({"end_to_end": [{"found": {"rows": 1, "contenders": contenders}}]})
    assert goal.reached
    assert goal.figure.startswith("more than")


def test_memory_and_scaling_are_told(results: dict) -> None:
    for entry in results["out_of_core"]["found"]["entries"]:
        parts = {"pass", "pass with scratch", "decode", "compute"}
        assert parts | {"overhead", "scratch_overhead", "peak_mib", "budget_mib"} <= set(entry)
        assert entry["with_scratch"]["scratch_mib"] > 0
    memory = results["memory"]["found"]
    assert [entry["rows"] for entry in memory["entries"]] == [2000, 8000]
    assert all(entry["worker_mib"] <= memory["allowed_mib"] for entry in memory["entries"])
    assert all(entry["driver_mib"] > 0 for entry in memory["entries"])
    scaling = results["scaling"]["found"]
    assert [len(scaling[key]) for key in ("rows", "chunks", "memory")] == [4, 4, 5]
    assert {"1 threads", "2 threads"} <= {each["workers"] for each in scaling["workers"]}


def test_the_page_is_made_of_them(results: dict) -> None:
    page = tables.page(results)
    for title in ("Goals", "EM passes", "From Parquet to labels", "More rows", "Scaling"):
        assert f"## {title}" in page
    assert results["scaling"]["machine"]["cpu"] in page
    assert f"level {results['scaling']['machine']['level']}" in page
    assert all(goal.figure for goal in goals.goals(results))
    assert "scikit-learn" in tables.short(results)
