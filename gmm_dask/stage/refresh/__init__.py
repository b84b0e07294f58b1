"""Refresh a published mixture from the sums of each partition, and tell how the data drift."""
