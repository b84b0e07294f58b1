"""Reports to test with: of a real fit, and of parameters that nobody fitted."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np

from gmm_dask import fitting
from gmm_dask.mixture import Parameters, e_step, score_rows
from gmm_dask.stage.report import ReportData


def report_of(
    parameters: Parameters, X: np.ndarray, n_states: int = 1, **changes: Any
) -> ReportData:
    """A report on parameters that nobody fitted."""
    n, k = X.shape[0], parameters.n_components
    total = float(score_rows(X, parameters).log_density.sum())
    data = ReportData(
        title="A title",
        run_id="0123456789abcdef",
        feature_names=tuple(f"feature_{j}" for j in range(parameters.n_features)),
        parameters=parameters,
        trajectory=(parameters,) * n_states,
        lower_bounds=tuple(np.linspace(-3.0, -2.0, n_states - 1)),
        outcome="converged",
        advice="Use it.",
        sample=X,
        metrics={
            "log_likelihood": total,
            "n_rows": n,
            "n_used": n,
            "n_dropped": 0,
            "n_labelled": [n, *[0] * (k - 1)],
            "seconds": {"plan": 0.01, "fit": 2.5, "label": 90.0, "passes": [0.1, 0.2, 0.4]},
        },
        settings={"data": {"weight_column": None}, "fit": {"n_components": k}},
        plan={"path": "data", "n_files": 2, "n_rows": n, "n_chunks": 3, "dropped": {}},
        versions={"numpy": np.__version__},
        events=[],
    )
    return replace(data, **changes)


@cache
def iris() -> ReportData:
    from sklearn.datasets import load_iris

    X = load_iris().data
    maximise = fitting.Maximisation()
    start = fitting.initialize(X, 3, "full", maximise, seed=np.random.SeedSequence(0))
    result = fitting.fit(partial(e_step, X), start.parameters, maximise, tol=1e-3, max_iter=100)
    return report_of(
        result.parameters,
        X,
        trajectory=result.trajectory,
        lower_bounds=result.lower_bounds,
        feature_names=("sepal_length", "sepal_width", "petal_length", "petal_width"),
    )


def drawn_from(parameters: Parameters, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    components = rng.choice(parameters.n_components, n, p=parameters.weights)
    return parameters.means[components] + rng.normal(size=(n, parameters.n_features))
