"""Start values of the user: each that cannot be used is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gmm_dask.errors import DataError, SingularCovarianceError
from gmm_dask.fitting import checked_start
from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters

EYES = np.stack([np.eye(2)] * 2)
GOOD = {"weights": [0.25, 0.75], "means": [[0.0, 1.0], [2.0, 3.0]], "precisions": EYES}


def test_good_values_are_taken_as_they_are() -> None:
    given = checked_start(**GOOD, shape=(2, 2), covariance_type="full")
    np.testing.assert_array_equal(given.weights, GOOD["weights"])
    np.testing.assert_array_equal(given.means, GOOD["means"])
    np.testing.assert_array_equal(given.precisions, EYES)
    nothing = checked_start(None, None, None, (2, 2), "full")
    assert (nothing.weights, nothing.means, nothing.precisions) == (None, None, None)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"weights": [1.0]}, "'weights' should have the shape"),
        (
            {"weights": [-0.5, 1.5]},
            r"'weights' should be in the range \[0, 1\]",
        ),
        ({"weights": [0.5, 0.6]}, "normalized"),
        ({"means": [[0.0, 1.0]]}, "'means' should have the shape"),
        ({"means": [[0.0, np.nan], [2.0, 3.0]]}, "'means' holds NaN or infinity"),
        ({"precisions": np.eye(2)}, "full precision"),
        ({"precisions": EYES + np.triu(np.ones((2, 2)), 1)}, "symmetric, positive-definite"),
        ({"precisions": -EYES}, "symmetric, positive-definite"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        checked_start(**GOOD | changed, shape=(2, 2), covariance_type="full")


@pytest.mark.parametrize("covariance_type", ["diag", "spherical"])
def test_variances_must_be_positive(covariance_type: str) -> None:
    precisions = np.zeros((2, 2) if covariance_type == "diag" else 2)
    with pytest.raises(DataError, match=f"{covariance_type} precision' should be positive"):
        checked_start(None, None, precisions, (2, 2), covariance_type)


@pytest.mark.parametrize("small", [5e-324, 1e-320, 1e-309])
@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_a_precision_whose_inverse_overflows_is_named(covariance_type: str, small: float) -> None:
    shape = COVARIANCE_FAMILIES[covariance_type].shape(2, 2)
    precisions = small * np.broadcast_to(np.eye(2) if shape[-2:] == (2, 2) else 1.0, shape)
    if covariance_type == "diag":
        precisions = np.full(shape, small)
    with pytest.raises(DataError, match=f"{covariance_type} precision' is so small .* rescale"):
        checked_start(None, None, precisions, (2, 2), covariance_type)
    with pytest.raises(SingularCovarianceError, match="beyond float64"):
        Parameters.from_precisions([0.5, 0.5], np.zeros((2, 2)), precisions, covariance_type)
