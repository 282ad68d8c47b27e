"""The model for unseen batteries: finds a law, falls back to a line, is stored and read whole."""

from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from batteryops.errors import DataError, PackageError
from batteryops.evaluation.owners import Owners
from batteryops.features.views import feature_table, get_view, matrix
from batteryops.models.algorithms import Task, get_algorithm
from batteryops.models.battery_process import (
    BatteryProcess,
    Encoding,
    fit_battery_process,
)
from batteryops.models.intervals import out_of_group_predictions
from batteryops.models.process_recipes import RECIPES, used_features
from batteryops.schema import Kind
from batteryops.telemetry import read

Floats = NDArray[np.float64]
SUMMARY = get_view("discharge_summary").names
KINDS: tuple[Kind, ...] = ("discharge",)
PHYSICS = get_view("discharge_physics").names


@cache
def discharges() -> tuple[NDArray[np.float32], Floats, NDArray[np.object_]]:
    """Eight assets at constant current: record length times current is the capacity."""
    rng = np.random.default_rng(1)
    capacity = np.concatenate([np.linspace(1.9, 1.3, 15) + rng.normal(0, 0.1) for _ in range(8)])
    current = np.repeat([1.0, 2.0, 2.0, 4.0, 1.0, 2.0, 4.0, 4.0], 15)
    values = {name: rng.normal(20.0, 1.0, 120) for name in SUMMARY}
    values["current_A_mean"] = -current
    values["discharge_time_s"] = capacity / current * 3600.0
    values["voltage_drop_time_s"] = 0.7 * values["discharge_time_s"]
    assets = np.repeat(np.array(list("abcdefgh"), dtype=object), 15)
    return np.column_stack([values[n] for n in SUMMARY]).astype(np.float32), capacity, assets


@cache
def model() -> BatteryProcess:
    features, capacity, assets = discharges()
    seen = assets != "c"
    return fit_battery_process(
        features[seen], capacity[seen], assets[seen], view="discharge_summary", names=SUMMARY
    )


def test_the_charge_of_a_record_is_found_to_be_the_capacity() -> None:
    features, capacity, assets = discharges()
    unseen = assets == "c"
    assert np.abs(model()(features[unseen]) - capacity[unseen]).mean() < 0.02


def test_deviation_grows_away_from_training() -> None:
    features, _, assets = discharges()
    near = features[assets == "c"][:1]
    far = near.copy()
    far[0, SUMMARY.index("current_A_mean")] = -15.0
    assert model().predict(far)[1][0] > 2 * model().predict(near)[1][0]


class TestWithoutGroups:
    @pytest.mark.parametrize("view", ["discharge_summary", "discharge_physics"])
    def test_a_group_is_told_as_by_a_process_that_never_had_its_rows(self, view: str) -> None:
        """The parameters saw it, so that the two agree to a part of what they err."""
        names = get_view(view).names
        features, capacity, assets = discharges()
        given = np.full((len(features), len(names)), np.nan, dtype=np.float32)
        for place, name in enumerate(names):
            if name in SUMMARY:
                given[:, place] = features[:, SUMMARY.index(name)]
        groups = np.where(assets < "c", "pair", assets).astype(object)
        process = fit_battery_process(given, capacity, assets, view=view, names=names)

        found, deviation = process.without_groups(given, capacity, assets, groups)

        for group in ("pair", "e"):
            out = groups == group
            without = fit_battery_process(
                given[~out], capacity[~out], assets[~out], view=view, names=names
            )
            np.testing.assert_allclose(found[out], without(given[out]), atol=0.03)
        assert (deviation > 0.0).all()

    def test_one_group_leaves_nothing_to_answer_from(self) -> None:
        features, capacity, assets = discharges()
        seen = assets != "c"
        with pytest.raises(DataError, match="all rows are of one group"):
            model().without_groups(
                features[seen], capacity[seen], assets[seen], np.full(seen.sum(), "all")
            )

    def test_one_fit_serves_a_fold_and_all_groups_that_calibrate_it(self) -> None:
        features, capacity, assets = discharges()
        owners = Owners(assets, assets)
        task = Task("discharge_summary", SUMMARY, (0,) * len(SUMMARY), {}, 0)
        fit = get_algorithm("battery_process").make(task, {})

        process = fit(features, capacity, owners)
        found = out_of_group_predictions(fit, features, capacity, owners, folds=2)

        assert isinstance(process, BatteryProcess)
        assert fit(features.copy(), capacity, owners) is process
        expected = process.without_groups(features, capacity, assets, assets)[0]
        np.testing.assert_array_equal(found, expected)


def test_a_recipe_looks_at_what_its_added_features_are_made_of() -> None:
    view = get_view("partial_window")
    found = used_features("partial_window", view.names)
    assert {"rest_voltage_V", "voltage_V_60s", "discharge_3.90_to_3.80_V_Ah"} <= found
    assert not {name for name in found if name.startswith("charge_")}
    assert "energy_to_cutoff_Wh" in used_features("discharge_physics", PHYSICS)
    assert {"current_A_mean", "discharge_time_s"} <= used_features("discharge_physics", PHYSICS)


