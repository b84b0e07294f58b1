"""Spans of OpenTelemetry, where it is configured."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gmm_dask.errors import DataError
from gmm_dask.stage.run import run
from tests.stage.conftest import settings_of_iris


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What is told to OpenTelemetry, whoever configured it before."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


def test_a_run_is_a_trace_of_its_phases_and_passes(
    spans: InMemorySpanExporter, tmp_path: Path
) -> None:
    published = run(settings_of_iris(tmp_path))
    found = spans.get_finished_spans()
    assert len({each.context.trace_id for each in found}) == 1
    (whole,) = (each for each in found if each.parent is None)
    assert whole.name == "gmm_dask.run"
    phases = {each.context.span_id: each for each in found if each.parent == whole.context}
    names = [each.name for each in phases.values()]
    assert names == [f"gmm_dask.{name}" for name in ("plan", "fit", "label", "publish")]
    passes = [each for each in found if each.name == "gmm_dask.pass"]
    assert {phases[each.parent.span_id].name for each in passes} == {"gmm_dask.fit"}
    bounds = [each.attributes["gmm_dask.lower_bound"] for each in passes]
    assert bounds == published.metrics["lower_bounds"]
    assert all(each.start_time <= each.end_time for each in found)


def test_a_run_that_fails_says_so_in_its_trace(spans: InMemorySpanExporter, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        run(settings_of_iris(tmp_path, data={"features": ["nothing"]}))
    phase, whole = spans.get_finished_spans()
    assert (phase.name, whole.name) == ("gmm_dask.plan", "gmm_dask.run")
    assert whole.status.status_code is trace.StatusCode.ERROR
    assert "nothing" in whole.status.description
    assert not any(each.events for each in (phase, whole))  # whose message nobody redacts
