"""A battery's own measurements beside the model, under the protocols."""

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.evaluation.owners import Owners
from batteryops.evaluation.protocol_run import Predict, ProtocolResult, evaluate_protocol
from batteryops.evaluation.protocols import SplitPlan, make_splits, reveal
from batteryops.lifecycle.baselines import correction_fit
from batteryops.lifecycle.evaluation import Known
from batteryops.settings import load_settings


def offset_fleet(n_assets: int = 12, cycles: int = 30) -> pl.DataFrame:
    """Batteries that fade alike, each off by a constant that its features do not show."""
    rng = np.random.default_rng(5)
    asset = np.repeat(np.arange(n_assets), cycles)
    age = np.tile(np.arange(cycles), n_assets)
    offset = rng.normal(0.0, 0.1, n_assets)[asset]
    return pl.DataFrame(
        {
            "asset_id": [f"A{number:02d}" for number in asset],
            "op_index": pl.Series(2 * age, dtype=pl.Int32),
            "age": age.astype(float),
            "capacity_ah": 1.8 - 0.01 * age + offset + rng.normal(0.0, 0.003, asset.size),
        }
    )


def line(features: NDArray[np.float32], labels: NDArray[np.float64], owners: Owners) -> Predict:
    """Least squares on the only feature."""
    del owners
    slope, level = np.polyfit(features[:, 0].astype(np.float64), labels, 1)
    return lambda rows: level + slope * rows[:, 0].astype(np.float64)


def run(known: int | None, *, corrected: bool = True) -> ProtocolResult:
    table, settings = offset_fleet(), load_settings().evaluation
    splits = make_splits(table, "unseen_assets", SplitPlan())
    return evaluate_protocol(
        table,
        ["age"],
        "unseen_assets",
        line,
        settings=settings,
        nominal_ah=2.0,
        seed=1,
        splits=reveal(splits, table, known),
        fit_correction=correction_fit(line, folds=4) if corrected else None,
    )


def test_ten_measurements_take_away_a_battery_s_own_offset() -> None:
    without, with_ten = run(10, corrected=False), run(10)
    assert without.n_test == with_ten.n_test == 12 * 20
    assert without.metrics.mae_ah > 0.05
    assert with_ten.metrics.mae_ah < 0.006  # noise of 0.003, and the mean of ten


def test_the_baseline_beside_it_is_the_last_capacity_that_is_known() -> None:
    held = run(10).baselines["last_measured_capacity"].mae_ah
    # the tenth of thirty is held while capacity falls by 0.01 a cycle: 0.01 to 0.20 below
    assert held == pytest.approx(0.105, abs=0.003)
    rolling = run(None)
    assert rolling.n_test == 12 * 30
    assert rolling.baseline_coverage["last_measured_capacity"] == pytest.approx(29 / 30)


def test_a_correction_never_looks_at_the_cycle_it_corrects() -> None:
    table = offset_fleet()
    spoiled = table.with_columns(
        capacity_ah=pl.when(pl.col("op_index") == 40).then(0.5).otherwise("capacity_ah")
    )
    settings = load_settings().evaluation
    answers = {}
    for name, given in (("sound", table), ("spoiled", spoiled)):
        split = make_splits(given, "unseen_assets", SplitPlan())[0]
        one = reveal([split], given, None)
        result = evaluate_protocol(
            # the tested asset alone is spoiled: what trains is the same
            pl.concat([given.filter(asset_id="A00"), table.filter(pl.col("asset_id") != "A00")]),
            ["age"],
            "x",
            line,
            settings=settings,
            nominal_ah=2.0,
            seed=1,
            splits=one,
            fit_correction=correction_fit(line, folds=4),
        )
        answers[name] = result.predictions.sort("op_index")["predicted_ah"].to_numpy()
    at = 20  # the cycle at op_index 40
    assert np.array_equal(answers["sound"][: at + 1], answers["spoiled"][: at + 1])
    assert abs(answers["sound"][at + 1] - answers["spoiled"][at + 1]) > 0.01


@pytest.mark.parametrize("text", ["0", "-1", "ten", "", "1.5"])
def test_a_number_of_known_labels_is_one_or_more(text: str) -> None:
    with pytest.raises(DataError, match="expected a number of 1 or more, or all"):
        Known.parse(text)
