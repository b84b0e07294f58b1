"""Files of settings as people write them: read and overridden, or answered in plain words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gmm_dask.errors import SettingsError
from gmm_dask.stage.settings import (
    Settings,
    load_settings,
)
from gmm_dask.stage.settings.settings_file import MAX_SETTINGS_BYTES

# What a file says, and what is said of it.
AS_PEOPLE_WRITE = {
    "a name for a list of names": (
        "data: {path: p, features: y}",
        "data.features: a list is expected: features: [y]",
    ),
    "names with commas for a list": (
        "data: {path: p, id_columns: 'a, b'}",
        "data.id_columns: a list is expected: id_columns: [a, b]",
    ),
    "no, a word of YAML, for a name": (
        "data: {path: p, features: [x, no]}",
        "data.features, item 2: text is expected; no, off or false without quotes is read as "
        "false: put the name in quotes",
    ),
    "on for a name": (
        "data: {path: p, weight_column: on}",
        "data.weight_column: text is expected; yes, on or true without quotes is read as true",
    ),
    "off for a list": (
        "data: {path: p, ignore: off}",
        "data.ignore: a list is expected: ignore: [a, b] (got false); no, off or false without",
    ),
    "yes to keep": ("labels: {keep: [yes]}", "labels.keep: text is expected; yes, on or true"),
    "a number for a name": (
        "data: {path: p, features: [2024]}",
        "data.features, item 1: text is expected; it is read as 2024 without quotes: put it in",
    ),
    "a date for a name": (
        "data: {path: p, id_columns: [2024-01-31]}",
        "data.id_columns, item 1: text is expected; it is read as 2024-01-31 without quotes",
    ),
    "nothing for a name": (
        "data:\n  path: p\n  features:\n    - x\n    -\n",
        "data.features, item 2: text is expected; nothing, ~ or null without quotes is read",
    ),
    "nothing for a list": ("data: {path: p, ignore: }", "data.ignore: a list is expected: ignore:"),
    "keys for a name": (
        "data: {path: p, features: [a: b]}",
        "data.features, item 1: text is expected (got {'a': 'b'}); put a name with a colon",
    ),
    "a name that needs quotes for a list": (
        "data: {path: p, ignore: '*.crc'}",
        "data.ignore: a list is expected: ignore: ['*.crc']",
    ),
    "a list in a list": (
        "data: {path: p, features: [[x, y]]}",
        "data.features, item 1: text is expected, and no list (got ['x', 'y'])",
    ),
    "a word in capitals": (
        "data: {path: p, cast: [Decimal]}",
        "data.cast, item 1: it must be 'decimal' or 'bool' (got 'Decimal'); did you mean decimal?",
    ),
    "a count for a flag": (
        "fit: {sample_em: 1}",
        "fit.sample_em: true or false is expected (got 1)",
    ),
    "keys for a list": ("data: {path: p, cast: {decimal: true}}", "data.cast: a list is expected:"),
    "no as a path": ("data: {path: no}", "data.path: text is expected; no, off or false"),
    "no as a key": ("data: {path: p, no: 1}", "data.false: a key is text: put it in quotes"),
    "a section without anything": (
        "fit:",
        "fit: a section of keys and values is expected; leave it out where it has none",
    ),
    "a list for a section": ("fit: [a]", "fit: a section of keys and values is expected"),
    "a word for a number": ("fit: {tol: small}", "fit.tol: a number is expected (got 'small')"),
    "a part for a count": (
        "fit: {n_init: 2.5}",
        "fit.n_init: a whole number is expected (got 2.5)",
    ),
    "a word for a flag": (
        "output: {path: o, private: 'no'}",
        "output.private: true or false is exp",
    ),
    "a flag for a word": (
        "data: {path: p, missing: no}",
        "missing: it must be 'error', 'drop' or ",
    ),
    "an infinity": ("fit: {tol: .inf}", "fit.tol: it must be a finite number (got inf)"),
    "a key of another section": (
        "data: {path: p, tol: 1}",
        "data.tol: unknown key; did you mean fit.tol?",
    ),
    "a key without its section": ("n_init: 2", "n_init: unknown key; did you mean fit.n_init?"),
    "a key that is not known at all": (
        "data: {path: p, zzz: 1}",
        "unknown key; known here: path, f",
    ),
    "a model to fit": (
        "model: m",
        "model: unknown key; settings with a model label and fit nothing",
    ),
}


@pytest.mark.parametrize("case", list(AS_PEOPLE_WRITE))
def test_files_as_people_write_them_are_answered_in_plain_words(case: str, tmp_path: Path) -> None:
    written, said = AS_PEOPLE_WRITE[case]
    path = tmp_path / "settings.yaml"
    rest = {"data": "data: {path: p}", "output": "output: {path: o}"}
    path.write_text("\n".join([written, *(v for k, v in rest.items() if f"{k}:" not in written)]))
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert f"{path} cannot be used:\n  " in str(caught.value)
    assert said in str(caught.value)
    assert "Input should" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_a_file_is_read_and_overridden(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("data: {path: data}\noutput: {path: out}\n")
    overrides = ["fit.n_components=4", "data.features=[a, b]", "output.path=elsewhere"]
    settings = load_settings(path, overrides)
    assert isinstance(settings, Settings)
    assert settings.fit.n_components == 4
    assert settings.data.features == ("a", "b")
    assert settings.output.path == "elsewhere"


@pytest.mark.parametrize("override", ["fit", "=3", "fit.=3", ".x=3", "data.path.deep=3", "a=[1"])
def test_an_override_that_cannot_be_read_is_quoted(override: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("data: {path: data}\noutput: {path: out}\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(path, [override])
    assert repr(override) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("data: [", "not valid YAML"),
        ("- a\n- b\n", "must hold sections"),
        ("", "must hold sections"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("data: " + " " * MAX_SETTINGS_BYTES, "larger than"),
        ("data: \x00", "not valid YAML"),
        ("data: 2026-13-45", "not valid YAML"),
        ("[" * 5000, "nested too deeply"),
        ("data: {path: a}\nfit: {}\ndata: {path: b}", "line 3: the key 'data' .* in line 1"),
        ("data: {path: a, path: b}", "line 1: the key 'path' is given twice"),
        ("a: &a {path: x}\ndata: {<<: *a}", "line 2: the merge key"),
    ],
)
def test_a_file_that_is_not_settings_is_refused(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=what):
        load_settings(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.yaml cannot be read"):
        load_settings(tmp_path / "absent.yaml")


def test_a_file_that_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for place in (tmp_path / "pipe.yaml", Path("/dev/zero")):
        with pytest.raises(SettingsError, match="is not a regular file"):
            load_settings(place)
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path)


def test_aliases_that_stand_for_gigabytes_make_a_short_message(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    path.write_text("\n".join([*lines, "data: {path: *a11, features: *a11}", "output: {path: o}"]))
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert "data.path" in str(caught.value)
    assert len(str(caught.value)) < 10_000


@pytest.mark.parametrize("text", ["2:12", "010", "0o10"])
def test_what_is_written_as_no_number_becomes_none(text: str, tmp_path: Path) -> None:
    # YAML 1.1 has numbers to the base of 60, and octal ones: 132 and 8.
    path = tmp_path / "settings.yaml"
    path.write_text(
        f"data: {{path: x, features: [a]}}\nfit: {{max_iter: {text}}}\noutput: {{path: y}}\n"
    )
    with pytest.raises(SettingsError, match=f"whole number.*{text}"):
        load_settings(path)


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", "0.001", "+1e-3"])
def test_a_number_may_be_written_as_people_write_it(text: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(f"data: {{path: data}}\nfit: {{tol: {text}}}\noutput: {{path: out}}\n")
    assert load_settings(path).fit.tol == 1e-3
    assert load_settings(path, [f"fit.reg_covar={text}"]).fit.reg_covar == 1e-3


def test_an_alias_may_save_writing_a_list_twice(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(
        "data: {path: data, id_columns: &ids [a, b]}\nlabels: {keep: *ids}\noutput: {path: out}\n"
    )
    assert load_settings(path).labels.keep == ("a", "b")
