"""The command line as its user calls it: output, exit codes, messages."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from gmm_dask import load_model, read_labels
from gmm_dask.command import about_outputs, cli, ending
from gmm_dask.storage.store.local_store import LocalStore
from tests.command.conftest import FEATURES, IRIS, ROOT, Called, call
from tests.storage.stores import RUN, check_one_whole_version, publish_run


def test_show_tells_programs_what_it_tells_people(fitted: Path, called: Called) -> None:
    shown = json.loads(called("show", "out", "--json").stdout)
    assert shown["version"] == 1
    assert shown["model"]["features"] == FEATURES.split(",")
    assert [each["component"] for each in shown["components"]] == [0, 1, 2]
    assert sum(each["weight"] for each in shown["components"]) == pytest.approx(1)
    assert shown["metrics"]["log_likelihood"] == pytest.approx(-180.1855, abs=1e-3)
    model = load_model(str(fitted / "out"))
    for each in shown["components"]:
        mean = [each["mean"][name] for name in FEATURES.split(",")]
        np.testing.assert_array_equal(mean, model.means_[each["component"]])
    alone = json.loads(called("show", shown["places"]["model"], "--json").stdout)
    assert alone["components"] == shown["components"]
    assert alone["version"] is None


def test_json_lines_tell_of_a_run_from_its_begin_to_its_end(tmp_path: Path, called: Called) -> None:
    arguments = ["fit", IRIS, "--features", FEATURES, "--out", "out", "--progress", "json"]
    done = call(*arguments, "--n-components", 3, cwd=tmp_path)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [each["name"] for each in events if each["event"] == "phase"] == [
        "plan", "fit", "label", "publish"
    ]  # fmt: skip
    assert (events[-1]["event"], events[-1]["version"], events[-1]["rows"]) == ("published", 1, 150)
    failed = called(*arguments, "--n-components", 3000)
    *_, last = (json.loads(line) for line in failed.stderr.splitlines())
    assert (last["event"], last["exit_code"], failed.returncode) == ("failed", 1, 1)
    assert "n_components" in last["message"]


def test_fit_show_verify_path_and_label_work_together(fitted: Path, called: Called) -> None:
    shown = called("show", "out")
    assert shown.returncode == 0
    for word in ("petal_width", "converged", "model.json", "report.html"):
        assert word in shown.stdout
    verified = called("verify", "out@1")
    assert verified.returncode == 0
    assert "whole" in verified.stdout
    model = Path(called("path", "out", "model").stdout.strip())
    assert (fitted / model).is_file()
    labelled = call("label", IRIS, "--model", "out@1", "--out", "labels", cwd=fitted)
    assert labelled.returncode == 0, labelled.stderr
    labels = Path(called("path", "labels", "labels").stdout.strip())
    assert sum(pq.read_metadata(part).num_rows for part in (fitted / labels).iterdir()) == 150


def test_damage_is_found_and_named(fitted: Path, called: Called) -> None:
    part = next((fitted / "out").rglob("labels/*.parquet"))
    part.write_bytes(part.read_bytes()[:-1])
    verified = called("verify", "out")
    assert verified.returncode == 1
    assert part.name in verified.stderr


def test_run_takes_a_file_and_writes_nothing_the_second_time(
    tmp_path: Path, called: Called
) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"data: {{path: '{IRIS}'}}\noutput: {{path: out}}\n")
    first = called("run", settings, "--set", "fit.n_components=3")
    assert first.returncode == 0, first.stderr
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    second = called("run", settings, "--set", "fit.n_components=3")
    assert second.returncode == 0
    assert "nothing was written" in second.stdout
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_several_folders_are_fitted_and_labelled_as_one(tmp_path: Path) -> None:
    folders = [str(IRIS / f"species={name}") for name in ("setosa", "virginica")]
    options = ["--n-components", "2", "--id-columns", "species"]
    out, labels = str(tmp_path / "out"), str(tmp_path / "labels")
    for command in [
        ["fit", *folders, *options, "--out", out],
        ["label", *folders, "--model", out, "--out", labels],
    ]:
        done = CliRunner().invoke(cli.app, command)
        assert done.exit_code == 0, done.output
    assert read_labels(out).compute()["species"].value_counts().to_dict() == {
        "setosa": 50,
        "virginica": 50,
    }
    assert len(read_labels(labels)) == 100


def test_a_model_alone_is_fitted_without_labels(tmp_path: Path, called: Called) -> None:
    done = called("fit", IRIS, "--n-components", 2, "--no-labels", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert called("path", "out", "labels").returncode == 1


def truncated(folder: Path) -> None:
    file = folder / "a.parquet"
    pq.write_table(pa.table({"x": np.arange(100.0)}), file)
    file.write_bytes(file.read_bytes()[:-20])


def with_value(value: float | None) -> pa.Table:
    return pa.table({"x": [1.0, 2.0, 3.0, value], "y": [1.0, 2.0, 4.0, 3.0]})


BAD_DATA = {
    "a null": (lambda f: pq.write_table(with_value(None), f / "a.parquet"), ["a.parquet", "'x'"]),
    "an infinity": (
        lambda f: pq.write_table(with_value(np.inf), f / "a.parquet"),
        ["a.parquet", "'x'", "infinit"],
    ),
    "an empty folder": (lambda f: None, ["data", "Parquet"]),
    "a truncated file": (truncated, ["a.parquet", "truncated"]),
    "a column of text": (
        lambda f: pq.write_table(pa.table({"x": list("abc"), "y": [1, 2, 3]}), f / "a.parquet"),
        ["a.parquet", "'x'", "string"],
    ),
    "a missing column": (
        lambda f: pq.write_table(pa.table({"X": [1.0, 2.0]}), f / "a.parquet"),
        ["'x'"],
    ),
    "fewer rows than components": (
        lambda f: pq.write_table(pa.table({"x": [1.0], "y": [2.0]}), f / "a.parquet"),
        ["n_components"],
    ),
}


@pytest.mark.parametrize("case", list(BAD_DATA))
def test_bad_data_is_one_clear_message_and_exit_code_1(
    case: str, tmp_path: Path, called: Called
) -> None:
    make, words = BAD_DATA[case]
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    done = called("fit", "data", "--features", "x,y", "--n-components", 2, "--out", "out")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert not (tmp_path / "out" / "versions").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "absent.yaml"], ["absent.yaml"]),
        (["fit", IRIS, "--out", "out", "--n-components", "0"], ["--n-components"]),
        (["fit", IRIS], ["--out"]),
        (
            ["fit", IRIS, "--n-components", "2", "--out", "out", "--covariance-type", "round"],
            ["covariance"],
        ),
        (["unknown"], ["unknown"]),
    ],
)
def test_wrong_usage_and_settings_are_exit_code_2(
    arguments: list[object], words: list[str], called: Called
) -> None:
    done = called(*arguments)
    assert done.returncode == 2
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path, called: Called) -> None:
    (tmp_path / "out").write_text("a file")
    done = called("fit", IRIS, "--n-components", 2, "--out", "out")
    assert done.returncode == 1
    assert "out" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_version_lists_the_known(fitted: Path, called: Called) -> None:
    done = called("show", "out@7")
    assert done.returncode == 1
    assert "published: 1" in done.stderr
    done = called("verify", "out/LATEST")  # was told to be moved away
    assert done.returncode == 1
    assert "LATEST is a file. Give the output folder" in done.stderr.replace("\n", " ")


def test_plain_terminals_get_plain_text(fitted: Path) -> None:
    done = call("show", "out", cwd=fitted, PYTHONIOENCODING="ascii", NO_COLOR="1", COLUMNS="40")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout


def ugly(**columns: object) -> pa.Table:
    x = np.random.default_rng(0).normal(size=60)
    return pa.table({"x": x, "y": x**2} | columns)


# What the settings are, the data, and the words of the one message.
DEGENERATE = {
    "a constant column": (["fit.reg_covar=0"], ugly(z=np.full(60, 5.0)), ["Column 'z'", "same"]),
    "huge values": ([], ugly(z=[1e308, -1e308] * 30), ["Column 'z'", "beyond float64"]),
    "duplicate columns": (
        ["fit.reg_covar=0", "fit.component_policy=raise"],
        ugly(z=ugly()["x"]),
        ["'x', 'z'", "leave out columns"],
    ),
    "all rows equal": (
        ["fit.reg_covar=0"],
        pa.table({"x": np.ones(9), "y": np.zeros(9)}),
        ["Columns 'x', 'y'", "same value"],
    ),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("case", list(DEGENERATE))
def test_degenerate_data_name_their_columns(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides, table, words = DEGENERATE[case]
    pq.write_table(table, tmp_path / "a.parquet")
    settings = tmp_path / "s.yaml"
    settings.write_text(
        f"data: {{path: '{tmp_path / 'a.parquet'}'}}\noutput: {{path: '{tmp_path / 'out'}'}}\n"
    )
    with pytest.raises(typer.Exit) as ended:
        cli.run(settings, ["fit.n_components=2", *overrides])
    assert ended.value.exit_code == ending.FAILED
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (message,) = (line for line in said.splitlines() if line.startswith("gmm-dask:"))
    for word in words:
        assert word in message
    assert not (tmp_path / "out" / "versions").exists()


def test_a_certificate_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(typer.Exit) as ended:
        cli.run(ROOT / "config" / "cluster.yaml", [f"data.path={IRIS}"])
    assert ended.value.exit_code == ending.USAGE
    said = capsys.readouterr().err
    for word in ("cluster.tls_ca_file: there is no file ca.pem", "cert.pem", "key.pem"):
        assert word in said


def test_an_interrupted_run_says_what_running_again_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gmm_dask.stage.run.run", interrupt)
    with pytest.raises(typer.Exit) as ended:
        cli.run(ROOT / "config" / "iris.yaml")
    assert ended.value.exit_code == ending.INTERRUPTED
    said = capsys.readouterr().err
    assert "interrupted." in said
    assert "a fit goes on from its last checkpoint and ends the same" in said


def test_an_interrupted_promotion_says_nothing_of_a_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gmm_dask.stage.publish.promote", interrupt)
    with pytest.raises(typer.Exit) as ended:
        about_outputs.promote("OUT@1")
    assert ended.value.exit_code == ending.INTERRUPTED
    said = capsys.readouterr().err
    assert "interrupted. The latest version is as it was, or the promoted one already" in said
    assert "fit" not in said


def on_a_terminal(*arguments: object, cwd: Path) -> str:
    """What `gmm-dask ...` shows where output and messages go to one terminal."""
    ours, its = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.undrawn", *map(str, arguments)],
        stdin=its, stdout=its, stderr=its, cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "400"},
    ) as process:  # fmt: skip
        os.close(its)
        seen = b""
        with suppress(OSError):  # so Linux ends a terminal
            while data := os.read(ours, 1 << 16):
                seen += data
    os.close(ours)
    assert process.returncode == 0, seen
    return seen.decode()


@pytest.mark.parametrize("progress", ["live", "lines", "none"])
def test_a_caution_is_shown_once(progress: str, tmp_path: Path, called: Called) -> None:
    table = pa.table({"x": np.arange(60.0) ** 2, "code": np.arange(60) % 3})
    pq.write_table(table, tmp_path / "a.parquet")
    fit = ["fit", "a.parquet", "--n-components", 2, "--progress", progress, "--out"]
    caution = "Column 'code' holds few different whole numbers"
    assert on_a_terminal(*fit, "out", cwd=tmp_path).count(caution) == 1
    apart = called(*fit, "apart")
    assert apart.stdout.count(caution) == 1  # which may be kept alone
    assert apart.stderr.count(caution) == (progress != "none")
    assert called("show", "out").stdout.count(caution) == 1


def test_the_log_likelihood_has_the_same_digits_wherever_it_is_shown(
    fitted: Path, called: Called
) -> None:
    done = called("fit", IRIS, "--features", FEATURES, "--n-components", 3, "--out", "b")
    passes = re.findall(r"log_likelihood_per_row=(-?[0-9.]+)", done.stderr)
    (final,) = re.findall(r"in total, (-?[0-9.]+) per row", done.stdout)
    report = Path(called("path", "b", "report").stdout.strip()).read_text()
    decimals = {len(each.partition(".")[2]) for each in (*passes, final)}
    assert decimals == {6}
    assert final.replace("-", "\N{MINUS SIGN}") in report


def test_gc_removes_what_it_says_and_says_what_it_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = LocalStore(str(tmp_path))
    publish_run(store)
    store.put(f"runs/{RUN}/checkpoints/00001.json", bytes(1200))
    about_outputs.gc(str(tmp_path), dry_run=True)
    assert capsys.readouterr().out == "1 file would be removed, 1.2 kB.\n"
    about_outputs.gc(str(tmp_path))
    assert capsys.readouterr().out == "1 file removed, 1.2 kB.\n"
    about_outputs.gc(str(tmp_path))
    assert capsys.readouterr().out == "0 files removed, 0 bytes.\n"
    about_outputs.gc(str(tmp_path), abandoned_days=float("inf"))  # was an OverflowError
    check_one_whole_version(store)
    with pytest.raises(typer.Exit):
        about_outputs.gc(f"{tmp_path}@1", abandoned_days=1.0)
    assert "@1 holds no run and no version" in capsys.readouterr().err


def test_help_and_version_answer(tmp_path: Path) -> None:
    help_text = call("--help", cwd=tmp_path)
    assert help_text.returncode == 0
    for word in ("run", "fit", "label", "show", "verify", "path"):
        assert word in help_text.stdout
    assert call("--version", cwd=tmp_path).stdout.strip()


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['gmm-dask', '--help']\n"
        "from gmm_dask.command.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'dask', 'numpy', 'pydantic', 'yaml', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_shell_completes_commands_and_options(tmp_path: Path) -> None:
    asked = {"_GMM_DASK_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    assert call(cwd=tmp_path, COMP_WORDS="gmm-dask pro", **asked).stdout.split() == ["promote"]
