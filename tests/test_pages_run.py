"""What pages say is so: their blocks run, their tables are whole, and the site is built."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from typer.testing import CliRunner

from gmm_dask.command.cli import app
from tests.by_hand import ROOT
from tests.command.conftest import call
from tests.object_service import ObjectService, files

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
LANGUAGES = {"sh", "python", "yaml", "toml", "json", "text", "console"}
SERVERS = {  # programs that start one, and the test that runs the commands beside them
    "dask": "tests/test_readme.py",
    "prefect": "tests/flows/test_deployment.py",
}
VERSIONS = 7  # which pages speak of


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    found = BLOCK.findall(page.read_text())
    return [(language, body) for language, body in found if language in languages]


def is_of_flows(body: str) -> bool:
    """Whether a block of Python needs a server."""
    return "gmm_dask.flows" in body


WITH_BLOCKS = [
    page
    for page in PAGES
    if page.name != "formats.md"  # of which tests/test_export.py runs the blocks
    and any(
        language == "sh" or not is_of_flows(body) for language, body in blocks(page, "sh", "python")
    )
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that pages speak of: DATA, OUT with its versions, sites, settings."""
    place = tmp_path_factory.mktemp("workplace")
    for name in ("config", "examples"):
        (place / name).symlink_to(ROOT / name)
    rng = np.random.default_rng(0)
    centres = 20.0 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    for name in ("DATA", "NEW", "MORE_DATA"):
        X = np.repeat(centres, 40, axis=0) + rng.normal(size=(160, 3))
        frame = pd.DataFrame(X, columns=["a", "b", "c"]).assign(id=np.arange(160))
        (place / name).mkdir()
        frame.to_parquet(place / name / "part-0.parquet")
    deltalake.write_deltalake(str(place / "TABLE"), pa.table({"a": rng.normal(size=50)}))
    for _ in range(VERSIONS):
        more = pa.table({"a": rng.normal(size=50)})
        deltalake.write_deltalake(str(place / "TABLE"), more, mode="append")
    document = {
        "data": {"path": "DATA", "features": ["a", "b", "c"], "id_columns": ["id"]},
        "fit": {"n_components": 4},
        "output": {"path": "nightly"},
    }
    for name in ("SETTINGS.yaml", "nightly.yaml"):
        (place / name).write_text(yaml.safe_dump(document))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("gmm_dask.stage.publish.render_report", lambda data: "<html></html>")
        ours("run SETTINGS.yaml --set output.path=OUT")
        ours("run SETTINGS.yaml --set output.path=OUT --set fit.tol=0.01")
        for number in range(3, VERSIONS + 1):
            ours(f"promote OUT@{number - 2}")
        ours("promote OUT@6 --as champion")
        ours("run config/iris.yaml")
        shutil.copytree("OUT", "CENTRAL")
        for site, data in (("site-a", "DATA"), ("site-b", "NEW")):
            follows = f"--set output.follows=CENTRAL@{VERSIONS}"
            ours(f"refresh SETTINGS.yaml {follows} --set output.path={site} --set data.path={data}")
    return place


