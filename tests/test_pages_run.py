"""What pages say is so: their blocks run, their tables are whole, and the site is built."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.by_hand import ROOT
from tests.command.test_cli import call

RUN = ("tutorial.md", "howto.md")  # pages whose blocks of Python are executed, one after the other


@pytest.mark.parametrize("name", RUN)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_blocks_of_a_page_run_and_end_as_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_drawn: None
) -> None:
    import matplotlib

    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    page = (ROOT / "docs" / name).read_text()
    known: dict[str, Any] = {"__name__": name}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.S | re.M):
        exec(compile(block, name, "exec"), known)
    assert {path.stem for path in tmp_path.glob("*.png")} == {
        each.removeprefix("tutorial-") for each in re.findall(r"images/(tutorial-\w+)\.png", page)
    }
    if name == "tutorial.md":
        wrong = 150 - sum(
            each.max()
            for each in known["pd"].crosstab(known["species"], known["labels"]["label"]).to_numpy()
        )
        assert wrong == 5
        assert known["selector"].best_params_ == {"n_components": 2, "covariance_type": "full"}


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
