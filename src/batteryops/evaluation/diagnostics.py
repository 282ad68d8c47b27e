"""Four panels that show what one number hides: fit, residuals, Q-Q, and their histogram.

Drawn on figure objects of their own, without pyplot, so that nothing is shared between threads.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from batteryops.errors import DataError
from batteryops.files import replacing
from batteryops.schema import LABEL

Floats = NDArray[np.float64]

BANDS: Final = ((5.0, 0.10), (2.0, 0.16))
"""SoH bands around the identity: half width in points, and opacity."""

COLOURS: Final = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#ee8833",
    "#44aa99",
    "#882255",
    "#997744",
)
"""Distinct also for most colour-blind readers (after P. Tol, Colour Schemes, SRON 2021)."""

REST: Final = "#b5b5b5"
INK: Final = "#222222"
SOFT: Final = "#666666"
MIN_POINTS: Final = 3
FAR: Final = 3.0
"""The histogram spans at most this many times the 90th percentile of absolute residuals."""

DPI: Final = 130

_COLUMNS: Final = ("asset_id", LABEL, "predicted_ah", "nominal_ah")


@dataclass(frozen=True, slots=True, eq=False)
class _Points:
    """What is drawn, in one unit."""

    actual: Floats
    predicted: Floats
    unit: str
    per_soh_point: float  # how much of the unit one percentage point of SoH is
    layers: list[tuple[str, str, NDArray[np.bool_]]]  # label, colour, rows; drawn in this order

    @property
    def residual(self) -> Floats:
        return self.predicted - self.actual


def diagnostics_figure(
    predictions: pl.DataFrame, *, title: str = "", groups: Mapping[str, str] | None = None
) -> Figure:
    """Draw the four panels.

    Predicted against measured with the identity and bands of 2 and 5 SoH points; residuals
    (predicted - measured) against predicted; normal Q-Q of the residuals with the correlation of
    its points (Filliben 1975, Technometrics 17, 111-117; 1 = normal); histogram of residuals with
    bias and MAE. In Ah when all assets have one nominal capacity, otherwise in SoH points.

    Args:
        predictions: `asset_id`, `capacity_ah`, `predicted_ah`, `nominal_ah`, at least 3 rows, as
            `ProtocolResult.predictions`.
        title: stands above, for example the protocol.
        groups: the group of each asset, which gives the colour; None: each asset is its own. Of
            more than ten, the worst nine by MAE are coloured and the rest grey.

    Raises:
        DataError: when a column is missing, rows are too few or a number is not finite.
    """
    points = _points(predictions, groups)
    figure = Figure(figsize=(12.5, 10.0), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    (top_left, top_right), (bottom_left, bottom_right) = figure.subplots(2, 2)
    _fit_panel(top_left, points)
    _residual_panel(top_right, points)
    _qq_panel(bottom_left, points)
    _histogram_panel(bottom_right, points)
    for panel in (top_left, top_right, bottom_left, bottom_right):
        panel.grid(visible=True, color="#e8e8e8", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(colors=SOFT, labelsize=10)
    if title:
        figure.suptitle(title, fontsize=15, color=INK, fontweight="bold")
    handles, labels = top_left.get_legend_handles_labels()
    legend = figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=5,
        frameon=False,
        fontsize=10,
    )
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([48.0])
            handle.set_alpha(1.0)
    return figure


def diagnostics_png(
    predictions: pl.DataFrame, *, title: str = "", groups: Mapping[str, str] | None = None
) -> bytes:
    """The figure of `diagnostics_figure` as PNG; the same bytes for the same input."""
    figure = diagnostics_figure(predictions, title=title, groups=groups)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=DPI, metadata={"Software": None})
    return image.getvalue()


def write_diagnostics(
    path: Path,
    predictions: pl.DataFrame,
    *,
    title: str = "",
    groups: Mapping[str, str] | None = None,
) -> None:
    """Write the figure to a PNG file, whole or not at all.

    Raises:
        DataError: as `diagnostics_figure`, or when the file cannot be written.
    """
    image = diagnostics_png(predictions, title=title, groups=groups)
    with replacing(path) as beside:
        beside.write_bytes(image)


def _points(predictions: pl.DataFrame, groups: Mapping[str, str] | None) -> _Points:
    missing = [name for name in _COLUMNS if name not in predictions.columns]
    if missing:
        raise DataError(
            f"predictions lack {', '.join(missing)}; given {', '.join(predictions.columns)}"
        )
    if predictions.height < MIN_POINTS:
        raise DataError(
            f"{predictions.height} predictions given; a diagnosis needs at least {MIN_POINTS}"
        )
    actual, predicted, nominal = (predictions[name].to_numpy() for name in _COLUMNS[1:])
    if not (np.isfinite(actual) & np.isfinite(predicted) & (nominal > 0)).all():
        raise DataError("predictions hold empty, NaN or infinite numbers; expected Ah throughout")
    group = np.array([(groups or {}).get(asset, asset) for asset in predictions["asset_id"]])
    layers = _layers(group, np.abs(predicted - actual) / nominal)
    if np.ptp(nominal) == 0:
        return _Points(actual, predicted, "Ah", float(nominal[0]) / 100.0, layers)
    percent = 100.0 / nominal
    return _Points(actual * percent, predicted * percent, "SoH %", 1.0, layers)


def _layers(group: NDArray[np.str_], error: Floats) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """Label, colour and rows of each group; past the palette, the best ones share grey."""
    names = sorted(set(group.tolist()))
    kept = names
    if len(names) > len(COLOURS):
        worst_first = sorted(names, key=lambda name: -float(error[group == name].mean()))
        kept = sorted(worst_first[: len(COLOURS) - 1])
    rest = ~np.isin(group, kept)
    layers = [(f"{len(names) - len(kept)} others", REST, rest)] if rest.any() else []
    coloured = zip(kept, COLOURS, strict=False)
    return layers + [(name, colour, group == name) for name, colour in coloured]


def _scatter(panel: Axes, points: _Points, x: Floats, y: Floats) -> None:
    size = float(np.clip(9000.0 / x.size, 6.0, 28.0))
    for label, colour, rows in points.layers:
        panel.scatter(
            x[rows], y[rows], s=size, color=colour, alpha=0.65, linewidths=0, label=label, zorder=3
        )


def _heading(panel: Axes, title: str, x_label: str, y_label: str) -> None:
    panel.set_title(title, fontsize=12.5, color=INK, loc="left", fontweight="bold")
    panel.set_xlabel(x_label, fontsize=11, color=INK)
    panel.set_ylabel(y_label, fontsize=11, color=INK)


def _note(panel: Axes, text: str, *, right: bool = False) -> None:
    panel.text(
        0.97 if right else 0.03,
        0.96,
        text,
        transform=panel.transAxes,
        ha="right" if right else "left",
        va="top",
        fontsize=10.5,
        color=INK,
        zorder=6,
        bbox={"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "#cccccc"},
    )


def _fit_panel(panel: Axes, points: _Points) -> None:
    low = float(min(points.actual.min(), points.predicted.min()))
    high = float(max(points.actual.max(), points.predicted.max()))
    margin = 0.04 * (high - low) or points.per_soh_point
    ends = np.array([low - margin, high + margin])
    for width, opacity in BANDS:
        half = width * points.per_soh_point
        panel.fill_between(ends, ends - half, ends + half, color=INK, alpha=opacity, linewidth=0)
    panel.plot(ends, ends, color=INK, linewidth=1.2, zorder=2)
    _scatter(panel, points, points.actual, points.predicted)
    panel.set_xlim(*ends)
    panel.set_ylim(*ends)
    error = np.abs(points.residual) / points.per_soh_point
    shares = "\n".join(
        f"within {width:g} SoH points: {100.0 * float(np.mean(error <= width)):.0f} %"
        for width, _ in reversed(BANDS)
    )
    _note(panel, f"n = {error.size}\n{shares}")
    _heading(
        panel,
        "Predicted against measured",
        f"measured capacity ({points.unit})",
        f"predicted capacity ({points.unit})",
    )


def _residual_panel(panel: Axes, points: _Points) -> None:
    for width, opacity in BANDS:
        half = width * points.per_soh_point
        panel.axhspan(-half, half, color=INK, alpha=opacity, linewidth=0)
    panel.axhline(0.0, color=INK, linewidth=1.2, zorder=2)
    _scatter(panel, points, points.predicted, points.residual)
    _heading(
        panel,
        "Residuals against predicted",
        f"predicted capacity ({points.unit})",
        f"predicted - measured ({points.unit})",
    )


def _qq_panel(panel: Axes, points: _Points) -> None:
    order = np.argsort(points.residual, kind="stable")
    quantiles, ordered = stats.probplot(points.residual, dist="norm", fit=False)
    residuals_vary = np.ptp(ordered) > 0
    rank = np.empty(order.size, dtype=np.int64)
    rank[order] = np.arange(order.size)
    if residuals_vary:
        line = stats.linregress(quantiles, ordered)
        ends = np.array([quantiles[0], quantiles[-1]])
        panel.plot(ends, line.intercept + line.slope * ends, color=INK, linewidth=1.2, zorder=2)
        _note(panel, f"correlation r = {line.rvalue:.3f}\n(1 = normal)")
    else:
        _note(panel, "all residuals are equal")
    _scatter(panel, points, quantiles[rank], points.residual)
    _heading(
        panel,
        "Normal Q-Q of residuals",
        "standard normal quantile",
        f"predicted - measured ({points.unit})",
    )


def _histogram_panel(panel: Axes, points: _Points) -> None:
    residual = points.residual
    absolute = np.abs(residual)
    largest = float(absolute.max()) or points.per_soh_point
    # a few far ones would squeeze the rest into one bar, so they stand in the end bins
    limit = min(largest, FAR * float(np.quantile(absolute, 0.9))) or largest
    beyond = int(np.count_nonzero(absolute > limit))
    bins = 2 * int(np.clip(np.sqrt(residual.size) * 0.75, 5, 30))
    counts, edges = np.histogram(np.clip(residual, -limit, limit), bins, (-limit, limit))
    panel.bar(
        edges[:-1],
        counts,
        width=np.diff(edges),
        align="edge",
        color=COLOURS[0],
        edgecolor="white",
        linewidth=0.5,
        zorder=3,
    )
    bias, mae = float(residual.mean()), float(absolute.mean())
    panel.axvline(0.0, color=INK, linewidth=1.2, zorder=4)
    panel.axvline(bias, color=COLOURS[1], linewidth=1.8, linestyle="--", zorder=5)
    panel.set_xlim(-1.05 * limit, 1.05 * limit)
    panel.set_ylim(0.0, 1.4 * float(counts.max()))  # room for the note
    points_of_soh = mae / points.per_soh_point
    far = f"\n{beyond} of {residual.size} beyond, in the end bins" if beyond else ""
    _note(
        panel,
        f"bias (dashed) = {bias:+.4f} {points.unit}\nMAE = {mae:.4f} {points.unit}"
        f"\n= {points_of_soh:.2f} SoH points{far}",
        right=float(np.median(residual)) < 0.0,
    )
    _heading(
        panel,
        "Histogram of residuals",
        f"predicted - measured ({points.unit})",
        "cycles",
    )
