"""Declarations, the schema hash, and the way from a recording to a matrix."""

import hashlib
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from batteryops.errors import DataError
from batteryops.features.view import Feature, FeatureView
from batteryops.features.views import VIEWS, feature_table, get_view, matrix
from batteryops.schema import Recording

MakeRecording = Callable[..., Recording]
SUMMARY = get_view("discharge_summary")

# A model carries the hash of its view. When one of these changes, the view's version must have
# changed as well, and so must the values worked by hand in the tests of that view.
GOLDEN = {
    ("discharge_summary", 1): "e1394c596bfe55c291c2d604f76be220b096219f9b9fb2780dc7924ec5556741",
    ("discharge_physics", 1): "405432e9ead6082091d204f92597609bbfa6075da1d1ed0ce10bef8a988a37bd",
    ("partial_window", 1): "ff992a8548a32d1e7074276e4fbe1139d47905abd71968c35302227fbb59364b",
}


def view_of(*features: Feature, version: int = 1) -> FeatureView:
    return FeatureView("a_view", version, "discharge", features, lambda samples, _: samples)


def feature(name: str = "v", unit: str = "V", low: float = 0.0, high: float = 5.0) -> Feature:
    return Feature(name, unit, low, high, "a meaning", "a source")


def test_no_view_was_redefined_in_silence() -> None:
    assert {(view.name, view.version): view.schema_hash for view in VIEWS.values()} == GOLDEN


def test_the_hash_is_the_sha256_of_the_canonical_json() -> None:
    canonical = (
        b'{"features":[{"name":"v","unit":"V"},{"name":"i","unit":"A"}],'
        b'"name":"a_view","version":1}'
    )

    view = view_of(feature("v", "V"), feature("i", "A"))

    assert view.schema_hash == hashlib.sha256(canonical).hexdigest()


def test_name_unit_order_and_version_change_the_hash_and_an_explanation_does_not() -> None:
    v, i = feature("v", "V"), feature("i", "A")
    others = [
        view_of(feature("w", "V"), i),
        view_of(feature("v", "mV"), i),
        view_of(i, v),
        view_of(v),
        view_of(v, i, version=2),
    ]

    assert len({view_of(v, i).schema_hash, *(view.schema_hash for view in others)}) == 6
    assert view_of(feature(high=6.0)).schema_hash == view_of(feature(high=5.0)).schema_hash


def test_a_view_does_not_name_a_feature_twice() -> None:
    with pytest.raises(ValueError, match="names a feature twice"):
        view_of(feature("v"), feature("v"))


def test_a_range_is_not_empty() -> None:
    with pytest.raises(ValueError, match=r"low 5\.0 is not below high 5\.0"):
        feature(low=5.0, high=5.0)


def test_the_seven_have_the_names_that_clients_send() -> None:
    assert SUMMARY.names == (
        "voltage_V_mean",
        "current_A_mean",
        "temperature_C_mean",
        "temperature_C_max",
        "discharge_time_s",
        "delta_T_C",
        "voltage_drop_time_s",
    )


def test_a_view_reads_its_kind_and_what_else_it_needs() -> None:
    assert SUMMARY.kinds == ("discharge",)
    assert get_view("partial_window").kinds == ("discharge", "charge")


def test_a_view_that_claims_to_be_free_of_leakage_says_why_of_each_feature() -> None:
    for view in VIEWS.values():
        for described in view.features:
            assert (described.why_safe is not None) == view.leak_free
            assert described.leaks_label is None or not view.leak_free


def test_an_unknown_view_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DataError, match="'summary' does not exist; expected one of discharge_sum"):
        get_view("summary")


def test_a_feature_table_is_keyed_typed_and_sorted(make_recording: MakeRecording) -> None:
    rows = [(0.0, 4.0, -2.0, 24.0), (60.0, 3.0, -2.0, 25.0)]
    recording = make_recording({("B", 4): rows, ("A", 10): rows, ("A", 2): rows})

    for view in VIEWS.values():
        table = feature_table(view, recording)

        assert table.schema == pl.Schema(
            {"asset_id": pl.String(), "op_index": pl.Int32()}
            | dict.fromkeys((*view.names, "capacity_ah"), pl.Float64())
        )
        assert table.select("asset_id", "op_index").rows() == [("A", 2), ("A", 10), ("B", 4)]


