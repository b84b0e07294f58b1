"""What object stores and their libraries raise, as errors of the operating system."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from gmm_dask.errors import GmmDaskError
from gmm_dask.redaction import redacted

MAX_REASON = 300  # characters of a library's message that are repeated

NO_CREDENTIALS = "no usable credentials were found"
_CREDENTIALS = ("Credential", "ProfileNotFound", "Token", "SSO")


def as_os_error(error: Exception) -> OSError:
    """The error with a number that says whether waiting can help; its text holds no secret."""
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, brief(error))
    if any(word in type(error).__name__ for word in _CREDENTIALS):
        return OSError(errno.EACCES, f"{NO_CREDENTIALS} ({brief(error)})")
    for kind, number in (
        (FileNotFoundError, errno.ENOENT),
        (PermissionError, errno.EACCES),
        (FileExistsError, errno.EEXIST),
        (TimeoutError, errno.ETIMEDOUT),
    ):
        if isinstance(error, kind):
            return OSError(number, brief(error))
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
