"""The report of a run: one HTML file that needs nothing else, and its pictures as PNG."""

from gmm_dask.stage.report.data import Pictures, ReportData
from gmm_dask.stage.report.figures import draw
from gmm_dask.stage.report.html import render_report

__all__ = ["Pictures", "ReportData", "draw", "render_report"]
