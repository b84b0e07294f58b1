"""Each is run in a process of its own: from Parquet to labels on disk, imports included."""
