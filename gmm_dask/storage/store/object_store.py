"""A store in a bucket of S3 or of a service like it; one conditional request decides a race.

How object stores are asked, and their libraries' errors as those of the system, stands here too.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from gmm_dask.errors import GmmDaskError, OutputError
from gmm_dask.redaction import redacted
from gmm_dask.storage.records.documents import MAX_BYTES
from gmm_dask.storage.store.protocol import Names, absent, is_visible, name_parts, too_large

SCHEME = "s3"
PART_BYTES = 16 << 20  # twice this and more is sent in parts of this size
CONFLICTS = 5  # answers "409, try again" that are followed, with longer and longer pauses
PAUSE = 0.1  # seconds before the first

_EXISTS, _CONFLICT, _NOT_IMPLEMENTED = 412, 409, 501
_NOTHING_THERE = 416  # the answer where the first bytes of an empty object are asked for
_URL = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9._-]*)(?P<prefix>(/.*)?)", re.IGNORECASE)
_REMEDIES = {
    errno.EACCES: "give the credentials in use the right to list, read and write there",
    errno.EPERM: "give the credentials in use the right to list, read and write there",
    errno.ENOENT: "create the bucket, or correct output.path",
    errno.EINVAL: "correct output.path and the configuration of the store",
}
_ANY_REMEDY = "see that the store is reachable from here (AWS_ENDPOINT_URL), then run again"
SLOWEST = 50_000  # bytes a second that a write is given time for
MAX_REASON = 300  # characters of a library's message that are repeated
NO_CREDENTIALS = "no usable credentials were found"
GIVE_CREDENTIALS = "give them by the environment, a profile or the role of the machine"
NO_STORE = "the answer is none of an object store: is something between, such as a login page?"
_CREDENTIALS = ("Credential", "ProfileNotFound", "Token", "SSO")


@dataclass(frozen=True)
class ObjectStore:
    """Objects below a prefix of a bucket; several processes and machines may write at once.

    Credentials, region and endpoint come from the environment, the usual files or the role of the
    machine, on each machine anew: the store itself holds none and can be sent anywhere.

    Parameters
    ----------
    url : str
        s3://bucket/prefix. The bucket must exist.
    """

    url: str

    def __post_init__(self) -> None:
        match = _URL.fullmatch(self.url.rstrip("/"))
        prefix = match["prefix"].strip("/") if match else ""
        if match is None or any(part in ("", ".", "..") for part in prefix.split("/") if prefix):
            # Not the URL: it may hold a password.
            raise OutputError(
                "output.path: a place in an object store is s3://bucket/prefix, without user, "
                "password, or empty parts."
            )
        if any(sign in prefix for sign in "\0\\?#*[]"):
            raise OutputError(
                f"output.path: s3://{match['bucket']}/... has one of the signs \\ ? # * [ ] in it. "
                "Choose another prefix."
            )
        object.__setattr__(
            self, "url", f"s3://{match['bucket']}" + (f"/{prefix}" if prefix else "")
        )

    def path(self, name: str) -> str:
        """The URL of the object."""
        return "/".join((self.url, *name_parts(name, self.url)))

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Create the object; False where the name was taken, whose content is untouched."""
        path = self.path(name)
        with _explained(path, "written"):
            # Of a store that ignores the condition this is all there is; see check_writable.
            return self._head(path) is None and self._create(path, data)

    def put(self, name: str, data: bytes) -> None:
        """Create or replace the object; readers see the old content or the new."""
        path = self.path(name)
        with _explained(path, "written"):
            _put(path, data)

    def get(self, name: str, at_most: int = MAX_BYTES) -> bytes:
        """The whole content; raises OutputError where there is none, or more bytes than that."""
        path = self.path(name)
        with _explained(path, "read"):
            try:
                # One byte more than belongs there is enough to see that there is more.
                data = bytes(_service().cat_file(path, start=0, end=at_most + 1))
            except FileNotFoundError:
                raise OutputError(absent(path)) from None
            except Exception as error:
                if http_status(error) != _NOTHING_THERE:
                    raise
                return b""
        if len(data) > at_most:
            raise OutputError(too_large(path, self.size(name), at_most))
        return data

    def exists(self, name: str) -> bool:
        """Whether there is such an object; not being allowed to look is an error."""
        path = self.path(name)
        with _explained(path, "read"):
            return self._head(path) is not None

    def size(self, name: str) -> int:
        """Bytes of the content; raises OutputError where there is none."""
        path = self.path(name)
        with _explained(path, "read"):
            head = self._head(path)
        if head is None:
            raise OutputError(absent(path))
        return int(head["ContentLength"])

    def delete(self, name: str) -> None:
        """Remove the object, if there is one."""
        path = self.path(name)
        with _explained(path, "removed"):
            service = _service()
            bucket, key, _ = service.split_path(path)
            service.call_s3("delete_object", Bucket=bucket, Key=key)

    def list(self, prefix: str) -> Names:
        """Sorted names that start with the prefix; those with a leading dot are left out."""
        top = self.path(prefix + "x")[:-1]
        folder, _, start = top.rpartition("/")
        with _explained(top, "listed"):
            try:
                found = _service().find(folder, prefix=start)
            except FileNotFoundError:
                return []
        root = self.url.removeprefix(f"{SCHEME}://") + "/"
        names = [key.removeprefix(root) for key in found if key.startswith(root)]
        return sorted(name for name in names if name.startswith(prefix) and is_visible(name))

    def check_writable(self) -> str | None:
        """Try what publishing needs, and leave nothing behind; raises OutputError.

        Returns
        -------
        str or None
            What must be known where a race of two writers cannot be decided.
        """
        path = f"{self.url}/.probe-{secrets.token_hex(8)}"
        with _explained(self.url, "written"):
            try:
                self._create(path, b"probe\n")
                decides = not self._create(path, b"probe again\n")
            finally:
                # The name is of this call alone. A right to delete is not needed otherwise.
                with suppress(Exception):
                    _service().rm_file(path)
        if decides:
            return None
        return (
            f"{self.url}: this store does not honour conditional writes (If-None-Match), so only "
            "one run at a time may publish there: of two at once a version may be lost."
        )

    @staticmethod
    def _head(path: str) -> dict[str, Any] | None:
        """The service's answer to a HEAD request for the object; None where there is no object."""
        service = _service()
        bucket, key, _ = service.split_path(path)
        try:
            return dict(service.call_s3("head_object", Bucket=bucket, Key=key))
        except FileNotFoundError:
            return None

    @staticmethod
    def _create(path: str, data: bytes) -> bool:
        """Create by one conditional request, the last one where there are parts."""
        for attempt in range(CONFLICTS):
            try:
                _put(path, data, mode="create")
            except Exception as error:
                status = http_status(error)
                if status == _EXISTS or isinstance(error, FileExistsError):
                    return False
                if status == _NOT_IMPLEMENTED:
                    _put(path, data)
                elif status != _CONFLICT or attempt == CONFLICTS - 1:
                    raise
                else:
                    time.sleep(PAUSE * 2**attempt)
                    continue
            return True
        raise AssertionError("unreachable")


