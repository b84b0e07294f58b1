"""Terminal, report, Prefect and parameters.parquet say the same of components and ending."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from gmm_dask.command.results import print_published
from gmm_dask.flows.artifacts import component_rows
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.run import run
from gmm_dask.stage.summary import Summary
from tests.stage.conftest import MakeSettings


@pytest.fixture
def published(iris_settings: MakeSettings) -> Published:
    return run(iris_settings())


def test_the_table_of_parameters_holds_the_numbers_of_the_summary(published: Published) -> None:
    shown = Summary.of(published.model, published.metrics).components
    table = pq.read_table(published.folder.path("parameters.parquet")).to_pydict()
    np.testing.assert_array_equal(table["weight"], shown.parameters.weights)
    np.testing.assert_array_equal(table["size"], shown.sizes)
    for f, name in enumerate(shown.names):
        np.testing.assert_array_equal(table[f"mean_{name}"], shown.parameters.means[:, f])
        np.testing.assert_allclose(table[f"sd_{name}"], shown.spreads[:, f], rtol=1e-15)


def test_every_presenter_shows_each_mean_alike(published: Published) -> None:
    shown = Summary.of(published.model, published.metrics).components
    stream = io.StringIO()
    print_published(published, Console(file=stream, width=200))
    report = Path(published.path("report")).read_text()
    rows = component_rows(published)
    for j in range(shown.parameters.n_components):
        for name, (mean, spread) in zip(shown.names, shown.measured(j, range(4)), strict=True):
            assert f"{mean} ± {spread}" in stream.getvalue()
            assert rows[j][name] == f"{mean} ± {spread}"
            assert f"<b>{mean}</b>" in report
        for value in shown.heads(j).values():
            assert value in stream.getvalue()
            assert f">{value}<" in report


def test_terminal_and_report_tell_of_one_ending(published: Published) -> None:
    ending, stream = Summary.of(published.model, published.metrics).ending, io.StringIO()
    print_published(published, Console(file=stream, width=200))
    assert f"converged after {ending.passes}. {ending.advice}" in stream.getvalue()
    assert ending.advice in Path(published.path("report")).read_text()
