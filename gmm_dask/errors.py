"""Every error the package raises on purpose: each names its cause and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def shown(text: str) -> str:
    """A text from outside on one line: what does not show as a sign of its own is escaped.

    Line feeds, escape sequences and signs that turn the direction of writing could otherwise
    forge what a message, a log or a report says.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


class GmmDaskError(Exception):
    """The base of all errors of this package; catching it catches every named failure.

    Parameters
    ----------
    *lines : str
        The message. Each is shown on one line, whatever the names in it hold.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(map(shown, lines)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross process borders whole, whatever arguments their constructor takes.

        So does what the system said where that is the cause: it tells whether waiting can help.
        """
        cause, system = self.__cause__, None
        if isinstance(cause, OSError) and cause.errno is not None:
            system = OSError(cause.errno, cause.strerror)
        return _rebuild, (type(self), self.args, self.__dict__, system)


def _rebuild(
    cls: type[GmmDaskError],
    args: tuple[Any, ...],
    state: dict[str, Any],
    cause: OSError | None = None,
) -> GmmDaskError:
    assert cls.__base__ is not None
    error = cls.__base__.__new__(cls, *args)  # the base that makes it; another of them may not
    error.args = args
    error.__dict__.update(state)
    error.__cause__ = cause
    return error


class SettingsError(GmmDaskError, ValueError):
    """Settings that cannot be carried out: an unknown key, a value out of range, a wrong type."""


class DataError(GmmDaskError, ValueError):
    """Input that is not as promised; carries all problems found, not only the first.

    Parameters
    ----------
    problems : sequence of str
        One line each: where (file, row group, column), what, and the remedy.
    """

    def __init__(self, problems: Sequence[str] | str) -> None:
        lines = (problems,) if isinstance(problems, str) else problems
        self.problems = tuple(map(shown, lines))
        super().__init__(*self.problems)


class NotNumbersError(DataError, TypeError):
    """Columns whose values are no numbers, or none that float64 holds: each with the remedy."""


class FeatureWarning(UserWarning):
    """Features that can be fitted, but whose mixture is hardly what was meant."""


class InputChangedError(DataError):
    """A file is no longer the one that was planned; a result would mix two data sets."""


class DriftError(DataError):
    """New data differ from those of the fit by more than the settings allow.

    Parameters
    ----------
    problems : sequence of str
    exceeded : sequence of dict
        Metric, value and limit of each limit that is exceeded, those that only warn among them.
    """

    def __init__(self, problems: Sequence[str], exceeded: Sequence[dict[str, Any]] = ()) -> None:
        self.exceeded = tuple(exceeded)
        super().__init__(problems)


class InputError(GmmDaskError, OSError):
    """Input that cannot be read at present, though nothing says that it is bad."""


class SingularCovarianceError(GmmDaskError, ValueError):
    """A component's covariance is not positive definite, so it has no density.

    Parameters
    ----------
    message : str
        Cause and remedy.
    component : int
        Index of the component; 0 for a tied covariance.
    features : tuple of int
        Columns that cause it, where they are known.
    """

    def __init__(self, message: str, component: int = 0, features: tuple[int, ...] = ()) -> None:
        self.component = component
        self.features = features
        super().__init__(message)


class NotFiniteError(GmmDaskError, ValueError):
    """The log-likelihood or the parameters stopped being finite, so there is no model.

    Parameters
    ----------
    message : str
        Cause and remedy.
    features : tuple of int
        Columns that cause it, where they are known.
    """

    def __init__(self, message: str, features: tuple[int, ...] = ()) -> None:
        self.features = features
        super().__init__(message)


class StarvedComponentError(GmmDaskError, ValueError):
    """A component holds no rows, and the component policy is to stop there.

    Parameters
    ----------
    message : str
        Cause and remedy.
    component : int
    """

    def __init__(self, message: str, component: int = 0) -> None:
        self.component = component
        super().__init__(message)


class ModelFileError(GmmDaskError, ValueError):
    """A model file that is damaged, foreign, or newer than this version can read."""


class OutputError(GmmDaskError, OSError):
    """The output folder cannot be written, or what it holds is damaged or contradictory."""

    @property
    def is_of_storage(self) -> bool:
        """Whether the system refused or failed, which says nothing of what the folder holds."""
        return isinstance(self.__cause__, OSError) and self.__cause__.errno is not None


class NotPromotedError(OutputError):
    """A version that does not meet the criteria for an alias; the alias stays where it was."""


class PlaceTakenError(OutputError):
    """A name in the output folder that is taken by no file of ours: a folder, a link, a pipe."""

    @property
    def is_of_storage(self) -> bool:
        """Never: it is known what is there."""
        return False


class CheckpointError(OutputError):
    """A checkpoint that is damaged, newer than this version can read, or of another run."""


class MemoryLimitError(GmmDaskError, MemoryError):
    """The limits of memory that hold for this process leave too little to begin the work."""


class ClusterError(GmmDaskError, RuntimeError):
    """No Dask cluster could be opened or reached, or it was lost for good."""


class DeadlyChunkError(ClusterError):
    """Workers die on one chunk, also where it is run by itself: as it is, it would go on so."""
