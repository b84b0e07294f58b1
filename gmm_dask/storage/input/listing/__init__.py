"""Which files a dataset is made of: its paths, the walk through them, and the keys in names."""

from gmm_dask.storage.input.listing.files import File, Listing, list_files
from gmm_dask.storage.input.listing.places import Paths, joined, lies_in, overlaps, would_list

__all__ = [
    "File",
    "Listing",
    "Paths",
    "joined",
    "lies_in",
    "list_files",
    "overlaps",
    "would_list",
]
