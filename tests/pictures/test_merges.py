"""Pictures of clusters show the tree, the entropies, the posteriors and the boundaries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gmm_dask.mixture import Parameters, merge_tree
from gmm_dask.pictures.canvas import new_figure, png_of
from gmm_dask.pictures.merges import draw_boundaries, draw_entropies, draw_posteriors, draw_tree
from gmm_dask.pictures.view import best_view, feature_view


def row_of(positions: list[float]) -> Parameters:
    means = np.c_[positions, np.zeros(len(positions))]
    weights = np.full(len(positions), 1 / len(positions))
    return Parameters.from_covariances(weights, means, np.ones(len(positions)), "spherical")


@pytest.fixture
def axes() -> Any:
    return new_figure(400).subplots()


def test_a_tree_has_each_merge_at_its_height_and_no_two_branches_cross(axes: Any) -> None:
    tree = merge_tree(row_of([0, 14, 3, 17, 400]))
    draw_tree(axes, tree)
    branches = [line for line in axes.lines if len(line.get_xdata()) == 4]
    heights = [max(line.get_ydata()) for line in branches]
    assert len(branches) == 4
    assert heights == sorted(heights)
    assert heights[:2] == pytest.approx([3, 3], abs=0.2)
    assert heights[-1] <= 12
    assert [line.get_color() for line in branches].count("#1c2430") == 2
    places = [text.get_text() for text in axes.get_xticklabels()]
    assert abs(places.index("0") - places.index("2")) == 1
    assert abs(places.index("1") - places.index("3")) == 1
    assert axes.get_title(loc="left") == "Components merged into 3 of 5 clusters"
    assert png_of(axes.figure)


def test_entropies_are_by_the_number_of_clusters(axes: Any) -> None:
    tree = merge_tree(row_of([0, 3, 14]))
    draw_entropies(axes, tree)
    x, y = axes.lines[0].get_data()
    assert x.tolist() == [3, 2, 1]
    assert tuple(y) == tree.entropies
    assert axes.lines[1].get_xdata()[0] == 2


def test_posteriors_are_in_order_and_of_the_rows_of_the_component(axes: Any) -> None:
    resp = np.array([[0.9, 0.1], [1.0, 0.0], [0.3, 0.7]])
    draw_posteriors(axes, resp)
    assert [line.get_ydata().tolist() for line in axes.lines] == [[1.0, 0.9, 0.3], [0.7, 0.1]]


def test_boundaries_lie_between_clusters_and_not_between_their_components(axes: Any) -> None:
    mixture = row_of([0, 3, 10])
    view = feature_view(["a", "b"], [0, 1])
    draw_boundaries(axes, mixture, (0, 0, 1), view, np.array([[-4.0, 14.0], [-4.0, 4.0]]))
    drawn = [each for each in axes.collections if len(each.get_edgecolor())]
    along = np.concatenate([path.vertices for each in drawn for path in each.get_paths()])
    middle = along[np.abs(along[:, 1]) < 0.5, 0]
    assert len(middle)
    assert np.allclose(middle, 6.5, atol=0.2)


def test_boundaries_need_a_plane(axes: Any) -> None:
    one = Parameters.from_covariances([1.0], [[0.0]], [1.0], "spherical")
    with pytest.raises(ValueError, match="two axes"):
        draw_boundaries(axes, one, (0,), feature_view(["a"], [0]), np.zeros((1, 2)))


def test_directions_in_which_only_shapes_differ_are_found() -> None:
    covariances = np.stack([np.eye(6), np.eye(6)])
    covariances[1, 4, 4], covariances[1, 2, 2] = 25.0, 9.0
    mixture = Parameters.from_covariances([0.5, 0.5], np.zeros((2, 6)), covariances, "full")
    view = best_view(mixture, list("abcdef"), shapes=True)
    assert [named[0][0] for named in view.names_of] == ["e", "c"]
