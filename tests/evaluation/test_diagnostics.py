"""The four panels show what was given, and nothing is left behind when they cannot."""

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes
from scipy import stats

from batteryops.errors import DataError
from batteryops.evaluation.diagnostics import (
    diagnostics_figure,
    diagnostics_png,
    write_diagnostics,
)


def predictions(n: int = 60, n_assets: int = 4, nominal: float = 2.0) -> pl.DataFrame:
    rng = np.random.default_rng(2)
    actual = rng.uniform(1.2, 1.9, n)
    return pl.DataFrame(
        {
            "asset_id": [f"A{i % n_assets:02d}" for i in range(n)],
            "capacity_ah": actual,
            "predicted_ah": actual + rng.normal(0.01, 0.03, n),
            "nominal_ah": np.full(n, nominal),
        }
    )


def texts(panel: Axes) -> str:
    return "\n".join(text.get_text() for text in panel.texts)


def test_panels_have_titles_and_axes_with_units() -> None:
    figure = diagnostics_figure(predictions(), title="unseen_assets")
    assert [panel.get_title(loc="left") for panel in figure.axes] == [
        "Predicted against measured",
        "Residuals against predicted",
        "Normal Q-Q of residuals",
        "Histogram of residuals",
    ]
    assert figure.axes[0].get_xlabel() == "measured capacity (Ah)"
    assert figure.axes[1].get_ylabel() == "predicted - measured (Ah)"
    assert figure.get_suptitle() == "unseen_assets"


def test_notes_state_correlation_bias_and_error_as_computed_elsewhere() -> None:
    table = predictions()
    residual = (table["predicted_ah"] - table["capacity_ah"]).to_numpy()
    figure = diagnostics_figure(table)
    correlation = stats.probplot(residual)[1][2]
    assert f"r = {correlation:.3f}" in texts(figure.axes[2])
    assert f"bias (dashed) = {residual.mean():+.4f} Ah" in texts(figure.axes[3])
    assert f"MAE = {np.abs(residual).mean():.4f} Ah" in texts(figure.axes[3])
    within = 100 * np.mean(np.abs(residual) <= 0.04)
    assert f"within 2 SoH points: {within:.0f} %" in texts(figure.axes[0])


def test_every_prediction_is_drawn_once_and_counted_once() -> None:
    table = predictions()
    figure = diagnostics_figure(table)
    for panel in figure.axes[:3]:
        drawn = np.concatenate(
            [
                np.asarray(layer.get_offsets())
                for layer in panel.collections
                if not str(layer.get_label()).startswith("_")
            ]
        )
        assert len(drawn) == table.height
    assert sum(bar.get_height() for bar in figure.axes[3].patches) == table.height  # type: ignore[attr-defined]  # bars are rectangles


def test_colours_follow_the_groups() -> None:
    groups = {"A00": "first", "A01": "first", "A02": "second"}
    [legend] = diagnostics_figure(predictions(), groups=groups).legends
    assert [text.get_text() for text in legend.get_texts()] == ["A03", "first", "second"]


def test_of_many_assets_the_worst_are_coloured_and_the_rest_share_grey() -> None:
    table = predictions(n=300, n_assets=30).with_columns(
        predicted_ah=pl.when(asset_id="A17").then(0.1).otherwise("predicted_ah")
    )
    [legend] = diagnostics_figure(table).legends
    names = [text.get_text() for text in legend.get_texts()]
    assert len(names) == 10
    assert names[0] == "21 others"
    assert "A17" in names


def test_different_nominal_capacities_are_drawn_in_soh() -> None:
    cells = predictions()
    packs = cells.with_columns(
        pl.col("capacity_ah", "predicted_ah", "nominal_ah") * 72, pl.lit("pack").alias("asset_id")
    )
    mixed = diagnostics_figure(pl.concat([cells, packs]))
    assert mixed.axes[0].get_xlabel() == "measured capacity (SoH %)"
    low, high = mixed.axes[0].get_xlim()
    assert 50 < low < high < 105


def test_far_residuals_stand_in_the_end_bins_and_are_told() -> None:
    table = predictions().with_columns(
        predicted_ah=pl.when(pl.int_range(pl.len()) == 7).then(9.0).otherwise("predicted_ah")
    )
    assert "1 of 60 beyond, in the end bins" in texts(diagnostics_figure(table).axes[3])


@pytest.mark.parametrize("offset", [0.0, 0.25])
def test_equal_residuals_are_drawn_without_a_correlation(offset: float) -> None:
    table = predictions().with_columns(capacity_ah=1.5, predicted_ah=1.5 + offset)
    assert texts(diagnostics_figure(table).axes[2]) == "all residuals are equal"


def test_the_same_predictions_give_the_same_picture() -> None:
    image = diagnostics_png(predictions(12))
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert image == diagnostics_png(predictions(12))


def test_pyplot_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it now fails
    diagnostics_figure(predictions(12))


def test_the_picture_is_written_whole_and_alone(tmp_path: Path) -> None:
    write_diagnostics(tmp_path / "four.png", predictions(12), title="t")
    assert [path.name for path in tmp_path.iterdir()] == ["four.png"]
    assert (tmp_path / "four.png").read_bytes() == diagnostics_png(predictions(12), title="t")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nowhere").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be written"):
        write_diagnostics(tmp_path / "nowhere" / "four.png", predictions(12))


def test_a_target_that_cannot_be_replaced_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "four.png").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        write_diagnostics(tmp_path / "four.png", predictions(12))
    assert [path.name for path in tmp_path.iterdir()] == ["four.png"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (predictions().drop("nominal_ah"), "predictions lack nominal_ah; given asset_id"),
        (predictions(2), "2 predictions given; a diagnosis needs at least 3"),
        (predictions().with_columns(predicted_ah=float("nan")), "empty, NaN or infinite"),
        (predictions().with_columns(capacity_ah=pl.lit(None, pl.Float64)), "empty, NaN or inf"),
        (predictions(nominal=0.0), "empty, NaN or infinite"),
    ],
)
def test_predictions_that_cannot_be_drawn_are_refused(table: pl.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        diagnostics_figure(table)
