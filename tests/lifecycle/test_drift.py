"""Drift between named things: real batteries, figures that add up, and what is told in words."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from batteryops.errors import DataError
from batteryops.lifecycle.drift import (
    Comparison,
    by_severity,
    compare,
    meaning,
    quantile_of,
    standing,
)
from batteryops.lifecycle.drift_figures import BARS, draw, shares_of, span_of
from batteryops.lifecycle.drift_page import in_words, render_drift
from batteryops.lifecycle.drift_references import open_reference
from batteryops.lifecycle.drift_tables import TableFiles
from batteryops.lifecycle.progress import Silent
from batteryops.monitoring.cells import fit_grid
from batteryops.monitoring.drift_detection import DriftReport, FeatureDrift, Status
from batteryops.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home")


def compared(reference: Path, current: Path, settings: Settings) -> Comparison:
    return compare(
        open_reference(str(reference), settings, Silent()), str(current), settings, Silent()
    )


@pytest.mark.data
def test_trips_in_chengdu_are_other_batteries_than_nasas_cells(
    data_folder: Path, settings: Settings
) -> None:
    published = data_folder / "source_system"
    found = compared(
        published / "nasa_feature_matrix.csv", published / "chengdu_trip_features.parquet", settings
    )
    assert found.report.verdict == "ALERT"
    assert {one.status for one in found.report.features.values()} == {"alert"}
    assert {one.cause for one in found.report.features.values()} == {"new_chemistry"}
    assert set(found.report.retraining_wanted) == {"discharge_time_s", "voltage_drop_time_s"}
    # 386 V of a pack beside 3.4 V of a cell: no value in common
    assert found.report.features["voltage_V_mean"].ks == pytest.approx(1.0)
    assert "most values lie above all of the reference" in meaning(found, "voltage_V_mean")
    # README of the data: 59 percent of the trips have no drop time
    trips = pl.read_parquet(published / "chengdu_trip_features.parquet")
    missing = trips["voltage_drop_time_s"].fill_nan(None).null_count() / trips.height
    drop = found.report.features["voltage_drop_time_s"]
    assert drop.missing_share == pytest.approx(missing)
    assert missing > 0.5
    assert "duration_s is read as discharge_time_s" in " ".join(found.notes)


@pytest.mark.data
def test_the_last_cycles_of_three_cells_beside_their_first_are_ageing_and_no_alert(
    data_folder: Path, settings: Settings, tmp_path: Path
) -> None:
    cells = pl.read_csv(data_folder / "source_system" / "nasa_feature_matrix.csv").filter(
        pl.col("battery_id").is_in(["B0005", "B0006", "B0007"])
    )
    place = pl.col("cycle").rank("ordinal").over("battery_id")
    cells.filter(place <= 50).write_parquet(tmp_path / "first.parquet")
    cells.filter(place > pl.len().over("battery_id") - 50).write_csv(tmp_path / "last.csv")

    found = compared(tmp_path / "first.parquet", tmp_path / "last.csv", settings)

    assert found.report.rows == found.report.reference_rows == 150
    causes = {name: one.cause for name, one in found.report.features.items() if one.cause}
    assert set(causes.values()) == {"ageing"}
    assert {"discharge_time_s", "voltage_drop_time_s"} <= causes.keys()
    assert found.report.verdict == "OK"
    assert in_words(found.report) == "The batteries are older, as expected; nothing else changed."
    assert render_drift(found).count("expected: ageing") == len(causes)


def drift_of(status: Status, psi: float | None = 0.3, cause: str | None = None) -> FeatureDrift:
    return FeatureDrift(psi, 0.2, 0.01, status, 10, 100, 0.0, 0, cause=cause)


def test_the_worst_stands_first_then_the_largest() -> None:
    report = DriftReport(
        features={
            "fine": drift_of("ok", 0.01),
            "aged": drift_of("alert", 3.0, cause="ageing"),
            "gone": drift_of("missing", None),
            "moved": drift_of("alert", 0.4),
            "far": drift_of("alert", 2.0),
            "few": drift_of("too_few", 1.0),
            "some": drift_of("warning", 0.2),
        },
        prediction=drift_of("warning", 0.22),
        reference_rows=100,
        rows=100,
    )
    ordered = by_severity(report)
    assert [*ordered] == ["far", "moved", "gone", "prediction", "some", "few", "aged", "fine"]
    assert standing(ordered["aged"]) == "expected"


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(1).normal(size=3000),
        np.random.default_rng(2).integers(0, 6, size=3000).astype(float),
        np.full(100, 7.0),
        np.concatenate([np.random.default_rng(3).normal(size=999), [1e6]]),
    ],
)
def test_bars_ends_and_gaps_are_all_rows(values: np.ndarray) -> None:
    grid, cells = fit_grid(values)
    low, high = span_of(grid, cells)
    now = np.concatenate([values * 1.5 + 1.0, [np.nan, np.inf, -np.inf]])
    for of in (cells, grid.count(now)[0]):
        found = shares_of(grid, of, low, high)
        assert found.bars.shape == (BARS,)
        assert found.bars.min() >= 0.0
        total = found.bars.sum() + found.below + found.above + found.missing
        assert total == pytest.approx(1.0)
    # what is drawn to scale is nearly all of the reference, whatever its one outlier
    assert shares_of(grid, cells, low, high).bars.sum() >= 0.98


def test_bars_of_a_normal_are_its_density() -> None:
    grid, cells = fit_grid(np.random.default_rng(4).normal(size=100_000))
    found = shares_of(grid, cells, -2.0, 2.0)
    edges = np.linspace(-2.0, 2.0, BARS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    density = np.exp(-(middles**2) / 2) / np.sqrt(2 * np.pi) * np.diff(edges)
    assert found.bars == pytest.approx(density, rel=0.15)
    assert found.above == pytest.approx(0.02275, rel=0.1)


def test_quantiles_beyond_the_reference_are_infinite() -> None:
    grid, cells = fit_grid(np.arange(100.0))
    assert quantile_of(grid, cells, 0.5) == 49.0
    assert quantile_of(grid, grid.count(np.full(9, 1e9))[0], 0.5) == np.inf
    assert quantile_of(grid, grid.count(np.full(9, -1e9))[0], 0.5) == -np.inf
    assert np.isnan(quantile_of(grid, grid.count(np.full(9, np.nan))[0], 0.5))


def test_a_name_in_a_figure_cannot_break_out_of_it() -> None:
    grid, cells = fit_grid(np.arange(100.0))
    assert "<b>" not in draw(grid, cells, cells, '"><b>')
    assert "nan" not in draw(*(fit_grid(np.full(5, np.nan))), np.array([0, 5]), "nothing")


def test_a_reference_file_says_exactly_what_its_table_says(
    settings: Settings, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    table = pl.DataFrame({"vehicle_id": ["a", "b"] * 500, "x": rng.normal(size=1000)})
    table.write_csv(tmp_path / "table.csv")
    named = open_reference(str(tmp_path / "table.csv"), settings, Silent())
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps(named.reference.to_json()))
    again = open_reference(str(kept), settings, Silent()).reference
    assert again.fingerprint == named.reference.fingerprint
    assert again.assets == 2
    with pytest.raises(DataError, match="name features only where the reference is a table"):
        open_reference(str(kept), settings, Silent(), features=["x"])


def test_keys_labels_and_text_are_no_features(settings: Settings, tmp_path: Path) -> None:
    table = pl.DataFrame(
        {
            "battery_id": ["a"] * 20,
            "cycle": range(20),
            "capacity": [1.8] * 20,
            "depot": ["north"] * 20,
            "x": [float(n) for n in range(20)],
        }
    )
    table.write_parquet(tmp_path / "table.parquet")
    named = open_reference(str(tmp_path / "table.parquet"), settings, Silent())
    assert [*named.reference.features] == ["x"]
    table.select("battery_id", "depot").write_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="has no features"):
        open_reference(str(tmp_path / "none.parquet"), settings, Silent())


def test_progress_tells_rows_of_all_files(tmp_path: Path) -> None:
    class Heard(Silent):
        told: list[tuple[int, int]] = []  # noqa: RUF012 - of this test

        def within(self, done: int, total: int) -> None:
            self.told.append((done, total))

    pl.DataFrame({"x": [1.0] * 100_000}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"x": [1.0] * 500}).write_csv(tmp_path / "b.csv")
    heard = Heard()
    pieces = [*TableFiles.open(tmp_path).pieces(["x"], heard)]
    assert sum(piece.height for piece in pieces) == 100_500
    assert heard.told[-1] == (100_500, 100_500)
    assert heard.told[0][0] < 100_000
