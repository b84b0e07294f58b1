"""Odd columns and narrow components are said, once, wherever somebody looks; others are not."""

from __future__ import annotations

import html
import io
import json
import re
import warnings
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from gmm_dask import GaussianMixture
from gmm_dask.command.results import print_model, print_published
from gmm_dask.errors import FeatureWarning
from gmm_dask.fitting import Event, FitResult, Maximisation, Outcome
from gmm_dask.fitting.events import MAX_COLUMNS, MAX_LISTED, Action
from gmm_dask.flows.artifacts import outputs_markdown
from gmm_dask.mixture import Parameters
from gmm_dask.mixture.estimate import Cause
from gmm_dask.roads.cautions import gist, narrow_events
from gmm_dask.sampling import ColumnSpread
from gmm_dask.stage import text
from gmm_dask.stage.outputs import Published, open_output, read_model
from gmm_dask.stage.run import run, score
from gmm_dask.stage.settings import ScoreSettings, settings_from
from gmm_dask.stage.watch import Watcher

N = 300
ODD = {"constant": ["year"], "code": ["kind", "region"], "key": ["customer"]}


class Hearing(Watcher):
    """Keeps what it hears, in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def phase(self, name: str, detail: str) -> None:
        self.heard.append(("phase", name))

    def detail(self, message: str) -> None:
        self.heard.append(("detail", message))

    def warn(self, message: str) -> None:
        self.heard.append(("warn", message))

    @property
    def warnings(self) -> list[str]:
        return [message for what, message in self.heard if what == "warn"]


def table(n: int = N) -> pa.Table:
    """Two clouds in height and width, and beside them what is no measurement."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 2)) + 8 * (np.arange(n) % 2)[:, None]
    columns: dict[str, Any] = {
        "customer": 1000 + rng.permutation(n),
        "height": X[:, 0],
        "kind": rng.integers(0, 3, n),
        "year": np.full(n, 2024),
        "width": X[:, 1],
        "region": 10 * rng.integers(1, 4, n),
        "name": [f"row {i}" for i in range(n)],
    }
    return pa.table(columns)


