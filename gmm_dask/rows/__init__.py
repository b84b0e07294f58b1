"""Rows in every form a user has them: checked, cut into chunks, predicted in the same form."""

from gmm_dask.rows.checks import check_survey, names_of
from gmm_dask.rows.chunks import backend_of, checked_chunks, is_path
from gmm_dask.rows.forms import in_order_of
from gmm_dask.rows.mapping import map_rows

__all__ = [
    "backend_of",
    "check_survey",
    "checked_chunks",
    "in_order_of",
    "is_path",
    "map_rows",
    "names_of",
]
