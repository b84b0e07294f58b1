"""Two versions side by side, as text and as a page, each cell from what the versions hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from gmm_dask.command.cli import app
from gmm_dask.errors import OutputError
from gmm_dask.stage.lineage.comparison import Sheet, compare
from gmm_dask.stage.lineage.registry import name_component
from gmm_dask.stage.run import run
from tests.stage.lineage.test_movers import plain_report, rows, settings

__all__ = ["plain_report"]


@pytest.fixture
def out(tmp_path: Path) -> str:
    """Two versions: the second has a component more, and its rows were scored under both."""
    rows(tmp_path, "one", 8.0)
    rows(tmp_path, "two", 9.0)
    run(settings(tmp_path, "one"))
    name_component(str(tmp_path / "out"), 0, "<early>")
    fit = {"n_components": 3, "random_state": 1}
    run(settings(tmp_path, "two", fit=fit, labels={"compare": True}))
    return str(tmp_path / "out")


def sheets(out: str) -> dict[str, Sheet]:
    return {each.title: each for each in compare(f"{out}@1", out).sheets}


def test_components_are_beside_their_partners(out: str) -> None:
    found = compare(f"{out}@1", out)
    components = sheets(out)["Components"]
    assert components.heads[:3] == ("name", "in 1", "in 3")
    by_new = {row[2]: row for row in components.rows}
    for i, j in found.changes.partners.items():
        assert by_new[str(j)][1] == str(i)
    assert by_new[str(found.changes.partners[0])][0] == "<early>"
    assert len(components.rows) == 3
    assert sum(row[-1] == "new" for row in components.rows) == 1


def test_movers_and_criteria_are_those_of_the_versions(out: str) -> None:
    found, tables = compare(f"{out}@1", out), sheets(out)
    assert found.second.changes is not None
    migration = found.second.changes.migration
    assert migration is not None
    counts = tables["Rows by component"].rows
    assert [[int(cell.replace(",", "")) for cell in row[1:]] for row in counts] == [
        list(row[:-1]) for row in migration[:-1]
    ]
    criteria = {row[0]: row[1:] for row in tables["Criteria"].rows}
    before = found.second.metrics["before"]["log_likelihood_per_row"]
    said = criteria["of the second's rows, per row"]
    assert float(said[0].replace("−", "-")) == pytest.approx(before, abs=1e-6)
    assert said[1] == criteria["log-likelihood per row"][1]
    assert criteria["components"] == ("2", "3")


def test_the_other_way_round_what_was_born_is_gone_and_nothing_was_counted(out: str) -> None:
    found = compare(out, f"{out}@1")
    assert "Rows by component" not in {each.title for each in found.sheets}
    (components,) = (each for each in found.sheets if each.title == "Components")
    assert [row[-1] for row in components.rows].count("gone") == 1


def test_a_version_is_as_itself(out: str) -> None:
    found = compare(out, out)
    assert found.events == ["No component was born, died, split, merged or moved."]


def test_it_is_printed_and_written_as_a_page(out: str, tmp_path: Path) -> None:
    page = tmp_path / "compare.html"
    done = CliRunner().invoke(app, ["compare", f"{out}@1", out, "--html", str(page)])
    assert done.exit_code == 0, done.output
    for title in ("Criteria", "Components", "Means", "Rows by component"):
        assert title in done.output
        assert f"<h2>{title}</h2>" in page.read_text()
    written = page.read_text()
    assert "&lt;early&gt;" in written
    assert "<early>" not in written
    assert "script" not in written.replace("script-src", "")


def test_versions_of_other_features_are_refused(out: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "three").mkdir()
    pq.write_table(
        pa.table({"y": [float(i % 7) for i in range(40)]}), tmp_path / "three" / "p.parquet"
    )
    data = {"path": str(tmp_path / "three"), "features": ["y"]}
    run(settings(tmp_path, "three", data=data, output={"path": str(tmp_path / "other")}))
    with pytest.raises(OutputError, match="have nothing in common"):
        compare(out, str(tmp_path / "other"))
