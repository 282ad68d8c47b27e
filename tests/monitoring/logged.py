"""Rows of the prediction log and of the labels, as small as a test needs them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from batteryops.errors import UnknownAssetError
from batteryops.records.frames import FRAME
from batteryops.records.labels import LABEL_FRAME
from batteryops.schema import Profile

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)

CELL = Profile(
    name="cell",
    level="cell",
    chemistry="NMC",
    nominal_capacity_ah=2.0,
    cells_in_series=1,
    voltage_mean_v=(2.5, 4.5),
    current_mean_a=(-5.0, 0.0),
    temperature_mean_c=(-10.0, 60.0),
    voltage_sample_v=(0.0, 4.5),
    cutoff_v=2.7,
    capacity_range_share=(0.0, 1.25),
    min_capacity_share=0.1,
)


def cell_of(vehicle: str) -> Profile:
    """Every vehicle is a cell, but those that nobody knows."""
    if vehicle.startswith("stranger"):
        raise UnknownAssetError(vehicle)
    return CELL


def answer(vehicle: str = "EV-1", at: datetime = START, **changes: object) -> dict[str, object]:
    """A champion's answer: 1.8 Ah, held by 1.7 to 1.9."""
    return {
        "prediction_id": f"{at:%Y%m%dT%H%M%S%f}",
        "request_id": "r",
        "answered_at": at,
        "vehicle_id": vehicle,
        "model_name": "ev-soh-predictor",
        "model_version": "3",
        "package_fingerprint": "ab" * 32,
        "role": "champion",
        "capacity_ah": 1.8,
        "soh": 0.9,
        "latency_ms": 0.2,
        "capacity_low_ah": 1.7,
        "capacity_high_ah": 1.9,
        "status": "ok",
        "outside": [],
        "outside_jointly": False,
        "baseline": None,
        "cached": False,
        "served": True,
    } | changes


def log(answers: Sequence[dict[str, Any]], features: Sequence[str] = ()) -> pl.DataFrame:
    """Answers as the prediction log yields them."""
    kinds = FRAME | dict.fromkeys(features, pl.Float64())
    return pl.DataFrame(
        [{name: one.get(name) for name in kinds} for one in answers], schema=kinds, orient="row"
    )


def label(
    asset: str = "EV-1",
    at: datetime = START,
    capacity_ah: float | None = 1.8,
    received_at: datetime | None = None,
) -> dict[str, Any]:
    """A label that arrived ten days after it was measured, unless it says otherwise."""
    return {
        "asset_id": asset,
        "measured_at": at,
        "capacity_ah": capacity_ah,
        "source": "reference discharge",
        "received_at": received_at or at + 10 * DAY,
        "key_name": None,
    }


def labels_frame(labels: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Labels as `Labels.frame` yields them, in the order of their arrival."""
    return pl.DataFrame(
        [{"label_id": f"{n:06d}"} | one for n, one in enumerate(labels)],
        schema=LABEL_FRAME,
        orient="row",
    )
