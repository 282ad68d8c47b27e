"""Labelled rows of simulated fleets, and small tables of rows, for what learns from new labels."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import polars as pl
import xgboost as xgb

from batteryops.evaluation.owners import Owners
from batteryops.features.views import complete_rows, feature_table, get_view
from batteryops.models.boosting import fit
from batteryops.models.labelled import LabelledRows
from batteryops.telemetry.fleet_plan import FleetPlan
from batteryops.telemetry.simulator import simulate_fleet

VIEW = get_view("discharge_summary")
PARAMETERS = {"n_jobs": 1, "n_estimators": 80, "max_depth": 5, "learning_rate": 0.1}


@cache
def fleet(chemistry: str, *, vehicles: int, cycles: int, seed: int) -> LabelledRows:
    """A fleet of one chemistry; vehicles of different seeds have different names."""
    plan = FleetPlan(
        n_vehicles=vehicles,
        n_cycles=cycles,
        seed=seed,
        chemistry_shares={chemistry: 1.0},
        sample_interval_s=60.0,
    )
    table, _ = complete_rows(feature_table(VIEW, simulate_fleet(plan)), VIEW)
    table = table.with_columns(asset_id=pl.col("asset_id") + f"/{seed}")
    assets = table["asset_id"].unique()
    return LabelledRows.of(
        VIEW,
        table,
        profiles=dict.fromkeys(assets, chemistry),
        nominal_ah={chemistry: 2.0},
    )


def old_fleet() -> LabelledRows:
    return fleet("NMC", vehicles=16, cycles=30, seed=1)


def unseen_old() -> LabelledRows:
    return fleet("NMC", vehicles=8, cycles=30, seed=3)


def new_fleet() -> LabelledRows:
    """Of another chemistry, whose voltages are lower."""
    return fleet("LFP", vehicles=10, cycles=12, seed=2)


@cache
def old_model() -> xgb.Booster:
    rows = old_fleet()
    return fit(rows.features, rows.labels, feature_names=rows.names, parameters=PARAMETERS, seed=42)


def plain_rows(  # noqa: PLR0913 - what a row says
    features: Sequence[Sequence[float]],
    labels: Sequence[float],
    *,
    assets: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    profiles: Sequence[str] | None = None,
    nominal_ah: float = 2.0,
) -> LabelledRows:
    """Rows as they are given, each of an asset of its own unless said."""
    matrix = np.array(features, dtype=np.float32)
    given = np.array(labels, dtype=np.float64)
    own = np.array(assets or [f"cell {row}" for row in range(given.size)], dtype=object)
    return LabelledRows(
        tuple("abcdefg"[: matrix.shape[1]]),
        matrix,
        given,
        Owners(own, own if groups is None else np.array(groups, dtype=object)),
        np.array(profiles or ["p"] * given.size, dtype=object),
        given / nominal_ah,
    )


def random_rows(count: int, seed: int, shift: float = 0.0) -> LabelledRows:
    """Rows of three features; capacity by a formula, from another level where there is a shift."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 3)) + shift
    labels = 1.6 + 0.2 * np.tanh(features @ np.array([1.0, -0.5, 0.3])) - 0.3 * (shift > 0)
    assets = [f"cell {seed}-{row % 12}" for row in range(count)]
    return plain_rows(features.tolist(), labels.tolist(), assets=assets)
