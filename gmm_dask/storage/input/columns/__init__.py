"""Columns by name: their types, their parts in a run, and one schema for all files."""
