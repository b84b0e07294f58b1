"""Variational inference of a mixture: another M-step over the same pass of sums.

The E-step of variational inference is that of a mixture whose weights are the exponentials of
expectations and sum to less than one: its logs of weight times density are
E[log weight] + E[log |precision|] / 2 - d / (2 mean_precision) - (distance under the expected
precision) / 2. A pass over the rows under that mixture brings all sums that the M-step takes
(Bishop, Pattern Recognition and Machine Learning, 10.2; Blei and Jordan, Bayesian Analysis 1, 2006,
for the Dirichlet process). Names and the normalisation are those of scikit-learn's
BayesianGaussianMixture.
"""

from gmm_dask.fitting.variational.inference import VariationalFit, infer
from gmm_dask.fitting.variational.posterior import (
    Concentration,
    Posterior,
    VariationalPrior,
    begin,
    posterior_of,
)

__all__ = [
    "Concentration",
    "Posterior",
    "VariationalFit",
    "VariationalPrior",
    "begin",
    "infer",
    "posterior_of",
]
