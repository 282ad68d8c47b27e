"""Plots of the report: how the assets age, and errors per protocol and asset; PNG bytes."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import polars as pl
from matplotlib.patches import Patch

from batteryops.evaluation.protocol_run import ProtocolResult
from batteryops.lifecycle.figures import panels_of, png
from batteryops.schema import LABEL

COLOURS: Final = {
    "model": "#0b6e4f",
    "mean": "#c9c9c9",
    "ridge": "#8aa1b1",
    "last_measured_capacity": "#e0a458",
}
GREY: Final = "#555555"


def draw_ageing(table: pl.DataFrame, set_aside: pl.DataFrame) -> bytes:
    """Capacity of every asset over its cycles; set-aside cycles as crosses.

    Args:
        table: `asset_id`, `op_index`, `capacity_ah` of the rows that train.
        set_aside: the same columns of rows that do not.
    """
    figure, (axes,) = panels_of(9.5, 4.2)
    for (asset,), rows in table.group_by("asset_id", maintain_order=True):
        ordered = rows.sort("op_index")
        axes.plot(ordered["op_index"], ordered[LABEL], linewidth=1.1, alpha=0.75, label=str(asset))
    faulty = set_aside.drop_nulls(LABEL)
    if faulty.height:
        axes.scatter(
            faulty["op_index"],
            faulty[LABEL],
            marker="x",
            s=16,
            linewidths=0.9,
            color="#b3261e",
            label="set aside",
            zorder=3,
        )
    axes.set_xlabel("position in the asset's list of operations")
    axes.set_ylabel("capacity (Ah)")
    axes.set_ylim(bottom=0)
    if table["asset_id"].n_unique() <= 30:  # noqa: PLR2004 - more names do not fit beside a plot
        axes.legend(
            fontsize=7, ncols=2, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.02)
        )
    return png(figure)


def draw_protocols(results: Mapping[str, ProtocolResult]) -> bytes:
    """MAE of the model and of each baseline, by protocol, with the model's bootstrap interval."""
    figure, (axes,) = panels_of(9.5, 3.6)
    names = list(COLOURS)
    width = 0.8 / len(names)
    for position, name in enumerate(names):
        shift = (position - (len(names) - 1) / 2) * width
        for place, result in enumerate(results.values()):
            found = result.metrics if name == "model" else result.baselines.get(name)
            if found is None:
                continue
            top = found.mae_ah
            axes.bar(place + shift, found.mae_ah, width * 0.92, color=COLOURS[name])
            interval = result.intervals["mae_ah"]
            if name == "model" and np.isfinite(interval.high):
                axes.vlines(place + shift, interval.low, interval.high, color="black", lw=1.1)
                top = interval.high
            axes.annotate(
                f"{found.mae_ah:.3f}",
                (place + shift, top),
                xytext=(0, 1.5),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=7.5,
                color=GREY,
            )
    swatches = [Patch(color=COLOURS[name], label=name.replace("_", " ")) for name in names]
    axes.legend(handles=swatches, frameon=False, fontsize=8, ncols=len(names), loc="upper left")
    axes.set_xticks(range(len(results)), [name.replace("_", " ") for name in results])
    axes.set_ylabel("MAE (Ah)")
    axes.margins(y=0.2)
    return png(figure)


def draw_assets(result: ProtocolResult) -> bytes:
    """MAE of every asset under one protocol, worst first."""
    rows = result.per_asset.sort("mae_ah", descending=True).head(40)
    figure, (axes,) = panels_of(9.5, 2.9)
    axes.bar(rows["asset_id"].to_list(), rows["mae_ah"].to_list(), color=COLOURS["model"])
    axes.axhline(result.metrics.mae_ah, color=GREY, linewidth=1, linestyle="--")
    axes.annotate(
        f"all cycles: {result.metrics.mae_ah:.3f} Ah",
        (rows.height - 0.5, result.metrics.mae_ah),
        ha="right",
        va="bottom",
        fontsize=8,
        color=GREY,
    )
    axes.set_ylabel("MAE (Ah)")
    axes.tick_params(axis="x", labelrotation=75, labelsize=7.5)
    return png(figure)
