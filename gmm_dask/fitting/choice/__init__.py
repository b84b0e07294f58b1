"""The choice of a model: candidates that share every pass, and the criteria they are ranked by."""

from gmm_dask.fitting.choice.annihilation import Annihilation, annihilated
from gmm_dask.fitting.choice.bootstrap import Bootstrap, bootstrap_test, split_starts
from gmm_dask.fitting.choice.members import Member, at_their_ends, fallen
from gmm_dask.fitting.choice.ranking import (
    CRITERIA,
    Candidate,
    Measured,
    Selection,
    prediction_strength,
)
from gmm_dask.fitting.choice.shared_starts import settled, shared_starts

__all__ = [
    "CRITERIA",
    "Annihilation",
    "Bootstrap",
    "Candidate",
    "Measured",
    "Member",
    "Selection",
    "annihilated",
    "at_their_ends",
    "bootstrap_test",
    "fallen",
    "prediction_strength",
    "settled",
    "shared_starts",
    "split_starts",
]
