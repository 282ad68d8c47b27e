"""What batches and their answers look like: the source of the OpenAPI page."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from batteryops.serving import documents
from batteryops.serving.batch_forms import ARROW, FORMS, MALFORMED_TABLE, PARQUET, UNKNOWN_FORM
from batteryops.serving.faults import VEHICLE
from batteryops.serving.live_model import LiveModel
from batteryops.serving.problems import (
    BODY_TOO_LARGE,
    FORBIDDEN,
    INVALID_REQUEST,
    LOG_UNAVAILABLE,
    MALFORMED_JSON,
    OVERLOADED,
    RATE_LIMITED,
    UNAUTHENTICATED,
)
from batteryops.settings import LimitSettings

_BATCH: Final = "019ba7c4-1a20-7d3e-9c55-2f1e0d9c8b7a"
_ROW: Final[dict[str, Any]] = {
    "prediction_id": f"{_BATCH}:0",
    "vehicle_id": "B0005",
    "status": "ok",
    "soh": 0.9177,
    "capacity_ah": 1.8354,
    "low_ah": 1.7612,
    "high_ah": 1.9096,
    "outside": [],
    "outside_jointly": False,
    "model_version": "3",
    "role": "champion",
    "error": None,
}
_REFUSED: Final[dict[str, Any]] = dict.fromkeys(_ROW) | {
    "vehicle_id": "B0006",
    "status": "refused",
    "outside": [],
    "outside_jointly": False,
    "error": "voltage_V_mean is 3529.8, expected 0 to 5 V; it looks like millivolts: "
    "divide by 1000",
}
_ANSWER: Final[dict[str, Any]] = {
    "batch_id": _BATCH,
    "request_id": "019ba7c4-0d5d-7f2b-8a44-0c1de2f3a4b5",
    "model_name": "ev-soh-predictor",
    "n_rows": 2,
    "n_answered": 1,
    "n_refused": 1,
    "nominal": 0.9,
    "rows": [_ROW, _REFUSED],
}


class BatchRow(BaseModel):
    """The answer to one row, or why there is none."""

    prediction_id: str | None
    """`<batch_id>:<row>`, rows counted from 0; null where the row was refused."""
    vehicle_id: str | None
    status: Literal["ok", "out_of_domain", "refused"]
    soh: float | None
    """Null where it is withheld or refused."""
    capacity_ah: float | None
    low_ah: float | None
    high_ah: float | None
    outside: list[str]
    """Features that put the row outside of the training domain; with commas between in a table."""
    outside_jointly: bool
    model_version: str | None
    role: str | None
    error: str | None
    """What a single request with this row would be told; null where there is an answer."""


class BatchPrediction(BaseModel):
    """The answers to a batch, in its order; they are on record before they are given."""

    model_config = ConfigDict(json_schema_extra={"example": _ANSWER})

    batch_id: str
    request_id: str
    model_name: str
    n_rows: int
    n_answered: int
    n_refused: int
    nominal: float
    """Share of unseen batteries' capacities that intervals are made to hold."""
    rows: list[BatchRow]


def description(limits: LimitSettings) -> str:
    """The operation's description."""
    return f"""\
At most {limits.batch_rows} rows and {limits.batch_body_bytes} bytes at once,
{limits.batch_json_bytes} bytes in JSON, and {limits.batch_unfolded_bytes} where a table is
compressed. The body is JSON (`{{"rows": [...]}}`, each row as the body of `/predict`), an Arrow IPC
stream (`{ARROW}`) or a Parquet file (`{PARQUET}`) with the columns `{VEHICLE}` (text) and one of
numbers for each feature. The answer has the same form, or the one that `Accept` names, and one row
for each row that was sent, in the same order.

A row that cannot be answered is refused by itself, with what a single request would be told in
`error`; the others are answered. The headers `Batch-ID`, `Batch-Rows`, `Batch-Answered`,
`Batch-Refused` and `Batch-Nominal` tell the whole in every form.

While a challenger shadows the champion, what it would have said is on record too, as a batch of its
own.
"""


ANSWERS: Final[dict[str, Any]] = {
    "description": "The answers, which are in the prediction log",
    "headers": {
        name: {"description": told, "schema": {"type": kind}}
        for name, told, kind in (
            ("Batch-ID", "of the record", "string"),
            ("Batch-Rows", "rows that were sent", "integer"),
            ("Batch-Answered", "rows that have an answer", "integer"),
            ("Batch-Refused", "rows that have an error", "integer"),
            ("Batch-Nominal", "share of capacities that intervals are made to hold", "number"),
        )
    },
    "content": {
        "application/json": {"examples": {"one row of two is refused": {"value": _ANSWER}}},
        **{form: {"schema": {"type": "string", "format": "binary"}} for form in (ARROW, PARQUET)},
    },
}
"""OpenAPI's response of a batch."""


def request_body(model: LiveModel, most_rows: int) -> dict[str, Any]:
    """OpenAPI's `requestBody` of a batch."""
    (content,) = documents.request_body(model)["content"].values()
    (example,) = content["examples"].values()
    rows = {
        "type": "object",
        "title": "Batch",
        "additionalProperties": False,
        "required": ["rows"],
        "properties": {
            "rows": {
                "type": "array",
                "minItems": 1,
                "maxItems": most_rows,
                # a row may be faulty: then it is refused by itself
                "items": {"anyOf": [content["schema"], {}]},
            }
        },
    }
    return {
        "required": True,
        "content": {
            "application/json": {
                "schema": rows,
                "examples": {"a recorded discharge": {"value": {"rows": [example["value"]]}}},
            },
            **{
                form: {
                    "schema": {
                        "type": "string",
                        "format": "binary",
                        "description": f"columns {', '.join((VEHICLE, *model.names))}",
                    }
                }
                for form in (ARROW, PARQUET)
            },
        },
    }


def responses(limits: LimitSettings) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's responses of a batch."""
    problem = documents.problem
    return {
        200: ANSWERS,
        **documents.problem_responses(
            problem(MALFORMED_JSON, "the body is a JSON array, expected one object"),
            problem(MALFORMED_TABLE, f"the body cannot be read as {ARROW}: InvalidFooter"),
            problem(UNAUTHENTICATED, "expected a header Authorization: Bearer KEY; there is none"),
            problem(FORBIDDEN, "the API key 'depot' has no scope 'predict', only label"),
            problem(BODY_TOO_LARGE, f"expected at most {limits.batch_body_bytes} bytes"),
            problem(UNKNOWN_FORM, f"Content-Type is text/csv, expected one of {', '.join(FORMS)}"),
            problem(
                INVALID_REQUEST,
                "the table has faults; see errors, correct them and send it again",
                {"detail": "column voltage_V_mean is String, expected numbers"},
            ),
            problem(RATE_LIMITED, "the API key 'depot' has asked too often; ask again in 0.2 s"),
            problem(LOG_UNAVAILABLE, "the prediction log is not usable: database or disk is full"),
            problem(OVERLOADED, "8 batches are being answered or wait; try again in 5 s"),
        ),
    }
