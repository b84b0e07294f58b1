"""What rows look like before a mixture is fitted: moments, odd columns, keys and a sample.

Knows NumPy alone. The engine maps these functions over chunks and merges what they return.
"""

from gmm_dask.sampling.keys import Fold, Keys, folded, row_keys, spread_and_keys
from gmm_dask.sampling.profile import Oddity, Seen, odd_columns
from gmm_dask.sampling.sketch import Draw, Sketch, chosen_rows, differ, fewer
from gmm_dask.sampling.spread import ColumnSpread, weight_unit

__all__ = [
    "ColumnSpread",
    "Draw",
    "Fold",
    "Keys",
    "Oddity",
    "Seen",
    "Sketch",
    "chosen_rows",
    "differ",
    "fewer",
    "folded",
    "odd_columns",
    "row_keys",
    "spread_and_keys",
    "weight_unit",
]
