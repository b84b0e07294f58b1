"""Input files: where they may lie, how they are opened, and how a change is noticed."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self, cast
from urllib.parse import unquote

from gmm_dask.errors import DataError, GmmDaskError, InputChangedError, InputError
from gmm_dask.redaction import holds_secret, redacted
from gmm_dask.storage.store.object_store import as_os_error, brief, filesystem, http_status

MAX_ALIKE = 20  # lines of one kind that are spelt out; the rest is counted


class Problems:
    """Collects problems in the order found, so that one error can name them all."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._counts.total()

    def add(self, kind: str, line: str) -> None:
        """Note one problem; `kind` says what it has in common with others."""
        self._counts[kind] += 1
        if self._counts[kind] <= MAX_ALIKE:
            self._lines.append(line)

    def lines(self) -> tuple[str, ...]:
        """One line a problem; of many alike, the first ones and their number."""
        more = [
            f"... and {count - MAX_ALIKE} more: {kind}."
            for kind, count in self._counts.items()
            if count > MAX_ALIKE
        ]
        return (*self._lines, *more)

    def raise_any(self) -> None:
        """Raise DataError with every problem; do nothing where there is none."""
        if self:
            raise DataError(self.lines())


REMOTE_SCHEMES = ("s3", "gs", "gcs", "abfs", "az")
SCHEMES = ("file", *REMOTE_SCHEMES)  # an allow-list: other fsspec names can run or fetch anything
CHANGED = 412  # the answer to a condition that does not hold
# The storage answered, and the answer was no; of any other failure another attempt may know better.
REFUSALS = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EINVAL,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENXIO,
    }
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
_CHAIN = re.compile(r"[A-Za-z0-9+.\-]+::.*://")


@dataclass(frozen=True)
class FileState:
    """The state by which a change of a file is noticed.

    Parameters
    ----------
    size : int
        Bytes.
    mtime_ns : int
        Time of change in nanoseconds; 0 where the store tells none.
    etag : str or None
        The object store's name for the content, whole.
    changed_ns : int
        Time at which a local file, its name or its rights last changed, which nobody can set; 0 in
        a store. A copy has its own.
    """

    size: int
    mtime_ns: int
    etag: str | None
    changed_ns: int = 0

    def difference_of(self, now: FileState) -> str:
        """What happened to the file between this state and a later one, in words."""
        if now.size != self.size:
            return f"its size went from {self.size} to {now.size} bytes"
        if (now.mtime_ns, now.etag) != (self.mtime_ns, self.etag):
            return "it was written to or replaced"
        return (
            "nothing but its time of status (ctime) says so: it was rewritten under its size and "
            "time, renamed, linked or given other rights, or it is a copy"
        )


