"""What explanations look like: the source of their part of the OpenAPI page."""

from typing import Any, Final, Literal

from pydantic import ConfigDict

from batteryops.serving import documents
from batteryops.serving.problems import (
    EXPLAINER_BUSY,
    FORBIDDEN,
    MODEL_NOT_HERE,
    NOT_EXPLAINABLE,
    RATE_LIMITED,
    RECORDS_UNAVAILABLE,
    UNAUTHENTICATED,
    UNKNOWN_PREDICTION,
)

EXPLAIN: Final = "explain"
"""The parameter in the query of a prediction."""

WORDS: Final = {"true": True, "false": False}
"""What it may be."""

PARAMETERS: Final[list[dict[str, Any]]] = [
    {
        "name": EXPLAIN,
        "in": "query",
        "required": False,
        "description": "Also tell what each feature adds to the answer; it takes some "
        "milliseconds longer. Contributions are on record with the answer.",
        "schema": {"type": "string", "enum": list(WORDS), "default": "false"},
    }
]
"""OpenAPI's parameters of `POST /predict`."""

NOT_A_BOOSTER: Final = (
    "version 4 answers by ridge; only a model that is one XGBoost booster can be explained: ask "
    "without an explanation"
)
"""An example of what is told of a model that cannot be explained."""

_TOLD: Final[dict[str, Any]] = {
    "base_ah": 1.6021,
    "contributions": {
        "discharge_time_s": 0.1904,
        "voltage_drop_time_s": 0.0516,
        "temperature_C_mean": -0.0102,
        "current_A_mean": 0.0021,
        "voltage_V_mean": -0.0009,
        "delta_T_C": 0.0003,
        "temperature_C_max": 0.0,
    },
}
_VALUES: Final[dict[str, Any]] = {
    "voltage_V_mean": 3.53,
    "current_A_mean": -1.82,
    "temperature_C_mean": 32.6,
    "temperature_C_max": 39.0,
    "discharge_time_s": 3690.0,
    "delta_T_C": 14.7,
    "voltage_drop_time_s": 2713.0,
}


class Contributions(documents.Document):
    """Where a prediction comes from: base and contributions add up to it within 1e-5 Ah."""

    model_config = ConfigDict(json_schema_extra={"example": _TOLD})

    base_ah: float
    """What the model says on average."""
    contributions: dict[str, float]
    """What each feature adds to that, in Ah (SHAP values); the largest first."""


class ExplainedPrediction(documents.Prediction):
    """An answer to `?explain=true`."""

    explanation: Contributions | None
    """Null where the number is withheld: `GET /explain/{prediction_id}` tells it."""


class RecordedExplanation(Contributions):
    """What led to an answer on record, by the version that gave it."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "prediction_id": "019ba7c4-0d5e-7c1a-b6f0-5d3a4b7c9e21",
                "model_version": "3",
                "package_fingerprint": "9f2c" * 16,
                "vehicle_id": "B0005",
                "features": _VALUES,
                "status": "ok",
                "capacity_ah": 1.8354,
                **_TOLD,
                "recomputed_ah": 1.8354,
                "difference_ah": 0.0,
                "baseline": None,
                "remark": None,
            }
        }
    )

    prediction_id: str
    model_version: str
    package_fingerprint: str
    vehicle_id: str
    features: dict[str, float | None]
    status: Literal["ok", "out_of_domain", "unknown"]
    """As it was then; with `out_of_domain` nothing here is to be relied on."""
    capacity_ah: float
    """On record."""
    recomputed_ah: float
    """What the model says now, to which base and contributions add up."""
    difference_ah: float
    """`recomputed_ah` less `capacity_ah`."""
    baseline: str | None
    """Version of the asset's own baseline that corrected the answer."""
    remark: str | None
    """That such a correction is not part of the model, and not explained."""


def problems() -> dict[int | str, dict[str, Any]]:
    """OpenAPI's examples of what `GET /explain/{prediction_id}` refuses."""
    problem = documents.problem
    return documents.problem_responses(
        problem(UNAUTHENTICATED, "expected a header Authorization: Bearer KEY; there is none"),
        problem(FORBIDDEN, "the API key 'depot' has no scope 'predict', only label"),
        problem(
            UNKNOWN_PREDICTION,
            "no answer has the identifier '42'; expected the prediction_id of one",
        ),
        problem(NOT_EXPLAINABLE, NOT_A_BOOSTER),
        problem(
            MODEL_NOT_HERE,
            "version 2 with fingerprint 9f2c9f2c9f2c is not in service here, and not whole in the "
            "server's folder of packages; `batteryops predict FILE --model 2` on the server's "
            "machine fetches it",
        ),
        problem(RATE_LIMITED, "the API key 'depot' has asked too often; ask again in 0.2 s"),
        problem(EXPLAINER_BUSY, "256 explanations are under way, and at most 256 may be"),
        problem(RECORDS_UNAVAILABLE, "the prediction log is not usable: database is locked"),
    )
