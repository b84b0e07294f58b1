"""The labels of rows: what must not be in the rows, and the parts that are written."""
