"""Names from outside make no line, no colour and no turn of direction in anything that is said."""

from __future__ import annotations

import pickle
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from typer.testing import CliRunner, Result

from gmm_dask import errors
from gmm_dask.command.cli import app
from gmm_dask.errors import DataError, GmmDaskError, OutputError, shown
from gmm_dask.flows.artifacts import _cell, _code, feature_heads
from gmm_dask.stage import text

# A line feed, a red line, one backwards, a line separator, and a control character of Latin 1.
ODD = "x\ngmm-dask: forged\x1b[31m\u202e\u2028\x85"
NEVER = {"Cc", "Cf", "Zl", "Zp"}  # kinds of characters that never come through


def odd_signs(said: str) -> set[str]:
    return {sign for sign in said if sign != "\n" and unicodedata.category(sign) in NEVER}


@given(st.text())
def test_what_is_shown_is_one_line_and_what_can_be_seen_stays(name: str) -> None:
    assert shown(name).isprintable()
    assert shown(shown(name)) == shown(name)
    assert name.isprintable() <= (shown(name) == name)
    assert text.short(name).isprintable()


def test_letters_of_all_languages_stay() -> None:
    assert shown("größe 高さ высота ارتفاع é") == "größe 高さ высота ارتفاع é"


KINDS = [each for each in vars(errors).values() if isinstance(each, type)]


@pytest.mark.parametrize("kind", [each for each in KINDS if issubclass(each, GmmDaskError)])
def test_a_message_is_one_line(kind: type[GmmDaskError]) -> None:
    error = kind(f"{ODD}: is bad")
    assert str(error).isprintable()
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_message_has_as_many_lines_as_it_was_made_of() -> None:
    assert str(OutputError(ODD, "b")).split("\n") == [shown(ODD), "b"]
    assert DataError([ODD, "b"]).problems == (shown(ODD), "b")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def rows(folder: Path, name: str = ODD, **others: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=60), "y": rng.normal(size=60)} | others
    pq.write_table(pa.table(columns), folder / f"{ODD}.parquet")
    return folder


def check(done: Result, code: int) -> None:
    assert done.exit_code == code, done.output
    assert not odd_signs(done.output)
    assert not any(line.startswith("gmm-dask: forged") for line in done.output.splitlines())


def test_a_run_of_odd_names_forges_nothing(tmp_path: Path) -> None:
    data, out = rows(tmp_path / f"{ODD}={ODD}"), tmp_path / ODD
    # A column of integers with few values, so that there is a caution, too.
    rows(data, code=np.arange(60) % 3)
    check(call("fit", data, "--n-components", 2, "--out", out), 0)
    for command in ("show", "versions", "verify", "gc"):
        check(call(command, out), 0)
    check(call("promote", f"{out}@1"), 0)
    check(call("label", data, "--model", out, "--out", out / "labels"), 0)
    (report,) = (out / "labels").rglob("report.html")
    for page in (report, *out.glob("runs/*/report.html")):
        assert not odd_signs(page.read_text())
    settings = tmp_path / f"{ODD}.yaml"
    settings.write_text("data: {path: x}\nfit: [")
    check(call("run", settings), 2)
    check(call("run", tmp_path / f"absent {ODD}"), 2)
    check(call("show", out / f"{ODD}.json"), 1)
    check(call("show", f"{out}@9"), 1)
    check(call("verify", tmp_path / f"no {ODD}"), 1)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([np.inf] * 60, ()),
        ([None] * 60, ()),
        ([1.0] * 59 + [None], ()),
        (["a"] * 60, ()),
        ([1.0] * 60, ("--weight-column", ODD)),
        ([-1.0] * 60, ("--weight-column", "z", "--features", ODD)),
        ([1.0] * 60, ("--features", "y,absent")),
        ([1.0] * 60, ("--n-components", "61")),
    ],
)
def test_bad_input_of_odd_names_forges_nothing(
    values: list[Any], options: tuple[str, ...], tmp_path: Path
) -> None:
    data = rows(tmp_path / ODD, z=pa.array(values))
    features = () if "--features" in options else ("--features", "y", "--features", "z")
    many = () if "--n-components" in options else ("--n-components", 2)
    check(call("fit", data, *many, *features, *options, "--out", tmp_path / "out"), 1)


def test_damage_of_odd_names_forges_nothing(tmp_path: Path) -> None:
    data, out = rows(tmp_path / "data"), tmp_path / ODD
    check(call("fit", data, "--n-components", 2, "--out", out), 0)
    for file in out.glob("runs/*/labels/*"):
        file.write_bytes(b"torn")
    check(call("verify", out), 1)
    check(call("fit", data, "--n-components", 2, "--out", out), 1)


@pytest.mark.parametrize("word", [ODD, f"--{ODD}", f"--out{ODD}", f"-{ODD}"])
@pytest.mark.parametrize("command", [None, "fit", "show"])
def test_words_that_no_command_knows_forge_nothing(word: str, command: str | None) -> None:
    given = [word] if command is None else [command, "OUT", word, word]
    done = call(*given)
    assert done.exit_code != 0
    assert not odd_signs(done.output)


words = st.text(st.sampled_from("`| ab\\*_<\n\x1b\u202e")).filter(str.strip)


@given(words)
def test_code_on_a_page_is_the_text_and_nothing_else(said: str) -> None:
    markdown = MarkdownIt("commonmark").enable("table")
    (inline,) = (each for each in markdown.parse(_code(said)) if each.type == "inline")
    (code,) = inline.children or ()
    assert (code.type, code.content) == ("code_inline", shown(said))


@given(words.filter(lambda said: "\\|" not in said))
def test_code_in_a_table_is_one_cell(said: str) -> None:
    markdown = MarkdownIt("commonmark").enable("table")
    inlines = [
        each
        for each in markdown.parse(f"| a | b |\n|---|---|\n| c | {_cell(said)} |\n")
        if each.type == "inline"
    ]
    assert len(inlines) == 4
    (code,) = inlines[-1].children or ()
    assert (code.type, code.content) == ("code_inline", shown(said))


def test_two_features_that_look_the_same_have_a_column_each() -> None:
    heads = feature_heads([ODD, shown(ODD)])
    assert len(set(heads)) == 2
    assert not odd_signs("".join(heads))
