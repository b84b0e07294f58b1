"""The folder of one run: the names in it, and how they are written and read."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from gmm_dask.errors import OutputError
from gmm_dask.storage.records.documents import MAX_BYTES, canonical_json, parse_json, sha256_hex
from gmm_dask.storage.records.model_file import MODEL_FORMAT, MODEL_KEY
from gmm_dask.storage.store.local_store import LocalStore
from gmm_dask.storage.store.object_store import ObjectStore
from gmm_dask.storage.store.protocol import Names, Store, create_once

LABELS_FORMAT = 2  # parts of version 1 do not say which model they were made with


MANIFEST_FORMAT = 2  # manifests of version 1 say neither that nor the time


CONTENTS_FORMAT = 1


MANIFEST = "MANIFEST.json"


CONTENTS = "contents.json"


# Every run has these, and its manifest lists them.
RUN_FILES = (
    "run.json",
    CONTENTS,
    "model.json",
    "parameters.parquet",
    "metrics.json",
    "changes.json",
    "report.html",
)


# Those of them that are made with the model, and say with which.
MADE_WITH_MODEL = ("parameters.parquet", "metrics.json", "changes.json", "report.html")


# A refresh also keeps the sums of each partition, and how they moved; these say it, too.
STATISTICS, DRIFT = "statistics.json", "drift.parquet"
MORE_FILES = (STATISTICS, DRIFT)


_REMARK = "<!-- gmm_dask.{}: {} -->\n"  # the last line of a report


_REMARKED = re.compile(_REMARK.format(MODEL_KEY, "([0-9a-f]{64})").encode() + rb"\Z")


_RESTORE = "Restore it from a copy, or move the run's folder away and run again."


_RUN_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}", re.ASCII)


def run_id(settings: Mapping[str, Any], fingerprint: str, contents: str | None = None) -> str:
    """Identity of a run, 16 hex digits: the same settings, data and formats give the same.

    Parameters
    ----------
    settings : mapping
        Settings that change a byte of the output, and no others.
    fingerprint : str
        Fingerprint of the data.
    contents : str, optional
        Hash of the pages of the data, where other data of the same fingerprint have the identity
        without it.
    """
    formats = {
        "labels": LABELS_FORMAT,
        "manifest": MANIFEST_FORMAT,
        "model": MODEL_FORMAT,
        "contents": CONTENTS_FORMAT,
    }
    identity = {"settings": dict(settings), "fingerprint": fingerprint, "formats": formats}
    if contents is not None:
        identity["contents"] = contents
    return hashlib.sha256(canonical_json(identity)).hexdigest()[:16]


@dataclass(frozen=True)
class RunFolder:
    """The objects of one run, named relative to runs/<run_id>/; picklable, workers write parts.

    Parameters
    ----------
    store : Store
    run_id : str
    """

    store: Store
    run_id: str

    def __post_init__(self) -> None:
        if not _RUN_ID.fullmatch(self.run_id):
            raise OutputError(f"{self.run_id!r} is not the identity of a run.")

    def path(self, name: str = "") -> str:
        """Where the object lies, or the folder itself."""
        return self.store.path(self._full(name))

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Create the object; False where it holds something else, which then stands."""
        return create_once(self.store, self._full(name), data) == data

    def put(self, name: str, data: bytes) -> None:
        """Create or replace the object; a file that manifests list is created and then stands."""
        if name in RUN_FILES or name in MORE_FILES or name == MANIFEST:
            # A twin of this run may have published it meanwhile: replacing would damage a version.
            self.put_if_absent(name, data)
        else:
            self.store.put(self._full(name), data)

    def put_of_model(self, name: str, data: bytes, model_sha256: str) -> None:
        """Create an object that is made with a model, unless one of that model stands there.

        One of another model is left from an attempt whose model is lost: it is replaced, unless a
        manifest lists it.
        """
        held = create_once(self.store, self._full(name), data)
        if held == data or wrong_model(held, self.path(name), model_sha256) is None:
            return
        if not self.exists(MANIFEST):
            self.store.put(self._full(name), data)

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        return self.store.exists(self._full(name))

    def get(self, name: str, at_most: int = MAX_BYTES) -> bytes:
        """The content; raises OutputError where there is none, or more bytes than that."""
        return self.store.get(self._full(name), at_most)

    def size(self, name: str) -> int:
        """Bytes of the content; raises OutputError where there is none."""
        return self.store.size(self._full(name))

    def list(self, prefix: str) -> Names:
        """Sorted names of the run's objects that start with the prefix."""
        top = len(self._full("x")) - 1
        return [name[top:] for name in self.store.list(self._full(prefix))]

    def get_json(self, name: str) -> dict[str, Any]:
        """The JSON object of that name; raises OutputError where it is absent or damaged."""
        return parse_json(self.get(name), self.path(name))

    def get_verified(self, name: str, manifest: Mapping[str, Any]) -> bytes:
        """The content that the manifest lists; raises OutputError where it is any other."""
        entry = manifest["files"].get(name)
        if entry is None:
            raise OutputError(f"{self.path(name)} is no part of the published run {self.run_id}.")
        data = self.get(name, entry["bytes"])
        damage = damage_of(data, entry["bytes"], entry["sha256"])
        if damage is not None:
            raise OutputError(f"{self.path(name)} is damaged: {damage}. {_RESTORE}")
        return data

    def get_verified_json(self, name: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Like `get_verified`, parsed."""
        return parse_json(self.get_verified(name, manifest), self.path(name))

    def _full(self, name: str) -> str:
        return f"runs/{self.run_id}/{name}" if name else f"runs/{self.run_id}"


def damage_of(data: bytes, size: int, sha256: str) -> str | None:
    """How the content differs from what was recorded, in words; None where it does not."""
    if len(data) != size:
        return f"it has {len(data)} bytes, {size} were written"
    found = sha256_hex(data)
    if found != sha256:
        return f"its SHA-256 begins {found[:16]}, {sha256[:16]} was written"
    return None


def html_of_model(html: str, model_sha256: str) -> bytes:
    """The page with a last line that says, unseen, which model it was made with."""
    return f"{html.rstrip()}\n{_REMARK.format(MODEL_KEY, model_sha256)}".encode()


def wrong_model(data: bytes, path: str, model_sha256: str | None) -> str | None:
    """Why a file of a run was not made with that model, in words; None where it was.

    Where no model is said nothing is wrong: manifests of format 1 name none.

    Raises
    ------
    OutputError
        The file is damaged.
    """
    named = _model_of(data, path)
    if model_sha256 in (None, named):
        return None
    if named is None:
        return "it does not say which model it was made with"
    return f"it was made with the model {named[:16]}, that of the run is {str(model_sha256)[:16]}"


def _model_of(data: bytes, path: str) -> str | None:
    if path.endswith(".parquet"):
        try:
            metadata = pq.read_metadata(io.BytesIO(data)).metadata or {}
        except (pa.ArrowException, OSError) as error:
            raise OutputError(f"{path} is damaged: {error}.") from error
        named = metadata.get(f"gmm_dask.{MODEL_KEY}".encode())
        return None if named is None else str(named, "ascii", "replace")
    if path.endswith(".json"):
        found = parse_json(data, path).get(MODEL_KEY)
        return found if isinstance(found, str) else None
    remark = _REMARKED.search(data)
    return None if remark is None else str(remark[1], "ascii")


def open_store(url: str, *, private: bool = False) -> Store:
    """The store of a path, a file:// or an s3:// URL; nothing is created or tried yet.

    Parameters
    ----------
    url : str
    private : bool
        Whether files and folders are for this user alone; of a bucket its policy decides.

    Raises
    ------
    OutputError
        Another scheme.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return LocalStore(_at_home(url), private)
    if scheme.lower() == "s3":
        return ObjectStore(url)
    if scheme.lower() != "file":
        # Only the scheme: the rest of a URL may hold a password.
        raise OutputError(
            f"{scheme}:// is not supported for outputs and models: choose s3://bucket/prefix, or a "
            "folder of a local or mounted file system."
        )
    host, _, path = rest.partition("/")
    if host not in ("", "localhost"):
        raise OutputError(f"{url} names the host {host!r}: a local folder is file:///folder.")
    return LocalStore("/" + unquote(path), private)


def _at_home(path: str) -> str:
    try:
        return str(Path(path).expanduser()) if path else path
    except RuntimeError as error:
        raise OutputError(f"The output folder {path} cannot be found: {error}.") from error
