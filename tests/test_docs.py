"""The pages name files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.by_hand import ROOT

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [each for each in targets if not (page.parent / each).exists()] == []


def test_every_module_that_the_map_names_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`((?:\w+/)+\w+\.py)\b", text))
    places = [ROOT, ROOT / "gmm_dask"]
    assert len(named) > 20
    assert sorted(each for each in named if not any((at / each).exists() for at in places)) == []
