"""An ONNX graph as it is written, node by node, in float64."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from batteryops.models.onnx_twin import INPUT, OUTPUT

OPSETS: Final = {"": 17, "ai.onnx.ml": 3}
"""Versions of the operators; ONNX Runtime reads these since 1.12."""

IR_VERSION: Final = 8


@dataclass(slots=True)
class Graph:
    """Nodes and constants as they are added; values go by names that are numbered."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, values: ArrayLike, kind: type[np.generic] = np.float64) -> str:
        """The name of an array."""
        name = f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(np.asarray(values, dtype=kind))
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:  # noqa: ANN401 - the operator's own
        """The name of an operator's only result."""
        (name,) = self.add_several(operator, 1, *inputs, domain=domain, **attributes)
        return name

    def add_several(
        self,
        operator: str,
        outputs: int,
        *inputs: str,
        domain: str = "",
        **attributes: Any,  # noqa: ANN401 - the operator's own
    ) -> list[str]:
        """The names of an operator's results."""
        names = [f"{operator}_{len(self.nodes)}_{place}" for place in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, domain=domain, **attributes))
        return names

    def wide(self, value: str) -> str:
        """As float64."""
        return self.add("Cast", value, to=TensorProto.DOUBLE)

    def times(self, value: str, factor: float) -> str:
        """Every number by one factor."""
        return self.add("Mul", value, self.constant(factor))

    def plus(self, value: str, summand: float) -> str:
        """Every number and one summand."""
        return self.add("Add", value, self.constant(summand))

    def squared_distances(self, rows: str, others: NDArray[np.float64]) -> str:
        """Of rows (n, k) to others (m, k): (n, m), 0 or more."""
        squares = self.add("ReduceSumSquare", rows, axes=[1], keepdims=1)
        cross = self.add("MatMul", rows, self.constant(-2.0 * others.T))
        both = self.add("Add", squares, self.constant((others**2).sum(axis=1)))
        return self.add("Max", self.add("Add", both, cross), self.constant(0.0))

    def serialised(self, answer: str, n_features: int) -> bytes:
        """The whole model; equal bytes for equal graphs.

        Args:
            answer: name of the capacities (n, 1) in Ah.
            n_features: k, of the input (n, k).
        """
        last = helper.make_node("Cast", [answer], [OUTPUT], to=TensorProto.FLOAT)
        model = helper.make_model(
            helper.make_graph(
                [*self.nodes, last],
                "batteryops",
                [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, n_features])],
                [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, 1])],
                self.constants,
            ),
            opset_imports=[helper.make_opsetid(*opset) for opset in OPSETS.items()],
            ir_version=IR_VERSION,
        )
        whole: bytes = model.SerializeToString(deterministic=True)
        return whole
