"""What requests and answers look like, with examples: the source of the OpenAPI page."""

from datetime import datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from batteryops.features.view import Feature
from batteryops.serving.deployment import RegistryState
from batteryops.serving.faults import MAX_VEHICLE_ID, VEHICLE
from batteryops.serving.lineup import Lineup
from batteryops.serving.live_model import LiveModel
from batteryops.serving.problems import MEDIA_TYPE, ProblemType
from batteryops.serving.signatures import SCHEME

_PREDICTION: Final = "019ba7c4-0d5e-7c1a-b6f0-5d3a4b7c9e21"
_REQUEST: Final = "019ba7c4-0d5d-7f2b-8a44-0c1de2f3a4b5"
_ANSWER: Final[dict[str, Any]] = {
    "prediction_id": _PREDICTION,
    "vehicle_id": "B0005",
    "status": "ok",
    "soh": 0.9177,
    "capacity_ah": 1.8354,
    "interval": {"low_ah": 1.7612, "high_ah": 1.9096, "nominal": 0.9},
    "domain": {"features": [], "joint": False},
    "model_name": "ev-soh-predictor",
    "model_version": "3",
    "role": "champion",
    "cached": False,
    "request_id": _REQUEST,
}
_WITHHELD: Final = _ANSWER | {
    "status": "out_of_domain",
    "soh": None,
    "capacity_ah": None,
    "interval": {"low_ah": 0.0, "high_ah": 2.5, "nominal": 0.9},
    "domain": {"features": ["temperature_C_max"], "joint": True},
}


class Document(BaseModel):
    """A JSON document whose fields are described by the strings below them."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class CapacityInterval(Document):
    """Where the capacity lies; of unseen batteries' capacities, a share `nominal` does."""

    low_ah: float
    high_ah: float
    nominal: float


class TrainingDomain(Document):
    """What puts the request outside of what training covered; nothing when it is inside."""

    features: tuple[str, ...]
    """Features that cause it, in the order of the view."""
    joint: bool
    """The features together are unlike any in training."""


class Prediction(Document):
    """One answer; it is on record under its identifier before it is given."""

    model_config = ConfigDict(json_schema_extra={"example": _ANSWER})

    prediction_id: str
    vehicle_id: str
    status: Literal["ok", "out_of_domain"]
    soh: float | None
    """Capacity as a share of the nominal one: 1.0 is nominal; null when it is withheld."""
    capacity_ah: float | None
    interval: CapacityInterval
    """Outside of the training domain all that the asset's profile allows."""
    domain: TrainingDomain
    model_name: str
    model_version: str
    role: str
    cached: bool
    """The answer to the very same features, given again; it is on record by itself."""
    request_id: str


class Challenger(Document):
    """The version that stands beside the champion."""

    model_version: str
    package_fingerprint: str
    mode: Literal["split", "shadow", "off"]
    """`split`: it answers a share of the vehicles; `shadow`: for the log only; `off`: not asked."""
    share: float


class ModelVersion(Document):
    """Which model answers, and what it takes."""

    model_name: str
    model_version: str
    role: str
    view: str
    view_version: int
    feature_names: tuple[str, ...]
    schema_hash: str
    level: Literal["cell", "pack"]
    package_fingerprint: str
    trained_at: datetime
    generation: int
    """Grows with every change of models or routing."""
    challenger: Challenger | None


class ServedVersion(Document):
    """A version in service."""

    model_version: str
    role: str


class Refreshed(Document):
    """What is served after the registry was looked at."""

    generation: int
    models: list[ServedVersion]
    registry: RegistryState
    problem: str | None
    """Why what the registry says is not in service; null when it is."""


class Health(Document):
    """The process is alive."""

    status: Literal["alive"] = "alive"


class Readiness(Document):
    """Predictions can be answered: each part has just been tried.

    What an operator should know stands beside `ok`: a registry that does not answer, say.
    """

    status: Literal["ready"] = "ready"
    checks: dict[str, str]


