"""Every mistake in a request or a table is named, and what is sound passes."""

from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batteryops.errors import DataError
from batteryops.features.validation import check_table, problems, vector
from batteryops.features.views import VIEWS, feature_table, get_view
from batteryops.schema import Recording

SUMMARY = get_view("discharge_summary")
PHYSICS = get_view("discharge_physics")

# the first row of the published matrix
GOOD: dict[str, object] = {
    "voltage_V_mean": 3.5298286688693397,
    "current_A_mean": -1.8187019641679725,
    "temperature_C_mean": 32.572328114029,
    "temperature_C_max": 38.98218133148803,
    "discharge_time_s": 3690.234,
    "delta_T_C": 14.656187907465561,
    "voltage_drop_time_s": 2713.484,
}


def good_table(rows: int = 3) -> pl.DataFrame:
    return pl.DataFrame({name: [value] * rows for name, value in GOOD.items()}).with_columns(
        asset_id=pl.lit("B0005"), op_index=pl.int_range(2, rows + 2, dtype=pl.Int32)
    )


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        (
            "voltage_V_mean",
            3529.8,
            "voltage_V_mean is 3529.8, expected 0 to 5 V; it looks like millivolts: divide by 1000",
        ),
        (
            "voltage_V_mean",
            352.98,
            (
                "voltage_V_mean is 352.98, expected 0 to 5 V; "
                "it looks like the voltage of a pack: divide by the number of cells in series"
            ),
        ),
        (
            "current_A_mean",
            -1818.7,
            (
                "current_A_mean is -1818.7, expected -20 to 0 A; "
                "it looks like milliamps: divide by 1000"
            ),
        ),
        (
            "current_A_mean",
            1.8187,
            (
                "current_A_mean is 1.8187, expected -20 to 0 A; "
                "it looks like a discharge counted as positive: "
                "change the sign, discharge is negative"
            ),
        ),
        (
            "current_A_mean",
            1818.7,
            (
                "current_A_mean is 1818.7, expected -20 to 0 A; "
                "it looks like milliamps, discharge counted as positive: divide by -1000"
            ),
        ),
        (
            "temperature_C_mean",
            305.7,
            (
                "temperature_C_mean is 305.7, expected -40 to 70 degC; "
                "it looks like kelvin: subtract 273.15"
            ),
        ),
        (
            "temperature_C_mean",
            90.6,
            (
                "temperature_C_mean is 90.6, expected -40 to 70 degC; "
                "it looks like Fahrenheit: subtract 32 and divide by 1.8"
            ),
        ),
        (
            "discharge_time_s",
            3690234,
            (
                "discharge_time_s is 3690234, expected 0 to 86400 s; "
                "it looks like milliseconds: divide by 1000"
            ),
        ),
        (
            "discharge_time_s",
            -1.0,
            (
                "discharge_time_s is -1, expected 0 to 86400 s; "
                "it looks like a time before the start: count from the start of the cycle"
            ),
        ),
        ("delta_T_C", -3.0, "delta_T_C is -3, expected 0 to 60 K"),
        ("voltage_V_mean", None, "voltage_V_mean is null, expected 0 to 5 V"),
        ("voltage_V_mean", float("nan"), "voltage_V_mean is NaN, expected 0 to 5 V"),
        ("voltage_V_mean", float("inf"), "voltage_V_mean is infinity, expected 0 to 5 V"),
        ("voltage_V_mean", float("-inf"), "voltage_V_mean is -infinity, expected 0 to 5 V"),
        ("voltage_V_mean", 10**400, "voltage_V_mean is infinity, expected 0 to 5 V"),
        ("voltage_V_mean", -(10**400), "voltage_V_mean is -infinity, expected 0 to 5 V"),
        (
            "voltage_V_mean",
            True,
            "voltage_V_mean is True (bool), expected a number, 0 to 5 V",
        ),
        (
            "voltage_V_mean",
            np.True_,
            "voltage_V_mean is np.True_ (bool), expected a number, 0 to 5 V",
        ),
        (
            "voltage_V_mean",
            "3.5",
            "voltage_V_mean is '3.5' (str), expected a number, 0 to 5 V",
        ),
        (
            "voltage_V_mean",
            list(range(100)),
            (
                "voltage_V_mean is [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1... (list), "
                "expected a number, 0 to 5 V"
            ),
        ),
    ],
)
def test_each_mistake_is_named_with_what_to_do(name: str, value: object, sentence: str) -> None:
    assert problems(SUMMARY, GOOD | {name: value}) == [sentence]
    with pytest.raises(DataError) as refusal:
        vector(SUMMARY, GOOD | {name: value})
    assert str(refusal.value) == sentence


