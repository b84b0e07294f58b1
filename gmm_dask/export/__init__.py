"""Mixtures for readers without this package: SQL, ONNX, and schemas of the files."""

from gmm_dask.export.onnx_model import to_onnx
from gmm_dask.export.schemas import SCHEMAS
from gmm_dask.export.sql_query import to_sql

__all__ = ["SCHEMAS", "to_onnx", "to_sql"]
