"""Each check over a feature table fires on its fault and is silent on sound rows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batteryops.errors import DataError, UnknownAssetError
from batteryops.quality.checks import MeanColumns, check_features
from batteryops.quality.feature_schema import FeatureSchema
from batteryops.quality.report import CheckResult, QualityReport
from batteryops.schema import Profile
from batteryops.settings import QualitySettings, load_settings

SETTINGS = load_settings(Path(__file__).parents[2] / "config" / "production.yaml")
LIMITS: QualitySettings = SETTINGS.quality
profile_of: Callable[[str], Profile] = SETTINGS.profile_of
MEANS = MeanColumns(voltage="v_mean", current="i_mean", temperature="t_mean")


def check(table: pl.DataFrame, required: tuple[str, ...] = ("capacity_ah",)) -> QualityReport:
    return check_features(table, profile_of, LIMITS, MEANS, required)


def found(report: QualityReport) -> set[tuple[int, str]]:
    return set(report.quarantine.select("op_index", "check").iter_rows())


def result(report: QualityReport, name: str, column: str | None = None) -> CheckResult:
    (only,) = [c for c in report.checks if (c.name, c.column) == (name, column)]
    return only


def features(n: int = 200, asset_id: str = "B0005") -> pl.DataFrame:
    """A sound feature table: `n` cycles of slow ageing."""
    return pl.DataFrame(
        {
            "asset_id": [asset_id] * n,
            "op_index": range(2, 2 * n + 2, 2),
            "v_mean": [3.5 - 0.001 * i for i in range(n)],
            "i_mean": [-1.8 + 0.0005 * i for i in range(n)],
            "t_mean": [30.0 + 0.01 * i for i in range(n)],
            "long_s": [3500.0 - 3.0 * i for i in range(n)],
            "capacity_ah": [1.85 - 0.002 * i for i in range(n)],
        },
        schema_overrides={"op_index": pl.Int32},
    )


def set_value(table: pl.DataFrame, row: int, column: str, value: float | None) -> pl.DataFrame:
    """The table with one value changed."""
    at = pl.int_range(pl.len()) == row
    changed = pl.when(at).then(pl.lit(value, table.schema[column])).otherwise(column)
    return table.with_columns(changed.alias(column))


def test_a_sound_table_passes_every_check() -> None:
    report = check(features())
    assert {c.status for c in report.checks} == {"pass"}
    assert report.accepted
    assert report.quarantine.is_empty()
    assert report.n_rows == 200


@pytest.mark.parametrize(
    ("column", "value", "bound"),
    [
        ("v_mean", 2.4, 2.5),
        ("v_mean", 4.6, 4.5),
        ("i_mean", -5.1, -5.0),
        ("i_mean", 0.1, 0.0),
        ("t_mean", -11.0, -10.0),
        ("t_mean", 61.0, 60.0),
    ],
)
def test_a_mean_outside_of_the_cells_window_is_set_aside(
    column: str, value: float, bound: float
) -> None:
    report = check(set_value(features(), 7, column, value))
    assert found(report) == {(16, "range")}
    assert report.quarantine.select("value", "limit").row(0) == (value, bound)
    assert result(report, "range", column).rows == 1
    assert report.accepted


def test_the_bounds_themselves_are_allowed() -> None:
    table = set_value(set_value(features(), 7, "v_mean", 2.5), 8, "v_mean", 4.5)
    assert check(table).quarantine.is_empty()


def test_a_pack_is_not_judged_as_a_cell() -> None:
    pack = features(asset_id="Vehicle 5").with_columns(pl.col("v_mean") * 160)
    report = check(pl.concat([features(), pack]))
    assert report.quarantine.is_empty()
    as_another_pack = pack.with_columns(asset_id=pl.lit("Vehicle 1"))
    assert result(check(as_another_pack), "range", "v_mean").rows == 200  # 560 V on a 408 V pack


def test_rows_that_miss_a_required_column_are_set_aside() -> None:
    table = set_value(features(), 3, "long_s", float("nan"))
    report = check(table, required=("long_s",))
    assert found(report) == {(8, "missing")}
    missing = result(report, "missing", "long_s")
    assert missing.value == pytest.approx(1 / 200)
    assert not missing.exceeded


@pytest.mark.parametrize(("holes", "refused"), [(9, False), (10, True)])
def test_five_percent_missing_in_a_required_column_refuse_the_table(
    holes: int, *, refused: bool
) -> None:
    at = pl.int_range(pl.len())
    table = features().with_columns(long_s=pl.when(at >= holes).then("long_s"))
    report = check(table, required=("long_s",))
    assert result(report, "missing", "long_s").exceeded is refused
    assert report.accepted is not refused


def test_missing_values_of_an_optional_column_are_reported_and_nothing_is_set_aside() -> None:
    at = pl.int_range(pl.len())
    report = check(features().with_columns(long_s=pl.when(at >= 100).then("long_s")))
    assert report.quarantine.is_empty()
    assert report.accepted
    missing = result(report, "missing", "long_s")
    assert (missing.status, missing.value, missing.limit) == ("warn", 0.5, 0.05)


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_infinity_is_set_aside_in_any_column(value: float) -> None:
    report = check(set_value(features(), 3, "long_s", value))
    assert found(report) == {(8, "finite")}
    assert report.quarantine["reason"].item() == "infinite: long_s"


def test_outliers_are_counted_and_stay() -> None:
    tails = np.concatenate([np.zeros(196), np.full(4, 100.0)])  # 2 % beyond 3 sigma
    report = check(features().with_columns(extra=pl.Series(tails)))
    outliers = result(report, "outlier", "extra")
    # sigma of 196 zeros and four hundreds is 14.04, their mean 2: 98 is 7 sigma away
    assert (outliers.status, outliers.rows, outliers.value) == ("warn", 4, 0.02)
    assert report.quarantine.is_empty()
    assert report.accepted


def test_outliers_are_counted_among_assets_of_one_profile() -> None:
    few_packs = features(6, asset_id="Vehicle 5").with_columns(pl.col("v_mean") * 160)
    report = check(pl.concat([features(), few_packs]))
    assert result(report, "outlier", "v_mean").rows == 0


def test_a_repeated_row_is_set_aside_once_and_its_first_copy_stays() -> None:
    table = features(400)
    table = pl.concat([table, table[[5]]])
    report = check(table)
    assert found(report) == {(12, "repeated_row")}
    assert report.kept(table).sort("op_index").equals(features(400))
    assert report.set_aside(table).height == 1
    assert report.accepted  # one of 401 is below 0.5 %


def test_rows_that_contradict_each_other_are_all_set_aside() -> None:
    table = features(400)
    table = pl.concat([table, set_value(table[[5]], 0, "v_mean", 3.9)])
    report = check(table)
    assert report.quarantine["check"].to_list() == ["conflicting_rows"] * report.quarantine.height
    assert set(report.quarantine["op_index"]) == {12}
    assert report.set_aside(table).height == 2


def test_a_row_with_the_features_of_another_is_set_aside_and_the_first_stays() -> None:
    table = features(400)
    copy = table[[5]].with_columns(op_index=pl.lit(999, pl.Int32))
    report = check(pl.concat([copy, table]))
    assert found(report) == {(999, "duplicate_content")}
    assert report.quarantine["reason"].item() == "all features equal those of B0005 12"


def test_half_a_percent_of_duplicates_refuses_the_table() -> None:
    table = features(199)
    report = check(pl.concat([table, table[[5]]]))
    assert result(report, "duplicates").value == 0.005
    assert not report.accepted


@pytest.mark.parametrize("value", [-1000.0, 1000.0, 65535.0])
def test_a_sentinel_in_a_required_column_sets_the_row_aside(value: float) -> None:
    table = set_value(features().with_columns(current_max=pl.lit(-2.0)), 3, "current_max", value)
    assert found(check(table, required=("current_max",))) == {(8, "sentinel")}


def test_a_sentinel_in_another_column_is_reported() -> None:
    table = set_value(features().with_columns(current_max=pl.lit(-2.0)), 3, "current_max", 1000.0)
    report = check(table)
    assert report.quarantine.is_empty()
    assert result(report, "sentinel", "current_max").status == "warn"


def test_a_dead_sensor_at_its_sentinel_is_not_taken_for_kelvin() -> None:
    report = check(features().with_columns(t_mean=pl.lit(511.0)))
    assert set(report.quarantine["check"]) == {"sentinel", "range"}
    assert not report.accepted


def test_a_duration_of_a_thousand_seconds_is_no_sentinel() -> None:
    assert check(set_value(features(), 3, "long_s", 1000.0)).quarantine.is_empty()


@pytest.mark.parametrize(
    ("column", "expression", "advice"),
    [
        ("v_mean", pl.col("v_mean") * 1000, "divide by 1000"),
        ("i_mean", pl.col("i_mean") * 1000, "divide by 1000"),
        ("t_mean", pl.col("t_mean") + 273.15, "subtract 273.15"),
        ("i_mean", -pl.col("i_mean"), "multiply by -1"),
    ],
)
def test_a_wrong_unit_refuses_the_table_and_says_what_to_do(
    column: str, expression: pl.Expr, advice: str
) -> None:
    table = pl.concat([features().with_columns(expression), features(asset_id="B0006")])
    report = check(table.with_columns(pl.col("long_s") + pl.int_range(pl.len())))
    assert advice in result(report, "unit", column).message
    assert not report.accepted
    assert set(report.quarantine["asset_id"]) == {"B0005"}
    assert set(report.quarantine["check"]) == {"unit"}  # and not out of range as well


def test_rows_without_a_label_are_set_aside_for_training_only() -> None:
    table = features().with_columns(capacity_ah=pl.lit(None, pl.Float64))
    report = check(table)
    assert report.accepted
    assert report.kept(table).is_empty()
    assert report.kept(table, "prediction").equals(table)


@pytest.mark.parametrize(("label", "limit"), [(0.07, 0.2), (2.64, 2.5)])
def test_a_label_that_the_cell_cannot_have_is_set_aside_for_training(
    label: float, limit: float
) -> None:
    report = check(set_value(features(), 3, "capacity_ah", label))
    assert found(report) == {(8, "false_label")}
    assert report.quarantine["limit"].item() == limit


def test_a_pack_without_a_nominal_capacity_may_have_any_positive_label() -> None:
    pack = features(asset_id="Vehicle 5").with_columns(
        pl.col("v_mean") * 160, capacity_ah=pl.lit(150.0)
    )
    assert check(pack).quarantine.is_empty()


def test_a_table_without_a_label_column_can_be_judged() -> None:
    assert check(features().drop("capacity_ah"), required=()).quarantine.is_empty()


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        check(features().clear())


def test_an_unknown_asset_is_refused_by_name() -> None:
    with pytest.raises(UnknownAssetError, match="Z1"):
        check(features(asset_id="Z1"))


@pytest.mark.parametrize("column", ["asset_id", "op_index", "v_mean", "capacity_ah"])
def test_a_missing_column_is_named(column: str) -> None:
    with pytest.raises(DataError, match=f"missing column {column}"):
        check(features().drop(column))


def test_text_where_numbers_belong_is_named() -> None:
    with pytest.raises(DataError, match="column v_mean is String, expected Float64"):
        check(features().with_columns(pl.col("v_mean").cast(pl.String)))


def test_a_key_without_a_value_is_refused() -> None:
    table = features().with_columns(op_index=pl.when(pl.int_range(pl.len()) > 0).then("op_index"))
    with pytest.raises(DataError, match="column op_index has nulls"):
        check(table)


def test_wide_integers_are_taken_as_keys_and_as_required_numbers() -> None:
    table = features().with_columns(pl.col("op_index").cast(pl.Int64), count=pl.lit(5))
    assert check(table, required=("count",)).quarantine.is_empty()


def test_a_table_without_a_temperature_can_be_judged() -> None:
    means = MeanColumns(voltage="v_mean", current="i_mean", temperature=None)
    report = check_features(features(), profile_of, LIMITS, means, ())
    assert {c.column for c in report.checks if c.name == "range"} == {"v_mean", "i_mean"}


@settings(max_examples=50)
@given(
    st.lists(
        st.one_of(
            st.none(),
            st.floats(allow_nan=False),
            st.sampled_from([2.5, 4.5, float("inf"), float("-inf")]),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_pandera_finds_what_a_plain_comparison_finds(values: list[float | None]) -> None:
    n = len(values)
    table = pl.DataFrame(
        {"asset_id": ["B0005"] * n, "op_index": range(n), "v": values},
        schema={"asset_id": pl.String, "op_index": pl.Int32, "v": pl.Float64},
    ).with_row_index("row")
    failures = FeatureSchema(["v"], {"v": (2.5, 4.5)}).failures(table)
    outside = {i for i, v in enumerate(values) if v is not None and not 2.5 <= v <= 4.5}
    infinite = {i for i, v in enumerate(values) if v is not None and np.isinf(v)}
    assert set(failures.filter(check="range")["row"]) == outside
    assert set(failures.filter(check="finite")["row"]) == infinite


PLANTED = {
    "hot": ("t_mean", 99.0),
    "gap": ("v_mean", None),
    "infinite": ("long_s", float("inf")),
    "unlabelled": ("capacity_ah", None),
    "crashed": ("capacity_ah", 0.05),
}


@settings(max_examples=15)
@given(
    faults=st.lists(st.tuples(st.sampled_from(sorted(PLANTED)), st.integers(0, 59)), max_size=8),
    copies=st.lists(st.integers(0, 59), max_size=4),
    seed=st.integers(0, 1000),
)
def test_kept_and_set_aside_are_all_rows_and_their_order_is_irrelevant(
    faults: list[tuple[str, int]], copies: list[int], seed: int
) -> None:
    table = features(60)
    for fault, row in faults:
        table = set_value(table, row, *PLANTED[fault])
    table = pl.concat([table, table[copies]])
    report = check(table)
    order = np.random.default_rng(seed).permutation(table.height)
    shuffled = check(table[order])
    assert shuffled.quarantine.equals(report.quarantine)
    assert [c.rows for c in shuffled.checks] == [c.rows for c in report.checks]
    kept, aside = report.kept(table), report.set_aside(table)
    assert pl.concat([kept, aside]).sort(table.columns).equals(table.sort(table.columns))
    faulty = {2 * row + 2 for _, row in faults}
    assert sorted(kept["op_index"]) == [i for i in range(2, 122, 2) if i not in faulty]


@pytest.mark.data
def test_the_published_nasa_features_hold_191_labels_of_runs_that_failed(
    data_folder: Path,
) -> None:
    table = pl.read_csv(data_folder / "source_system" / "nasa_feature_matrix.csv").rename(
        {"battery_id": "asset_id", "cycle": "op_index", "capacity": "capacity_ah"}
    )
    means = MeanColumns("voltage_V_mean", "current_A_mean", "temperature_C_mean")
    report = check_features(table, profile_of, LIMITS, means, ("capacity_ah",))
    assert report.accepted
    below = table.filter(pl.col("capacity_ah") < 0.2).height
    above = table.filter(pl.col("capacity_ah") > 2.5).height
    assert report.quarantined_rows == below + above == 191
    assert set(report.quarantine["check"]) == {"false_label"}


@pytest.mark.data
def test_the_chengdu_trips_are_judged_by_their_own_packs(data_folder: Path) -> None:
    published = pl.read_parquet(data_folder / "source_system" / "chengdu_trip_features.parquet")
    table = published.rename({"vehicle_id": "asset_id", "trip_id": "op_index"})
    means = MeanColumns("voltage_mean", "current_mean", "mean_max_temp")
    positive = check_features(table, profile_of, LIMITS, means, ())
    assert "multiply by -1" in result(positive, "unit", "current_mean").message
    negative = table.with_columns(-pl.col("current_mean"))
    report = check_features(negative, profile_of, LIMITS, means, ())
    assert report.accepted
    assert result(report, "range", "voltage_mean").rows == 0  # vehicle 5 shows 586 V
    charging = negative.filter(pl.col("current_mean") > 0).height
    assert result(report, "range", "current_mean").rows == charging
    assert result(report, "sentinel", "current_min").rows == 141
    assert result(report, "missing", "voltage_drop_time_s").value == pytest.approx(0.590, abs=1e-3)
