"""Parquet files: footers, row groups, and batches of rows."""
