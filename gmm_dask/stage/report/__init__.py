"""The report of a run: one HTML file that needs nothing else, and its pictures as PNG."""

from gmm_dask.stage.report.data import ReportData
from gmm_dask.stage.report.html import render_report

__all__ = ["ReportData", "render_report"]
