"""A mixture as an ONNX model in double precision; needs gmm-dask[onnx]."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SettingsError
from gmm_dask.export.scoring import Described, Scoring

OPSET, IR_VERSION = 17, 8  # of 2022, which every runtime in use reads


def to_onnx(mixture: Described) -> bytes:
    """A model with the input X (n, d) and the outputs label, probabilities and log_density.

    All numbers are double, and means are subtracted first, so that offsets cost no digits. The
    names of the features, in their order, are in the metadata as `features`.

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
    if scoring.noise is not None:
        joint = _with_noise(graph, joint, base, scoring.noise)
    log_sum = graph.add("ReduceLogSumExp", [joint], axes=[1], keepdims=0)
    density = log_sum if base is None else graph.add("Add", [base, log_sum])
    graph.add("Identity", [density], "log_density")
    if scoring.noise is None:
        graph.add("Softmax", [joint], "probabilities", axis=1)
        graph.add("ArgMax", [joint], "label", axis=1, keepdims=0)
    else:  # the last column is that of noise, whose label is -1
        shares = graph.add("Softmax", [joint], axis=1)
        ends = [graph.axes(0), graph.axes(k), graph.axes(1)]
        graph.add("Slice", [shares, *ends], "probabilities")
        best = graph.add("ArgMax", [joint], axis=1, keepdims=0)
        is_noise = graph.add("Equal", [best, graph.axes(k)])
        graph.add("Where", [is_noise, graph.axes(-1), best], "label")
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
    helper.set_model_props(model, {"features": "\n".join(mixture.feature_names)})
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


def _with_noise(graph: _Graph, joint: str, base: str | None, noise: float) -> str:
    """The log of weight times density of noise as a last column, (n, k + 1)."""
    if base is None:
        ends = [graph.axes(0), graph.axes(1), graph.axes(1)]
        first = graph.add("Slice", [joint, *ends])
        column = graph.add("Mul", [first, graph.constant(0.0)])  # NaN where a value is missing
    else:
        column = graph.add("Neg", [graph.add("Unsqueeze", [base, graph.axes(1)])])
    column = graph.add("Add", [column, graph.constant(noise)])
    return graph.add("Concat", [joint, column], axis=1)
