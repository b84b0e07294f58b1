"""The notebooks run from top to bottom, and a fit shows there how far it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.by_hand import ROOT

EXAMPLES = ROOT / "examples"
FIT = "from gmm_dask import GaussianMixture\nGaussianMixture(verbose=1).fit([[0.0], [1.0], [5.0]])"


def executed(notebook: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The notebook with its outputs; a cell that fails is an error."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    where = {"metadata": {"path": str(folder)}}
    return NotebookClient(notebook, timeout=250, kernel_name="python3", resources=where).execute()


def widgets(notebook: Any) -> list[dict[str, Any]]:
    states = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    return [each["state"] for each in states.values()]


@pytest.mark.parametrize(
    "name",
    [
        "iris.ipynb",
        pytest.param("flights.ipynb", marks=pytest.mark.heavy),
        pytest.param("cluster.ipynb", marks=pytest.mark.heavy),
    ],
)
def test_a_notebook_runs_and_its_fit_ends_with_a_full_bar(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(EXAMPLES / "iris", tmp_path / "iris")
    found = executed(nbformat.read(EXAMPLES / name, 4), tmp_path, monkeypatch)
    shown = widgets(found)
    assert [each["value"] for each in shown if each["_model_name"] == "FloatProgressModel"] == [1.0]
    (words,) = (each["value"] for each in shown if each["_model_name"] == "LabelModel")
    assert words.startswith("start 1 pass ")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_is_kept_without_what_a_machine_put_into_it(path: Path) -> None:
    notebook = json.loads(path.read_text())
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


def test_without_widgets_a_notebook_has_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = nbformat.v4.new_code_cell(f"import sys\nsys.modules['ipywidgets'] = None\n{FIT}")
    found = executed(nbformat.v4.new_notebook(cells=[cell]), tmp_path, monkeypatch)
    printed = "".join(each.get("text", "") for each in found.cells[0].outputs)
    assert printed.startswith("start 1 pass 1: log-likelihood per row")
