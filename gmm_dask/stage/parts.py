"""The parts of a published version that have a path; importing this needs nothing heavy."""

from __future__ import annotations

from enum import StrEnum


class Part(StrEnum):
    """What a version is asked the path of."""

    MODEL = "model"
    LABELS = "labels"
    REPORT = "report"
    FOLDER = "folder"

    @property
    def file(self) -> str:
        """Name within the folder of the run."""
        return _FILES[self]


_FILES = {
    Part.MODEL: "model.json",
    Part.LABELS: "labels",
    Part.REPORT: "report.html",
    Part.FOLDER: "",
}
