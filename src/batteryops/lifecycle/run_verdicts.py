"""What a monitoring run comes to: each part judged by the limits that the alerts have."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from batteryops.lifecycle.drift import Standing, standing
from batteryops.monitoring.drift_detection import DriftReport
from batteryops.monitoring.error_estimate import ErrorEstimate
from batteryops.monitoring.performance import Performance
from batteryops.monitoring.production_quality import ProductionQuality
from batteryops.records.ledger import LedgerCheck
from batteryops.settings import Settings

Word = Literal["ALERT", "WARNING", "NOT_JUDGED", "TOO_FEW", "OK"]

WORST_FIRST: Final[tuple[Word, ...]] = ("ALERT", "WARNING", "NOT_JUDGED", "TOO_FEW", "OK")

_OF_STATUS: Final[Mapping[Standing, Word]] = {
    "alert": "ALERT",
    "missing": "ALERT",
    "warning": "WARNING",
    "too_few": "TOO_FEW",
    "expected": "OK",
    "ok": "OK",
}
_NAMED: Final = 3  # features that a line names


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a run, judged.

    Args:
        name: what was looked at.
        verdict: what follows.
        why: for people.
    """

    name: str
    verdict: Word
    why: str

    def to_json(self) -> dict[str, str]:
        """As the run's document holds it."""
        return {"verdict": self.verdict, "why": self.why}


def worst(parts: Iterable[Part]) -> Word:
    """The worst verdict of parts.

    Examples:
        >>> worst([Part("drift", "OK", ""), Part("quality", "WARNING", "")])
        'WARNING'
    """
    return _worst_of(part.verdict for part in parts)


def _worst_of(verdicts: Iterable[Word]) -> Word:
    found = set(verdicts)
    for word in WORST_FIRST:
        if word in found:
            return word
    return "OK"


def of_drift(report: DriftReport | None, refused: str) -> Part:
    """Of the features."""
    if report is None:
        return Part("drift", "NOT_JUDGED", refused)
    features = report.features
    verdicts = {name: _OF_STATUS[standing(found)] for name, found in features.items()}
    verdict = _worst_of(verdicts.values())
    if verdict == "OK":
        aged = [name for name, found in features.items() if standing(found) == "expected"]
        older = f"; {', '.join(aged)} as in older batteries, which is expected" if aged else ""
        return Part("drift", verdict, f"{len(features)} features as in the reference{older}")
    reached = sorted(
        (name for name, word in verdicts.items() if word == verdict),
        key=lambda name: -(features[name].psi or 0.0),
    )
    told = [
        name
        + (f" PSI {psi:.2f}" if (psi := features[name].psi) is not None else "")
        + (f" ({cause.replace('_', ' ')})" if (cause := features[name].cause) else "")
        for name in reached[:_NAMED]
    ]
    more = [f"and {len(reached) - _NAMED} more"] if len(reached) > _NAMED else []
    wanted = [f"retraining wanted by {', '.join(report.retraining_wanted)}"]
    return Part(
        "drift", verdict, "; ".join([*told, *more, *(wanted if report.retraining_wanted else [])])
    )


def of_predictions(report: DriftReport | None) -> Part:
    """Of the predictions, as drift."""
    if report is None:
        return Part("predictions", "NOT_JUDGED", "as for drift")
    found = report.prediction
    if found is None:
        return Part("predictions", "NOT_JUDGED", "no predictions of this package to compare")
    numbers = (
        f"{name} {value:.2f}"
        for name, value in (("PSI", found.psi), ("KS", found.ks))
        if value is not None
    )
    told = [", ".join(numbers), found.detail]
    return Part("predictions", _OF_STATUS[standing(found)], "; ".join(filter(None, told)))


def of_performance(
    performance: Performance, estimate: ErrorEstimate | None, settings: Settings
) -> Part:
    """Of answers that have a label, with what is estimated of the others."""
    overall, limits = performance.overall, settings.monitoring
    guess = f"estimated without labels: MAE {estimate.mae_ah:.3f} Ah" if estimate else ""
    if overall.refused is not None:
        return Part("performance", "TOO_FEW", "; ".join(filter(None, [overall.refused, guess])))
    verdict: Word = "OK"
    if overall.r2 < limits.r2_alert:
        verdict = "WARNING"
    if overall.mae_ah > limits.mae_alert_ah:
        verdict = "ALERT"
    told = (
        f"MAE {overall.mae_ah:.3f} Ah, at most {limits.mae_alert_ah:g}; R2 {overall.r2:.2f}, at "
        f"least {limits.r2_alert:g}; {overall.n} answers with {overall.n_labels} labels"
    )
    return Part("performance", verdict, "; ".join(filter(None, [told, guess])))


def of_quality(quality: ProductionQuality | None, settings: Settings) -> Part:
    """Of what was asked and answered."""
    if quality is None:
        return Part("quality", "NOT_JUDGED", "which features to look at, only a model tells")
    if not quality.rows:
        return Part("quality", "TOO_FEW", "nothing was answered in the window")
    alerts = settings.monitoring.alerts
    told = []
    if quality.incident:
        told.append(
            f"{quality.out_of_physical_range:.1%} of the predictions are out of physical range"
        )
    if quality.out_of_domain > alerts.out_of_domain_share:
        told.append(f"{quality.out_of_domain:.1%} out of the training domain")
    for what, shares, most in (
        ("missing", quality.missing, alerts.missing_share),
        ("stuck", quality.stuck, alerts.stuck_share),
        ("out of range", quality.out_of_range, alerts.feature_out_of_range_share),
    ):
        told += [
            f"{name} {what} in {share:.1%}"
            for name, share in sorted(shares.items(), key=lambda one: -one[1])[:_NAMED]
            if share > most
        ]
    verdict: Word = "ALERT" if quality.incident else "WARNING" if told else "OK"
    return Part("quality", verdict, "; ".join(told) or f"{quality.rows} answers in order")


def of_ledger(check: LedgerCheck) -> Part:
    """Of the chain of decisions."""
    if check.intact:
        return Part("ledger", "OK", f"{check.length} lines, intact")
    return Part("ledger", "ALERT", f"broken at line {check.first_broken}: {check.problem}")
