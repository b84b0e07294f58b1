"""Decoded chunks that stay between passes, in memory or on a local disk."""
