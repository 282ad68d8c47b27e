import math

import numpy as np
import polars as pl
import pytest

from batteryops.errors import DataError
from batteryops.models.pack_soh import SPREAD_COST, fit_pack_estimator

HEALTH = {"a": 80.0, "b": 85.0, "c": 92.0, "d": 96.0, "e": 99.0, "f": 103.0}


def linear_packs(start_v: float = 3.65, *, noise: float = 0.0) -> pl.DataFrame:
    """Packs whose charge and resistance are lines of their SoH, without spread."""
    away = noise * np.array([1.0, -1.0, -1.0, 1.0, 1.0, -1.0])
    soh = np.array(list(HEALTH.values()))
    return pl.DataFrame(
        {
            "asset_id": list(HEALTH),
            "start_v": start_v,
            "segment_charge_pct": 0.2 * soh + away,
            "segment_resistance_mV_per_C": 400.0 - 3.0 * soh,
            "segment_spread_mV": 0.0,
        }
    )


def estimated(table: pl.DataFrame, known: dict[str, float]) -> dict[str, float]:
    answers = fit_pack_estimator(
        table.filter(pl.col("asset_id").is_in(list(known))), known
    ).estimate(table)
    return dict(answers.select("asset_id", "soh_points").rows())


@pytest.mark.parametrize("left_out", list(HEALTH))
def test_a_pack_on_the_line_of_the_others_is_met_even_beyond_them(left_out: str) -> None:
    known = {name: soh for name, soh in HEALTH.items() if name != left_out}

    assert estimated(linear_packs(), known)[left_out] == pytest.approx(HEALTH[left_out])


def test_a_mv_of_spread_costs_a_tenth_of_a_point() -> None:
    packs = linear_packs()
    spread = pl.when(pl.col("asset_id") == "c").then(30.0).otherwise(0.0)
    known = {name: soh for name, soh in HEALTH.items() if name != "c"}

    answer = estimated(packs.with_columns(segment_spread_mV=spread), known)["c"]

    assert SPREAD_COST == 0.1
    assert answer == pytest.approx(HEALTH["c"] - 3.0)


def test_a_pack_of_unknown_spread_is_taken_to_have_that_of_the_others() -> None:
    packs = linear_packs().with_columns(
        segment_spread_mV=pl.when(pl.col("asset_id") != "c").then(20.0)
    )
    known = {name: soh for name, soh in HEALTH.items() if name != "c"}

    assert estimated(packs, known)["c"] == pytest.approx(HEALTH["c"])


def test_without_resistance_the_charge_alone_is_read() -> None:
    bare = pl.when(pl.col("asset_id") != "c").then("segment_resistance_mV_per_C")
    one = linear_packs().with_columns(segment_resistance_mV_per_C=bare)
    none = linear_packs().with_columns(segment_resistance_mV_per_C=pl.lit(None, pl.Float64))
    known = {name: soh for name, soh in HEALTH.items() if name != "c"}

    assert estimated(one, known)["c"] == pytest.approx(HEALTH["c"])
    assert estimated(none, known)["c"] == pytest.approx(HEALTH["c"])
    # where training never saw a resistance, that of a pack cannot be read
    only_c = none.with_columns(
        segment_resistance_mV_per_C=pl.when(pl.col("asset_id") == "c").then(77.0)
    )
    assert estimated(only_c, known)["c"] == pytest.approx(HEALTH["c"])


def test_the_segment_that_meets_packs_left_out_best_is_preferred() -> None:
    both = pl.concat([linear_packs(3.60, noise=2.0), linear_packs(3.65)])

    estimator = fit_pack_estimator(both, HEALTH)

    assert [model.start_v for model in estimator.models] == [3.65, 3.60]
    assert estimator.models[0].rmse_points == pytest.approx(0.0, abs=1e-9)
    assert estimator.models[1].half_width_points > 1.0
    assert estimator.estimate(both)["start_v"].to_list() == [3.65] * 6


def test_a_pack_whose_record_lacks_the_preferred_segment_gets_the_next() -> None:
    lacking = pl.when(pl.col("asset_id") != "f").then("segment_charge_pct")
    both = pl.concat(
        [linear_packs(3.60, noise=0.1), linear_packs(3.65).with_columns(segment_charge_pct=lacking)]
    )
    known = {name: soh for name, soh in HEALTH.items() if name != "f"}
    training = both.filter(pl.col("asset_id") != "f")

    answers = fit_pack_estimator(training, known).estimate(both)

    assert dict(answers.select("asset_id", "start_v").rows())["f"] == 3.60
    assert dict(answers.select("asset_id", "start_v").rows())["a"] == 3.65


def test_a_segment_that_more_packs_cover_goes_before_a_better_one() -> None:
    fewer = pl.when(pl.col("asset_id") != "f").then("segment_charge_pct")
    both = pl.concat(
        [linear_packs(3.60, noise=1.0), linear_packs(3.65).with_columns(segment_charge_pct=fewer)]
    )

    assert fit_pack_estimator(both, HEALTH).models[0].start_v == 3.60


def test_a_pack_that_covers_no_segment_gets_no_number() -> None:
    packs = linear_packs().with_columns(
        segment_charge_pct=pl.when(pl.col("asset_id") != "f").then("segment_charge_pct")
    )
    known = {name: soh for name, soh in HEALTH.items() if name != "f"}

    answers = fit_pack_estimator(packs.filter(pl.col("asset_id") != "f"), known).estimate(packs)

    assert answers.filter(asset_id="f").row(0) == ("f", None, None, None, None)


def test_signs_against_physics_are_not_learned() -> None:
    upside_down = {name: 180.0 - soh for name, soh in HEALTH.items()}

    (model,) = fit_pack_estimator(linear_packs(), upside_down).models

    assert model.slope_points == 0.0
    assert model.level_points == pytest.approx(np.mean(list(upside_down.values())))


def test_packs_that_do_not_differ_are_met_by_their_mean() -> None:
    same = linear_packs().with_columns(
        segment_charge_pct=pl.lit(20.0), segment_resistance_mV_per_C=pl.lit(100.0)
    )

    mean = float(np.mean(list(HEALTH.values())))
    assert estimated(same, HEALTH) == pytest.approx(dict.fromkeys(HEALTH, mean))


def test_the_interval_is_as_wide_as_the_largest_error_on_a_pack_left_out() -> None:
    packs = linear_packs(noise=1.0)
    errors = [
        abs(
            estimated(packs, {name: soh for name, soh in HEALTH.items() if name != left})[left]
            - HEALTH[left]
        )
        for left in HEALTH
    ]

    estimator = fit_pack_estimator(packs, HEALTH)
    answers = estimator.estimate(packs)

    assert estimator.models[0].held_out == pytest.approx(errors)
    half = (answers["high_points"] - answers["low_points"]) / 2.0
    assert half.to_list() == pytest.approx([max(errors)] * 6)
    assert estimator.models[0].rmse_points == pytest.approx(
        math.sqrt(sum(error**2 for error in errors) / 6)
    )


def test_too_little_to_train_on_is_refused() -> None:
    packs = linear_packs()
    with pytest.raises(DataError, match="no segment is covered by 4 packs; given 3 packs"):
        fit_pack_estimator(packs.head(3), HEALTH)
    with pytest.raises(DataError, match="f have no measured SoH"):
        fit_pack_estimator(packs, {name: soh for name, soh in HEALTH.items() if name != "f"})
    with pytest.raises(DataError, match="missing column segment_charge_pct"):
        fit_pack_estimator(packs.drop("segment_charge_pct"), HEALTH)
