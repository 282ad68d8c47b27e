"""Drift: the published numbers, what is found, what is not, and what is refused."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from batteryops.errors import DataError
from batteryops.features.views import feature_table, get_view
from batteryops.lifecycle.sources import open_source
from batteryops.monitoring.cells import Floats
from batteryops.monitoring.counts import Counts
from batteryops.monitoring.drift_detection import (
    DEFAULT_LIMITS,
    DriftLimits,
    DriftReport,
    FeatureDrift,
    detect,
    ks,
    psi,
)
from batteryops.monitoring.reference import Reference
from batteryops.settings import load_settings

N = 200_000
DECILES = norm.ppf(np.arange(1, 10) / 10)


def compare(before: object, after: object, limits: DriftLimits = DEFAULT_LIMITS) -> FeatureDrift:
    """Drift of one column."""
    reference = Reference.fit(pl.DataFrame({"x": before}), ["x"])
    counts = Counts.of(reference, pl.DataFrame({"x": after}))
    return detect(reference, counts, limits).features["x"]


def closed_form(shift: float, scale: float) -> float:
    """PSI of N(shift, scale) against N(0, 1) between the deciles of the latter."""
    q = np.diff(np.concatenate([[0.0], norm.cdf((DECILES - shift) / scale), [1.0]]))
    return float(((q - 0.1) * np.log(q / 0.1)).sum())


VECTORS = [
    (0.1, 1.0, 0.009587),
    (0.25, 1.0, 0.059816),
    (0.5, 1.0, 0.237749),
    (1.0, 1.0, 0.926142),
    (2.0, 1.0, 3.312588),
    (0.0, 1.5, 0.193543),
    (0.0, 2.0, 0.490754),
]


@pytest.mark.parametrize(("shift", "scale", "expected"), VECTORS)
def test_psi_of_normal_distributions_is_that_of_the_closed_form(
    shift: float, scale: float, expected: float
) -> None:
    assert closed_form(shift, scale) == pytest.approx(expected, abs=1e-6)
    q = np.diff(np.concatenate([[0.0], norm.cdf((DECILES - shift) / scale), [1.0]]))
    rows = 10**12  # so many that half a row does not show
    assert psi(np.full(10, rows), np.round(q * 10 * rows)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("shift", "scale", "expected"), VECTORS)
def test_psi_of_samples_is_within_what_sampling_allows(
    shift: float, scale: float, expected: float
) -> None:
    rng = np.random.default_rng(13)
    found = compare(rng.normal(size=N), rng.normal(shift, scale, size=N)).psi
    # the delta method: the derivative by q is ln(q/p) + 1 - p/q, by p likewise; chance adds the
    # bound's mean on average
    q = np.diff(np.concatenate([[0.0], norm.cdf((DECILES - shift) / scale), [1.0]]))
    p = np.full(10, 0.1)
    by_q, by_p = np.log(q / p) + 1 - p / q, np.log(p / q) + 1 - q / p
    variance = sum(
        (share @ slope**2 - (share @ slope) ** 2) / N for share, slope in ((q, by_q), (p, by_p))
    )
    assert found == pytest.approx(expected + 9 / N, abs=4 * np.sqrt(variance) + 9 * 2 / N)


def test_ks_of_a_shift_is_that_of_the_normal_distribution() -> None:
    rng = np.random.default_rng(14)
    found = compare(rng.normal(size=N), rng.normal(0.5, size=N)).ks
    assert found == pytest.approx(2 * norm.cdf(0.25) - 1, abs=0.005)


def test_limits_of_the_distance_are_those_of_shifts_with_the_limits_of_psi() -> None:
    settings = load_settings().monitoring
    assert DriftLimits.from_settings(settings) == DEFAULT_LIMITS
    for value, distance in ((0.10, settings.ks_warning), (0.25, settings.ks_alert)):
        shift = brentq(lambda d, value=value: closed_form(d, 1.0) - value, 0.0, 2.0)
        assert 2 * norm.cdf(shift / 2) - 1 == pytest.approx(distance, abs=5e-4)


@pytest.mark.parametrize("value", [1e3, -1e3, np.inf, -np.inf])
def test_rows_stuck_out_of_range_count_in_full(value: float) -> None:
    rng = np.random.default_rng(15)
    after = rng.normal(size=10_000)
    after[:3000] = value
    found = compare(rng.normal(size=10_000), after)
    # 0.27 ln 3.7 + 9 * 0.03 ln(1 / 0.7) = 0.4496; closed bins give 0.107
    assert found.psi is not None
    assert round(found.psi, 2) >= 0.45
    assert found.ks is not None
    assert found.ks >= 0.28
    assert found.status == "alert"
    assert found.infinite == (3000 if np.isinf(value) else 0)


def test_an_outlier_does_not_hide_a_shift() -> None:
    rng = np.random.default_rng(16)
    after = rng.normal(1.0, size=20_000)
    after[0] = 1e4
    found = compare(rng.normal(size=20_000), after)
    assert found.psi == pytest.approx(0.926, abs=0.05)
    assert found.status == "alert"


@pytest.mark.parametrize(
    ("shift", "status"), [(0.0, "ok"), (0.25, "ok"), (0.4, "warning"), (0.6, "alert")]
)
def test_effect_sizes_set_the_level_however_many_rows_there_are(shift: float, status: str) -> None:
    rng = np.random.default_rng(17)
    found = compare(rng.normal(size=N), rng.normal(shift, size=N))
    assert found.status == status
    if shift:
        assert found.p_value is not None
        assert found.p_value < 1e-9


def test_a_large_difference_of_few_rows_is_chance() -> None:
    rng = np.random.default_rng(18)
    found = compare(rng.normal(size=100), rng.normal(0.2, size=100))
    assert found.psi is not None
    assert found.psi > DEFAULT_LIMITS.psi_warning
    assert found.status == "ok"
    assert "chance" in found.detail


def test_the_distance_gates_as_well() -> None:
    # every bin moves a little the same way: PSI stays small
    before, after = np.arange(10_000.0), np.arange(10_000.0) ** 1.06
    limits = DriftLimits(psi_warning=9.0, psi_alert=9.0)
    assert compare(before, after, limits).status == "alert"


def vehicles(rng: np.random.Generator, correlation: float, shift: float = 0.0) -> Floats:
    """Twenty features of 50 vehicles with 20 cycles each, (1000, 20)."""
    found = rng.normal(size=(50, 20, 20))
    for cycle in range(1, 20):
        found[:, cycle] *= np.sqrt(1 - correlation**2)
        found[:, cycle] += correlation * found[:, cycle - 1]
    return (found + shift).reshape(1000, 20)


NAMES = [f"x{number}" for number in range(20)]


def fleet(features: Floats, prefix: str) -> pl.DataFrame:
    return pl.DataFrame(features, schema=NAMES).with_columns(
        asset_id=pl.Series([f"{prefix}{row // 20}" for row in range(1000)])
    )


def drift_of(before: pl.DataFrame, after: pl.DataFrame) -> DriftReport:
    reference = Reference.fit(before, NAMES)
    return detect(reference, Counts.of(reference, after))


@pytest.mark.parametrize(
    ("runs", "dropped"), [(200, []), (100, ["asset_id"])], ids=["by vehicle", "by row"]
)
def test_independent_rows_that_did_not_change_raise_no_alarm(runs: int, dropped: list[str]) -> None:
    rng = np.random.default_rng(19)
    alarms = 0
    for _ in range(runs):
        before, after = fleet(vehicles(rng, 0.0), "a"), fleet(vehicles(rng, 0.0), "b")
        alarms += drift_of(before.drop(dropped), after.drop(dropped)).verdict != "OK"
    assert alarms <= 0.05 * runs


@pytest.mark.parametrize(
    ("runs", "prefix"), [(200, "b"), (100, "a")], ids=["other vehicles", "the same vehicles"]
)
def test_dependent_cycles_that_did_not_change_raise_no_alarm(runs: int, prefix: str) -> None:
    rng = np.random.default_rng(20)
    alarms = large = 0
    for _ in range(runs):
        report = drift_of(fleet(vehicles(rng, 0.9), "a"), fleet(vehicles(rng, 0.9), prefix))
        alarms += report.verdict != "OK"
        large += any((found.psi or 0.0) >= 0.10 for found in report.features.values())
    assert alarms <= 0.05 * runs
    assert large >= 0.5 * runs  # the effect size alone would have raised them


def test_without_their_assets_dependent_cycles_would_raise_alarms() -> None:
    rng = np.random.default_rng(21)
    alarms = sum(
        drift_of(
            fleet(vehicles(rng, 0.9), "a").drop("asset_id"),
            fleet(vehicles(rng, 0.9), "b").drop("asset_id"),
        ).verdict
        != "OK"
        for _ in range(20)
    )
    assert alarms >= 10


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_a_shift_of_half_a_sigma_across_a_fleet_is_found(correlation: float) -> None:
    rng = np.random.default_rng(22)
    found = others = 0
    for _ in range(20):
        after = vehicles(rng, correlation)
        after[:, 0] += 0.5
        report = drift_of(fleet(vehicles(rng, correlation), "a"), fleet(after, "b"))
        found += report.features["x0"].status in {"warning", "alert"}
        others += sum(report.features[name].status != "ok" for name in NAMES[1:])
    assert found == 20
    assert others <= 2  # of 380


def test_a_shift_of_strongly_dependent_cycles_is_found_where_it_is_large_enough() -> None:
    rng = np.random.default_rng(23)
    for _ in range(10):
        after = vehicles(rng, 0.9)
        after[:, 0] += 1.0
        report = drift_of(fleet(vehicles(rng, 0.9), "a"), fleet(after, "b"))
        assert report.features["x0"].status == "alert"


def test_one_new_vehicle_that_is_unlike_all_others_is_not_called_well() -> None:
    rng = np.random.default_rng(31)
    lasting = rng.normal(size=(50, 1, 20)) + 0.1 * rng.normal(size=(50, 20, 20))
    before = fleet(lasting.reshape(1000, 20), "a")
    odd = fleet(rng.normal(9.0, 0.1, size=(1000, 20)), "b").with_columns(asset_id=pl.lit("b"))
    report = drift_of(before, odd)
    assert report.verdict == "TOO_FEW"
    assert report.features["x0"].ks == 1.0
    assert "so few assets" in report.features["x0"].detail
    many = fleet(rng.normal(9.0, 0.1, size=(1000, 20)), "b")
    assert drift_of(before, many).verdict == "ALERT"


def test_missing_values_are_drift() -> None:
    rng = np.random.default_rng(24)
    after = rng.normal(size=1000)
    after[::3] = np.nan
    found = compare(rng.normal(size=1000), after)
    assert found.status == "alert"
    assert found.missing_share == 0.334
    assert found.effective_bins == 11
    assert found.ks == pytest.approx(0.0, abs=0.06)


def test_missing_values_as_in_the_reference_are_none() -> None:
    rng = np.random.default_rng(25)
    before, after = rng.normal(size=1000), rng.normal(size=1000)
    before[::3], after[1::3] = np.nan, np.nan
    assert compare(before, after).status == "ok"


def test_values_and_missing_values_are_two_chances_to_be_wrong() -> None:
    before, after = np.arange(1000.0), np.arange(1000.0)
    before[:100], after[:130] = np.nan, np.nan
    # the shares of missing values differ by 0.03, with a pooled share of 0.115
    z = 0.03 / np.sqrt(0.115 * 0.885 * 2 / 1000)
    assert compare(before, after).p_value == pytest.approx(2 * 2 * norm.sf(z))


def test_columns_without_values_are_told() -> None:
    nothing = np.full(200, np.nan)
    values = np.random.default_rng(26).normal(size=200)
    lost = compare(values, nothing)
    assert (lost.status, lost.ks, lost.missing_share) == ("alert", None, 1.0)
    assert "no values at all" in lost.detail
    found = compare(nothing, values)
    assert found.status == "alert"
    assert "the reference has no values" in found.detail
    assert compare(nothing, nothing).status == "ok"


def test_a_constant_is_compared_like_any_other() -> None:
    constant = np.full(200, 3.7)
    same = compare(constant, constant)
    assert (same.psi, same.ks, same.p_value, same.status) == (0.0, 0.0, 1.0, "ok")
    assert same.effective_bins == 1
    assert "constant" in same.detail
    for other in (np.full(200, 3.7000001), np.where(np.arange(200) % 3 == 0, 3.6, 3.7)):
        assert compare(constant, other).status == "alert"
    varies = np.random.default_rng(27).normal(3.7, 0.1, size=200)
    assert compare(varies, constant).status == "alert"


def test_samples_without_overlap_are_as_far_apart_as_can_be() -> None:
    found = compare(np.arange(1000.0), np.arange(1000.0) + 5000)
    assert (found.ks, found.status) == (1.0, "alert")
    assert found.psi is not None
    assert found.psi > 5


def test_few_rows_are_not_judged() -> None:
    many = np.random.default_rng(28).normal(size=1000)
    one = compare(many, many[:1])
    assert one.status == "too_few"
    assert "1 current rows are 0.1 per bin, expected 10" in one.detail
    assert compare(many[:60], many).status == "too_few"
    assert compare(many, many[:99]).status == "too_few"
    assert compare(many, many[:100]).status == "ok"
    reference = Reference.fit(pl.DataFrame({"x": many}), ["x"])
    assert detect(reference, Counts.of(reference, pl.DataFrame({"x": many[:1]}))).verdict == (
        "TOO_FEW"
    )
    with pytest.raises(DataError, match="no current rows"):
        detect(reference, Counts.of(reference, pl.DataFrame({"x": many[:0]})))


def test_the_verdict_is_the_worst_and_says_what_to_learn_anew() -> None:
    rng = np.random.default_rng(29)
    names = ["discharge_time_s", "voltage_drop_time_s", "voltage_V_mean"]
    before = pl.DataFrame({name: rng.normal(size=1000) for name in names})
    reference = Reference.fit(before, names, predictions=rng.normal(size=1000))

    def verdict(**shifts: float) -> DriftReport:
        after = pl.DataFrame({name: rng.normal(shifts.get(name, 0.0), size=1000) for name in names})
        predictions = rng.normal(shifts.get("prediction", 0.0), size=1000)
        return detect(reference, Counts.of(reference, after, predictions=predictions))

    quiet = verdict()
    assert (quiet.verdict, quiet.retraining_wanted) == ("OK", ())
    other = verdict(voltage_V_mean=2.0)
    assert (other.verdict, other.retraining_wanted) == ("ALERT", ())
    critical = verdict(discharge_time_s=2.0)
    assert (critical.verdict, critical.retraining_wanted) == ("ALERT", ("discharge_time_s",))
    assert verdict(voltage_V_mean=0.42).verdict == "WARNING"
    predicted = verdict(prediction=2.0)
    assert predicted.verdict == "ALERT"
    assert predicted.prediction is not None
    assert predicted.prediction.status == "alert"
    told = json.loads(json.dumps(critical.to_json(), allow_nan=False))
    assert told["verdict"] == "ALERT"
    assert told["retraining_wanted"] == ["discharge_time_s"]
    assert {"psi", "ks", "p_value", "status", "effective_bins", "cause"} <= told["features"][
        "discharge_time_s"
    ].keys()


def test_a_feature_that_does_not_come_is_an_alert_and_a_prediction_is_not() -> None:
    rng = np.random.default_rng(30)
    table = pl.DataFrame({"x": rng.normal(size=500), "y": rng.normal(size=500)})
    reference = Reference.fit(table, ["x", "y"], predictions=rng.normal(size=500))
    report = detect(reference, Counts.of(reference, table.select("y")))
    assert report.verdict == "ALERT"
    assert (report.features["x"].status, report.features["y"].status) == ("missing", "ok")
    assert report.prediction is None


@given(
    before=st.lists(st.integers(0, 500), min_size=2, max_size=12),
    after=st.lists(st.integers(0, 500), min_size=2, max_size=12),
)
def test_psi_is_symmetric_in_what_it_calls_alike(before: list[int], after: list[int]) -> None:
    size = min(len(before), len(after))
    before, after = [*before[:size], 1], [*after[:size], 1]
    assert psi(before, after) >= 0.0
    assert psi(before, before) == 0.0
    assert 0.0 <= ks(before, after) <= 1.0
    assert ks(before, after) == ks(after, before)


def test_half_a_row_is_added_to_each_bin_that_holds_any() -> None:
    # (10.5 - 0.5) / 11 = 10/11 in both bins, times ln(10.5 / 0.5)
    assert psi([0, 10, 0], [10, 0, 0]) == pytest.approx(2 * 10 / 11 * np.log(21))


def test_what_cannot_be_compared_is_refused() -> None:
    for measure in (psi, ks):
        with pytest.raises(DataError, match="expected"):
            measure([1, 2], [1, 2, 3])
        with pytest.raises(DataError, match="expected one on each side"):
            measure([0, 0], [1, 2])


@pytest.mark.data
@pytest.mark.usefixtures("data_folder")
def test_cells_that_aged_are_far_from_what_they_were() -> None:
    view = get_view("discharge_summary")
    settings = load_settings()
    table = feature_table(view, open_source("nasa", settings, kinds=view.kinds))
    cells = table.filter(pl.col("asset_id").is_in(["B0005", "B0006", "B0007"]))
    by_cell = cells.group_by("asset_id", maintain_order=True)
    first, last = by_cell.head(50), by_cell.tail(50)
    reference = Reference.fit(first, view.names)
    aged = detect(reference, Counts.of(reference, last))
    assert aged.verdict == "ALERT"
    assert aged.retraining_wanted == ("discharge_time_s", "voltage_drop_time_s")
    every_other = table.with_row_index().with_columns(odd=pl.col("index") % 2 == 1)
    reference = Reference.fit(every_other.filter("odd"), view.names)
    alike = detect(reference, Counts.of(reference, every_other.filter(~pl.col("odd"))))
    assert alike.verdict == "OK"
