"""Every setting is an option, and what is wrong with an option is told by its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import typer
import yaml
from pydantic import BaseModel
from typer.testing import CliRunner

from gmm_dask.command import cli
from gmm_dask.command.ending import USAGE
from gmm_dask.errors import DataError
from gmm_dask.stage.run import run, score
from gmm_dask.stage.settings import (
    DataSettings,
    FitSettings,
    ScoreSettings,
    Settings,
    load_settings,
)

FIT = ["fit", "DATA", "--n-components", "2", "--out", "OUT"]
LABEL = ["label", "DATA", "--model", "MODEL", "--out", "OUT"]
FILES: dict[str, dict[str, Any]] = {
    "fit": {"data": {"path": "DATA"}, "fit": {"n_components": 2}, "output": {"path": "OUT"}},
    "label": {"data": {"path": "DATA"}, "model": "MODEL", "output": {"path": "OUT"}},
}

# What is not simply another value of the same type.
VALUES: dict[str, Any] = {
    "cluster.kind": "processes",
    "cluster.memory_limit": None,
    "cluster.address": "tcp://127.0.0.1:8786",
    "cluster.tls_ca_file": None,
    "cluster.tls_cert": None,
    "cluster.tls_key": None,
    "cluster.options": {},
    "data.between": {"day": ["1", "2"]},
    "memory.scratch": "/scratch",
    "fit.degrees_of_freedom_prior": None,
    "fit.n_clusters": 1,
    "labels.anomaly": 0.75,
    "labels.reasons": "all",  # flagged needs to know from where on rows are
    "refresh.warn": {"psi": 0.5},
    "refresh.fail": {"divergence": 2.5},
}

NO_CASES = (  # given in every case, or by the options of others
    *("data.path", "output.path", "model", "fit.n_components"),
    *("select.n_components", "select.covariance_types"),
    *("select.criterion", "select.n_bootstrap"),  # need candidates
)
OF_FITS = ("labels.compare", "labels.sticky")  # which label runs refuse by name


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """The stages that commands would carry out, with their settings."""
    calls: list[tuple[Any, Any]] = []
    monkeypatch.setattr(
        cli, "carry_out", lambda stage, settings, _: calls.append((stage, settings))
    )
    return calls


def leaves(schema: type[BaseModel], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in schema.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from leaves(section, f"{above}{name}.")
        elif (above + name) not in NO_CASES:
            yield above + name, field


def another_value(key: str, field: Any) -> Any:
    """A value of a setting that is not its default."""
    if key in VALUES:
        return VALUES[key]
    kinds = [field.annotation, *get_args(field.annotation)]
    words = [w for kind in kinds if get_origin(kind) is Literal for w in get_args(kind)]
    if bool in kinds:
        return not field.default
    if words:
        word = next(word for word in words if word != field.default)
        return [word] if get_origin(field.annotation) is tuple else word
    if any(get_origin(kind) is tuple for kind in kinds):
        return ["a", "b c"]
    number = 3 if isinstance(field.default, int) or int in kinds or "int" in str(kinds) else 2.5
    return number if "int" in str(kinds) or "float" in str(kinds) else "text"


def as_options(key: str, value: Any) -> list[str]:
    name = "--" + key.partition(".")[2].replace("_", "-")
    others = {"--kind": "--cluster", "--address": "--cluster", "--enabled": "--labels"}
    name = (others | {"--version": "--data-version"}).get(name, name)
    if isinstance(value, bool):
        return [name if value else name.replace("--", "--no-", 1)]
    return [name, ",".join(value) if isinstance(value, list) else str(value)]


def of_file(command: str, key: str, value: Any) -> Any:
    document = yaml.safe_load(yaml.safe_dump(FILES[command]))
    section, name = key.split(".")
    document.setdefault(section, {})[name] = value
    if key == "cluster.address":
        document["cluster"]["kind"] = "address"
    return document


CASES = [
    (command, key, another_value(key, field))
    for command, schema in (("fit", Settings), ("label", ScoreSettings))
    for key, field in leaves(schema)
    if command == "fit" or key not in OF_FITS
]


@pytest.mark.parametrize(
    ("command", "key", "value"), CASES, ids=[f"{command} {key}" for command, key, _ in CASES]
)
def test_every_setting_is_an_option_and_can_be_set(
    command: str, key: str, value: Any, called: list[tuple[Any, Any]], tmp_path: Path
) -> None:
    schema = Settings if command == "fit" else ScoreSettings
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(of_file(command, key, value)))
    expected = load_settings(file, schema=schema)
    call = FIT if command == "fit" else LABEL
    ways = [["--set", f"{key}={yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}"]]
    if key == "cluster.address":
        ways[0] += ["--set", "cluster.kind=address"]
    if value is not None and not isinstance(value, dict) and not key.startswith("refresh."):
        ways.append(as_options(key, value))
    for options in ways:
        done = CliRunner().invoke(cli.app, [*call, *options])
        assert done.exit_code == 0, done.output
    assert called == [(run if command == "fit" else score, expected)] * len(ways)


def test_certificates_and_memory_of_workers_are_options(called: list[tuple[Any, Any]]) -> None:
    pem = ["--tls-ca-file", "ca.pem", "--tls-cert", "cert.pem", "--tls-key", "key.pem"]
    CliRunner().invoke(cli.app, [*FIT, "--cluster", "tls://h:1", *pem])
    CliRunner().invoke(cli.app, [*LABEL, "--cluster", "processes", "--memory-limit", "1GiB"])
    clusters = [settings.cluster for _, settings in called]
    assert clusters[0].kind == "address"
    assert clusters[0].tls_key == "key.pem"
    assert clusters[1].memory_limit == "1GiB"


def test_lists_take_commas_and_repeats_and_what_is_set_counts(
    called: list[tuple[Any, Any]],
) -> None:
    CliRunner().invoke(
        cli.app,
        [*FIT, "--features", "a, b", "--features", "c", "--keep", "d,e", "--tol", "1", "--set",
         "fit.tol=2", "--set", 'data.id_columns=["x,y"]'],
    )  # fmt: skip
    ((_, settings),) = called
    assert settings.data.features == ("a", "b", "c")
    assert settings.data.id_columns == ("x,y",)
    assert settings.labels.keep == ("d", "e")
    assert settings.fit.tol == 2


def test_several_folders_are_data(called: list[tuple[Any, Any]]) -> None:
    CliRunner().invoke(cli.app, ["fit", "a", "b,c", "--n-components", "2", "--out", "OUT"])
    assert called[0][1].data.path == ("a", "b,c")


def test_a_settings_file_says_itself_whether_to_fit_or_to_label(
    called: list[tuple[Any, Any]], tmp_path: Path
) -> None:
    for command, stage in (("fit", run), ("label", score)):
        file = tmp_path / f"{command}.yaml"
        file.write_text(yaml.safe_dump(FILES[command]))
        assert CliRunner().invoke(cli.app, ["run", str(file)]).exit_code == 0
        assert called[-1][0] is stage
    file.write_text(yaml.safe_dump(FILES["fit"] | FILES["label"]))
    done = CliRunner().invoke(cli.app, ["run", str(file)])
    assert done.exit_code == USAGE
    assert "fit and model" in done.output
    with_fit = CliRunner().invoke(
        cli.app, ["run", str(tmp_path / "label.yaml"), "--set", "fit.tol=1"]
    )
    assert "fit and model" in with_fit.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fit"], "DATA, --n-components and --out are missing."),
        (["fit", "DATA"], "--n-components and --out are missing."),
        (["label", "--out", "OUT"], "DATA and --model are missing."),
        (["fit", "DATA", "--n-components", "2"], "--out"),
    ],
)
def test_everything_that_a_call_lacks_is_named(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == USAGE
    assert said in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*FIT, "--tol", "-1"], "--tol: it must be greater than or equal to 0 (got -1.0)"),
        ([*FIT, "--missing", "drp"], "gmm-dask: --missing: it must be 'error', 'drop' or 'em'"),
        ([*FIT, "--cast", "decimals"], "gmm-dask: --cast, item 1: it must be 'decimal' or 'bool'"),
        ([*FIT, "--init-rows", "2", "--set", "fit.n_components=3"],
         "gmm-dask: --set 'fit.n_components=3', --init-rows: init_rows is 2; a start of 3"),
        ([*FIT, "--set", "fit.n_component=3"],
         "gmm-dask: --set 'fit.n_component=3': unknown key; did you mean fit.n_components?"),
        ([*FIT, "--set", "tol=3"], "--set 'tol=3': unknown key; did you mean fit.tol?"),
        ([*LABEL, "--set", "fit.tol=3"], "--set 'fit.tol=3': unknown key; settings with a model"),
        ([*FIT, "--set", "data.features=[a, no]"],
         "--set 'data.features=[a, no]', item 2: text is expected; no, off or false"),
        ([*FIT, "--set", "data.path.deep=3"], "--set 'data.path.deep=3': 'path' is not a section"),
        ([*FIT, "--set", "nothing"], "--set 'nothing': it takes section.key=value"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_the_option_that_it_came_from(
    arguments: list[str], said: str
) -> None:
    done = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "300"})
    assert done.exit_code == USAGE
    assert said in done.output
    assert "cannot be used" not in done.output


def test_a_file_and_options_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("data: {path: x, featurs: [a]}\noutput: {path: y}\n")
    done = CliRunner().invoke(cli.app, ["run", str(file), "--set", "fit.tol=-1"])
    assert "gmm-dask: The settings cannot be used:" in done.output
    assert f"{file}, data.featurs: unknown key; did you mean data.features?" in done.output
    assert "--set 'fit.tol=-1': it must be greater than or equal to 0" in done.output


def test_an_advice_says_by_which_options_it_is_followed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise DataError(
            "a.parquet: is a decimal. Set data.cast: [decimal] or labels.enabled: false."
        )

    monkeypatch.setattr(cli, "carry_out", refuse)
    done = CliRunner().invoke(cli.app, FIT)
    assert done.exit_code == 1
    assert "On the command line data.cast is --cast, labels.enabled is --no-labels." in done.output
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(FILES["fit"]))
    assert "On the command line" not in CliRunner().invoke(cli.app, ["run", str(file)]).output


def test_the_help_shows_what_the_settings_say() -> None:
    fit = typer.main.get_command(cli.app).commands["fit"].make_context("fit", FIT[1:]).command
    shown = {option.name: option for option in fit.params}
    for section, schema in (("data", DataSettings), ("fit", FitSettings)):
        for name, field in schema.model_fields.items():
            if name == "between":  # a mapping, for --set
                continue
            option = shown[f"{section}__{name}"]
            assert field.description in option.help
            if get_origin(field.annotation) is Literal:
                assert option.metavar == "|".join(get_args(field.annotation))
                assert option.default == field.default
    text = CliRunner().invoke(cli.app, ["fit", "--help"], env={"COLUMNS": "120"}).output
    assert "<bool>" not in text
    assert "{" not in text.splitlines()[1]


@pytest.mark.parametrize(
    ("given", "numbers", "families"),
    [
        (["--n-components", "2:4"], (2, 3, 4), ()),
        (["--n-components", "2,8"], (2, 8), ()),
        (["--n-components", "3", "--covariance-type", "full,diag"], (), ("full", "diag")),
    ],
)
@pytest.mark.parametrize("command", ["fit", "select"])
def test_candidates_are_given_where_one_number_and_one_family_are(
    called: list[tuple[Any, Any]], command: str, given: list[str], numbers: Any, families: Any
) -> None:
    result = CliRunner().invoke(cli.app, [command, "DATA", "--out", "OUT", *given])
    assert result.exit_code == 0, result.output
    how = ["--criterion", "aic", "--n-bootstrap", "3"]
    assert (
        CliRunner().invoke(cli.app, [command, "DATA", "--out", "OUT", *given, *how]).exit_code == 0
    )
    (_, settings), (_, chosen) = called
    assert settings.select.n_components == numbers
    assert settings.select.covariance_types == families
    assert (chosen.select.criterion, chosen.select.n_bootstrap) == ("aic", 3)


def test_select_with_one_candidate_says_how_to_give_more(called: list[tuple[Any, Any]]) -> None:
    result = CliRunner().invoke(cli.app, ["select", "DATA", "--out", "OUT", "--n-components", "3"])
    assert result.exit_code == 2
    assert "--n-components 2:12" in result.output.replace("\n", " ")
    assert not called