def ours(line: str) -> str:
    """What a call of `gmm-dask` prints; it must end with 0."""
    done = CliRunner().invoke(app, shlex.split(line))
    assert done.exit_code == 0, f"{line}\n{done.output}"
    return done.output


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: page.name)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_the_blocks_of_a_page_run_one_after_the_other(
    page: Path,
    workplace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    service: ObjectService,
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    shutil.copytree(workplace, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    bucket = service.bucket()
    file = next(Path("DATA").glob("*.parquet"))
    files().pipe_file(f"{bucket}/data/{file.name}", file.read_bytes())
    known: dict[str, Any] = {
        "__name__": page.name,
        "rows": pd.read_parquet("DATA")[["a", "b", "c"]],
    }
    for language, body in blocks(page, "sh", "python"):
        if servers := [each for each in SERVERS if re.search(rf"^(\S*/)?{each} ", body, re.M)]:
            assert f'"{servers[0]}"' in (ROOT / SERVERS[servers[0]]).read_text()
        elif language == "sh":
            for line in body.replace("\\\n", " ").splitlines():
                here = line.replace("/mnt/nvme", str(Path.cwd()))
                carried_out(here.replace("s3://bucket", f"s3://{bucket}"))
        elif not is_of_flows(body):
            exec(compile(body, page.name, "exec"), known)
    if page.name == "tutorial.md":
        assert_the_tutorial_says_so(page, known)


def carried_out(line: str) -> None:
    """Run a line as a shell would, or see that what it names is there."""
    words = [
        word
        for part in shlex.split(line, comments=True)
        for word in ([] if re.fullmatch(r"[A-Z_]+=.*", part) else [part])
    ]
    if not words or words[0] in ("export", "."):
        return
    program = words[0].removeprefix(".venv/bin/")
    if program == "gmm-dask" and words[1] != "deploy":
        ours(
            shlex.join(itertools.takewhile(lambda word: word not in ("2", "2>", "2>>"), words[1:]))
        )
    elif program == "make":
        assert re.search(rf"^{words[1]}:.*## ", (ROOT / "Makefile").read_text(), re.M), line
    elif program == "docker":
        if words[1] == "run":  # the image ends with the command that it carries out
            inside = words[words.index("gmm-dask") + 1 :]
            ours(shlex.join(inside).replace(" /data", " examples/iris").replace(" /out", " out"))
        assert "ARG EXTRAS" in (ROOT / "Dockerfile").read_text()
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        asked = {name for each in re.findall(r"\[(.*?)\]", line) for name in each.split(",")}
        assert asked <= extras["optional-dependencies"].keys(), line
    elif program == "python" and words[1] == "-m":
        check_module(words[2], [word for word in words[3:] if word.startswith("--")])
    elif program in ("ruff", "pip-audit"):
        assert f'"{program}>=' in (ROOT / "pyproject.toml").read_text()
    else:
        assert program == "gmm-dask", f"nothing is known of {program}: {line}"
        told = ours(f"{words[1]} --help")  # of deploy, which tests/flows tries on a server
        assert [each for each in words if each.startswith("--") and each not in told] == []


def check_module(name: str, options: list[str]) -> None:
    """See that a module is there, and of the benchmarks that it knows the options."""
    found = find_spec(name)
    assert found is not None
    if name.startswith("benchmarks"):
        entry = ROOT / name.replace(".", "/")
        known = (entry / "__main__.py" if entry.is_dir() else entry.with_suffix(".py")).read_text()
        assert [option for option in options if f'"{option}"' not in known] == []


def assert_the_tutorial_says_so(page: Path, known: dict[str, Any]) -> None:
    assert {path.stem for path in Path().glob("*.png")} == {
        each.removeprefix("tutorial-")
        for each in re.findall(r"images/(tutorial-\w+)\.png", page.read_text())
    }
    table = pd.crosstab(known["species"], known["labels"]["label"])
    assert 150 - table.max(axis=1).sum() == 5
    assert known["selector"].best_params_ == {"n_components": 2, "covariance_type": "full"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is_in(page: Path) -> None:
    assert {language for language, _ in BLOCK.findall(page.read_text())} <= LANGUAGES


def test_the_events_of_the_log_are_those_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "logs.md").read_text()
    fields = {
        event: set(re.findall(r"`(\w+)`", rest))
        for event, rest in re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.M)
    }
    iris = ROOT / "examples" / "iris"
    done = call(
        "fit", iris, "--n-components", 3, "--out", "out", "--progress", "json", cwd=tmp_path
    )
    for line in done.stderr.splitlines():
        event = json.loads(line)
        assert event.keys() - {"time", "event"} <= fields[event["event"]]


@pytest.mark.heavy
def test_the_site_is_built_and_no_link_of_it_is_broken(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "GaussianMixture" in (tmp_path / "reference.html").read_text()
