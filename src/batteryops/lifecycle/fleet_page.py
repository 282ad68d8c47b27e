"""Self-contained HTML pages of a fleet: the lab-to-fleet diagnosis and the scorecard."""

import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import jinja2

from batteryops.lifecycle.fleet_findings import PUBLISHED, Diagnosis
from batteryops.lifecycle.fleet_plots import ACTIONS, draw_diagnosis, draw_domain, draw_scorecard
from batteryops.lifecycle.scorecard import Scorecard, VehicleScore
from batteryops.lifecycle.trip_mappings import MISSING

MAPPING_COLUMNS: Final = (
    "lab model",
    "voltage",
    "current",
    *(f"drop time {how}" for how in MISSING),
)
VEHICLE_COLUMNS: Final = (
    "vehicle",
    "action",
    "SoH",
    "points",
    "limit in",
    "warming",
    "unusable",
    "why",
)


@dataclass(frozen=True, slots=True)
class Card:
    """One number in large type."""

    value: str
    meaning: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page: words, a picture, a table; what is empty is left out."""

    title: str
    why: str = ""
    points: Sequence[str] = ()
    image: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


@dataclass(frozen=True, slots=True)
class FleetPage:
    """What a page shows."""

    title: str
    subtitle: str
    cards: Sequence[Card]
    sections: Sequence[Section]


def render_diagnosis(diagnosis: Diagnosis) -> str:
    """The diagnosis as a page that opens without a network."""
    found, blind = diagnosis.as_published.found, diagnosis.domain[0]
    tone = "priority" if found.pearson > 0 else ""
    page = FleetPage(
        title="Lab to fleet",
        subtitle=f"a model of laboratory cells on {diagnosis.trips.height} trips of "
        f"{diagnosis.source}",
        cards=(
            Card(
                f"{found.pearson:+.2f} / {found.spearman:+.2f}",
                "Pearson / Spearman, predicted SoH against temperature rise, applied blindly; "
                f"published {PUBLISHED.pearson:+.2f} / {PUBLISHED.spearman:+.2f}; physics: below 0",
                tone,
            ),
            Card(
                f"{blind.inside} of {blind.n}",
                "trips inside what the lab covered, as the domain check says",
                "priority" if blind.inside < blind.n / 2 else "",
            ),
            Card(
                f"{diagnosis.wrong_signs} of {len(diagnosis.mappings)}",
                "ways to map trips to features that give the wrong sign",
                tone,
            ),
        ),
        sections=(
            Section(
                "Predicted health against temperature rise",
                "An aged battery has a higher resistance and warms more: where the rise grows, "
                "the prediction should fall.",
                image=_embedded(draw_diagnosis(diagnosis)),
            ),
            Section("Why the sign is wrong", points=diagnosis.reasons),
            Section(
                "What the domain check says",
                "Left: as published. Right: the kindest reading, per cell and with the lab's sign "
                "of the current.",
                image=_embedded(draw_domain(diagnosis)),
            ),
            Section(
                "Every mapping",
                "Pearson / Spearman. Closest to what is published: "
                f"{diagnosis.closest.mapping}, {diagnosis.closest.lab}.",
                columns=MAPPING_COLUMNS,
                rows=mapping_rows(diagnosis),
            ),
        ),
    )
    return _rendered(page)


def render_scorecard(card: Scorecard) -> str:
    """The scorecard as a page that opens without a network."""
    picture = draw_scorecard(card)
    page = FleetPage(
        title="Fleet scorecard",
        subtitle=f"{len(card.vehicles)} vehicles of {card.source}; the most urgent first",
        cards=[
            Card(str(count), action, action if count else "")
            for action, count in card.counts.items()
        ],
        sections=(
            Section(
                "Health and temperature",
                f"Temperature rise: {card.rise}." if card.rise else "No temperatures are known.",
                image=_embedded(picture) if picture else "",
            ),
            Section(
                "Vehicles",
                points=card.notes,
                columns=VEHICLE_COLUMNS,
                rows=[vehicle_row(vehicle, card.unit) for vehicle in card.vehicles],
            ),
        ),
    )
    return _rendered(page)


def mapping_rows(diagnosis: Diagnosis) -> list[list[str]]:
    """Correlations by lab model, voltage and current; one column per treatment of drop times."""
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for each in diagnosis.mappings:
        key = (each.lab, each.mapping.voltage, each.mapping.current)
        rows.setdefault(key, {})[each.mapping.missing] = (
            f"{each.found.pearson:+.3f} / {each.found.spearman:+.3f}"
            if math.isfinite(each.found.pearson)
            else "-"
        )
    return [[*key, *(cells.get(how, "-") for how in MISSING)] for key, cells in rows.items()]


def vehicle_row(vehicle: VehicleScore, unit: str) -> list[str]:
    """A vehicle's numbers as text, in the order of `VEHICLE_COLUMNS`."""
    trend, signal = vehicle.trend, vehicle.temperature
    warming = signal.trend if signal else None
    per = "month" if unit == "months" else unit
    return [
        vehicle.asset_id,
        vehicle.action,
        "not known" if vehicle.soh is None else f"{vehicle.soh:.1%}",
        f"{trend.slope:+.2f} per {per}" if trend else "not known",
        "-" if vehicle.units_to_limit is None else f"{vehicle.units_to_limit:.1f} {unit}",
        f"{warming.change:+.1f} K, {signal.correlation:+.2f}" if signal and warming else "-",
        f"{vehicle.unusable_share:.0%}",
        "; ".join(reason.text for reason in vehicle.deciding),
    ]


def _rendered(page: FleetPage) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("batteryops.lifecycle"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("fleet.html").render(page=page, tones=list(ACTIONS))


def _embedded(png: bytes) -> str:
    return b64encode(png).decode()
