"""Any fitted algorithm as one ONNX graph, so that a package needs no pickle to answer.

scikit-learn computes in float64, and its converter mostly in float32. The graphs here are written
out instead, in float64 throughout: what a linear model, a kernel, neighbours, trees, a perceptron
or a Gaussian process answer is a few matrix products, and stays equal to its library's answer to
the last digits of float32, in which the graph gives it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import (
    ExtraTreesRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, DotProduct, Sum, WhiteKernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import BayesianRidge, ElasticNet, HuberRegressor, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.svm import SVR

from batteryops.errors import DataError, PackageError
from batteryops.models.algorithms import Boosted, Combined, Predict, Scikit
from batteryops.models.battery_process import BatteryProcess
from batteryops.models.onnx_graph import Graph
from batteryops.models.onnx_twin import INPUT, to_onnx
from batteryops.models.process_onnx import add_process

SPARE_NEIGHBOURS: Final = 8
"""So many more neighbours are measured exactly than are asked for; see `_neighbours`."""


def to_onnx_any(fitted: Predict, n_features: int) -> bytes:
    """Convert what an algorithm of `ALGORITHMS` fitted, or a `Combined` of such; nested too.

    Args:
        fitted: a `Scikit`, `Boosted`, `BatteryProcess` or `Combined`.
        n_features: k, the number of columns.

    Returns:
        An ONNX model: `features` float32 (n, k), NaN where missing, to `capacity_ah` float32
        (n, 1); equal bytes for equal models. A single booster's is its twin from `to_onnx`.

    Raises:
        DataError: when it was fitted on another number of features.
        PackageError: when it is something that this cannot write.
    """
    if isinstance(fitted, Boosted):
        return to_onnx(fitted.booster, n_features)
    graph = Graph()
    answer = _answer(graph, fitted, n_features)
    return graph.serialised(answer, n_features)


Floats = NDArray[np.float64]
Write = Callable[[Graph, str, Any], str]
"""Adds an estimator to a graph: given standardised rows (n, k) it answers (n, 1), in float64."""


def _answer(graph: Graph, fitted: Predict, n_features: int) -> str:
    """Capacities (n, 1) in Ah, float64."""
    if isinstance(fitted, Scikit):
        return _scikit(graph, fitted, n_features)
    if isinstance(fitted, Boosted):
        (trees,) = onnx.load_from_string(to_onnx(fitted.booster, n_features)).graph.node
        attributes = {item.name: helper.get_attribute_value(item) for item in trees.attribute}
        return graph.wide(graph.add(trees.op_type, INPUT, domain=trees.domain, **attributes))
    if isinstance(fitted, BatteryProcess):
        return add_process(graph, fitted, n_features)
    if isinstance(fitted, Combined):
        total = graph.constant([[0.0]])
        for member, weight in zip(fitted.members, fitted.weights, strict=True):
            given = _answer(graph, member, n_features)
            total = graph.add("Add", total, graph.add("Mul", given, graph.constant(weight)))
        return total
    raise PackageError(
        f"{type(fitted).__name__} cannot be written as ONNX; expected what an algorithm of "
        "batteryops.models.algorithms fitted, or a combination of such"
    )


def _scikit(graph: Graph, fitted: Scikit, n_features: int) -> str:
    """Imputation, scaling, the estimator, and back to Ah."""
    (_, imputer), (_, scaler), (_, estimator) = fitted.estimator.regressor_.steps
    if imputer.n_features_in_ != n_features:
        raise DataError(
            f"the {type(estimator).__name__} was fitted on {imputer.n_features_in_} features, not "
            f"on {n_features}; give the number of columns it was fitted on"
        )
    given = graph.wide(INPUT)
    missing = graph.add("IsNaN", given)
    filled = graph.add("Where", missing, graph.constant(imputer.statistics_), given)
    centred = graph.add("Sub", filled, graph.constant(scaler.mean_))
    rows = graph.add("Div", centred, graph.constant(scaler.scale_))
    write = _WRITERS.get(type(estimator))
    if write is None:
        raise PackageError(f"{type(estimator).__name__} cannot be written as ONNX")
    target = fitted.estimator.transformer_
    scaled = graph.add("Mul", write(graph, rows, estimator), graph.constant(target.scale_))
    return graph.add("Add", scaled, graph.constant(target.mean_))


def _line(graph: Graph, rows: str, estimator: Any) -> str:  # noqa: ANN401 - scikit-learn is not typed
    slopes = np.reshape(estimator.coef_, (-1, 1))
    product = graph.add("MatMul", rows, graph.constant(slopes))
    return graph.add("Add", product, graph.constant(np.reshape(estimator.intercept_, -1)))


def _similarity(graph: Graph, rows: str, others: Floats, gamma: float) -> str:
    """exp(-gamma d^2), (n, m)."""
    distances = graph.squared_distances(rows, others)
    return graph.add("Exp", graph.add("Mul", distances, graph.constant(-gamma)))


def _kernel_ridge(graph: Graph, rows: str, estimator: Any) -> str:  # noqa: ANN401 - scikit-learn is not typed
    _expect(estimator.kernel == "rbf", estimator, f"kernel {estimator.kernel!r}")
    known: Floats = estimator.X_fit_
    gamma = 1.0 / known.shape[1] if estimator.gamma is None else float(estimator.gamma)
    weights = np.reshape(estimator.dual_coef_, (-1, 1))
    return graph.add("MatMul", _similarity(graph, rows, known, gamma), graph.constant(weights))


def _support_vectors(graph: Graph, rows: str, estimator: Any) -> str:  # noqa: ANN401 - scikit-learn is not typed
    _expect(estimator.kernel == "rbf", estimator, f"kernel {estimator.kernel!r}")
    near = _similarity(graph, rows, estimator.support_vectors_, float(estimator._gamma))  # noqa: SLF001 - published nowhere else
    weighed = graph.add("MatMul", near, graph.constant(estimator.dual_coef_.T))
    return graph.add("Add", weighed, graph.constant(estimator.intercept_))


def _process(graph: Graph, rows: str, estimator: Any) -> str:  # noqa: ANN401 - scikit-learn is not typed
    _expect(not estimator.normalize_y, estimator, "normalize_y")
    covariance = _covariance(graph, estimator.kernel_, rows, estimator.X_train_)
    _expect(covariance is not None, estimator, f"kernel {estimator.kernel_}")
    weights = np.reshape(estimator.alpha_, (-1, 1))
    return graph.add("MatMul", str(covariance), graph.constant(weights))


def _covariance(graph: Graph, kernel: Any, rows: str, known: Floats) -> str | None:  # noqa: ANN401 - scikit-learn is not typed
    """Of rows with training rows, (n, m); None where the kernel says that there is none."""
    if isinstance(kernel, Sum):
        terms = [_covariance(graph, part, rows, known) for part in (kernel.k1, kernel.k2)]
        some = [term for term in terms if term is not None]
        return graph.add("Sum", *some) if some else None
    if isinstance(kernel, DotProduct):
        product = graph.add("MatMul", rows, graph.constant(known.T))
        return graph.add("Add", product, graph.constant(kernel.sigma_0**2))
    if isinstance(kernel, RBF):
        scaled = graph.add("Div", rows, graph.constant(kernel.length_scale))
        return _similarity(graph, scaled, known / kernel.length_scale, 0.5)
    if isinstance(kernel, WhiteKernel):  # noise of a training row, which no other row shares
        return None
    raise PackageError(f"a Gaussian process with kernel {kernel} cannot be written as ONNX")


def _neighbours(graph: Graph, rows: str, estimator: Any) -> str:  # noqa: ANN401 - scikit-learn is not typed
    """The nearest training rows, each weighing as the inverse of its distance.

    Candidates are found by d^2 = x^2 + y^2 - 2xy, one matrix product whose rounding may confuse
    rows that are almost as near; theirs and a few more distances are then taken by differences. A
    row that is in training must find itself at distance 0, and nothing else then counts.
    """
    _expect(
        estimator.weights == "distance" and estimator.effective_metric_ == "euclidean",
        estimator,
        f"weights {estimator.weights!r}, metric {estimator.effective_metric_!r}",
    )
    known: Floats = estimator._fit_X  # noqa: SLF001 - published nowhere else
    labels: Floats = np.reshape(estimator._y, -1)  # noqa: SLF001 - likewise
    asked = int(estimator.n_neighbors)
    some = min(len(known), asked + SPARE_NEIGHBOURS)
    _, places = _least(graph, graph.squared_distances(rows, known), some)
    found = graph.add("Gather", graph.constant(known), places, axis=0)  # (n, some, k)
    apart = graph.add("Sub", found, graph.add("Unsqueeze", rows, graph.constant([1], np.int64)))
    squares = graph.add("ReduceSumSquare", apart, axes=[2], keepdims=0)
    distances, nearest = _least(graph, graph.add("Sqrt", squares), asked)
    theirs = graph.add("Gather", graph.constant(labels), places, axis=0)
    chosen = graph.add("GatherElements", theirs, nearest, axis=1)
    same = graph.wide(graph.add("Equal", distances, graph.constant(0.0)))
    any_same = graph.add("ReduceMax", same, axes=[1], keepdims=1)
    is_known = graph.add("Cast", any_same, to=TensorProto.BOOL)
    weights = graph.add("Where", is_known, same, graph.add("Reciprocal", distances))
    total = _row_sum(graph, graph.add("Mul", weights, chosen))
    return graph.add("Div", total, _row_sum(graph, weights))


def _least(graph: Graph, values: str, count: int) -> list[str]:
    """The least `count` of each row (n, m), ascending, and their places."""
    how_many = graph.constant([count], np.int64)
    return graph.add_several("TopK", 2, values, how_many, axis=1, largest=0, sorted=1)


def _row_sum(graph: Graph, values: str) -> str:
    return graph.add("ReduceSum", values, graph.constant([1], np.int64), keepdims=1)


def _perceptron(graph: Graph, rows: str, estimator: Any) -> str:  # noqa: ANN401 - scikit-learn is not typed
    _expect(estimator.activation == "relu", estimator, f"activation {estimator.activation!r}")
    layers = list(zip(estimator.coefs_, estimator.intercepts_, strict=True))
    value = rows
    for place, (weights, offsets) in enumerate(layers):
        value = graph.add("MatMul", value, graph.constant(weights))
        value = graph.add("Add", value, graph.constant(offsets))
        if place < len(layers) - 1:
            value = graph.add("Relu", value)
    return value


@dataclass(frozen=True, slots=True)
class _Tree:
    """One tree as arrays (nodes,): children by number, the answer of each leaf."""

    is_leaf: NDArray[np.bool_]
    feature: NDArray[np.intp]
    threshold: Floats
    left: NDArray[np.intp]
    right: NDArray[np.intp]
    value: Floats


def _forest(graph: Graph, rows: str, estimator: Any) -> str:  # noqa: ANN401 - scikit-learn is not typed
    trees = [
        _Tree(
            is_leaf=tree.children_left < 0,
            feature=tree.feature,
            threshold=tree.threshold,
            left=tree.children_left,
            right=tree.children_right,
            value=tree.value[:, 0, 0],
        )
        for tree in (member.tree_ for member in estimator.estimators_)
    ]
    # its trees compare float32 with float64
    narrow = graph.wide(graph.add("Cast", rows, to=TensorProto.FLOAT))
    total = _sum_of_trees(graph, narrow, trees)
    return graph.add("Div", total, graph.constant(float(len(trees))))


def _histogram_boosting(graph: Graph, rows: str, estimator: Any) -> str:  # noqa: ANN401 - scikit-learn is not typed
    trees = [
        _Tree(
            is_leaf=nodes["is_leaf"].astype(np.bool_),
            feature=nodes["feature_idx"],
            threshold=nodes["num_threshold"],
            left=nodes["left"],
            right=nodes["right"],
            value=nodes["value"],
        )
        for nodes in (one.nodes for (one,) in estimator._predictors)  # noqa: SLF001 - published nowhere else
    ]
    base = graph.constant(np.reshape(estimator._baseline_prediction, -1))  # noqa: SLF001 - likewise
    return graph.add("Add", _sum_of_trees(graph, rows, trees), base)


def _sum_of_trees(graph: Graph, rows: str, trees: Sequence[_Tree]) -> str:
    """Sum of what trees answer, (n, 1): thresholds, leaves and sum in float64, its result not."""
    sizes = [len(tree.is_leaf) for tree in trees]
    numbers = np.concatenate([np.arange(size) for size in sizes])
    tree_ids = np.repeat(np.arange(len(trees)), sizes)
    is_leaf = np.concatenate([tree.is_leaf for tree in trees])

    def of_branches(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.where(is_leaf, 0, np.concatenate([array.astype(float) for array in arrays]))

    def whole(arrays: Sequence[NDArray[Any]]) -> list[int]:
        found: list[int] = of_branches(arrays).astype(np.int64).tolist()
        return found

    leaves = np.concatenate([tree.value for tree in trees])[is_leaf]
    total = graph.add(
        "TreeEnsembleRegressor",
        rows,
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        nodes_treeids=tree_ids.tolist(),
        nodes_nodeids=numbers.tolist(),
        nodes_featureids=whole([tree.feature for tree in trees]),
        nodes_modes=np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        nodes_values_as_tensor=numpy_helper.from_array(
            of_branches([tree.threshold for tree in trees]), "thresholds"
        ),
        nodes_truenodeids=whole([tree.left for tree in trees]),
        nodes_falsenodeids=whole([tree.right for tree in trees]),
        target_treeids=tree_ids[is_leaf].tolist(),
        target_nodeids=numbers[is_leaf].tolist(),
        target_ids=[0] * int(is_leaf.sum()),
        target_weights_as_tensor=numpy_helper.from_array(leaves.astype(np.float64), "leaves"),
    )
    return graph.wide(total)


def _expect(holds: bool, estimator: object, given: str) -> None:  # noqa: FBT001 - a condition
    if not holds:
        raise PackageError(
            f"{type(estimator).__name__} with {given} cannot be written as ONNX; fit it as "
            "batteryops.models.algorithms does"
        )


_WRITERS: Final[Mapping[type, Write]] = {
    **dict.fromkeys((Ridge, ElasticNet, BayesianRidge, HuberRegressor), _line),
    **dict.fromkeys((RandomForestRegressor, ExtraTreesRegressor), _forest),
    KernelRidge: _kernel_ridge,
    SVR: _support_vectors,
    KNeighborsRegressor: _neighbours,
    HistGradientBoostingRegressor: _histogram_boosting,
    MLPRegressor: _perceptron,
    GaussianProcessRegressor: _process,
}
