"""Intervals and training domain through the protocols: nested, cached, grouped by schedule."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from batteryops.evaluation.owners import Owners
from batteryops.evaluation.protocol_run import Predict, evaluate_protocol
from batteryops.evaluation.protocols import CLOCK
from batteryops.features.views import feature_table, get_view
from batteryops.lifecycle.decisions import fewer_calibrating
from batteryops.lifecycle.preparation import with_clock
from batteryops.lifecycle.sources import open_source
from batteryops.lifecycle.uncertainty import (
    bounds_fit,
    fit_uncertainty,
    package_owners,
)
from batteryops.models.remembering import once_per_rows
from batteryops.settings import Settings, load_settings

NAMES = ("x",)


@pytest.fixture
def settings(quick_config: Path) -> Settings:
    given = load_settings(quick_config)
    evaluation = given.evaluation.model_copy(update={"max_folds": 40, "groups": ()})
    return given.model_copy(update={"evaluation": evaluation})


def fleet(n_assets: int = 24, n_cycles: int = 12) -> pl.DataFrame:
    """Capacity is a line of x, with an offset and noise of each asset's own."""
    random = np.random.default_rng(5)
    rows = []
    for asset in range(n_assets):
        offset = random.normal(0.0, 0.02)
        for cycle in range(n_cycles):
            x = random.uniform(1.2, 1.9)
            noise = random.normal(0.0, 0.01)
            rows.append((f"RW{asset}", cycle + 1, x, x + offset + noise))
    return pl.DataFrame(rows, schema=["asset_id", "op_index", "x", "capacity_ah"], orient="row")


def owners_of(table: pl.DataFrame) -> Owners:
    """Each asset is a group of its own."""
    assets = table["asset_id"].to_numpy().astype(object)
    return Owners(assets, assets)


class Recording:
    """A fit that answers x itself and remembers which rows it was shown."""

    def __init__(self) -> None:
        self.shown: list[NDArray[np.float32]] = []

    def __call__(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.float64],
        owners: Owners,
    ) -> Predict:
        assert len(features) == len(labels) == len(owners)
        self.shown.append(features[:, 0])
        return lambda asked: asked[:, 0].astype(np.float64)


def test_intervals_cover_what_they_claim_on_assets_never_seen(settings: Settings) -> None:
    table = fleet()
    fit = Recording()
    result = evaluate_protocol(
        table,
        NAMES,
        "unseen_assets",
        fit,
        settings=settings.evaluation,
        nominal_ah=2.0,
        seed=1,
        fit_bounds=bounds_fit(fit, NAMES, settings, "nasa_18650"),
    )
    found = result.coverage
    assert found is not None
    assert 0.85 <= found.interval_coverage <= 0.97
    assert found.interval_width_ah < 0.2  # +-1.645 times 0.022 Ah, and some for few assets
    held = result.predictions.filter(pl.col("in_domain"))
    assert (held["capacity_low_ah"] <= held["predicted_ah"]).all()
    assert (held["predicted_ah"] <= held["capacity_high_ah"]).all()


def test_calibration_never_sees_the_group_that_is_tested(settings: Settings) -> None:
    table = fleet(n_assets=5)
    values = table["x"].cast(pl.Float32).to_numpy()
    assets = table["asset_id"].to_numpy()
    test = assets == "RW2"
    fit = Recording()
    made = bounds_fit(fit, NAMES, settings, "nasa_18650")(
        values[~test, None], table["capacity_ah"].to_numpy()[~test], owners_of(table)[~test]
    )
    made(values[test, None], values[test].astype(float), assets[test].astype(object))
    assert not set(np.concatenate(fit.shown)) & set(values[test])
    assert len(fit.shown) == 4  # one for each group that calibrates
    assert {len(rows) for rows in fit.shown} == {36}  # each without its own group


def test_a_model_that_two_folds_ask_for_is_fitted_once() -> None:
    fit = Recording()
    once = once_per_rows(fit)
    rows, labels = np.ones((4, 1), dtype=np.float32), np.ones(4)
    names = np.array(["a", "a", "b", "b"], dtype=object)
    assert once(rows, labels, Owners(names, names)) is once(
        rows.copy(), labels.copy(), Owners(names.copy(), names)
    )
    once(rows, labels + 1.0, Owners(names, names))
    assert len(fit.shown) == 2


def test_only_the_last_asked_for_are_kept_where_so_many_are_named() -> None:
    fit = Recording()
    once = once_per_rows(fit, keep=2)
    rows, names = np.ones((2, 1), dtype=np.float32), np.array(["a", "b"], dtype=object)
    for asked in (1.0, 2.0, 1.0, 3.0, 1.0, 2.0):
        once(rows, np.full(2, asked), Owners(names, names))
    assert len(fit.shown) == 4  # 2.0 was the one that had not been asked for the longest


def test_an_asset_outside_of_the_domain_gets_all_that_its_profile_allows(
    settings: Settings,
) -> None:
    table = fleet()
    made = bounds_fit(Recording(), NAMES, settings, "nasa_18650")(
        table["x"].cast(pl.Float32).to_numpy()[:, None],
        table["capacity_ah"].to_numpy(),
        owners_of(table),
    )
    asked = np.array([[1.5], [40.0]], dtype=np.float32)
    found = made(asked, np.array([1.5, 2.0]), np.array(["A", "A"], dtype=object))
    assert found.inside.tolist() == [True, False]
    assert (found.low_ah[1], found.high_ah[1]) == settings.profile("nasa_18650").capacity_range_ah
    assert 1.3 < found.low_ah[0] < 1.5 < found.high_ah[0] < 1.7


def test_one_group_alone_gives_no_bound_but_the_profile_s(settings: Settings) -> None:
    table = fleet(n_assets=1)
    found = fit_uncertainty(
        Recording(),
        table["x"].cast(pl.Float32).to_numpy()[:, None],
        table["capacity_ah"].to_numpy(),
        owners_of(table),
        NAMES,
        folds=settings.evaluation.calibration_folds,
    )
    assert np.isinf(found.intervals.score_ah)


def test_assets_on_one_clock_are_one_group_whatever_the_view_s_features_are(
    settings: Settings, fleet_file: Path
) -> None:
    view = get_view("partial_window")
    assert CLOCK not in view.names
    recording = open_source(str(fleet_file), settings, kinds=view.kinds)
    bare = feature_table(view, recording)
    table = with_clock(bare, recording)
    assert table.drop(CLOCK).equals(bare)
    summary = feature_table(get_view("discharge_summary"), recording)
    assert table[CLOCK].to_list() == summary[CLOCK].to_list()
    assert with_clock(summary, recording).equals(summary)
    together = table.with_columns(pl.lit(1.0).alias(CLOCK))
    assert len(set(package_owners(together, settings).groups)) == 1
    assert len(set(package_owners(bare, settings).groups)) == bare["asset_id"].n_unique()


def test_training_calibrates_in_two_folds_and_changes_nothing_else(settings: Settings) -> None:
    fewer = fewer_calibrating(settings)
    assert fewer.evaluation.calibration_folds == 2
    assert fewer.evaluation.max_folds == settings.evaluation.max_folds
    assert settings.evaluation.calibration_folds > 2
