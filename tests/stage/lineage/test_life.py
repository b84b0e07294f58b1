"""An output through its life: names, aliases, roll-back, retention, and runs done again."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from gmm_dask.command.cli import app
from gmm_dask.errors import NotPromotedError, OutputError, SettingsError
from gmm_dask.stage import publish
from gmm_dask.stage.lineage import registry
from gmm_dask.stage.lineage.registry import name_component, promote_as, promote_back
from gmm_dask.stage.lineage.retention import Policy, collect
from gmm_dask.stage.outputs import label_parts, open_output, read_labels, read_model, resolve
from gmm_dask.stage.run import run, score
from gmm_dask.stage.settings import ScoreSettings, settings_from
from gmm_dask.storage import latest, open_store, verify
from tests.object_service import ObjectService
from tests.stage.conftest import IRIS, MakeSettings

pytestmark = pytest.mark.usefixtures("plain_report")

FEW = {"max_iter": 2, "sample_em": False}


@pytest.fixture
def plain_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report takes a second to draw, and of these tests only names are in it."""
    monkeypatch.setattr(publish, "render_report", lambda data: f"<html>{data.names}</html>")


def said(*arguments: str) -> str:
    """What a command prints that ends well."""
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    return found.output


def refused(*arguments: str) -> str:
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code != 0
    return " ".join(found.output.split())


def check_life(make: MakeSettings, out: str) -> None:
    """The whole life of an output, wherever it is."""
    output = {"path": out}

    def fitted(k: int) -> int:
        return run(make(fit={"n_components": k, **FEW}, output=output)).version.number

    assert fitted(3) == 1
    assert name_component(out, 0, "early morning").number == 2
    assert name_component(out, 0, "early morning").number == 2  # nothing new, and nothing written
    assert open_output(out).names == ("early morning", None, None)
    promote_as(*resolve(f"{out}@1"), "champion")
    assert fitted(4) == 4
    assert open_output(out).names.count("early morning") == 1
    assert b"early morning" in open_output(out).folder.get("report.html")
    promote_as(*resolve(out), "champion")
    assert read_model(f"{out}@champion").parameters.n_components == 4
    assert promote_back(out, "champion").number == 1
    assert read_model(f"{out}@champion").parameters.n_components == 3
    fitted(2)
    fitted(5)
    store = open_store(out)
    done = collect(store, Policy(runs=2, labels=1))
    assert (len(done.runs), len(done.labels)) == (1, 1)
    assert read_model(f"{out}@champion").parameters.n_components == 3
    newest = latest(store)
    assert newest is not None
    assert verify(store, newest) == []
    with pytest.raises(OutputError, match="version 4 was removed"):
        open_output(f"{out}@4")
    with pytest.raises(OutputError, match=r"labels of version \d+ were removed"):
        read_labels(f"{out}@{newest.number - 2}")
    # A run that was removed, or its labels, is made anew: with labels, under another identity.
    for k in (4, 2):
        fitted(k)
        assert open_output(out).model.parameters.n_components == k
        assert len(read_labels(out)) == 150


