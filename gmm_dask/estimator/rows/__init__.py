"""Rows in every form that users have, as chunks for a pass, and results in the form of the rows."""
