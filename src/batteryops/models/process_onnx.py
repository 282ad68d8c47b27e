"""A battery process as part of an ONNX graph, operation by operation as `BatteryProcess` computes.

The features that a recipe adds are not written a second time: the recipe's own functions are called
with columns that note in the graph what is done to them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray
from scipy import linalg

from batteryops.errors import DataError
from batteryops.models.battery_process import BatteryProcess, Encoding
from batteryops.models.mixed_effects import MixedEffects
from batteryops.models.onnx_graph import Graph
from batteryops.models.onnx_twin import INPUT
from batteryops.models.process_recipes import ADDED, RECIPES

Floats = NDArray[np.float64]

_OPERATORS: Final[Mapping[np.ufunc, str]] = {
    np.add: "Add",
    np.subtract: "Sub",
    np.multiply: "Mul",
    np.divide: "Div",
    np.negative: "Neg",
    np.log: "Log",
    np.greater: "Greater",
}


class _Column(NDArrayOperatorsMixin):
    """A column (n, 1) of the graph, with which NumPy's functions compute as with an array."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name = graph, name

    def __array_ufunc__(self, function: np.ufunc, method: str, *inputs: Any) -> "_Column":  # noqa: ANN401 - NumPy's own
        del method  # recipes only call functions
        names = [self._named(value) for value in inputs]
        if function is np.maximum:  # a value that is not known stays so
            less = self.graph.add("Less", *names)
            return _Column(self.graph, self.graph.add("Where", less, names[1], names[0]))
        return _Column(self.graph, self.graph.add(_OPERATORS[function], *names))

    def __array_function__(
        self,
        function: Callable[..., object],
        types: object,
        inputs: Sequence[Any],
        named: Mapping[str, Any],
    ) -> "_Column":
        del types, named
        if function is not np.where:
            raise NotImplementedError(f"{function} of a column of an ONNX graph")
        return _Column(self.graph, self.graph.add("Where", *map(self._named, inputs)))

    def _named(self, value: "_Column | float") -> str:
        return value.name if isinstance(value, _Column) else self.graph.constant(value)


class _Columns(dict[str, Any]):
    """The view's features by name, and those that recipes add once they are asked for."""

    def __missing__(self, name: str) -> _Column:
        column: _Column = ADDED[name](self)  # type: ignore[assignment] # computes like an array
        self[name] = column
        return column


def add_process(graph: Graph, fitted: BatteryProcess, n_features: int) -> str:
    """Capacities (n, 1) in Ah, float64.

    Args:
        graph: to add to.
        fitted: the process.
        n_features: k, the number of columns.

    Raises:
        DataError: when it was fitted on another number of features.
    """
    if len(fitted.names) != n_features:
        raise DataError(
            f"the process was fitted on {len(fitted.names)} features, not on {n_features}; give "
            "the number of columns it was fitted on"
        )
    given = graph.wide(INPUT)
    columns = _Columns(
        {
            name: _Column(graph, _places(graph, given, [place]))
            for place, name in enumerate(fitted.names)
        }
    )
    answers = [
        _answer(graph, _encoded(graph, encode, columns), process)
        for encode, process in fitted.members
    ]
    share = 1.0 / len(answers)
    mean = graph.times(graph.add("Sum", *(one for one, _ in answers)), share)
    variance = graph.times(graph.add("Sum", *(one for _, one in answers)), share)
    apart = [graph.add("Sub", one, mean) for one, _ in answers]
    spread = graph.add("Sum", *(graph.add("Mul", one, one) for one in apart))
    variance = graph.add("Add", variance, graph.times(spread, share))
    encode, line = fitted.line
    if line.variance:
        whole = graph.add("Min", graph.times(variance, 1.0 / line.variance), graph.constant(1.0))
        slopes = graph.constant(np.reshape(line.slopes, (-1, 1)))
        product = graph.add("MatMul", _encoded(graph, encode, columns), slopes)
        rest = graph.add("Sub", graph.plus(product, line.intercept), mean)
        far = graph.add("Mul", graph.add("Mul", whole, whole), rest)
        mean = graph.add("Add", mean, far)
    charge_ah = RECIPES[fitted.view].charge_ah
    if charge_ah is None:
        return graph.add("Max", mean, graph.constant(0.0))
    charge: Any = charge_ah(columns)
    return graph.add("Mul", str(charge.name), graph.add("Exp", mean))


def _places(graph: Graph, rows: str, places: Sequence[int]) -> str:
    """Some columns of rows (n, k)."""
    return graph.add("Gather", rows, graph.constant(places, np.int64), axis=1)


def _encoded(graph: Graph, encode: Encoding, columns: _Columns) -> str:
    values = graph.add("Concat", *(columns[name].name for name in encode.names), axis=1)
    # also where infinite: it less itself is not a number
    missing = graph.add("IsNaN", graph.add("Sub", values, values))
    centred = graph.add("Sub", values, graph.constant(encode.centre))
    scaled = graph.add("Div", centred, graph.constant(2.0 * encode.scale))
    # there is no arcsinh in float64: sign(x) log(|x| + sqrt(x^2 + 1))
    root = graph.add("Sqrt", graph.plus(graph.add("Mul", scaled, scaled), 1.0))
    size = graph.add("Log", graph.add("Add", graph.add("Abs", scaled), root))
    drawn_in = graph.times(graph.add("Mul", graph.add("Sign", scaled), size), 2.0)
    encoded = graph.add("Where", missing, graph.constant(0.0), drawn_in)
    if not encode.marked:
        return encoded
    known = graph.wide(graph.add("Not", missing))
    return graph.add("Concat", encoded, _places(graph, known, encode.marked), axis=1)


def _answer(graph: Graph, encoded: str, process: MixedEffects) -> tuple[str, str]:
    """Label and its variance, each (n, 1); the formulas stand in `mixed_effects`."""
    blocks = [list(block) for block in process.design.blocks]
    n = len(blocks)
    squares = np.exp(2 * process.parameters)
    lengths = np.exp(-2 * process.parameters[n + 2 : 2 * n + 2])
    prior = graph.constant([[squares[0] + squares[n + 1] + squares[2 * n + 2]]])
    products, distances = [], []
    for place, block in enumerate(blocks):
        size = len(block)
        rows, others = _places(graph, encoded, block), process.rows[:, block]
        product = graph.add("MatMul", rows, graph.constant(others.T * squares[1 + place] / size))
        products.append(product)
        distance = graph.squared_distances(rows, others)
        distances.append(graph.times(distance, lengths[place] / size))
        own = squares[2 * n + 3 + place] if process.design.slopes else 0.0
        length = graph.add("ReduceSumSquare", rows, axes=[1], keepdims=1)
        prior = graph.add("Add", prior, graph.times(length, (squares[1 + place] + own) / size))
    near = graph.add("Exp", graph.times(graph.add("Sum", *distances), -0.5))
    smooth = graph.plus(graph.times(near, squares[n + 1]), squares[0])
    shared = graph.add("Sum", *products, smooth)
    weights = graph.constant(np.reshape(process.weights * process.scale, (-1, 1)))
    label = graph.plus(graph.add("MatMul", shared, weights), process.mean)
    inverse = linalg.solve_triangular(process.factor, np.eye(len(process.factor)), lower=True)
    explained = graph.add("MatMul", shared, graph.constant(inverse.T))
    held = graph.add("ReduceSumSquare", explained, axes=[1], keepdims=1)
    left = graph.add("Max", graph.add("Sub", prior, held), graph.constant(0.0))
    variance = graph.times(graph.plus(left, squares[-1]), process.scale**2)
    return label, variance