@pytest.mark.parametrize("view", RECIPES)
def test_what_a_recipe_does_not_look_at_changes_no_answer(view: str) -> None:
    names = get_view(view).names
    rng = np.random.default_rng(0)
    features = rng.uniform(1.0, 2.0, (24, len(names)))
    features[:, [name == "current_A_mean" for name in names]] *= -1.0
    assets = np.repeat(np.array(list("abcd"), dtype=object), 6)
    process = fit_battery_process(
        features, rng.uniform(1.0, 2.0, 24), assets, view=view, names=names
    )
    other = features.copy()
    other[:, [name not in used_features(view, names) for name in names]] = np.nan
    np.testing.assert_array_equal(process(other), process(features))


def test_a_missing_feature_is_lived_with() -> None:
    features, _, _ = discharges()
    rows = features[:2].copy()
    rows[0, SUMMARY.index("voltage_drop_time_s")] = np.nan
    rows[1, :] = np.nan
    capacity, deviation = model().predict(rows)
    assert np.isfinite(capacity).all()
    assert np.isfinite(deviation).all()
    assert (capacity >= 0.0).all()


def test_what_was_stored_answers_to_the_bit() -> None:
    features, _, _ = discharges()
    again = BatteryProcess.from_bytes(model().to_bytes())
    for given, expected in zip(again.predict(features), model().predict(features), strict=True):
        np.testing.assert_array_equal(given, expected)
    assert again.view == "discharge_summary"
    assert again.names == SUMMARY


@pytest.mark.parametrize("spoilt", [b"", b"text", model().to_bytes()[:2000]])
def test_what_cannot_be_read_is_refused(spoilt: bytes) -> None:
    with pytest.raises(PackageError, match="train again"):
        BatteryProcess.from_bytes(spoilt)


def test_one_row_is_answered_as_many_are() -> None:
    features, _, _ = discharges()
    together = model()(features[:5])
    alone = [model()(features[place : place + 1])[0] for place in range(5)]
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_a_view_without_recipe_is_refused() -> None:
    with pytest.raises(DataError, match="no process for view 'pack_segment'"):
        fit_battery_process([[1.0]], [1.0], ["a"], view="pack_segment", names=["x"])


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(DataError, match=r"expected \(n, 7\)"):
        model()(np.zeros((1, 3)))


def test_labels_of_other_rows_are_refused() -> None:
    features, capacity, assets = discharges()
    with pytest.raises(DataError, match="one for each row"):
        fit_battery_process(features, capacity[:3], assets, view="discharge_summary", names=SUMMARY)


@pytest.mark.parametrize("view", sorted(RECIPES))
def test_every_feature_of_a_recipe_exists(view: str) -> None:
    names = get_view(view).names
    rng = np.random.default_rng(0)
    rows = rng.uniform(1.0, 2.0, (24, len(names)))
    if "current_A_mean" in names:
        rows[:, names.index("current_A_mean")] *= -1.0
    assets = np.repeat(np.array(["a", "b", "c", "d"]), 6)
    fitted = fit_battery_process(rows, rng.normal(1.5, 0.1, 24), assets, view=view, names=names)
    recipe = RECIPES[view]
    for (encoding, _), blocks in zip(fitted.members, recipe.members, strict=True):
        assert set(encoding.names) == {name for block in blocks for name in block}
    assert len(recipe.slopes) == len(recipe.members)


class TestEncoding:
    def test_is_linear_near_the_median_and_draws_outliers_in(self) -> None:
        values = np.random.default_rng(0).normal(10.0, 2.0, 20_000)
        encode = Encoding.of(["x"], {"x": values})
        near, far = encode({"x": np.array([10.2, 10_010.0])})[:, 0]
        assert near == pytest.approx(0.1, abs=0.02)  # (x - median) / standard deviation
        assert 10.0 < far < 20.0  # not 5,000

    def test_marks_gaps_that_training_had(self) -> None:
        encode = Encoding.of(["x", "y"], {"x": np.arange(4.0), "y": np.array([1, np.nan, 2, 3.0])})
        rows = encode({"x": np.array([1.5]), "y": np.array([np.nan])})
        assert rows.tolist() == [[0.0, 0.0, 0.0]]
        assert encode.places(["y"]) == (1, 2)

    def test_leaves_out_what_training_never_had(self) -> None:
        encode = Encoding.of(["x", "y"], {"x": np.arange(4.0), "y": np.full(4, np.nan)})
        assert encode.names == ("x",)
        assert encode.places(["y"]) == ()


@pytest.mark.data
def test_physics_of_real_cells_reaches_its_goal_on_a_cell_never_seen(data_folder: Path) -> None:
    recording = read(data_folder / "nasa", kinds=KINDS)
    table = feature_table(get_view("discharge_physics"), recording).filter(
        pl.col("capacity_ah") > 0.3,  # discharges that ran
        pl.col("asset_id").is_in(["B0005", "B0018", "B0029", "B0042", "B0044"]),
    )
    features = matrix(get_view("discharge_physics"), table)
    capacity = table["capacity_ah"].to_numpy()
    unseen = table["asset_id"].to_numpy() == "B0018"
    fitted = fit_battery_process(
        features[~unseen],
        capacity[~unseen],
        table["asset_id"].to_numpy()[~unseen],
        view="discharge_physics",
        names=PHYSICS,
    )
    assert np.abs(fitted(features[unseen]) - capacity[unseen]).mean() < 0.02  # goal of the issue