def test_the_life_of_a_local_output(iris_settings: MakeSettings, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    check_life(iris_settings, out)
    shown = said("versions", out)
    assert "1 (champion)" in shown
    assert "  removed" in shown
    assert "labels removed" in shown
    assert "early morning" in said("show", f"{out}@champion")
    assert "reads as the version" in refused(
        "fit", str(IRIS), "--n-components", "3", "--out", f"{out}@champion"
    )
    gc = ("gc", out, "--keep", "30", "--keep-labels", "30")
    said(*gc)  # a survey is left where making it took a while
    assert "0 files removed" in said(*gc)


@pytest.mark.heavy
def test_the_life_of_an_output_in_a_bucket(
    iris_settings: MakeSettings, service: ObjectService
) -> None:
    check_life(iris_settings, f"s3://{service.bucket()}/out")


def test_a_model_under_an_alias_labels_and_its_names_go_along(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    run(iris_settings(fit=FEW))
    name_component(out, 1, "late")
    promote_as(*resolve(out), "champion")
    run(iris_settings(fit=FEW | {"n_components": 2}))
    document = {
        "data": {"path": str(IRIS), "id_columns": ["flower"]},
        "model": f"{out}@champion",
        "output": {"path": str(tmp_path / "labels")},
    }
    published = score(settings_from(document, ScoreSettings))
    assert published.names == (None, "late", None)
    assert published.changes is not None
    assert published.changes.components == open_output(f"{out}@1").changes.components


def test_what_cannot_be_a_name_or_an_alias_is_refused(
    iris_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "out")
    run(iris_settings(fit=FEW))
    name_component(out, 0, "early")
    for component, name, message in (
        (1, "early", "Component 0 of .* is called 'early' already"),
        (3, "late", "its components are 0 to 2"),
        (1, "two\nlines", "one line"),
        (1, " x", "without spaces"),
        (1, "x" * 101, "at most 100"),
    ):
        with pytest.raises(SettingsError, match=message):
            name_component(out, component, name)
    for alias in ("latest", "none", "7", "a.b", ""):
        with pytest.raises(SettingsError, match="can be no alias"):
            promote_as(*resolve(out), alias)
    with pytest.raises(OutputError, match="has no alias 'champion'; its aliases: none"):
        resolve(f"{out}@champion")
    monkeypatch.setenv("SOME_TOKEN", "early-bird-7")
    for name in ("early-bird-7", "password: x1y2"):
        with pytest.raises(SettingsError, match=r"looks like a secret, .*\. Choose another"):
            name_component(out, 0, name)
    with pytest.raises(SettingsError, match=r"looks like a secret, .*\. Choose another"):
        promote_as(*resolve(out), "early-bird-7")
    with pytest.raises(SettingsError, match=r"promotion\.alias: it looks like a secret"):
        iris_settings(promotion={"alias": "early-bird-7"})
    assert "early-bird-7" not in "".join(map(Path.read_text, Path(out, "versions").iterdir()))
    promote_as(*resolve(out), "champion")
    with pytest.raises(OutputError, match="never pointed to another version"):
        promote_back(out, "champion")
    assert name_component(out, 0, "").number == 4
    assert open_output(out).names == (None, None, None)


def test_a_run_whose_alias_somebody_moved_meanwhile_is_published_all_the_same(
    iris_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended with 1, as if nothing had been published."""
    out, alias = str(tmp_path / "out"), {"alias": "champion"}
    run(iris_settings(fit=FEW, promotion=alias))
    run(iris_settings(fit=FEW | {"random_state": 1}))

    def moved(*_: object) -> tuple[tuple[str, ...], tuple[str, ...]]:
        promote_as(*resolve(f"{out}@3"), "champion", unchecked=True)
        return (), ()

    monkeypatch.setattr(registry, "judged", moved)
    published = run(iris_settings(fit=FEW | {"random_state": 2}, promotion=alias))
    assert open_output(out).run_id == published.run_id
    assert open_output(f"{out}@champion").version.number == 3


def test_a_damaged_version_gets_no_alias(iris_settings: MakeSettings, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    run(iris_settings(fit=FEW))
    Path(label_parts(out)[0]).write_bytes(b"")
    with pytest.raises(OutputError, match="is damaged and not promoted"):
        promote_as(*resolve(out), "champion", unchecked=True)


def test_a_limit_that_was_not_measured_is_not_met(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    asked = {"alias": "champion", "log_likelihood_loss": 0.0}
    run(iris_settings(fit=FEW, promotion=asked))
    assert resolve(f"{out}@champion")[1].number == 1  # there was none to compare with
    run(iris_settings(fit=FEW | {"n_components": 2}, promotion=asked))
    assert resolve(f"{out}@champion")[1].number == 1
    with pytest.raises(NotPromotedError, match=r"was not measured against version 1"):
        promote_as(*resolve(out), "champion")
    assert "champion is version 3" in said("promote", out, "--as", "champion", "--unchecked")
