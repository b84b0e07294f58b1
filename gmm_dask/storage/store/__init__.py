"""Places where objects are kept: one protocol, two stores, and the log of versions."""