def stage(
    folder: Path, rows: pa.Table, watcher: Watcher | None = None, **sections: Any
) -> Published:
    folder.joinpath("data").mkdir(exist_ok=True)
    for i in range(2):
        part = rows.slice(i * rows.num_rows // 2, rows.num_rows // 2)
        pq.write_table(part, folder / "data" / f"part-{i}.parquet")
    document: dict[str, Any] = {
        "data": {"path": str(folder / "data")},
        "fit": {"n_components": 2},
        "output": {"path": str(folder / "out")},
    }
    for name, section in sections.items():
        document[name] = document.get(name, {}) | section
    return run(settings_from(document), watcher)


def printed(published: Published) -> list[str]:
    stream = io.StringIO()
    print_published(published, Console(file=stream, width=80, markup=False, highlight=False))
    return stream.getvalue().splitlines()


def report(published: Published) -> str:
    """The words of the report, up to its first picture."""
    page = Path(published.path("report")).read_text(encoding="utf-8")
    head = page[page.index("<header>") : page.index("</header>")]
    return html.unescape(re.sub(r"<[^>]+>", "", head))


def columns_of(events: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {event["kind"]: event["columns"] for event in events if "component" not in event}


def test_odd_columns_are_said_wherever_somebody_looks(tmp_path: Path) -> None:
    watcher = Hearing()
    published = stage(tmp_path, table(), watcher)
    says = "6 features, all numeric columns, for none was named: customer, height, kind, year, "
    says += "width, region"
    assert watcher.heard[:2] == [("phase", "plan"), ("detail", says)]
    first_pass = watcher.heard.index(("phase", "label"))
    cautions = [message for what, message in watcher.heard[:first_pass] if what == "warn"]
    assert [re.sub(r":.*", "", message) for message in cautions[:3]] == [
        "Column 'year' is constant",
        "Columns 'kind', 'region' hold few different whole numbers",
        "Column 'customer' looks like a key",
    ]
    assert all("data.features" in m and "--features" in m for m in cautions[:3])
    assert columns_of(published.metrics["events"]) == ODD
    assert (published.metrics["features_named"], published.metrics["features"]) == (
        False, ["customer", "height", "kind", "year", "width", "region"],
    )  # fmt: skip
    for lines in (printed(published), printed(open_output(str(tmp_path / "out")))):
        assert lines[1] == f"{says}."
        assert lines[2:5] == [f"Caution: {message}" for message in cautions[:3]]
    head = report(published)
    assert f"{says}." in head
    assert all(f"Caution: {message}" in head for message in cautions)
    markdown = outputs_markdown(published)
    assert f"| features | `{says}` |" in markdown
    assert all(f"- `{message}`" in markdown for message in cautions)


def test_columns_that_were_named_are_nobodys_business(tmp_path: Path) -> None:
    watcher = Hearing()
    names = ["customer", "height", "kind", "year", "width"]
    published = stage(tmp_path, table(), watcher, data={"features": names})
    says = "5 features, as named: customer, height, kind, year, width"
    assert watcher.heard[1] == ("detail", says)
    assert columns_of(published.metrics["events"]) == {}
    assert published.metrics["features_named"] is True
    assert printed(published)[1] == f"{says}."
    assert f"{says}." in report(published)


def test_ordinary_columns_are_cautioned_against_by_nobody(tmp_path: Path) -> None:
    watcher = Hearing()
    published = stage(tmp_path, table().select(["height", "width", "name"]), watcher)
    assert watcher.heard[1][1].endswith("for none was named: height, width")
    assert (watcher.warnings, published.metrics["events"]) == ([], [])
    assert not any("Caution" in line for line in printed(published))
    assert "Caution" not in report(published)


def test_roles_are_no_features(tmp_path: Path) -> None:
    data = {"id_columns": ["customer", "kind", "region"], "weight_column": "year"}
    published = stage(tmp_path, table(), data=data)
    assert published.metrics["events"] == []


def test_iris_has_a_flower_number_and_nothing_else_that_is_odd(tmp_path: Path) -> None:
    iris = str(Path(__file__).parents[1] / "examples" / "iris")
    fit = {"n_components": 3}
    for ids, odd in (([], {"key": ["flower"]}), (["flower"], {})):
        document = {
            "data": {"path": iris, "id_columns": ids}, "fit": fit,
            "output": {"path": str(tmp_path / str(len(ids)))},
        }  # fmt: skip
        published = run(settings_from(document))
        assert published.metrics["converged"]
        assert columns_of(published.metrics["events"]) == odd
        assert len(published.metrics["events"]) == len(odd)


@pytest.mark.parametrize("missing", ["drop", "em"])
def test_holes_weights_and_drawn_rows_hide_nothing(missing: str, tmp_path: Path) -> None:
    rows = table().to_pandas()
    rng = np.random.default_rng(1)
    for name in ("customer", "kind", "year", "width"):
        rows[name] = rows[name].where(rng.random(N) > 0.1)
    rows["weight"] = rng.uniform(0.1, 3, N).round(2)
    data = {"missing": missing, "weight_column": "weight"}
    for init_rows, folder in ((1000, "all"), (150, "drawn")):
        (tmp_path / folder).mkdir()
        fit = {"init_rows": init_rows}
        rows_of = pa.Table.from_pandas(rows, preserve_index=False)
        published = stage(tmp_path / folder, rows_of, data=data, fit=fit)
        assert columns_of(published.metrics["events"]) == ODD


def test_a_run_that_goes_on_says_the_same(tmp_path: Path) -> None:
    class Stopping(Watcher):
        def passed(self, record: Any, settings: Any) -> None:
            raise KeyboardInterrupt

    rows = table(1600)
    sections: dict[str, Any] = {"fit": {"init_rows": 200}, "output": {"checkpoint_seconds": 0}}
    (tmp_path / "undisturbed").mkdir()
    undisturbed = stage(tmp_path / "undisturbed", rows, fit=sections["fit"])
    sections["output"]["path"] = str(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path, rows, Stopping(), **sections)
    assert list(tmp_path.glob("out/runs/*/checkpoints/survey.json"))
    watcher = Hearing()
    resumed = stage(tmp_path, rows, watcher, **sections)
    assert resumed.metrics["events"] == undisturbed.metrics["events"]
    assert columns_of(resumed.metrics["events"]) == ODD
    assert len(watcher.warnings) == len(set(watcher.warnings))


def test_rows_that_are_labelled_alone_have_the_models_features(tmp_path: Path) -> None:
    fitted = stage(tmp_path, table())
    document = {
        "data": {"path": str(tmp_path / "data")}, "model": str(tmp_path / "out"),
        "output": {"path": str(tmp_path / "labels")},
    }  # fmt: skip
    watcher = Hearing()
    labelled = score(settings_from(document, ScoreSettings), watcher)
    says = "6 features: customer, height, kind, year, width, region"
    assert watcher.heard[1] == ("detail", says)
    assert watcher.warnings == labelled.metrics["events"] == []
    assert printed(labelled)[1] == f"{says}."
    stream, path = io.StringIO(), fitted.path("model")
    print_model(read_model(path), path, Console(file=stream, width=80))
    assert stream.getvalue().splitlines()[0] == f"{says}."


def test_of_thousands_of_features_the_first_are_said() -> None:
    names = [f"c{i}" for i in range(5000)]
    said = text.features(names, named=False)
    assert said.startswith("5,000 features, all numeric columns, for none was named: c0, c1, ")
    assert said.endswith("c28, c29 and 4,970 more")
    assert len(text.features(["x" * 10_000, "a\nb"], named=True)) < 100
    assert "\n" not in text.features(["a\nb"], named=None)


def test_a_path_is_cautioned_against_by_a_warning_and_a_frame_is_not(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet")
    with pytest.warns(FeatureWarning) as caught:
        GaussianMixture(2, random_state=0).fit(str(tmp_path))
    messages = [str(each.message) for each in caught]
    named = [re.findall(r"'(\w+)'", message) for message in messages[:3]]
    assert named == [["year"], ["kind", "region"], ["customer"]]
    assert all("dask.dataframe.read_parquet" in message for message in messages[:3])
    assert {each.filename for each in caught} == {__file__}
    frame = pd.read_parquet(tmp_path)[["customer", "height", "year", "width"]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for X in (frame, frame.to_numpy(), dd.from_pandas(frame), pa.Table.from_pandas(frame)):
            GaussianMixture(2, random_state=0).fit(X)


# Components of which reg_covar makes up the spread.


def clusters(scale: float, d: int = 2, seed: int = 0) -> np.ndarray:
    """Three clouds of 100 rows, ten standard deviations apart."""
    rng = np.random.default_rng(seed)
    return scale * (rng.normal(size=(N, d)) + 10 * np.repeat([0, 1, 2], 100)[:, None])


def test_what_is_said_of_many_columns_and_components_is_short() -> None:
    d, k = 5000, 20
    parameters = Parameters.from_covariances(
        np.full(k, 1 / k), np.zeros((k, d)), np.full((k, d), 1e-6), "diag"
    )
    result = FitResult(parameters, (-1.0,), Outcome.CONVERGED, (parameters,), N, N)
    events = narrow_events(result, Maximisation(spread=ColumnSpread.of(np.eye(2, d))))
    assert len(events) == k
    assert events[0].columns == (0, 1)
    assert "in columns 0, 1: half" in events[0].message
    wide = np.stack([np.zeros(d), np.ones(d)])
    events = narrow_events(result, Maximisation(spread=ColumnSpread.of(wide)))
    assert all(len(event.columns) == d for event in events)
    assert f", {MAX_LISTED - 1} and {d - MAX_LISTED:,} more: half" in events[0].message
    assert len(events[0].to_dict()["columns"]) == MAX_COLUMNS
    long = Event(1, 0, Cause.NARROW, Action.LEFT, ("x" * 1000, "a\nb"), 1)
    assert f"in columns '{'x' * 37}...', 'a\\nb': half" in long.message
    said = gist([event.to_dict() for event in events])
    assert said.startswith(events[0].message)
    assert said.endswith("So it is with components 1, 2, 3, 4, 5, 6, 7, 8 and 11 more.")
    assert len(said) < 1000


def test_narrow_components_have_the_numbers_of_the_model(tmp_path: Path) -> None:
    """They are told of as they are numbered in the model, whatever the fit called them."""
    rng = np.random.default_rng(0)
    for n_wide, number in ((240, 1), (60, 0)):
        narrow = 50 + 1e-6 * rng.normal(size=(N - n_wide, 2))
        X = np.vstack([narrow, rng.normal(size=(n_wide, 2))])
        folder, watcher = tmp_path / str(n_wide), Hearing()
        folder.mkdir()
        # Drawn rows are the first means, and the largest cluster has not always the first of them.
        data, fit = {"features": ["x", "y"]}, {"init_params": "random_from_data"}
        rows = pa.table({"x": X[:, 0], "y": X[:, 1]})
        published = stage(folder, rows, watcher, data=data, fit=fit)
        (event,) = published.metrics["events"]
        weights = read_model(published.path("model")).parameters.weights
        assert weights[number] == pytest.approx(1 - n_wide / N)
        assert (event["component"], watcher.warnings) == (number, [event["message"]])


def test_narrow_components_stand_on_the_first_screen(tmp_path: Path) -> None:
    X, watcher = clusters(1e-6), Hearing()
    rows = pa.table({"x": X[:, 0], "y": X[:, 1]})
    data = {"features": ["x", "y"]}
    published = stage(tmp_path, rows, watcher, data=data, fit={"n_components": 3})
    metrics = json.loads(Path(published.folder.path("metrics.json")).read_text())
    assert (metrics["outcome"], metrics["converged"]) == ("converged", True)
    assert [(e["kind"], e["component"], e["columns"]) for e in metrics["events"]] == [
        ("narrow", j, ["x", "y"]) for j in range(3)
    ]
    (said,) = watcher.warnings
    assert said.startswith(
        "Component 0 has hardly any spread of its own in columns 'x', 'y': half "
    )
    assert said.endswith("So it is with components 1, 2.")
    assert printed(published)[2] == f"Caution: {said}"
    assert f"Caution: {said}" in report(published)
    assert "Nothing unusual happened" not in Path(published.path("report")).read_text()
    assert f"- `{said}`" in outputs_markdown(published)