def test_cycles_of_other_kinds_are_passed_over(hand_worked: Recording) -> None:
    charge = pl.lit("charge").alias("kind")
    mixed = Recording(
        pl.concat(
            [
                hand_worked.samples,
                hand_worked.samples.with_columns(charge, cycle_index=pl.lit(3, pl.Int32)),
            ]
        ),
        pl.concat(
            [
                hand_worked.cycles,
                hand_worked.cycles.with_columns(charge, cycle_index=pl.lit(3, pl.Int32)),
            ]
        ),
        "mixed",
    )

    for view in VIEWS.values():
        assert feature_table(view, mixed).equals(feature_table(view, hand_worked))


def test_a_cycle_without_samples_or_label_stays_with_nulls(hand_worked: Recording) -> None:
    recording = Recording(
        hand_worked.samples.clear(),
        hand_worked.cycles.with_columns(capacity_ah=pl.lit(float("nan"))),
        "empty records",
    )

    for view in VIEWS.values():
        row = feature_table(view, recording).select(*view.names, "capacity_ah").row(0)
        assert row == (None,) * (len(view.names) + 1)


def test_a_recording_without_the_views_kind_is_refused(hand_worked: Recording) -> None:
    charges = pl.lit("charge").alias("kind")
    recording = Recording(
        hand_worked.samples.with_columns(charges), hand_worked.cycles.with_columns(charges), "X"
    )

    with pytest.raises(DataError, match=r"X has no discharge cycles \(given: charge\)"):
        feature_table(SUMMARY, recording)


def test_a_recording_without_any_cycle_is_refused(hand_worked: Recording) -> None:
    recording = Recording(hand_worked.samples.clear(), hand_worked.cycles.clear(), "X")

    with pytest.raises(DataError, match=r"\(given: no cycles\)"):
        feature_table(SUMMARY, recording)


def test_a_cycle_that_is_listed_twice_is_refused(hand_worked: Recording) -> None:
    twice = Recording(hand_worked.samples, pl.concat([hand_worked.cycles, hand_worked.cycles]), "X")

    with pytest.raises(DataError, match="X lists cycle 2 of A twice; expected once"):
        feature_table(SUMMARY, twice)


def test_samples_of_an_unlisted_cycle_are_refused(make_recording: MakeRecording) -> None:
    rows = [(0.0, 4.0, -2.0, 24.0)]
    recording = make_recording({("A", 1): rows, ("A", 2): rows})
    fewer = Recording(recording.samples, recording.cycles.head(1), "X")

    with pytest.raises(DataError, match=r"samples of 1 discharge cycles .* first 2 of A"):
        feature_table(SUMMARY, fewer)


def test_a_matrix_has_the_views_order_and_nan_for_null() -> None:
    columns = {name: [float(i), None] for i, name in enumerate(SUMMARY.names)}
    table = pl.DataFrame(dict(reversed(columns.items()))).with_columns(other=pl.lit("x"))

    rows = matrix(SUMMARY, table)

    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    assert rows[0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert np.isnan(rows[1]).all()


def test_a_matrix_of_an_empty_table_has_no_rows() -> None:
    table = pl.DataFrame(schema=dict.fromkeys(SUMMARY.names, pl.Float64))

    assert matrix(SUMMARY, table).shape == (0, 7)


def test_a_matrix_needs_every_feature() -> None:
    table = pl.DataFrame({name: [1.0] for name in SUMMARY.names[1:]})

    with pytest.raises(DataError, match="missing feature voltage_V_mean; expected the 7 of view"):
        matrix(SUMMARY, table)


def test_a_matrix_is_made_of_numbers() -> None:
    table = pl.DataFrame({name: ["3.5"] for name in SUMMARY.names})

    with pytest.raises(DataError, match="feature voltage_V_mean is String, expected numbers"):
        matrix(SUMMARY, table)