def _put(path: str, data: bytes, **how: str) -> None:
    _service().pipe_file(path, data, chunksize=PART_BYTES, timeout=deadline(len(data)), **how)


def _service() -> Any:
    """The client of this thread; it keeps connections, and no listing."""
    return filesystem(SCHEME)


@contextmanager
def _explained(place: str, done: str) -> Iterator[None]:
    """Turn what the store or its library says into an OutputError with reason and remedy."""
    try:
        yield
    except OutputError:
        raise
    except ImportError as error:
        raise OutputError(
            f"{place} cannot be {done}: s3:// needs a package that is missing here: {error}. "
            'Install "gmm-dask[s3]".'
        ) from error
    except Exception as error:  # each library below has exceptions of its own
        cause = as_os_error(error)
        cause.__cause__ = error
        remedy = _REMEDIES.get(cause.errno or 0, _ANY_REMEDY)
        if NO_CREDENTIALS in str(cause.strerror):
            remedy = GIVE_CREDENTIALS
        raise OutputError(f"{place} cannot be {done}: {cause.strerror}; {remedy}.") from cause


CONNECT_SECONDS, READ_SECONDS = 10, 20  # to wait for an answer, or its next bytes
ATTEMPTS, ROUNDS = 3, 2  # of botocore, for an answer that is lost or "slow down"; of s3fs, for all


def filesystem(scheme: str) -> Any:
    """The fsspec filesystem of a scheme; on s3 each request ends, also where nobody answers.

    What the user's own fsspec configuration says of the client counts more. Raises ImportError
    where the package of the scheme is missing.
    """
    import fsspec

    if scheme != "s3":
        return fsspec.filesystem(scheme, use_listings_cache=False)
    waits: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
    }
    waits |= fsspec.config.conf.get(scheme, {}).get("config_kwargs", {})
    files = fsspec.filesystem(scheme, use_listings_cache=False, config_kwargs=waits)
    files.retries = ROUNDS
    return files


def deadline(n_bytes: int = 0) -> float:
    """Seconds that a call may take which sends so many bytes.

    The client waits without end for a service to take the body of a request.
    """
    return READ_SECONDS * ATTEMPTS * ROUNDS + n_bytes / SLOWEST


def as_os_error(error: Exception) -> OSError:
    """The error with a number that says whether waiting can help; its text holds no secret."""
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, brief(error))
    if any(word in type(error).__name__ for word in _CREDENTIALS):
        return OSError(errno.EACCES, f"{NO_CREDENTIALS} ({brief(error)})")
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return OSError(errno.ETIMEDOUT, f"no answer came in {deadline():g} s ({brief(error)})")
    for kind, number in (
        (FileNotFoundError, errno.ENOENT),
        (PermissionError, errno.EACCES),
        (FileExistsError, errno.EEXIST),
    ):
        if isinstance(error, kind):
            return OSError(number, brief(error))
    if isinstance(error, LookupError | TypeError | AttributeError | RecursionError):
        return OSError(errno.EIO, f"{NO_STORE} ({type(error).__name__}: {brief(error)})")
    return OSError(errno.EIO, brief(error))


@contextmanager
def os_errors() -> Iterator[None]:
    """Turn whatever a store's library raises into an OSError; errors of ours stay."""
    try:
        yield
    except GmmDaskError:
        raise
    except Exception as error:  # each store has exceptions of its own
        raise as_os_error(error) from error


def http_status(error: BaseException | None) -> int:
    """The status that the store answered with, as far as the error or its cause tells; or 0."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        error = error.__cause__
    return 0


def brief(error: Exception) -> str:
    """What the error says, on one line."""
    said = getattr(error, "strerror", None) or str(error)
    if isinstance(error, OSError) and not said and error.errno is not None:
        said = os.strerror(error.errno)
    return redacted(" ".join(str(said).split()).rstrip("."))[:MAX_REASON] or type(error).__name__
