"""The log of versions on the command line: what is said, listed and promoted, and what is read."""

from __future__ import annotations

import json
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gmm_dask import load_model, read_labels
from gmm_dask.command.cli import app
from gmm_dask.stage.lineage.history import in_short
from gmm_dask.stage.outputs import open_output
from gmm_dask.stage.publish import promote
from gmm_dask.stage.run import run, score
from gmm_dask.stage.settings import ScoreSettings, settings_from
from gmm_dask.storage import list_versions, open_store
from tests.stage.conftest import IRIS, settings_of_iris

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
FIRST, SECOND = 3, 2  # components


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fit(out: Path, n_components: int) -> Result:
    done = call(
        "fit", IRIS, "--n-components", n_components, "--id-columns", "flower", "--out", out,
        "--progress", "none",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return done


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def n_read(out: Path) -> int:
    """Components of the model that readers see, whose labels are there as well."""
    labels = read_labels(str(out)).compute(scheduler="sync")
    assert len(labels) == 150
    n_components = load_model(str(out)).parameters.n_components
    assert labels["label"].nunique() == n_components
    return n_components


@pytest.fixture(scope="module")
def three_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """K = 3, K = 2 and K = 3 again, with a setting or two."""
    out = tmp_path_factory.mktemp("three") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gmm_dask.stage.publish.render_report", lambda data: "<html></html>")
        for fit_ in ({"n_components": FIRST}, {"n_components": SECOND, "tol": 1e-2}) * 2:
            run(settings_of_iris(out, fit=fit_))
        promote(f"{out}@1")
    return out


@pytest.fixture
def three(three_once: Path, tmp_path: Path) -> Path:
    shutil.copytree(three_once, tmp_path / "out")
    return tmp_path / "out"


# --- a run ends with 0, and readers see it ---------------------------------------------------


def test_each_command_says_what_it_did_and_readers_see_its_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert f"Published version 1 of {out}" in fit(out, FIRST).stdout
    assert "Published version 2 of" in fit(out, SECOND).stdout
    assert n_read(out) == SECOND
    before = files(out / "runs")
    returned = fit(out, FIRST).stdout
    assert "Published version 3 of" in returned
    assert "This run was published before as version 1; version 3 now points to it" in returned
    assert n_read(out) == FIRST
    assert (out / "LATEST").read_text().startswith("version 3: ")
    assert files(out / "runs") == before
    everything = files(out)
    again = fit(out, FIRST).stdout
    assert "This is version 3 of" in again
    assert "the latest version already, version 3; nothing was written." in again
    assert files(out) == everything


def test_labels_alone_are_published_again_too(three: Path, tmp_path: Path) -> None:
    def label(version: int) -> int:
        document = {
            "data": {"path": str(IRIS)},
            "model": f"{three}@{version}",
            "output": {"path": str(tmp_path / "labels")},
        }
        return score(settings_from(document, ScoreSettings)).version.number

    assert [label(version) for version in (1, 2, 3, 1, 2)] == [1, 2, 3, 3, 4]
    assert n_read(tmp_path / "labels") == SECOND


def test_a_damaged_run_fails_and_is_not_made_the_latest(three: Path) -> None:
    folder = Path(open_output(f"{three}@2").path("folder"))
    part = next((folder / "labels").iterdir())
    part.write_bytes(part.read_bytes()[:-1])
    before = files(three)
    for arguments in (
        ["promote", f"{three}@2"],
        ["fit", IRIS, "--n-components", SECOND, "--tol", 1e-2, "--id-columns", "flower", "--out",
         three, "--features", "sepal_length,sepal_width,petal_length,petal_width"],
    ):  # fmt: skip
        done = call(*arguments)
        assert done.exit_code == 1
        assert part.name in done.stderr
        assert "is damaged" in done.stderr
    assert files(three) == before
    assert n_read(three) == FIRST


# --- versions --------------------------------------------------------------------------------


def lines(done: Result) -> list[list[str]]:
    """The cells of each line."""
    assert done.exit_code == 0, done.output
    return [re.split(r"\s{2,}", line) for line in done.stdout.rstrip().splitlines()]


def test_versions_lists_what_each_is(three: Path) -> None:
    heads, *rows = lines(call("versions", three))
    assert heads == [
        "version", "published (UTC)", "run", "rows", "K", "log-likelihood", "settings", "data"
    ]  # fmt: skip
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5 (latest)"]
    for number, row in enumerate(rows, start=1):
        published = open_output(f"{three}@{number}")
        told = str(published.version.published)
        assert row[1] == f"{told[:10]} {told[11:19]}"
        assert re.fullmatch(TIME, row[1])
        assert row[2:4] == [published.run_id, "150"]
        assert row[4] == str(FIRST if number % 2 else SECOND)
        assert float(row[5]) == pytest.approx(published.metrics["log_likelihood"], abs=1e-4)
        assert ("tol=0.01" in row[6]) is (number % 2 == 0)
        assert row[6].startswith("full ")
        assert row[7] == str(IRIS)


def test_a_line_feed_in_a_path_makes_no_line(tmp_path: Path) -> None:
    data = tmp_path / "a\n9 (latest)  2026-08-01 12:00:00  b"
    shutil.copytree(IRIS, data)
    run(settings_of_iris(tmp_path / "out", data={"path": str(data)}))
    _, row = lines(call("versions", tmp_path / "out"))
    assert row[0] == "1 (latest)"


def test_a_narrow_terminal_cuts_no_line(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert lines(call("versions", three))[1][-1] == str(IRIS)


Damage = Callable[[Path, Path], object]  # of an output and the folder of version 2's run
DAMAGES: dict[str, tuple[Damage, str]] = {
    "an entry": (
        lambda out, run: (out / "versions/00000002.json").write_text("?"),
        "00000002.json is damaged",
    ),
    "an entry of later software": (
        lambda out, run: (out / "versions/00000002.json").write_text(
            '{"format":"gmm_dask.version","format_version":99}'
        ),
        "upgrade gmm_dask",
    ),
    "a manifest": (
        lambda out, run: (run / "MANIFEST.json").write_text("{}"),
        "is not the manifest that the version names",
    ),
    "metrics": (
        lambda out, run: (run / "metrics.json").write_text("{}"),
        "metrics.json is damaged",
    ),
    "a folder": (lambda out, run: shutil.rmtree(run), "does not exist"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_what_is_damaged_is_told_in_its_place_and_the_others_are_listed(
    what: str, three: Path
) -> None:
    whole = lines(call("versions", three))
    damage, message = DAMAGES[what]
    damage(three, Path(open_output(f"{three}@2").path("folder")))
    found = lines(call("versions", three))
    hurt = (2,) if what.startswith("an entry") else (2, 4)
    assert len(found) == 6
    for number, row in enumerate(found):
        if number in hurt:
            assert row[0] == str(number)
            assert message in row[-1]
        else:
            assert row == whole[number]


def test_an_output_without_versions_has_none_to_list(tmp_path: Path) -> None:
    done = call("versions", tmp_path / "out")
    assert done.exit_code == 1
    assert "holds no published version" in done.stderr


def test_settings_in_short_are_those_that_are_not_as_by_default() -> None:
    fitted = settings_of_iris(
        Path("out"),
        data={"missing": "drop", "features": ["a", "b"]},
        fit={"n_components": 5, "covariance_type": "tied", "n_init": 4},
        labels={"keep": ["x", "y"], "responsibilities": True},
    )
    assert in_short(fitted.model_dump(mode="json")) == (
        "tied n_init=4 features=a,b id_columns=flower missing=drop keep=x,y responsibilities=yes"
    )
    labelled = settings_from(
        {"data": {"path": "d"}, "model": "out@3", "output": {"path": "o"}}, ScoreSettings
    )
    assert in_short(labelled.model_dump(mode="json")) == "model=out@3"


# --- promote ---------------------------------------------------------------------------------


def test_an_earlier_version_is_promoted_by_a_new_entry(three: Path) -> None:
    before, entries = files(three), sorted((three / "versions").iterdir())
    done = call("promote", f"{three}@2")
    assert done.exit_code == 0, done.output
    assert "This run was published before as version 2; version 6 now points to it" in done.stdout
    assert n_read(three) == SECOND
    changed = {path for path, time in files(three).items() if before.get(path) != time}
    assert changed == {three / "LATEST", three / "versions", three / "versions" / "00000006.json"}
    assert sorted((three / "versions").iterdir())[:5] == entries
    versions = list_versions(open_store(str(three)))
    assert versions[5].manifest_sha256 == versions[1].manifest_sha256
    assert versions[5].published > versions[4].published


@pytest.mark.parametrize("number", [1, 3, 5])
def test_promoting_the_run_that_is_the_latest_writes_nothing_and_says_so(
    number: int, three: Path
) -> None:
    before = files(three)
    done = call("promote", f"{three}@{number}")
    assert done.exit_code == 0, done.output
    assert "the latest version already, version 5; nothing was written" in done.stdout
    assert files(three) == before


@pytest.mark.parametrize(
    ("version", "code", "word"),
    [
        ("", 2, "names no earlier version"),
        ("@9", 1, "published: 1, 2, 3, 4, 5"),
        ("@0", 1, "from 1"),
    ],
)
def test_what_cannot_be_promoted_is_told(version: str, code: int, word: str, three: Path) -> None:
    before = files(three)
    done = call("promote", f"{three}{version}")
    assert done.exit_code == code
    assert word in " ".join(done.stderr.split())
    assert files(three) == before


def test_in_a_private_output_the_new_entry_is_private_too(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for k in (1, 2):
        run(settings_of_iris(out, fit={"n_components": k}, output={"private": True}))
    promote(f"{out}@1")
    for path in out.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


# --- times -----------------------------------------------------------------------------------


def test_show_tells_the_number_and_time_of_the_version_and_the_time_of_its_run(
    three: Path,
) -> None:
    entry = three / "versions" / "00000005.json"
    first = open_output(f"{three}@1")
    shown = call("show", three).stdout
    time = json.loads(entry.read_text())["published"]
    made = first.metrics["published"]
    assert f"This is version 5 of {three} (run {first.run_id})" in shown
    assert re.search(
        rf"published +{time[:10]} {time[11:19]} UTC, a run of {made[:10]} {made[11:19]} UTC", shown
    )
