"""The ONNX twin of a model: the same numbers, answering one row in microseconds."""

import json
from collections.abc import Callable
from typing import Final

import numpy as np
import onnxruntime as ort
import xgboost as xgb
from numpy.typing import ArrayLike, NDArray

from batteryops.errors import DataError, PackageError
from batteryops.files import first_line
from batteryops.models.boosting import as_matrix, predict

INPUT: Final = "features"
OUTPUT: Final = "capacity_ah"

_OUTPUTS: Final = [OUTPUT]

BATCH_ROWS: Final = 1024
"""Rows that ONNX Runtime answers at a time."""

_OBJECTIVES: Final = ("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror")
"""Objectives whose prediction is the plain sum of base score and leaves."""

_LEAF: Final = {
    "nodes_nodeids": 0,
    "nodes_featureids": 0,
    "nodes_modes": "LEAF",
    "nodes_values": 0.0,
    "nodes_truenodeids": 0,
    "nodes_falsenodeids": 0,
    "nodes_missing_value_tracks_true": 0,
    "target_nodeids": 0,
    "target_ids": 0,
}
"""A tree that is one leaf, as TreeEnsembleRegressor's attributes write it."""


def to_onnx(booster: xgb.Booster, n_features: int) -> bytes:
    """Convert a regression booster; equal bytes for equal boosters.

    The converter reads feature numbers out of names of the form f0, f1, ..., so it is given a copy
    without names. It writes the booster's base score as `base_values`, which ONNX Runtime adds
    after the trees, where XGBoost starts from it: the sums of float32 then differ in their last
    digits, by up to 4e-4 Ah for a 150 Ah pack. Here the base score is a first tree of one leaf
    instead, so that both add the same numbers in the same order.

    Args:
        booster: trees for one number; `boosting.fit` gives them.
        n_features: k, the number of columns.

    Returns:
        An ONNX model: `features` float32 (n, k), NaN where missing, to `capacity_ah` float32
        (n, 1).

    Raises:
        DataError: when the booster was fitted on another number of features.
        PackageError: when the booster is of another kind (linear, dropout, ranking, classes, a
            log link): the converter takes several of them for a plain sum of trees without a word.
    """
    # only training converts, and these bring 0.4 s of imports that serving does without
    from onnx import helper  # noqa: PLC0415 - as said above
    from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415 - likewise
    from onnxmltools.convert.xgboost.convert import convert  # noqa: PLC0415 - likewise

    if booster.num_features() != n_features:
        raise DataError(
            f"the booster was fitted on {booster.num_features()} features, not on {n_features}; "
            "give the number of columns it was fitted on"
        )
    learner = json.loads(booster.save_config())["learner"]
    kind = learner["gradient_booster"]["name"], learner["objective"]["name"]
    if kind[0] != "gbtree" or kind[1] not in _OBJECTIVES:
        raise PackageError(
            f"a {' booster for '.join(kind)} cannot be converted to ONNX; expected gbtree for one "
            f"of {', '.join(_OBJECTIVES)}, as batteryops.models.boosting.fit yields it"
        )
    nameless = booster.copy()
    nameless.feature_names = None
    nameless.feature_types = None
    model = convert(
        nameless,
        name="batteryops",  # without a name the converter draws a random one
        initial_types=[(INPUT, FloatTensorType([None, n_features]))],
    )
    (node,) = model.graph.node
    trees = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    (base_score,) = trees.pop("base_values")
    first = {**_LEAF, "target_weights": base_score}
    for name in ("nodes_treeids", "target_treeids"):
        trees[name] = [0, *(number + 1 for number in trees[name])]
    for name, value in first.items():
        trees[name] = [value, *trees[name]]
    model.graph.output[0].name = OUTPUT
    model.graph.node[0].CopyFrom(
        helper.make_node(node.op_type, [INPUT], [OUTPUT], domain=node.domain, **trees)
    )
    converted: bytes = model.SerializeToString(deterministic=True)
    return converted


class OnnxRow:
    """One ONNX Runtime session on one thread; safe to call from several threads.

    Args:
        onnx_bytes: what `to_onnx` or `algorithm_onnx.to_onnx_any` returned.

    Raises:
        PackageError: when the bytes are not such a model.
    """

    __slots__ = ("_session", "n_features")

    def __init__(self, onnx_bytes: bytes) -> None:
        options = ort.SessionOptions()
        # a row takes 10 microseconds: handing it to other threads costs more than it saves
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # fatal only: what fails is raised here
        try:
            self._session = ort.InferenceSession(
                onnx_bytes, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's own types derive from Exception alone
            raise PackageError(
                f"not a model that ONNX Runtime {ort.__version__} can load: {first_line(error)}; "
                "write the model package again"
            ) from error
        inputs = [(item.name, len(item.shape)) for item in self._session.get_inputs()]
        outputs = [item.name for item in self._session.get_outputs()]
        if inputs != [(INPUT, 2)] or outputs != [OUTPUT]:
            raise PackageError(
                f"the ONNX model maps {inputs} to {outputs}; expected {INPUT} (n, k) to {OUTPUT}"
            )
        self.n_features: int = self._session.get_inputs()[0].shape[1]

    def __call__(self, row: NDArray[np.float32]) -> float:
        """Predicted capacity in Ah of one row, (k,); NaN where a feature is missing.

        Raises:
            DataError: when the row is not (k,).
        """
        if row.shape != (self.n_features,):
            raise DataError(f"the row has shape {row.shape}; expected ({self.n_features},)")
        values = row.astype(np.float32, copy=False)[np.newaxis]
        return float(self._session.run([OUTPUT], {INPUT: values})[0][0, 0])

    def few(self, rows: NDArray[np.float32]) -> list[float]:
        """Predicted capacities in Ah of some rows (n, k) as they are: nothing is looked at again.

        Args:
            rows: n from 1 to `BATCH_ROWS`, C-contiguous.
        """
        answers: list[float] = self._session.run(_OUTPUTS, {INPUT: rows})[0].ravel().tolist()
        return answers

    def batch(self, features: ArrayLike) -> NDArray[np.float64]:
        """Predicted capacities in Ah, (n,), of rows (n, k); NaN where a feature is missing.

        Raises:
            DataError: when the features are not (n, k) numbers.
        """
        matrix = as_matrix(features, self.n_features)
        # so many rows at a time: models that compare rows with training rows hold all distances
        parts = [
            self._session.run([OUTPUT], {INPUT: matrix[start : start + BATCH_ROWS]})[0][:, 0]
            for start in range(0, len(matrix), BATCH_ROWS)
        ]
        return np.concatenate([np.empty(0), *parts])


def max_difference_ah(
    model: xgb.Booster | Callable[[NDArray[np.float32]], NDArray[np.float64]],
    onnx: bytes | OnnxRow,
    features: ArrayLike,
) -> float:
    """Largest absolute difference in Ah between model and twin, row by row, over (n, k).

    Args:
        model: a booster, or what answers rows (n, k) with capacities (n,) in Ah.
        onnx: its twin.
        features: (n, k), NaN where missing.

    Raises:
        DataError: when the features do not fit the model.
        PackageError: when `onnx` is not the model of a twin.
    """
    row = onnx if isinstance(onnx, OnnxRow) else OnnxRow(onnx)
    matrix = np.asarray(features, dtype=np.float32)
    expected = predict(model, matrix) if isinstance(model, xgb.Booster) else model(matrix)
    return max(
        (abs(row(values) - value) for values, value in zip(matrix, expected, strict=True)),
        default=0.0,
    )
