"""Runs of the stage on disks of all sizes, each given more room afterwards.

    unshare -Urm python -m tests.faults.full SETTINGS.json FOLDER

Needs a mount name space of its own. One line for each size: what the run said at first, then
whether it had published, then the hash of model and labels after the rerun.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from gmm_dask.errors import OutputError
from gmm_dask.stage import publish
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import settings_from
from gmm_dask.storage import list_versions, verify
from gmm_dask.storage.store.local_store import LocalStore
from tests.faults.killed import plain_report

PAGE = 4096


def mount(folder: Path, n_pages: int, *more: str) -> None:
    options = ",".join((f"size={n_pages * PAGE}", *more))
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def bits(store: LocalStore) -> str:
    (version,) = list_versions(store)
    assert verify(store, version) == []
    names = store.list(f"runs/{version.run_id}/")
    kept = (name for name in names if "/labels/" in name or name.endswith("model.json"))
    return hashlib.sha256(b"".join(store.get(name) for name in kept)).hexdigest()


def on_a_disk(document: dict[str, Any], folder: Path, n_pages: int) -> list[Any]:
    folder.mkdir()
    mount(folder, n_pages)
    settings = settings_from(
        document | {"output": document["output"] | {"path": str(folder / "out")}}
    )
    store, said = LocalStore(settings.output.path), ""
    try:
        run(settings)
    except OutputError as error:
        said = str(error)
    had_published = bool(list_versions(store))
    mount(folder, 1000, "remount")
    run(settings)
    return [said, had_published, bits(store)]


def main(path: str, folder: str) -> None:
    document, n_pages, said = json.loads(Path(path).read_text()), 1, "not yet"
    publish.render_report = plain_report
    while said:
        outcome = on_a_disk(document, Path(folder, str(n_pages)), n_pages)
        print(json.dumps(outcome), flush=True)
        said, n_pages = outcome[0], n_pages + 1


if __name__ == "__main__":
    main(*sys.argv[1:])
