"""What gives the label away is found, and what does not is left alone."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from batteryops.errors import DataError, UnknownAssetError
from batteryops.evaluation.label_lines import (
    MAX_ROWS,
    MIN_ROWS,
    R2_LIMIT,
    Line,
    assets_needed,
    label_lines,
)
from batteryops.evaluation.leakage import (
    LaterCycles,
    LeakageReport,
    changed_by_later_cycles,
    check_leakage,
    find_charge_and_soc,
)
from batteryops.features.views import feature_table, get_view
from batteryops.lifecycle.sources import open_source
from batteryops.schema import CYCLES, SAMPLES, Recording
from batteryops.settings import load_settings

CAPACITY = pl.col("capacity_ah")
NOISE = ("temperature", "voltage", "resistance")


def fleet(n_assets: int = 6, n_cycles: int = 40, seed: int = 0) -> pl.DataFrame:
    """Cells that fade with regeneration and scatter; features that know nothing of it."""
    random = np.random.default_rng(seed)
    n = n_assets * n_cycles
    asset = np.repeat(np.arange(n_assets), n_cycles)
    cycle = np.tile(np.arange(1, n_cycles + 1), n_assets)
    rate = random.uniform(0.002, 0.006, n_assets)[asset]
    return pl.DataFrame(
        {
            "asset_id": [f"EV-{number:03d}" for number in asset],
            "op_index": pl.Series(2 * cycle, dtype=pl.Int32),
            "temperature": random.normal(25.0, 3.0, n),
            "voltage": random.normal(3.5, 0.05, n),
            "resistance": random.lognormal(-3.0, 0.1, n),
            "capacity_ah": 2.0 - rate * cycle + random.normal(0.0, 0.02, n),
        }
    )


def flagged(table: pl.DataFrame, names: Sequence[str] | None = None) -> list[str]:
    """What is reported as on a line with the label, as formulas."""
    report = check_leakage(table, names or features_of(table))
    assert all(found.statistic > found.limit for found in report.findings)
    return [
        {"product": " * ", "ratio": " / "}.get(found.kind, "").join(found.features)
        for found in report.findings
    ]


def features_of(table: pl.DataFrame) -> list[str]:
    return [name for name in table.columns if name not in {"asset_id", "op_index", "capacity_ah"}]


def line_of(table: pl.DataFrame, *features: str) -> Line:
    [found] = [
        line for line in label_lines(table, features, "capacity_ah") if line.features == features
    ]
    return found


# --- features, products and ratios on a line with the label ---------------------------------------


def test_a_copy_of_the_label_is_found_and_nothing_else() -> None:
    assert flagged(fleet().with_columns(copy=CAPACITY)) == ["copy"]


def test_a_copy_that_is_scaled_and_shifted_is_found() -> None:
    assert flagged(fleet().with_columns(copy=40.0 - 1e-3 * CAPACITY)) == ["copy"]


def test_a_copy_whose_scale_and_shift_are_each_assets_own_is_found() -> None:
    number = pl.col("asset_id").str.slice(3).cast(pl.Float64)
    assert flagged(fleet().with_columns(copy=CAPACITY * (1 + number**2) - 7 * number)) == ["copy"]


def test_current_and_time_are_found_where_their_product_is_the_charge() -> None:
    current = pl.Series("current", np.random.default_rng(1).uniform(-4.0, -1.0, 240))
    table = fleet().with_columns(current).with_columns(time=-3600.0 * CAPACITY / pl.col("current"))
    assert flagged(table) == ["current * time"]


def test_energy_and_voltage_are_found_where_their_ratio_is_the_charge() -> None:
    table = fleet().with_columns(energy=CAPACITY * pl.col("voltage"))
    assert flagged(table) == ["energy / voltage"]


def test_a_ratio_is_found_whichever_of_the_two_stands_first() -> None:
    table = fleet().with_columns(energy=CAPACITY * pl.col("voltage"))
    assert flagged(table, ["voltage", "energy"]) == ["energy / voltage"]
    assert flagged(table, ["energy", "voltage"]) == ["energy / voltage"]


def test_a_pair_is_told_beside_its_feature_where_it_tells_of_many_more_assets() -> None:
    """A tenth of the cells have a voltage so steady that the energy alone is on a line."""
    steady = pl.when(pl.col("asset_id") < "EV-002").then(3.5).otherwise("voltage")
    table = fleet(20).with_columns(voltage=steady)
    table = table.with_columns(energy=CAPACITY * pl.col("voltage"))
    assert flagged(table, ["energy", "voltage"]) == ["energy", "energy / voltage"]


def test_a_copy_that_was_shuffled_is_not_found() -> None:
    shuffled = np.random.default_rng(2).permutation(fleet()["capacity_ah"].to_numpy())
    assert flagged(fleet().with_columns(copy=pl.Series(shuffled))) == []


def test_a_copy_with_a_tenth_of_the_labels_deviation_as_noise_is_not_found() -> None:
    """Its R2 is 1 / (1 + 0.1^2) = 0.990."""
    table = fleet()
    sigma = float(np.std(table["capacity_ah"].to_numpy()))
    noise = np.random.default_rng(3).normal(0.0, 0.1 * sigma, table.height)
    assert flagged(table.with_columns(copy=CAPACITY + pl.Series(noise))) == []


@given(seed=st.integers(0, 10_000), n_assets=st.integers(1, 8), n_cycles=st.integers(2, 30))
def test_noise_passes(seed: int, n_assets: int, n_cycles: int) -> None:
    assert flagged(fleet(n_assets, n_cycles, seed)) == []


@given(
    factors=st.lists(
        st.floats(1e-6, 1e6) | st.floats(-1e6, -1e-6) | st.sampled_from([1e-200, -1e200]),
        min_size=4,
        max_size=4,
    ),
    scale=st.floats(1e-3, 1e3),
    order=st.integers(0, 10_000),
)
def test_units_and_the_order_of_rows_change_no_finding(
    factors: list[float], scale: float, order: int
) -> None:
    table = fleet(3, 20).with_columns(energy=CAPACITY * pl.col("voltage"))
    names = features_of(table)
    assert flagged(table) == ["energy / voltage"]
    scaled = table.with_columns(
        [pl.col(name) * factor for name, factor in zip(names, factors, strict=True)]
        + [CAPACITY * scale]
    )
    assert flagged(scaled.sample(fraction=1.0, shuffle=True, seed=order)) == ["energy / voltage"]


def test_r2_is_the_squared_correlation_within_an_asset_that_scipy_computes() -> None:
    table = fleet(1).with_columns(
        drift=CAPACITY + pl.Series(np.random.default_rng(4).normal(0.0, 0.05, 40))
    )
    drift, voltage, label = (table[name].to_numpy() for name in ("drift", "voltage", "capacity_ah"))
    for values, features, kind in (
        (drift, ("drift",), "feature"),
        (drift * voltage, ("drift", "voltage"), "product"),
        (drift / voltage, ("drift", "voltage"), "ratio"),
        (voltage / drift, ("voltage", "drift"), "ratio"),
    ):
        [line] = [
            line
            for line in label_lines(table, ["drift", "voltage"], "capacity_ah")
            if (line.features, line.kind) == (features, kind)
        ]
        assert line.r2 == pytest.approx(stats.linregress(values, label).rvalue ** 2, rel=1e-9)


def test_every_single_product_and_ratio_is_looked_at_once() -> None:
    lines = label_lines(fleet(), NOISE, "capacity_ah")
    assert len(lines) == len({(line.kind, line.features) for line in lines}) == 3 + 3 + 6
    assert [line.r2 for line in lines] == sorted((line.r2 for line in lines), reverse=True)


# --- what an asset can tell, and how many must ----------------------------------------------------


def test_a_leak_in_a_tenth_of_the_assets_is_found_and_in_one_of_many_is_not() -> None:
    table = fleet(20)

    def leaking(n: int) -> pl.DataFrame:
        inside = pl.col("asset_id") < f"EV-{n:03d}"
        return table.with_columns(copy=pl.when(inside).then("capacity_ah").otherwise("voltage"))

    assert flagged(leaking(2)) == ["copy"]
    [found] = check_leakage(leaking(2), ["copy"]).findings
    assert found.assets == ("EV-000", "EV-001")
    assert flagged(leaking(1)) == []


def test_too_few_rows_prove_nothing() -> None:
    """Two rows are always on a line."""
    short = fleet(4, MIN_ROWS - 1).with_columns(copy=CAPACITY)
    report = check_leakage(short, features_of(short))
    assert report.findings == ()
    assert set(report.sparse) == {*NOISE, "copy"}
    assert "no asset has rows enough" in report.unchecked[0]
    assert flagged(fleet(4, MIN_ROWS).with_columns(copy=CAPACITY)) == ["copy"]


def test_missing_and_infinite_values_are_left_out_of_a_line() -> None:
    table = fleet().with_row_index()
    copy = pl.when(pl.col("index") % 3 == 0).then(None).otherwise(CAPACITY)
    copy = pl.when(pl.col("index") % 3 == 1).then(math.nan).otherwise(copy)
    gaps = table.with_columns(copy=copy, other=math.inf, none=None).drop("index")
    names = [*NOISE, "copy", "other"]
    assert flagged(gaps, names) == ["copy"]
    unlabelled = pl.when(pl.col("op_index") % 4 == 0).then(None).otherwise(CAPACITY)
    assert flagged(gaps.with_columns(capacity_ah=unlabelled), names) == ["copy"]


def test_a_feature_with_a_few_values_is_named_as_not_compared() -> None:
    first = pl.when(pl.col("op_index") <= 8).then(CAPACITY)
    asset = pl.col("asset_id") == "EV-000"
    table = fleet().with_columns(rare=pl.when(asset).then(first), never=pl.lit(None, pl.Float64))
    report = check_leakage(table, [*NOISE, "rare", "never"])
    assert (report.findings, report.sparse) == ((), ("rare",))


def test_a_constant_feature_gives_nothing_away_nor_does_it_hide_another() -> None:
    assert flagged(fleet().with_columns(constant=pl.lit(25.0))) == []
    assert flagged(fleet().with_columns(constant=pl.lit(25.0), copy=CAPACITY)) == ["copy"]
    assert line_of(fleet().with_columns(constant=pl.lit(0.1)), "constant").r2 == 0.0


def test_labels_that_do_not_vary_prove_nothing() -> None:
    constant = fleet(5).with_columns(capacity_ah=2.0 + 1e-9 * pl.col("voltage"))
    report = check_leakage(constant, NOISE)
    assert (report.findings, report.sparse) == ((), NOISE)


def test_two_levels_of_a_label_are_on_a_line_with_every_step() -> None:
    step = pl.when(pl.col("op_index") > 40).then(1.0).otherwise(0.0)
    table = fleet(5).with_columns(season=step, capacity_ah=2.0 - 0.1 * step)
    assert flagged(table) == []


def test_crashed_runs_put_nothing_on_a_line_with_the_label() -> None:
    """One run of no capacity, in a feature that is noise but for noticing it."""
    crash = pl.col("op_index") == 20
    noticed = pl.when(crash).then(-100.0).otherwise(pl.col("voltage"))
    table = fleet(5).with_columns(
        noticed=noticed, capacity_ah=pl.when(crash).then(0.0).otherwise(1.8 + 0.01 * CAPACITY)
    )
    label, values = table["capacity_ah"].to_numpy()[:40], table["noticed"].to_numpy()[:40]
    assert stats.linregress(values, label).rvalue ** 2 > R2_LIMIT
    assert flagged(table) == []
    assert flagged(table.with_columns(noticed=CAPACITY)) == ["noticed"]


@given(n=st.integers(1, 2000))
def test_the_assets_needed_are_a_tenth_but_two_where_there_are_two(n: int) -> None:
    assert assets_needed(n) == max(-(-n // 10), min(2, n))


def test_of_a_long_table_every_nth_row_is_looked_at() -> None:
    table = fleet(50, MAX_ROWS // 50 + 1)
    assert flagged(table.with_columns(copy=CAPACITY), ["voltage", "copy"]) == ["copy"]


@pytest.mark.parametrize("wrong", ["absent", "asset_id"])
def test_a_column_that_is_missing_or_no_number_is_named(wrong: str) -> None:
    with pytest.raises(DataError, match=wrong):
        check_leakage(fleet(), [*NOISE, wrong])


def test_a_table_without_a_label_says_that_nothing_was_compared() -> None:
    unlabelled = fleet().with_columns(capacity_ah=pl.lit(None, pl.Float64))
    report = check_leakage(unlabelled, NOISE)
    assert report.findings == ()
    assert "was not checked" in report.unchecked[0]


# --- one line through all assets ------------------------------------------------------------------


def packs(n: int = 9, *, soc_noise: float = 0.0) -> pl.DataFrame:
    """In-service packs of many sizes, measured once, a few charging segments each."""
    random = np.random.default_rng(5)
    rated = np.repeat(random.choice([100.0, 115.0, 147.0, 174.0, 234.0], n), 4)
    capacity = rated * np.repeat(random.uniform(0.85, 1.02, n), 4)
    change = random.uniform(0.1, 0.5, 4 * n)
    return pl.DataFrame(
        {
            "asset_id": np.repeat([f"pack-{number}" for number in range(n)], 4),
            "rated": rated,
            "charged": capacity * change,
            "soc_change": change + random.normal(0.0, soc_noise, 4 * n),
            "rise": random.normal(5.0, 1.0, 4 * n),
            "capacity_ah": capacity,
        }
    )


def test_packs_that_were_measured_once_are_judged_by_one_line_through_all() -> None:
    table = packs()
    [found] = check_leakage(table, ["charged", "soc_change", "rise"]).findings
    assert (found.kind, found.features) == ("ratio", ("charged", "soc_change"))
    assert found.statistic == pytest.approx(1.0)
    assert len(found.assets) == 9
    assert "one line through all 9 assets" in found.message
    assert flagged(packs(5), ["charged", "soc_change", "rise"]) == []  # too few packs


def test_the_size_of_healthy_packs_is_no_leak_though_it_is_almost_their_capacity() -> None:
    table = packs().with_columns(capacity_ah=pl.col("rated") * (1 + 1e-4 * pl.col("rise")))
    table = table.with_columns(CAPACITY.first().over("asset_id"))
    nominal = dict(table.select("asset_id", "rated").rows())
    [line] = [line for line in label_lines(table, ["rated"], "capacity_ah") if line.flagged]
    assert line.together
    assert check_leakage(table, ["rated"], nominal_ah=nominal).findings == ()
    health = table.with_columns(copy=3.0 * CAPACITY)
    [found] = check_leakage(health, ["rated", "copy"], nominal_ah=nominal).findings
    assert found.features == ("copy",)
    with pytest.raises(UnknownAssetError, match="pack-8"):
        check_leakage(table, ["rated"], nominal_ah={f"pack-{n}": 1.0 for n in range(8)})


# --- charge beside the change of SOC --------------------------------------------------------------


def test_charge_beside_the_change_of_soc_is_found_though_the_soc_is_coarse() -> None:
    table = packs(soc_noise=0.03)
    units = {"charged": "Ah", "soc_change": "share of SOC", "rise": "K"}
    [found] = check_leakage(table, list(units), units=units).findings
    assert (found.kind, found.features) == ("charge_and_soc", ("charged", "soc_change"))
    assert 0.5 < found.statistic < R2_LIMIT
    assert "one over the other is the capacity" in found.message


def test_an_exact_pair_is_told_once() -> None:
    units = {"charged": "Ah", "soc_change": "share of SOC", "rise": "K"}
    [found] = check_leakage(packs(), list(units), units=units).findings
    assert found.kind == "charge_and_soc"
    assert found.statistic == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "unit", "found"),
    [
        ("delta_soc", "%", True),
        ("dSOC", "%", True),
        ("dod", "percent of SOC", True),
        ("soc_rise_pct", "%", True),
        ("rise", "% SOC", True),
        ("soc_at_start", "%", False),
        ("social_change", "%", False),
        ("delta_T", "K", False),
    ],
)
def test_a_change_of_soc_is_known_by_its_words(name: str, unit: str, found: bool) -> None:  # noqa: FBT001  # a column of the table
    units = {"charge": "Ah", name: unit}
    assert bool(find_charge_and_soc(list(units), units)) is found


def test_a_pair_can_be_declared() -> None:
    [found] = find_charge_and_soc(["q", "s"], {}, declared=[("q", "s")])
    assert math.isnan(found.statistic)
    assert found.to_json()["statistic"] is None
    with pytest.raises(DataError, match="not a feature: x"):
        find_charge_and_soc(["q", "s"], {}, declared=[("q", "x")])


# --- features that need later cycles --------------------------------------------------------------

TABLE = ("next", "last", "mean", "before", "rank", "own")


def looking_around(table: pl.DataFrame) -> pl.DataFrame:
    """Features that look ahead, and two (`before`, `own`) that do not."""
    return table.sort("asset_id", "op_index").with_columns(
        next=CAPACITY.shift(-1).over("asset_id"),
        last=CAPACITY.last().over("asset_id"),
        mean=CAPACITY.mean().over("asset_id"),
        before=CAPACITY.shift(1).over("asset_id"),
        rank=CAPACITY.rank(),
        own=pl.col("voltage") / pl.col("temperature"),
    )


def test_features_that_look_at_later_cycles_are_found_and_those_that_look_back_are_not() -> None:
    changed = changed_by_later_cycles(fleet(), looking_around, TABLE)
    assert [found.features for found in changed.findings] == [
        ("next",),
        ("last",),
        ("mean",),
        ("rank",),
    ]
    assert changed.n_rows == 6 * (10 + 20 + 30)
    ahead, last, *_ = changed.findings
    assert ahead.statistic == pytest.approx(6 * 3 / changed.n_rows)  # the last row before each cut
    assert last.statistic == pytest.approx(1.0)
    assert last.assets == tuple(f"EV-{number:03d}" for number in range(6))
    assert "nothing without" in ahead.message


def test_noise_that_is_computed_from_each_row_is_not_found() -> None:
    assert changed_by_later_cycles(fleet(), lambda table: table, NOISE).findings == ()


@pytest.mark.parametrize(("error", "found"), [(1e-13, False), (1e-9, True)])
def test_the_last_bits_may_differ(error: float, found: bool) -> None:  # noqa: FBT001  # a column of the table
    def compute(table: pl.DataFrame) -> pl.DataFrame:
        return table.with_columns(pl.col("voltage") * (1.0 + error * (table.height < 240)))

    assert bool(changed_by_later_cycles(fleet(), compute, ["voltage"]).findings) is found


def recording(table: pl.DataFrame) -> Recording:
    """A discharge of one sample per row, with the feature `voltage` as its voltage."""
    cycle = table.select(
        "asset_id",
        cycle_index="op_index",
        kind=pl.lit("discharge"),
        started_at=pl.lit(None, pl.Datetime("us")),
    )
    samples = cycle.with_columns(
        time_s=pl.lit(0.0),
        voltage_v=table["voltage"],
        current_a=pl.lit(-2.0),
        temperature_c=pl.lit(25.0),
    )
    cycles = cycle.with_columns(
        ambient_temperature_c=pl.lit(24.0),
        n_samples=pl.lit(1, pl.Int64),
        capacity_ah=table["capacity_ah"],
        re_ohm=pl.lit(None, pl.Float64),
        rct_ohm=pl.lit(None, pl.Float64),
    )
    return Recording(samples.select(*SAMPLES), cycles.select(*CYCLES), "a test")


def test_a_planted_future_feature_is_found_in_cycles() -> None:
    def compute(history: Recording) -> pl.DataFrame:
        cycles = history.cycles.sort("asset_id", "cycle_index")
        return cycles.select(
            "asset_id",
            pl.col("cycle_index").alias("op_index"),
            history.samples.sort("asset_id", "cycle_index")["voltage_v"],
            (CAPACITY.shift(-1) - CAPACITY).over("asset_id").alias("fade"),
        )

    changed = changed_by_later_cycles(recording(fleet()), compute, ["voltage_v", "fade"])
    assert [found.features for found in changed.findings] == [("fade",)]


def test_our_own_views_need_no_later_cycles() -> None:
    view = get_view("discharge_summary")
    history = recording(fleet())
    changed = changed_by_later_cycles(
        history, lambda cycles: feature_table(view, cycles), view.names
    )
    assert changed == LaterCycles((), 360)


def test_an_asset_of_one_row_keeps_it() -> None:
    assert changed_by_later_cycles(fleet(3, 1), lambda table: table, NOISE).n_rows == 9


@pytest.mark.parametrize("when", ["always", "on truncated history"])
def test_what_cannot_be_compared_is_no_silent_yes(when: str) -> None:
    def compute(table: pl.DataFrame) -> pl.DataFrame:
        return table.clear() if when == "always" or table.height < 240 else table

    with pytest.raises(DataError, match="nothing can be compared"):
        changed_by_later_cycles(fleet(), compute, NOISE)


# --- the report -----------------------------------------------------------------------------------


def test_the_report_is_json_and_says_what_came_closest_and_what_was_not_checked() -> None:
    table = fleet().with_columns(copy=CAPACITY)
    changed = changed_by_later_cycles(table, lambda rows: rows, features_of(table))
    report = check_leakage(table, features_of(table), later=changed)
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["findings"][0]["features"] == ["copy"]
    assert document["clean"] is False
    assert document["unchecked"] == []
    assert document["n_lines"] == 4 + 6 + 12
    assert document["n_recomputed"] == 360
    assert all("copy" not in line["formula"] for line in document["closest"])
    assert len(document["closest"]) == 5

    told = check_leakage(table, NOISE)
    assert not told.clean
    assert "a feature table was given" in told.unchecked[0]
    assert check_leakage(table, NOISE, later=LaterCycles((), 360)).clean


# --- the real cells -------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("discharge_summary", [("current_A_mean", "discharge_time_s")]),
        (
            "discharge_physics",
            [
                ("time_to_cutoff_s",),
                ("energy_to_cutoff_Wh",),
                ("current_A_mean", "discharge_time_s"),
            ],
        ),
    ],
)
def test_on_the_nasa_cells_what_holds_the_charge_that_flowed_is_found(
    data_folder: Path, name: str, expected: list[tuple[str, ...]]
) -> None:
    view = get_view(name)
    cycles = open_source("nasa", load_settings(data=data_folder), kinds=(view.kind,))
    table = feature_table(view, cycles)
    report: LeakageReport = check_leakage(table, view.names)
    assert [found.features for found in report.findings] == expected
    for found in report.findings:
        assert any(
            feature.leaks_label for feature in view.features if feature.name in found.features
        )


@pytest.mark.data
def test_published_views_need_no_later_cycles_of_the_nasa_cells(data_folder: Path) -> None:
    view = get_view("discharge_physics")
    cycles = open_source("nasa", load_settings(data=data_folder), kinds=(view.kind,))
    changed = changed_by_later_cycles(
        cycles, lambda history: feature_table(view, history), view.names
    )
    assert changed.findings == ()
    assert changed.n_rows > 2800
