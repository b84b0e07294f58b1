"""Makes README.md the first page of the site, with links that lead within it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the first page."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to pages and pictures of the site; to other files of the checkout there are none."""

    def led(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        target = "index.md" if target.endswith("README.md") else target.removeprefix("docs/")
        if files.get_file_from_path(target) is not None:
            return f"]({target}{anchor})"
        return "]" if (ROOT / match[1].removeprefix("../")).exists() else match[0]

    found = _LINK.sub(led, markdown)
    return re.sub(r"(?<!\!)\[([^\[\]]+)\](?![(\[:])", r"\1", found) if found != markdown else found
