"""How object stores are asked, and what their libraries raise, as errors of the system."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gmm_dask.errors import GmmDaskError
from gmm_dask.redaction import redacted

CONNECT_SECONDS, READ_SECONDS = 10, 20  # to wait for an answer, or its next bytes
ATTEMPTS, ROUNDS = 3, 2  # of botocore, for an answer that is lost or "slow down"; of s3fs, for all
SLOWEST = 50_000  # bytes a second that a write is given time for
MAX_REASON = 300  # characters of a library's message that are repeated

NO_CREDENTIALS = "no usable credentials were found"
GIVE_CREDENTIALS = "give them by the environment, a profile or the role of the machine"
NO_STORE = "the answer is none of an object store: is something between, such as a login page?"
_CREDENTIALS = ("Credential", "ProfileNotFound", "Token", "SSO")


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
