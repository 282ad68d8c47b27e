"""Plots of a fleet: predicted health against temperature rise, domain verdicts, scorecard."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from batteryops.lifecycle.figures import panels_of, png
from batteryops.lifecycle.fleet_findings import Diagnosis
from batteryops.lifecycle.scorecard import Action, Scorecard, VehicleScore

VEHICLES: Final = ("#0b6e4f", "#e0a458", "#4f6d8f", "#b3568f", "#b3261e", "#7a7a7a")
ACTIONS: Final[dict[Action, str]] = {
    "priority": "#b3261e",
    "monitor": "#c98a1b",
    "healthy": "#0b6e4f",
}
GREY: Final = "#555555"
MOST: Final = 60
"""Vehicles drawn at most: the most urgent ones."""


def draw_diagnosis(diagnosis: Diagnosis) -> bytes:
    """Predicted SoH against temperature rise, and against what it follows, the trip's length."""
    figure, (against_rise, against_length) = panels_of(11.0, 4.2, 2)
    trips = diagnosis.trips
    for place, ((asset,), own) in enumerate(trips.group_by("asset_id", maintain_order=True)):
        colour = VEHICLES[place % len(VEHICLES)]
        minutes = own["duration_s"] / 60.0
        for axes, x, y in (
            (against_rise, own["soh"], own["rise_k"]),
            (against_length, minutes, own["soh"]),
        ):
            axes.scatter(x, y, s=5, alpha=0.35, color=colour, linewidths=0, label=str(asset))
    slope, start = np.polyfit(trips["soh"].to_numpy(), trips["rise_k"].to_numpy(), 1)
    ends = np.array([trips["soh"].min(), trips["soh"].max()], dtype=np.float64)
    against_rise.plot(ends, start + slope * ends, color="black", linewidth=1.6)
    found = diagnosis.as_published.found
    against_rise.set_title(
        f"Pearson {found.pearson:+.2f}, Spearman {found.spearman:+.2f}: wrong sign"
        if found.pearson > 0
        else f"Pearson {found.pearson:+.2f}, Spearman {found.spearman:+.2f}",
        fontsize=10,
        loc="left",
    )
    against_rise.set_xlabel("SoH that the lab model predicts")
    against_rise.set_ylabel("published temperature rise (K)")
    handles = against_rise.legend(frameon=False, fontsize=8, markerscale=3)
    for handle in handles.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)
    against_length.set_title("what it follows: the length of the trip", fontsize=10, loc="left")
    against_length.set_xscale("log")
    against_length.set_xlabel("length of the trip (min)")
    against_length.set_ylabel("SoH that the lab model predicts")
    return png(figure)


def draw_domain(diagnosis: Diagnosis) -> bytes:
    """Share of trips that each feature puts outside of the training range, by mapping."""
    figure, panels = panels_of(11.0, 3.2, len(diagnosis.domain))
    for axes, verdict in zip(panels, diagnosis.domain, strict=True):
        names = [driver.feature for driver in diagnosis.drivers][::-1]
        shares = [100.0 * verdict.features.get(name, 0) / verdict.n for name in names]
        axes.barh([*names], shares, color=ACTIONS["priority"], height=0.62)
        joint = 100.0 * verdict.joint / verdict.n
        axes.barh(["all together"], [joint], color=GREY, height=0.62)
        for place, share in enumerate([*shares, joint]):
            axes.annotate(
                f"{share:.1f} %",
                (share, place),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=GREY,
            )
        axes.set_xlim(0, 118)
        axes.set_xlabel("trips outside (%)")
        axes.set_title(
            f"{verdict.mapping.voltage} voltage, {verdict.mapping.current}: "
            f"{verdict.inside} of {verdict.n} inside",
            fontsize=10,
            loc="left",
        )
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", linewidth=0.5, alpha=0.35)
        axes.tick_params(axis="y", labelsize=8)
    return png(figure)


def draw_scorecard(card: Scorecard) -> bytes | None:
    """Health and change of temperature of each vehicle, coloured by action.

    Returns:
        None where neither is known of any vehicle.
    """
    shown = card.vehicles[:MOST][::-1]
    with_health = any(vehicle.soh is not None for vehicle in shown)
    with_signal = any(_change(vehicle) for vehicle in shown)
    count = int(with_health) + int(with_signal)
    if not count:
        return None
    figure, panels = panels_of(11.0, max(2.4, 0.24 * len(shown) + 1.2), count)
    if with_health:
        _draw_health(panels[0], shown, card)
    if with_signal:
        _draw_signal(panels[-1], shown, card)
    for axes in panels:
        axes.set_yticks(range(len(shown)), [vehicle.asset_id for vehicle in shown], fontsize=8)
        axes.set_ylim(-0.7, len(shown) - 0.3)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", linewidth=0.5, alpha=0.35)
    swatches = [Patch(color=colour, label=action) for action, colour in ACTIONS.items()]
    figure.legend(handles=swatches, frameon=False, fontsize=8, ncols=3, loc="outside upper right")
    return png(figure)


def _draw_health(axes: Axes, shown: Sequence[VehicleScore], card: Scorecard) -> None:
    for place, vehicle in enumerate(shown):
        if vehicle.soh is not None:
            axes.plot(100.0 * vehicle.soh, place, "o", color=ACTIONS[vehicle.action], markersize=6)
    limits = card.limits
    axes.axvline(100.0 * limits.min_soh, color=ACTIONS["priority"], linewidth=1, linestyle="--")
    axes.axvline(100.0 * limits.monitor_soh, color=ACTIONS["monitor"], linewidth=1, linestyle="--")
    axes.set_xlabel("SoH, latest measurements (%)")


def _draw_signal(axes: Axes, shown: Sequence[VehicleScore], card: Scorecard) -> None:
    for place, vehicle in enumerate(shown):
        change = _change(vehicle)
        if change is not None:
            low, middle, high = change
            colour = ACTIONS[vehicle.action]
            axes.hlines(place, low, high, color=colour, linewidth=1.4)
            axes.plot(middle, place, "o", color=colour, markersize=6)
    axes.axvline(0.0, color=GREY, linewidth=0.8)
    limits = card.limits
    axes.axvline(limits.priority_rise_k, color=ACTIONS["priority"], linewidth=1, linestyle="--")
    axes.axvline(limits.monitor_rise_k, color=ACTIONS["monitor"], linewidth=1, linestyle="--")
    axes.set_xlabel("change of temperature rise with age, at equal load (K)")


def _change(vehicle: VehicleScore) -> tuple[float, float, float] | None:
    trend = vehicle.temperature.trend if vehicle.temperature else None
    if trend is None:
        return None
    return trend.low * trend.span, trend.change, trend.high * trend.span
