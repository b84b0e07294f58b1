"""The page: it needs nothing else, says what a reader asks, and runs nothing of users'."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmm_dask.mixture import Parameters
from gmm_dask.mixture.covariance.variances import Diag
from gmm_dask.pictures.view import MAX_FEATURES
from gmm_dask.stage import text
from gmm_dask.stage.report import ReportData, render_report
from gmm_dask.stage.report.data import MAX_ROWS, WORK
from gmm_dask.stage.report.figures import cluster_figure, likelihood_figure
from gmm_dask.stage.report.payload import safe_json
from gmm_dask.stage.report.tables import correlation_lines, settings_lines, unlikely_rows
from gmm_dask.storage.records.model_file import parameters_table
from tests.stage.conftest import settings_of_iris
from tests.stage.reports import drawn_from, iris, report_of
from tests.storage.stores import model_of
from tests.strategies import random_mixture

HOSTILE = "</script><script>alert(1)</script>\"'<b>&amp;\u2028 東京 $\\frac{$ {{ 7*7 }}"
PIXEL = b"\x89PNG"


class Page(HTMLParser):
    """Tags in order, text by tag, and all attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += " "
        self.attributes += attrs
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and self.cdata_elem:
            self.scripts[-1] += data
        else:
            self.text += data


def test_the_page_needs_nothing_else(drawn: None) -> None:
    page = render_report(iris())
    links = [v for name, v in Page(page).attributes if name in ("src", "href", "srcset", "action")]
    assert links
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert not re.search(r"https?:|@import|url\(|//cdn", page)
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_whatever_scrolls_sideways_is_reached_by_keys() -> None:
    for name in ("template.html.j2", "compare.html.j2"):
        page = files("gmm_dask.stage.report").joinpath(name).read_text()
        wide = re.findall(r'<div class="wide".*?>', page)
        assert wide
        assert all('tabindex="0"' in each for each in wide)


def test_the_same_data_give_the_same_page() -> None:
    assert render_report(iris()) == render_report(replace(iris()))


def test_only_the_script_that_was_put_in_may_run() -> None:
    page = render_report(iris())
    _, script = Page(page).scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "onclick" not in page


def test_the_page_says_what_a_reader_asks() -> None:
    data = replace(
        iris(),
        plan=iris().plan | {"n_rows": 157, "dropped": {"missing": 7}},
        metrics=iris().metrics | {"n_rows": 157},
        events=[{"message": "A worker was lost", "worker": 3}],
        advice="Advice to follow.",
    )
    said = " ".join(Page(render_report(data)).text.split())
    for phrase in (
        "Converged.", "Advice to follow.", "Rows read 157", "Rows used 150", "Dropped: missing 7",
        "A worker was lost", "fit.n_components 3", f"numpy {np.__version__}",
        "Fit 2.5 s", "One pass, median 200 ms", "5.006↓ ± 0.349", "of 157 read",
    ):  # fmt: skip
        assert phrase in said


@pytest.mark.parametrize(
    ("outcome", "words"),
    [("out_of_iterations", "Stopped at the limit of passes."), ("not_finite", "Not finite.")],
)
def test_each_outcome_has_its_words(outcome: str, words: str) -> None:
    assert words in Page(render_report(replace(iris(), outcome=outcome))).text


@settings(max_examples=20)
@given(st.lists(st.text() | st.just(HOSTILE), min_size=4, max_size=4))
def test_text_of_users_stays_text(words: list[str]) -> None:
    hostile = replace(
        iris(),
        title=words[0],
        feature_names=tuple(words),
        outcome=words[1],
        advice=words[2],
        settings={words[0]: {words[1]: words[2]}},
        plan=iris().plan | {"path": words[3], "dropped": {words[2]: 1}},
        versions={words[1]: words[3]},
        events=[{"message": words[0]}, {words[2]: words[3]}],
    )
    plain = replace(
        hostile,
        title="t",
        feature_names=tuple("abcd"),
        outcome="o",
        advice="a",
        settings={"s": {"t": "u"}},
        plan=iris().plan | {"path": "p", "dropped": {"r": 1}},
        versions={"v": "1"},
        events=[{"message": "m"}, {"n": "o"}],
    )
    names = ("clusters", "densities", "pairs", "certainty", "profile", "curve")
    with patch("gmm_dask.stage.report.html.pictures", return_value=dict.fromkeys(names, PIXEL)):
        found, expected = Page(render_report(hostile)), Page(render_report(plain))
    assert found.tags == expected.tags
    assert len(found.scripts) == 2
    assert json.loads(found.scripts[0])["names"] == [text.short(word) for word in words]


def test_hostile_names_can_be_drawn() -> None:
    data = replace(iris(), feature_names=(HOSTILE, "$x^2$", "", "\n"))
    assert cluster_figure(data).startswith(PIXEL)
    assert likelihood_figure([-1.0], HOSTILE).startswith(PIXEL)


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_between_script_tags_is_safe_and_whole(document: Any) -> None:
    written = safe_json(document)
    assert not set("<>&") & set(written)
    assert json.loads(written) == document