class Input(Protocol):
    """An open input file."""

    stream: BinaryIO
    buffer_size: int  # bytes to read at once for each column

    def state(self) -> FileState:
        """The state of the file that is open, now."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class LocalInput:
    """A file of this machine; its state is that of the open file, not of the name."""

    buffer_size = 1 << 18  # measured: faster than 1 MiB, and less to hold for each column

    def __init__(self, path: str) -> None:
        self.stream: BinaryIO = open(path, "rb", buffering=0, opener=_open_without_waiting)  # noqa: SIM115
        if not stat.S_ISREG(os.fstat(self.stream.fileno()).st_mode):
            self.stream.close()
            raise DataError(f"{path}: is not a regular file. Give data.path Parquet files.")

    def state(self) -> FileState:
        """Size and time of change of the open file."""
        status = os.fstat(self.stream.fileno())
        return FileState(status.st_size, status.st_mtime_ns, None, status.st_ctime_ns)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()


class RemoteInput:
    """An object of a store; its state is asked of the store, never of a listing kept here."""

    buffer_size = 1 << 22  # each read is a request

    def __init__(self, url: str) -> None:
        self._url = url
        self._files = remote_files(url.partition("://")[0])
        self._files.invalidate_cache()
        with _explained(url):
            file = self._files.open(url, "rb", cache_type="none")
        self.stream: BinaryIO = cast(BinaryIO, _RemoteStream(url, file))

    def state(self) -> FileState:
        """Size, time of change and ETag as the store tells them."""
        self._files.invalidate_cache()
        with _explained(self._url):
            info = self._files.info(self._url)
        return FileState(int(info["size"]), _moment(info), _etag(info))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()


class _RemoteStream(io.RawIOBase):
    """Ranges of one object as it was when opened; another object under its name is an error."""

    def __init__(self, url: str, file: BinaryIO) -> None:
        self._url, self._file = url, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        with _explained(self._url):
            return self._file.read(-1 if size is None else size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn what a store's library raises into an OSError, and a changed object into our error."""
    try:
        yield
    except Exception as error:  # each store has exceptions of its own
        # Ranges are asked for by ETag; s3fs knows the refusal only by the words of AWS.
        if type(error).__name__ == "FileExpired" or http_status(error) == CHANGED:
            raise InputChangedError(
                f"{url}: changed while it was read. Run again: a new plan takes the file as "
                "it is now."
            ) from error
        raise as_os_error(error) from error


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Name the file of a failure to read it; raises InputError where its storage is at fault."""
    try:
        yield
    except GmmDaskError:
        raise
    except OSError as error:
        raise unreadable(name, error) from error


def unreadable(name: str, error: OSError) -> InputError:
    """The error of a file whose storage fails."""
    return InputError(
        f"{name}: cannot be read at present: {brief(error)}. See that its storage is "
        "healthy and reachable from here, then run again."
    )


def open_input(url: str) -> Input:
    """Open a file that a listing named: an absolute path, or a URL of an allowed scheme."""
    return RemoteInput(url) if is_remote(url) else LocalInput(url)


def is_remote(url: str) -> bool:
    """Whether a URL of a listing lies in an object store."""
    return scheme_of(url) in REMOTE_SCHEMES


def scheme_of(path: str) -> str:
    """The scheme before `://` in lower case; "file" where there is none."""
    match = _SCHEME.match(path)
    return match[1].lower() if match else "file"


def with_lower_scheme(path: str) -> str:
    """The path or URL with its scheme, if any, as libraries know it."""
    match = _SCHEME.match(path)
    return match[1].lower() + path[match.end(1) :] if match else path


def local_path(path: str) -> Path:
    """The absolute path that a text without a scheme, or with file://, stands for.

    A URL is decoded: file:///a%20b is the folder `a b`.
    """
    match = _SCHEME.match(path)
    if match:
        path = "/" + unquote(path[match.end() :].partition("/")[2])
    try:
        return Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100
    except RuntimeError:
        raise DataError(
            f"data.path: {path}: nobody knows the home of this user. Write the folder out."
        ) from None


def check_scheme(path: str) -> None:
    """Raise DataError where a path names nothing, a place not allowed, or carries credentials."""
    scheme = scheme_of(path)
    if not path.strip():
        raise DataError("data.path: is empty. Name a folder, a file, a glob or a URL.")
    if scheme not in SCHEMES or _CHAIN.match(path):
        known = ", ".join(f"{each}://" for each in SCHEMES)
        raise DataError(
            f"data.path: {scheme if scheme not in SCHEMES else 'chained'} URLs are not read. "
            f"Give a local path or one of {known}"
        )
    host = path.partition("://")[2].partition("/")[0]
    if "\0" in unquote(path):
        raise DataError("data.path: holds a NUL character, which no path can. Remove it.")
    if scheme == "file" and host not in ("", "localhost"):
        raise DataError(
            f"data.path: {path} names the host {host!r}. A folder of this machine is "
            "file:///folder, or a plain path; of another one, mount it here."
        )
    if scheme in REMOTE_SCHEMES and holds_secret(path):
        raise DataError(
            f"data.path: {redacted(unquote(path))} carries credentials. Remove them from the URL "
            "and give them by the environment or the role of the machine."
        )


def remote_files(scheme: str) -> Any:
    """The fsspec filesystem of a scheme; raises DataError where its package is missing."""
    try:
        return filesystem(scheme)
    except ImportError as error:
        raise DataError(
            f"data.path: {scheme}:// needs a package that is missing here: {error}. "
            'For s3:// install "gmm-dask[s3]".'
        ) from error


def _open_without_waiting(path: str, flags: int) -> int:
    """Open without waiting for a writer, which opening a named pipe would otherwise do for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _etag(info: dict[str, Any]) -> str | None:
    for key in ("ETag", "etag", "md5Hash"):
        if info.get(key):
            return str(info[key])
    return None


def _moment(info: dict[str, Any]) -> int:
    for key in ("LastModified", "last_modified", "updated", "mtime"):
        value = info.get(key)
        if isinstance(value, datetime):
            return round(value.timestamp() * 1e9)
        if isinstance(value, int | float):
            return round(value * 1e9)
        if isinstance(value, str):
            return round(datetime.fromisoformat(value).timestamp() * 1e9)
    return 0
