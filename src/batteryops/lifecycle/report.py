"""One self-contained HTML page that shows how a model came to be and what it is worth."""

import json
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from batteryops.evaluation.diagnostics import diagnostics_png
from batteryops.lifecycle.plots import draw_ageing, draw_assets, draw_protocols
from batteryops.lifecycle.training import DIAGNOSED, Trained
from batteryops.records.ledger import Entry


@dataclass(frozen=True, slots=True)
class DoneStep:
    """A step of a run: what it was, what came out, how long it took."""

    name: str
    result: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """An HTTP exchange, and the capacity that was measured for the same discharge."""

    request: Mapping[str, Any]
    status: str
    response: Mapping[str, Any]
    measured_ah: float
    note: str


@dataclass(frozen=True, slots=True)
class Page:
    """What the page shows; parts that do not apply are empty."""

    trained: Trained
    title: str
    subtitle: str
    source_note: str
    provenance: Mapping[str, str]
    steps: Sequence[DoneStep] = ()
    answer: ServedAnswer | None = None
    ledger: Sequence[Entry] = ()


def render(page: Page) -> str:
    """The page as HTML; everything it needs is inside, it opens without a network."""
    trained, prepared = page.trained, page.trained.prepared
    answer = page.answer
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("batteryops.lifecycle"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html").render(
        title=page.title,
        subtitle=page.subtitle,
        source_note=page.source_note,
        provenance=page.provenance,
        steps=page.steps,
        ledger=page.ledger,
        answer=answer
        and {
            "request": json.dumps(dict(answer.request), indent=2),
            "status": answer.status,
            "response": json.dumps(dict(answer.response), indent=2),
            "measured_ah": answer.measured_ah,
            "note": answer.note,
        },
        verdict=trained.verdict,
        results=trained.results,
        shortfalls=trained.shortfalls,
        view=prepared.view,
        leakage=trained.leakage,
        uncertainty=trained.uncertainty,
        algorithm=trained.algorithm,
        tournament=trained.tournament,
        searched=trained.found,
        notes=trained.notes,
        checks=prepared.report.checks,
        n_rows=prepared.table.height,
        n_assets=prepared.table["asset_id"].n_unique(),
        n_set_aside=prepared.set_aside.height,
        number=_number,
        exact=_exact,
        ageing=_embedded(draw_ageing(prepared.table, prepared.set_aside)),
        protocols=_embedded(draw_protocols(trained.results)),
        diagnostics=_embedded(diagnostics_png(trained.results[DIAGNOSED].predictions)),
        assets=_embedded(draw_assets(trained.results[DIAGNOSED])),
    )


def _embedded(png: bytes) -> str:
    return b64encode(png).decode()


def _exact(value: float) -> str:
    return f"{value:.5f}" if math.isfinite(value) else "-"


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "-"