def test_a_missing_feature_is_named() -> None:
    rest = {name: value for name, value in GOOD.items() if name != "delta_T_C"}

    assert problems(SUMMARY, rest) == ["delta_T_C is missing, expected 0 to 60 K"]
    with pytest.raises(DataError, match="delta_T_C is missing"):
        vector(SUMMARY, rest)


def test_every_problem_of_a_request_is_told_at_once() -> None:
    found = problems(SUMMARY, GOOD | {"voltage_V_mean": 3529.8, "temperature_C_max": 312.1})

    assert len(found) == 2
    with pytest.raises(DataError, match=r"millivolts.*; temperature_C_max is 312\.1.*kelvin"):
        vector(SUMMARY, GOOD | {"voltage_V_mean": 3529.8, "temperature_C_max": 312.1})


def test_further_names_are_left_to_the_door() -> None:
    assert problems(SUMMARY, GOOD | {"vehicle_id": "EV-1"}) == []


def test_integers_and_numbers_of_numpy_are_numbers() -> None:
    values = GOOD | {
        "voltage_V_mean": Fraction(7, 2),
        "discharge_time_s": 3690,
        "delta_T_C": np.float32(14.5),
        "current_A_mean": np.int64(-2),
    }

    assert problems(SUMMARY, values) == []
    assert vector(SUMMARY, values)[[0, 1, 4, 5]].tolist() == [3.5, -2.0, 3690.0, 14.5]


def test_an_optional_feature_may_be_null_but_neither_missing_nor_nan() -> None:
    values: dict[str, object] = GOOD | dict.fromkeys(PHYSICS.names[7:])

    assert problems(PHYSICS, values) == []
    row = vector(PHYSICS, values)
    assert np.isnan(row[7:]).all()
    assert not np.isnan(row[:7]).any()
    assert problems(PHYSICS, values | {"ohmic_step_ohm": float("nan")}) == [
        "ohmic_step_ohm is NaN, expected 0 to 2 ohm, or null"
    ]
    assert problems(PHYSICS, values | {"ohmic_step_ohm": 139.5}) == [
        (
            "ohmic_step_ohm is 139.5, expected 0 to 2 ohm, or null; "
            "it looks like milliohms: divide by 1000"
        ),
    ]
    del values["ohmic_step_ohm"]
    assert problems(PHYSICS, values) == ["ohmic_step_ohm is missing, expected 0 to 2 ohm, or null"]


def test_a_positional_vector_equals_the_named_one() -> None:
    named = vector(SUMMARY, GOOD)

    assert named.dtype == np.float32
    assert named.shape == (7,)
    assert np.array_equal(named, np.array(list(GOOD.values()), dtype=np.float32))
    assert np.array_equal(vector(SUMMARY, list(GOOD.values())), named)


@pytest.mark.parametrize("length", [0, 6, 8])
def test_a_positional_vector_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(DataError, match=f"length {length} was given.* expects 7 values: voltage"):
        vector(SUMMARY, [1.0] * length)


def test_text_is_no_positional_vector() -> None:
    with pytest.raises(DataError, match="a feature vector of text was given"):
        vector(SUMMARY, "1234567")


