"""Ensemble of models that are not boosters: two twins become one ONNX graph.

A package without a booster is its ONNX graph and nothing else, so that is what is combined: each
twin's nodes under names of their own, and the weighted sum of their answers in float64.
"""

from collections.abc import Sequence

import numpy as np
import onnx

from batteryops.errors import DataError, PackageError
from batteryops.models.onnx_graph import OPSETS, Graph
from batteryops.models.onnx_twin import INPUT, OUTPUT, OnnxRow


def combined_onnx(twins: Sequence[bytes], weights: Sequence[float]) -> bytes:
    """One graph that answers the weighted sum of several.

    Args:
        twins: of the same features, as `algorithm_onnx.to_onnx_any` or a package has them.
        weights: one for each, finite.

    Returns:
        An ONNX model: `features` float32 (n, k) to `capacity_ah` float32 (n, 1); equal bytes for
        equal twins.

    Raises:
        DataError: no twin, not one weight for each, or twins of different numbers of features.
        PackageError: when one cannot be read, or was written for other operators.
    """
    if not twins or len(twins) != len(weights) or not np.isfinite(weights).all():
        raise DataError(
            f"{len(twins)} twins with weights {list(weights)}; expected one finite number for "
            "each of one twin or more"
        )
    widths = {OnnxRow(twin).n_features for twin in twins}
    if len(widths) > 1:
        raise DataError(
            f"twins of {' and '.join(map(str, sorted(widths)))} features cannot be combined; "
            "expected the same features"
        )
    graph = Graph()
    total = graph.constant([[0.0]])
    for number, (twin, weight) in enumerate(zip(twins, weights, strict=True)):
        answer = _add(graph, onnx.load_from_string(twin), f"member_{number}_")
        total = graph.add("Add", total, graph.times(graph.wide(answer), weight))
    return graph.serialised(total, widths.pop())


def _add(graph: Graph, model: onnx.ModelProto, prefix: str) -> str:
    """Add a twin's nodes and constants; gives the name of its answer (n, 1), float32."""
    for used in model.opset_import:
        # a graph of trees alone is of version 1, which 3 reads; other operators changed in between
        same = used.version == OPSETS.get(used.domain)
        if not same and any(
            node.domain == used.domain and node.op_type != "TreeEnsembleRegressor"
            for node in model.graph.node
        ):
            raise PackageError(
                f"a twin has version {used.version} of the operators {used.domain or 'ai.onnx'}; "
                f"expected {OPSETS.get(used.domain)}: train it again"
            )

    def renamed(name: str) -> str:
        return name if name in {"", INPUT} else prefix + name

    for constant in model.graph.initializer:
        own = onnx.TensorProto()
        own.CopyFrom(constant)
        own.name = renamed(constant.name)
        graph.constants.append(own)
    for node in model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [renamed(name) for name in node.input]
        copy.output[:] = [renamed(name) for name in node.output]
        if node.name:
            copy.name = prefix + node.name
        graph.nodes.append(copy)
    return renamed(OUTPUT)
