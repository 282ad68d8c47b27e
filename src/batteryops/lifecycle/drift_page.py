"""The page of a comparison: every feature's distributions side by side, and what they mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import jinja2

from batteryops.lifecycle.drift import Comparison, Standing, causes_of, meaning, standing
from batteryops.lifecycle.drift_figures import draw
from batteryops.monitoring.drift_detection import DriftReport, FeatureDrift, Verdict

COLUMNS: Final = ("feature", "status", "PSI", "KS", "p", "missing", "cause")

WORDS: Final[Mapping[Standing, str]] = {
    "alert": "ALERT",
    "missing": "MISSING",
    "warning": "warning",
    "too_few": "too few",
    "expected": "expected",
    "ok": "ok",
}

VERDICTS: Final[Mapping[Verdict, str]] = {
    "ALERT": "Rows differ from the reference by more than chance, and by enough to matter.",
    "WARNING": "Rows differ from the reference somewhat, by more than chance.",
    "TOO_FEW": "Too few rows, or of too few assets, to say anything of some features.",
    "OK": "Rows look as in the reference.",
}


@dataclass(frozen=True, slots=True)
class FeatureCard:
    """One feature on the page."""

    name: str
    status: Standing
    word: str
    numbers: tuple[str, ...]
    bins: str
    meaning: str
    cause: str
    figure: str


def render_drift(comparison: Comparison) -> str:
    """The page as HTML; everything it needs is inside, it opens without a network."""
    report, limits = comparison.report, comparison.limits
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("batteryops.lifecycle"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    counted = [standing(found) for found in comparison.ordered.values()]
    return environment.get_template("drift.html").render(
        reference=comparison.reference_name,
        current=comparison.current_name,
        verdict=report.verdict,
        verdict_meaning=in_words(report),
        retraining=report.retraining_wanted,
        critical=report.critical_features,
        rows=report.rows,
        reference_rows=report.reference_rows,
        assets=comparison.reference.assets,
        tally={WORDS[status]: counted.count(status) for status in WORDS if status in counted},
        limits=limits,
        notes=comparison.notes,
        causes=causes_of(comparison),
        columns=COLUMNS,
        features=[_card(comparison, name) for name in comparison.ordered],
    )


def in_words(report: DriftReport) -> str:
    """What the verdict means."""
    aged = [name for name, found in report.features.items() if standing(found) == "expected"]
    if report.verdict == "OK" and aged:
        return "The batteries are older, as expected; nothing else changed."
    return VERDICTS[report.verdict]


def numbers_of(found: FeatureDrift) -> tuple[str, ...]:
    """PSI, KS, p and the share of missing values, for people."""
    p = found.p_value
    return (
        "-" if found.psi is None else f"{found.psi:.3f}",
        "-" if found.ks is None else f"{found.ks:.3f}",
        "-" if p is None else f"{p:.3f}" if p >= 0.001 else "<0.001",  # noqa: PLR2004 - what shows
        f"{found.missing_share:.1%}",
    )


def _card(comparison: Comparison, name: str) -> FeatureCard:
    found, column = comparison.ordered[name], comparison.reference.columns[name]
    numbers = numbers_of(found)
    return FeatureCard(
        name=name,
        status=standing(found),
        word=WORDS[standing(found)],
        numbers=numbers,
        bins=f"{found.effective_bins} bins of {found.n} rows",
        meaning=meaning(comparison, name),
        cause=(found.cause or "").replace("_", " "),
        figure=draw(
            column.grid,
            column.counts,
            comparison.counts.tallies[name].cells,
            f"distributions of {name}: PSI {numbers[0]}, KS {numbers[1]}",
        ),
    )
