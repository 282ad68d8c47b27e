"""What is wrong with the body of a single prediction: every fault, each with its place."""

from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from batteryops.features.validation import problems
from batteryops.features.view import FeatureView
from batteryops.serving.problems import INVALID_REQUEST, ProblemError

VEHICLE: Final = "vehicle_id"
MAX_VEHICLE_ID: Final = 128
_NAMED_FIELDS: Final = 10  # unknown ones that a message names


def is_name(value: object) -> TypeGuard[str]:
    """Whether a value can be the name of an asset."""
    return isinstance(value, str) and 0 < len(value) <= MAX_VEHICLE_ID and value.isprintable()


def fault(field: str, detail: str) -> dict[str, str]:
    """One fault of one field."""
    return {"detail": detail, "pointer": f"#/{field}"}


def faulty(body: Mapping[str, Any], view: FeatureView) -> ProblemError:
    """The refusal of a body, naming all that is wrong with it."""
    return ProblemError(
        INVALID_REQUEST,
        "the body has faults; see errors, correct them and send it again",
        errors=body_faults(body, view),
    )


def body_faults(body: Mapping[str, Any], view: FeatureView) -> list[dict[str, str]]:
    """Every fault of a body; empty when there is none."""
    faults = []
    if VEHICLE not in body:
        faults.append(fault(VEHICLE, f"{VEHICLE} is missing, expected the asset's name"))
    elif not is_name(body[VEHICLE]):
        faults.append(
            fault(
                VEHICLE,
                f"{VEHICLE} is not a name: expected 1 to {MAX_VEHICLE_ID} printable characters",
            )
        )
    for problem in problems(view, body):
        faults.append(fault(problem.partition(" ")[0], problem))  # noqa: PERF401  # readable
    unknown = sorted(body.keys() - {VEHICLE, *view.names})
    if unknown:
        named = ", ".join(name[:MAX_VEHICLE_ID] for name in unknown[:_NAMED_FIELDS])
        more = len(unknown) - _NAMED_FIELDS
        faults.append(
            {
                "detail": f"unknown field{'s' if len(unknown) > 1 else ''}: {named}"
                + (f" and {more} more" if more > 0 else "")
                + f"; expected {', '.join((VEHICLE, *view.names))}"
            }
        )
    return faults