@pytest.mark.parametrize(
    ("k", "d", "n_states", "megabytes"),
    [(3, 4, 15, 1.0), (16, 50, 101, 3.0), (200, 9, 20, 3.0)],
)
def test_the_page_keeps_to_its_budget(
    drawn: None, k: int, d: int, n_states: int, megabytes: float
) -> None:
    parameters = random_mixture("full" if d <= 50 else "diag", k, d, 0)
    X = drawn_from(parameters, 150 if megabytes == 1.0 else 2500)
    assert len(render_report(report_of(parameters, X, n_states)).encode()) < megabytes * 1e6


def test_no_matrix_of_many_features_is_made(drawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 5,000 features a single one is 200 MB, and its decomposition takes minutes."""
    k, d = 3, 5000
    rng, dense = np.random.default_rng(0), Diag.dense
    parameters = Parameters.from_covariances(
        np.full(k, 1 / k), rng.normal(size=(k, d)), rng.uniform(0.5, 2, (k, d)), "diag"
    )
    data = report_of(parameters, rng.normal(size=(300, d)), 3)

    def small(self: Diag) -> np.ndarray:
        assert self.n_features <= MAX_FEATURES
        return dense(self)

    monkeypatch.setattr(Diag, "dense", small)
    assert len(render_report(data).encode()) < 3e6
    assert parameters_table(model_of(parameters)).num_columns == 3 + 2 * d


def test_the_work_for_the_rows_is_bounded() -> None:
    few = random_mixture("full", 2, 2, 0)
    assert len(report_of(few, np.zeros((5000, 2))).rows) == MAX_ROWS
    k, d = 64, 150
    many = Parameters.from_covariances(
        np.full(k, 1 / k), np.zeros((k, d)), np.broadcast_to(np.eye(d), (k, d, d)), "full"
    )
    shown = replace(
        report_of(few, np.zeros((9, 2))),
        parameters=many,
        sample=np.zeros((2000, d)),
        feature_names=tuple(map(str, range(d))),
    )
    work = len(shown.rows) * max(2, shown.frames_to_score) * many.precisions_cholesky.size
    assert 100 < len(shown.rows) < 500
    assert work < 1.5 * WORK


@pytest.mark.parametrize(
    "data",
    [
        report_of(random_mixture("full", 1, 1, 0), np.zeros((1, 1))),
        report_of(random_mixture("full", 2, 3, 0), np.full((4, 3), np.nan), 3),
        report_of(random_mixture("tied", 2, 2, 0), np.empty((0, 2)), 2),
        report_of(random_mixture("diag", 3, 1, 0), np.ones((5, 1), np.float32), 4),
        replace(iris(), metrics={}, settings={}, plan={}, versions={}),
    ],
    ids=["one row", "no complete row", "no rows", "one value", "no metrics"],
)
def test_little_data_give_a_page_all_the_same(data: ReportData) -> None:
    assert render_report(data).endswith("</html>")


def test_the_first_screen_says_when_of_what_and_what_components_are_known_by() -> None:
    metrics = dict(iris().metrics) | {"published": "2026-08-01T12:00:00.000Z"}
    events = [{"kind": "narrow", "component": 1, "message": "It is narrow."}]
    page = Page(render_report(replace(iris(), metrics=metrics, events=events)))
    first = " ".join(page.text.partition("The components and their rows")[0].split())
    for words in (
        "A title", "Published 2026-08-01 12:00:00 UTC", "data: data", "run 0123456789abcdef",
        "Caution: It is narrow.", "33 % low petal_length, low petal_width, low sepal_length",
    ):  # fmt: skip
        assert words in first


def test_only_settings_that_are_not_as_by_default_are_listed() -> None:
    settings = settings_of_iris(Path("out"), fit={"n_components": 3, "tol": 0.01})
    shown = dict(settings_lines(settings.model_dump(mode="json")))
    assert shown.keys() == {
        "fit.n_components", "fit.tol", "data.path", "data.features", "data.id_columns",
        "output.path",
    }  # fmt: skip


def test_correlations_and_the_least_likely_rows_are_those_of_the_mixture() -> None:
    data = iris()
    (first, value), *_ = correlation_lines(data)
    named = re.fullmatch(r"Component (\d): (\w+) with (\w+)", first)
    assert named is not None
    j, a, b = int(named[1]), *(data.feature_names.index(named[i]) for i in (2, 3))
    covariance = data.parameters.dense_covariances()[j]
    expected = covariance[a, b] / np.sqrt(covariance[a, a] * covariance[b, b])
    assert float(value) == pytest.approx(expected, abs=0.005)
    _, lines = unlikely_rows(data)
    assert float(lines[0][0].replace("−", "-")) == pytest.approx(data.log_density.min(), abs=0.006)


def test_names_and_columns_must_agree() -> None:
    with pytest.raises(ValueError, match="4 features"):
        replace(iris(), feature_names=("a",))


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("d", [4, 1])
def test_a_browser_draws_the_final_state(drawn: None, d: int, tmp_path: Path) -> None:
    data = iris() if d == 4 else report_of(random_mixture("full", 2, 1, 0), np.ones((9, 1)), 4)
    (tmp_path / "report.html").write_text(render_report(data), encoding="utf-8")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
        "--disable-background-networking --disable-component-update --virtual-time-budget=2000"
    )
    command = [BROWSER, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    page = subprocess.run(
        [*command, (tmp_path / "report.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    assert f"Final, after pass {data.n_passes} · log-likelihood per row" in Page(page).text
    assert page.count("aria-pressed") >= data.parameters.n_components
