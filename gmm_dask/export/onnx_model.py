"""A mixture as an ONNX model in double precision; needs gmm-dask[onnx]."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SettingsError
from gmm_dask.export.scoring import LARGEST, Described, Scoring

OPSET, IR_VERSION = 17, 8  # of 2022, which every runtime in use reads


def to_onnx(mixture: Described) -> bytes:
    """A model with the input X (n, d) and the outputs label, probabilities and log_density.

    All numbers are double, and means are subtracted first, so that offsets cost no digits. The
    names of the features, in their order, are in the metadata as `features`, a list in JSON.

    Raises
    ------
    SettingsError
        The package onnx is not installed.
    """
    try:
        from onnx import TensorProto, checker, helper
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{error.name} is not installed: pip install 'gmm-dask[onnx]'."
        ) from None
    scoring = Scoring.of(mixture.parameters)
    k, d = scoring.means.shape
    graph = _Graph()
    joint, base = _joint(graph, scoring)
    _results(graph, joint, base, scoring.noise)
    double, integer = TensorProto.DOUBLE, TensorProto.INT64
    made = helper.make_graph(
        graph.nodes,
        "gaussian_mixture",
        [helper.make_tensor_value_info("X", double, ["n", d])],
        [
            helper.make_tensor_value_info("label", integer, ["n"]),
            helper.make_tensor_value_info("probabilities", double, ["n", k]),
            helper.make_tensor_value_info("log_density", double, ["n"]),
        ],
        graph.constants,
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(made, opset_imports=opset, producer_name="gmm_dask")
    model.ir_version = IR_VERSION
    helper.set_model_props(model, {"features": json.dumps(list(mixture.feature_names))})
    checker.check_model(model)
    return bytes(model.SerializeToString())


class _Graph:
    """Nodes and constants as they are added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: npt.ArrayLike) -> str:
        """The name of an array of doubles."""
        from onnx import numpy_helper

        name = f"constant{len(self.constants)}"
        array = np.asarray(values, dtype=np.float64)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def axes(self, *values: int) -> str:
        """The name of an array of integers."""
        from onnx import numpy_helper

        name = f"axes{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def add(
        self, kind: str, inputs: list[str], output: str | None = None, **attributes: Any
    ) -> str:
        """The name of the output of a node."""
        from onnx import helper

        output = output or f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output


def _joint(graph: _Graph, scoring: Scoring) -> tuple[str, str | None]:
    """Log of weight times density (n, k); where a factor is shared log-odds, and the base (n,)."""
    if scoring.slopes is not None:
        D = graph.add("Sub", ["X", graph.constant(scoring.means[0])])
        z = graph.add("MatMul", [D, graph.constant(scoring.factors[0])])
        odds = scoring.constants.copy()
        base, odds[0] = odds[0], 0.0
        along = graph.add("MatMul", [z, graph.constant(-scoring.slopes.T)])
        joint = graph.add("Add", [along, graph.constant(odds)])
        squares = graph.add("ReduceSumSquare", [z], axes=[1], keepdims=0)
        halves = graph.add("Mul", [squares, graph.constant(-0.5)])
        return joint, graph.add("Add", [halves, graph.constant(base)])
    # Components along the second axis: (n, 1, d) - (k, d).
    rows = graph.add("Unsqueeze", ["X", graph.axes(1)])
    D = graph.add("Sub", [rows, graph.constant(scoring.means)])
    if scoring.factors.ndim == 2:
        z = graph.add("Mul", [D, graph.constant(scoring.factors)])
    else:
        one = graph.add("Unsqueeze", [D, graph.axes(2)])
        z = graph.add("MatMul", [one, graph.constant(scoring.factors)])
        z = graph.add("Squeeze", [z, graph.axes(2)])
    squares = graph.add("ReduceSumSquare", [z], axes=[2], keepdims=0)
    halves = graph.add("Mul", [squares, graph.constant(-0.5)])
    return graph.add("Add", [halves, graph.constant(scoring.constants)]), None


def _results(graph: _Graph, joint: str, base: str | None, noise: float | None) -> None:
    """The outputs; noise is compared with densities, for against log-odds it loses its digits.

    A row without a finite density, since a value is missing or it is too far off, has the label -1.
    """
    along: dict[str, Any] = {"axes": [1], "keepdims": 0}
    density = _above(graph, graph.add("ReduceLogSumExp", [joint], **along), base)
    label = graph.add("ArgMax", [joint], axis=1, keepdims=0)
    nothing = graph.axes(-1)
    if noise is None:
        graph.add("Softmax", [joint], "probabilities", axis=1)
    else:
        highest = _above(graph, graph.add("ReduceMax", [joint], **along), base)
        level, of_components = graph.constant(noise), density
        larger = graph.add("Max", [density, level])
        parts = [graph.add("Exp", [graph.add("Sub", [a, larger])]) for a in (density, level)]
        added = graph.add("Log", [graph.add("Add", parts)])
        density = graph.add("Add", [larger, added])
        label = graph.add("Where", [graph.add("Less", [highest, level]), nothing, label])
        share = graph.add("Exp", [graph.add("Sub", [of_components, density])])
        share = graph.add("Unsqueeze", [share, graph.axes(1)])
        within = graph.add("Mul", [graph.add("Softmax", [joint], axis=1), share])
        is_near = graph.add("Greater", [share, graph.constant(0.0)])
        graph.add("Where", [is_near, within, share], "probabilities")
    graph.add("Identity", [density], "log_density")
    is_known = graph.add("Greater", [density, graph.constant(-LARGEST)])
    graph.add("Where", [is_known, label, nothing], "label")


def _above(graph: _Graph, values: str, base: str | None) -> str:
    """Log-densities (n,) of what may be log-odds above a base (n,)."""
    return values if base is None else graph.add("Add", [base, values])
