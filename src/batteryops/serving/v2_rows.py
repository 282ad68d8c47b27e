"""Rows of the Open Inference Protocol: from tensors to questions, from answers to tensors."""

from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.serving.batch import BatchAnswer
from batteryops.serving.faults import VEHICLE
from batteryops.serving.lineup import Lineup
from batteryops.serving.live_model import LiveModel
from batteryops.serving.problems import INVALID_REQUEST, ProblemError
from batteryops.serving.questions import Questions
from batteryops.serving.v2_tensors import Inference, Tensor, write_inference

FEATURES: Final = "features"
NUMBERS: Final = ("soh", "capacity_ah", "low_ah", "high_ah")
"""Outputs of datatype FP64."""

TEXTS: Final = ("status", "prediction_id", "outside", "model_version", "role", "error")
"""Outputs of datatype BYTES."""


def metadata(lineup: Lineup, model: LiveModel) -> dict[str, Any]:
    """What a model takes and gives."""
    return {
        "name": model.model_name,
        "versions": [one.version for one in lineup.models()],
        "platform": "batteryops",
        "inputs": [
            {"name": VEHICLE, "datatype": "BYTES", "shape": [-1]},
            {
                "name": FEATURES,
                "datatype": "FP64",
                "shape": [-1, len(model.names)],
                "parameters": {"names": ",".join(model.names)},
            },
        ],
        "outputs": [
            *({"name": name, "datatype": "FP64", "shape": [-1]} for name in NUMBERS),
            *({"name": name, "datatype": "BYTES", "shape": [-1]} for name in TEXTS),
        ],
    }


def questions_of(asked: Inference, model: LiveModel, most_rows: int) -> Questions:
    """The rows of a request.

    Args:
        asked: what was sent.
        model: whose features these are.
        most_rows: that there may be.

    Raises:
        ProblemError: when inputs are missing, unknown, or of another shape.
    """
    inputs = dict(asked.inputs)
    vehicles = inputs.pop(VEHICLE, None)
    if vehicles is None or not isinstance(vehicles.values, list):
        raise _invalid(f"expected an input {VEHICLE!r} of datatype BYTES")
    count = len(vehicles.values)
    if not 0 < count <= most_rows:
        raise _invalid(f"{count} rows were sent, expected 1 to {most_rows}")
    _column(vehicles, count)
    if FEATURES in inputs:
        whole = inputs.pop(FEATURES)
        expected = (count, len(model.names))
        if isinstance(whole.values, list) or whole.shape != expected:
            raise _invalid(
                f"input {FEATURES!r} has shape {list(whole.shape)}, expected numbers "
                f"{list(expected)}: {', '.join(model.names)}"
            )
        columns = dict(zip(model.names, whole.values.T, strict=True))
    else:
        columns = {name: _column(inputs.pop(name), count) for name in model.names if name in inputs}
    if inputs:
        raise _invalid(
            f"unknown input {next(iter(inputs))[:128]!r}; expected {VEHICLE!r} and {FEATURES!r}, "
            f"or {', '.join(model.names)}"
        )
    return Questions(
        pl.Series(VEHICLE, vehicles.values, dtype=pl.String),
        {
            feature.name: _series(feature.name, columns[feature.name], nulls=feature.optional)
            for feature in model.view.features
            if feature.name in columns
        },
        {},
    )


def _series(name: str, values: NDArray[np.float64], *, nulls: bool) -> pl.Series:
    """A column; a tensor has no other sign than NaN for what is missing."""
    return pl.Series(name, np.ascontiguousarray(values, dtype=np.float64), nan_to_null=nulls)


def _column(tensor: Tensor, count: int) -> NDArray[np.float64]:
    if tensor.shape not in ((count,), (count, 1)):
        raise _invalid(
            f"input {tensor.name!r} has shape {list(tensor.shape)}, expected {[count]} or "
            f"{[count, 1]}"
        )
    if isinstance(tensor.values, list):
        if tensor.name == VEHICLE:
            return np.empty(0)
        raise _invalid(f"input {tensor.name!r} is of datatype BYTES, expected numbers")
    return tensor.values.reshape(count)


def _invalid(detail: str) -> ProblemError:
    return ProblemError(INVALID_REQUEST, detail)


def written(answer: BatchAnswer, asked: Inference) -> tuple[bytes, int | None]:
    """An answer, and how long the JSON in it is; None where that is all of it."""
    table = answer.table
    outputs: dict[str, Any] = {name: table[name].to_numpy() for name in NUMBERS}
    for name in TEXTS:
        texts = table[name].list.join(",") if name == "outside" else table[name]
        outputs[name] = texts.fill_null("").to_list()
    told: dict[str, Any] = {"model_name": answer.model_name}
    if len(answer.model_versions) == 1:
        told["model_version"] = answer.model_versions[0]
    if asked.name is not None:
        told["id"] = asked.name
    told["parameters"] = {
        "batch_id": answer.batch_id,
        "n_answered": answer.n_answered,
        "n_refused": answer.n_refused,
    }
    return write_inference(told, outputs, asked)
