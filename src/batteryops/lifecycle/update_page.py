"""The page of a model that was brought up to date: what was tried, what was judged, what it did."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jinja2

from batteryops.evaluation.gates import Verdict
from batteryops.evaluation.metrics import Metrics
from batteryops.lifecycle.uncertainty import Uncertainty
from batteryops.models.strategies import Comparison


@dataclass(frozen=True, slots=True, eq=False)
class UpdatePage:
    """What the page shows.

    Args:
        title: of the page.
        subtitle: which view, from what.
        verdict: of the gates.
        comparison: of what was tried.
        update: as the package's document says it.
        unseen: measured on batteries held out; None where there was nobody to hold out.
        uncertainty: intervals and domain.
        diagnostics: four panels, PNG; None with too few rows.
    """

    title: str
    subtitle: str
    verdict: Verdict
    comparison: Comparison
    update: Mapping[str, Any]
    unseen: Metrics | None
    uncertainty: Uncertainty
    diagnostics: bytes | None


def render_update(page: UpdatePage) -> str:
    """The page as HTML; everything it needs is inside, it opens without a network."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("batteryops.lifecycle"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["ah"] = _ah
    return environment.get_template("update.html").render(
        page=page,
        chosen=page.comparison.chosen,
        diagnostics=page.diagnostics and b64encode(page.diagnostics).decode(),
    )


def _ah(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