@given(
    st.dictionaries(
        st.sampled_from([*SUMMARY.names, "else"]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    )
)
def test_a_vector_is_finite_exactly_when_there_is_no_problem(values: dict[str, object]) -> None:
    mixed = GOOD | values

    if problems(SUMMARY, mixed):
        with pytest.raises(DataError):
            vector(SUMMARY, mixed)
    else:
        assert np.isfinite(vector(SUMMARY, mixed)).all()


def test_a_sound_table_passes() -> None:
    check_table(SUMMARY, good_table())


def test_a_table_in_millivolts_is_refused_with_count_and_first_row() -> None:
    table = good_table().with_columns(
        voltage_V_mean=pl.Series([3.5, 3529.8, 3530.1]),
    )

    with pytest.raises(DataError) as refusal:
        check_table(SUMMARY, table)
    assert str(refusal.value) == (
        "2 of 3 rows, first cycle 3 of B0005: voltage_V_mean is 3529.8, expected 0 to 5 V; "
        "it looks like millivolts: divide by 1000"
    )


def test_a_row_without_a_key_is_told_by_its_number() -> None:
    table = good_table().drop("asset_id").with_columns(delta_T_C=pl.Series([1.0, 2.0, 300.0]))

    with pytest.raises(DataError, match="1 of 3 rows, first row 2: delta_T_C is 300"):
        check_table(SUMMARY, table)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([3.5, None, None], "2 of 3 rows, first cycle 3 of B0005: voltage_V_mean is null"),
        ([3.5, float("nan"), 3.5], "1 of 3 rows, first cycle 3 of B0005: voltage_V_mean is NaN"),
        ([float("inf"), 3.5, 3.5], "first cycle 2 of B0005: voltage_V_mean is infinity"),
        (["3.5", "3.4", "x"], "column voltage_V_mean is String, expected 0 to 5 V"),
        ([True, True, False], "column voltage_V_mean is Boolean, expected 0 to 5 V"),
        ([None, None, None], "3 of 3 rows, first cycle 2 of B0005: voltage_V_mean is null"),
    ],
)
def test_what_is_not_a_number_is_refused_in_a_table(values: list[object], message: str) -> None:
    table = good_table().with_columns(pl.Series("voltage_V_mean", values))

    with pytest.raises(DataError, match=message):
        check_table(SUMMARY, table)


def test_a_missing_column_and_a_bad_one_are_told_together() -> None:
    table = good_table().drop("delta_T_C").with_columns(temperature_C_max=pl.lit(312.13))

    with pytest.raises(
        DataError, match=r"temperature_C_max is 312\.13.*; column delta_T_C is miss"
    ):
        check_table(SUMMARY, table)


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(DataError, match="has no rows; view discharge_summary expects one per disc"):
        check_table(SUMMARY, good_table().clear())


def test_integers_are_sound_in_a_table() -> None:
    check_table(SUMMARY, good_table().with_columns(discharge_time_s=pl.lit(3690)))


def test_optional_features_may_be_null_in_a_table(hand_worked: Recording) -> None:
    table = feature_table(PHYSICS, hand_worked)

    check_table(PHYSICS, table.with_columns(pl.lit(None).alias("voltage_V_900s")))
    with pytest.raises(DataError, match="voltage_V_mean is null"):
        check_table(PHYSICS, table.with_columns(pl.lit(None).alias("voltage_V_mean")))


@pytest.mark.data
def test_every_usable_nasa_discharge_is_plausible(nasa: Recording) -> None:
    usable = feature_table(SUMMARY, nasa).drop_nulls(["capacity_ah", "voltage_drop_time_s"])
    keys = usable.select("asset_id", "op_index")

    assert keys.height == 1886
    for view in VIEWS.values():
        check_table(view, feature_table(view, nasa).join(keys, on=keys.columns, how="semi"))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("voltage_V_mean", pl.col("voltage_V_mean") * 1000),
        ("current_A_mean", pl.col("current_A_mean") * 1000),
        ("current_A_mean", -pl.col("current_A_mean")),
        ("temperature_C_mean", pl.col("temperature_C_mean") + 273.15),
        ("temperature_C_max", pl.col("temperature_C_max") + 273.15),
        ("discharge_time_s", pl.col("discharge_time_s") * 1000),
    ],
)
def test_a_wrong_unit_is_caught_in_every_row_of_the_published_matrix(
    published: pl.DataFrame, name: str, wrong: pl.Expr
) -> None:
    with pytest.raises(DataError, match=f"1886 of 1886 rows.*{name}.*it looks like"):
        check_table(SUMMARY, published.with_columns(wrong))
