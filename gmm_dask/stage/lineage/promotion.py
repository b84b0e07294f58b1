"""Whether a version may take the place of another: the criteria of its settings, each measured.

A limit that is set and cannot be measured is not met: nobody would know that it was not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gmm_dask.stage.outputs import Published, load_published
from gmm_dask.storage import NUMBER, At, RunFolder, Version, optional, part, shape

_LIMITS = shape(
    {},
    {
        "log_likelihood_loss": optional(NUMBER),
        "movers": optional(NUMBER),
        "drift": optional(NUMBER),
    },
    strict=False,
)
_PROMOTION = part(settings=shape({}, {"promotion": _LIMITS}, strict=False))  # of run.json


def judged(
    folder: RunFolder, version: Version, champion: Version
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What was measured of each criterion, and which of them are not met, in sentences.

    Parameters
    ----------
    folder : RunFolder
        Folder of the version that is to be promoted; its run.json has the limits.
    version, champion : Version
        The one that is to be promoted, and the one that has the alias.

    Raises
    ------
    OutputError
        One of the versions is damaged.
    """
    about = _PROMOTION.load(folder.get_json("run.json"), At(folder.path("run.json")))
    limits: Mapping[str, float | None] = about["settings"].get("promotion") or {}
    candidate = load_published(folder, version, new=False)
    found = tuple(_judged(candidate, champion, limits))
    return tuple(said for said, _ in found), tuple(said for said, is_met in found if not is_met)


def _judged(
    candidate: Published, champion: Version, limits: Mapping[str, float | None]
) -> Iterator[tuple[str, bool]]:
    changes, metrics = candidate.changes, candidate.metrics
    followed = None if changes is None else changes.follows
    against = followed is not None and followed.run_id == champion.run_id
    before = metrics.get("before") or {}
    measured: dict[str, Any] = {}
    if against and before.get("log_likelihood_per_row") is not None:
        loss = before["log_likelihood_per_row"] - metrics["log_likelihood_per_row"]
        measured["log_likelihood_loss"] = loss
    if against and before.get("movers") is not None:
        measured["movers"] = before["movers"]
    measured["drift"] = ((metrics.get("refresh") or {}).get("drift") or {}).get("psi")
    for name, what in _WORDS.items():
        limit, value = limits.get(name), measured.get(name)
        if limit is None:
            continue
        if value is None:
            yield (
                f"promotion.{name} is {limit:g}, and {what} was not measured against version "
                f"{champion.number}: {_REMEDY[name]}",
                False,
            )
        else:
            is_met = value <= limit
            verdict = "within" if is_met else "beyond"
            yield f"{what} is {value:.4g}, {verdict} the limit of {limit:g}.", is_met


_WORDS = {
    "log_likelihood_loss": "the loss of log-likelihood per row",
    "movers": "the share of rows that have another component",
    "drift": "the drift of the shares of components (PSI)",
}
_FOLLOW = (
    "have the run follow that version (output.follows) and count (labels.compare), or promote "
    "with --unchecked."
)
_REMEDY = {
    "log_likelihood_loss": _FOLLOW,
    "movers": _FOLLOW,
    "drift": "it is of a refresh (`gmm-dask refresh`); or promote with --unchecked.",
}
