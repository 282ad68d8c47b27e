"""The canonical tables, profiles and fingerprints."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batteryops.errors import DataError
from batteryops.schema import CYCLES, SAMPLES, Profile, Recording, conform, fingerprint

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


def test_a_recording_with_a_missing_column_is_refused_by_name() -> None:
    samples = SAMPLES.to_frame(eager=True)
    with pytest.raises(DataError, match=r"samples of nowhere: missing column voltage_v"):
        Recording(samples.drop("voltage_v"), CYCLES.to_frame(eager=True), "nowhere")


def test_a_recording_with_a_further_sample_column_is_refused() -> None:
    samples = SAMPLES.to_frame(eager=True).with_columns(pl.lit(1).alias("extra"))
    with pytest.raises(DataError, match="expected just asset_id"):
        Recording(samples, CYCLES.to_frame(eager=True), "nowhere")


def test_a_recording_may_carry_further_cycle_columns() -> None:
    cycles = CYCLES.to_frame(eager=True).with_columns(pl.lit(1.0).alias("dod_pct"))
    assert Recording(SAMPLES.to_frame(eager=True), cycles, "nowhere").asset_ids == []


def test_a_wrongly_typed_column_is_named_with_both_types() -> None:
    with pytest.raises(DataError, match="column a is String, expected Float64"):
        conform(pl.DataFrame({"a": ["x"]}), pl.Schema({"a": pl.Float64()}), what="t")


def test_soh_is_capacity_over_nominal() -> None:
    assert CELL.soh(1.5) == 0.75
    assert CELL.capacity_range_ah == (0.0, 2.5)


def test_a_profile_without_nominal_capacity_states_no_soh() -> None:
    fields = {name: getattr(CELL, name) for name in CELL.__dataclass_fields__}
    unknown = Profile(**{**fields, "nominal_capacity_ah": None})
    with pytest.raises(DataError, match="SoH cannot be stated"):
        unknown.soh(1.0)


FRAMES = st.lists(
    st.tuples(st.text(max_size=3), st.one_of(st.none(), st.floats(allow_nan=False))), max_size=6
)


def _frame(rows: list[tuple[str, float | None]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"a": pl.String, "b": pl.Float64}, orient="row")


@given(FRAMES, FRAMES)
def test_fingerprints_are_equal_just_when_tables_are(
    one: list[tuple[str, float | None]], other: list[tuple[str, float | None]]
) -> None:
    same = repr(one) == repr(other)  # repr tells -0.0 from 0.0, as the fingerprint does
    assert (fingerprint(_frame(one)) == fingerprint(_frame(other))) is same


def test_a_fingerprint_sees_names_types_and_missing_values() -> None:
    base = pl.DataFrame({"a": [0, 1]})
    others = [
        base.rename({"a": "b"}),
        base.cast(pl.Int32),
        pl.DataFrame({"a": [None, 1]}),
        pl.DataFrame({"a": [True, False]}),
    ]
    assert len({fingerprint(table) for table in [base, *others]}) == 5
