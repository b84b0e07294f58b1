"""How a notebook shows an estimator: its fitted attributes as they lie there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sklearn.base import BaseEstimator


class Showing:
    """Nothing is computed, read or raised for the HTML of a notebook."""

    def _get_fitted_attr_html(self, doc_link: str = "") -> Any:
        """scikit-learn's table of the fitted attributes, without properties: some are computed."""
        there = {name: each for name, each in vars(self).items() if not name.startswith("_")}
        found = BaseEstimator._get_fitted_attr_html(SimpleNamespace(**there), doc_link)
        found.estimator_class = type(self)
        return found
