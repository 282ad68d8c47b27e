"""What the Open Inference Protocol looks like here: the source of its part of the OpenAPI page."""

from typing import Any, Final

from batteryops.serving import documents
from batteryops.serving.batch_routes import SMALLER
from batteryops.serving.body import JSON
from batteryops.serving.faults import VEHICLE
from batteryops.serving.live_model import LiveModel
from batteryops.serving.problems import (
    BODY_TOO_LARGE,
    FORBIDDEN,
    INVALID_REQUEST,
    LOG_UNAVAILABLE,
    NOT_READY,
    OVERLOADED,
    RATE_LIMITED,
    UNAUTHENTICATED,
)
from batteryops.serving.v2_rows import FEATURES, NUMBERS, TEXTS
from batteryops.serving.v2_tensors import MALFORMED_INFERENCE, UNKNOWN_MODEL

DESCRIPTION: Final = f"""\
Inputs: `{VEHICLE}` (BYTES, [n] or [n, 1]), and either `{FEATURES}` (numbers, [n, k], columns in
the order of the model's metadata) or one tensor of numbers by the name of each feature, [n] or
[n, 1]. NaN, and null in JSON, stand for what is missing. Outputs, [n]: {", ".join(NUMBERS)}
(FP64, NaN, or null in JSON, where a row has none), {", ".join(TEXTS)} (BYTES).

Rows are answered as those of `/predict/batch`: one that cannot be is refused by itself, with
`status` refused and `error` saying why. Tensors may be sent and are given as binary data, as
Triton's extension of the protocol has it. Errors are problem documents with a member `error`.
"""
"""The description of `infer`."""


def parameters(*names: str) -> list[dict[str, Any]]:
    """OpenAPI's parameters in a path."""
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]


def problems(*, infer: bool = False) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's examples of what is refused."""
    problem = documents.problem
    examples = [
        problem(UNAUTHENTICATED, "expected a header Authorization: Bearer KEY; there is none"),
        problem(FORBIDDEN, "the API key 'depot' has no scope 'predict', only label"),
        problem(RATE_LIMITED, "the API key 'depot' has asked too often; ask again in 0.2 s"),
        problem(UNKNOWN_MODEL, "there is no model 'iris', only 'ev-soh-predictor'"),
        problem(NOT_READY, "prediction_log: the prediction log is not usable"),
    ]
    if infer:
        examples += [
            problem(MALFORMED_INFERENCE, "input 'features' has no array as data"),
            problem(BODY_TOO_LARGE, f"expected fewer bytes; {SMALLER}"),
            problem(INVALID_REQUEST, f"expected an input {VEHICLE!r} of datatype BYTES"),
            problem(LOG_UNAVAILABLE, "the prediction log is not usable: database or disk is full"),
            problem(OVERLOADED, "8 batches are being answered or wait; try again in 5 s"),
        ]
    return documents.problem_responses(*examples)


def request_body(model: LiveModel) -> dict[str, Any]:
    """OpenAPI's `requestBody` of `infer`."""
    manifest = model.package.manifest
    row = [0.0 if value is None else float(f"{value:.6g}") for value in manifest.recorded.rows[0]]
    example = {
        "inputs": [
            {
                "name": VEHICLE,
                "datatype": "BYTES",
                "shape": [1],
                "data": [manifest.training_assets[0]],
            },
            {"name": FEATURES, "datatype": "FP64", "shape": [1, len(row)], "data": row},
        ]
    }
    parameters = {"type": ["object", "null"]}
    tensor = {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"type": "string"},
            "datatype": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "data": {"type": "array", "items": {}},
            "parameters": parameters,
        },
    }
    schema = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"]},
            "parameters": parameters,
            "inputs": {"type": "array", "items": tensor},
            "outputs": {
                "type": ["array", "null"],
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": {"type": "string"},
                        "parameters": parameters,
                    },
                },
            },
        },
    }
    content = {"schema": schema, "examples": {"a recorded discharge": {"value": example}}}
    return {"required": True, "content": {JSON.decode(): content}}