ANSWERS: Final[dict[str, Any]] = {
    "description": "An answer, which is in the prediction log",
    "content": {
        "application/json": {
            "examples": {
                "inside the training domain": {"value": _ANSWER},
                "outside of it": {
                    "value": _WITHHELD,
                    "description": "No number is given: the features that `domain` names are "
                    "unlike anything in training, and the interval is all that the asset's "
                    "profile allows. The prediction log keeps what the model said. A server set "
                    "to `out_of_domain: give` answers the number beside the status.",
                },
            }
        }
    },
}
"""OpenAPI's response of a prediction: both kinds of answer."""


SECURITY: Final[list[dict[str, list[str]]]] = [{"key": []}]
"""Of operations that ask for an API key."""

SECURITY_OR_SIGNATURE: Final[list[dict[str, list[str]]]] = [{"key": []}, {"signature": []}]
"""Of operations that a key may also sign for."""

SECURITY_SCHEMES: Final[dict[str, Any]] = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key with the operation's scope: `batteryops keys create` makes one",
    },
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": f"`{SCHEME} KEY_ID:UNIX_TIME:SIGNATURE`: the request signed by an API key, "
        "as docs/SERVING.md says; `batteryops refresh` sends one",
    },
}


def model_version(lineup: Lineup) -> ModelVersion:
    """What `/model-version` says."""
    champion, challenger = lineup.champion, lineup.challenger
    manifest = champion.package.manifest
    return ModelVersion(
        model_name=manifest.model_name,
        model_version=champion.version,
        role=champion.role,
        view=manifest.view,
        view_version=manifest.view_version,
        feature_names=manifest.feature_names,
        schema_hash=manifest.schema_hash,
        level=manifest.level,
        package_fingerprint=manifest.fingerprint,
        trained_at=manifest.created_at,
        generation=lineup.generation,
        challenger=None
        if challenger is None
        else Challenger(
            model_version=challenger.version,
            package_fingerprint=challenger.fingerprint,
            mode=lineup.routing.mode,
            share=lineup.routing.share,
        ),
    )


def request_body(model: LiveModel) -> dict[str, Any]:
    """OpenAPI's `requestBody` of a prediction: the view's features, and a row to try."""
    view, manifest = model.view, model.package.manifest
    example = {
        VEHICLE: manifest.training_assets[0],
        **{
            name: None if value is None else float(f"{value:.6g}")
            for name, value in zip(view.names, manifest.recorded.rows[0], strict=True)
        },
    }
    schema = {
        "type": "object",
        "title": f"Features of view {view.name} v{view.version}",
        "additionalProperties": False,
        "required": [VEHICLE, *view.names],
        "properties": {
            VEHICLE: {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_VEHICLE_ID,
                "description": "the asset; its name decides its profile",
            },
            **{feature.name: _number(feature) for feature in view.features},
        },
    }
    content = {"schema": schema, "examples": {"a recorded discharge": {"value": example}}}
    return {"required": True, "content": {"application/json": content}}


def problem(kind: ProblemType, detail: str, *errors: dict[str, str]) -> dict[str, Any]:
    """An example of a problem document."""
    return {
        "type": kind.uri,
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "instance": f"urn:batteryops:request:{_REQUEST}",
        **({"errors": list(errors)} if errors else {}),
    }


def problem_responses(*examples: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for these examples of problem documents, by their status."""
    responses: dict[int | str, dict[str, Any]] = {}
    for example in examples:
        name = example["type"].rpartition(":")[2]
        response = responses.setdefault(
            example["status"],
            {
                "description": example["title"],
                "content": {MEDIA_TYPE: {"schema": _PROBLEM, "examples": {}}},
            },
        )
        response["content"][MEDIA_TYPE]["examples"][name] = {"value": example}
    return responses


_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uri"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["detail"],
                "properties": {"detail": {"type": "string"}, "pointer": {"type": "string"}},
            },
        },
    },
}


def _number(feature: Feature) -> dict[str, Any]:
    return {
        "type": ["number", "null"] if feature.optional else "number",
        "minimum": feature.low,
        "maximum": feature.high,
        "description": f"{feature.unit}: {feature.meaning}",
    }
