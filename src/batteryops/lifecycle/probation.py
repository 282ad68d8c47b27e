"""Whether a new champion may stay: the numbers of its first days in service.

What sends it back is what a trial cannot have seen, or a person overruled: more errors than the
champion before it makes on the very same questions, capacities that no battery can have, questions
left without a number. Each needs so many observations that a bad hour does not decide.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from batteryops.evaluation.ab_rules import ABRules
from batteryops.evaluation.ab_testing import judge
from batteryops.evaluation.ab_trial import Trial
from batteryops.evaluation.ab_verdict import ABVerdict
from batteryops.settings import Settings

Decision = Literal["good", "continue", "roll_back"]

MIN_ANSWERS: Final = 100
"""Shares of fewer answers say nothing."""


@dataclass(frozen=True, slots=True)
class ProbationRules:
    """What sends a new champion back.

    Args:
        days: that a probation takes.
        min_answers: from fewer nothing is concluded of shares.
        min_labels: labelled questions that its errors are compared on; from fewer nothing is
            concluded.
        max_out_of_range_share: of its answers that no battery of the profile can have.
        max_failed_share: of its questions that it may leave without a number.
        trial: `level`, `min_effect_size` and `min_vehicles` count here.
    """

    days: float
    min_answers: int
    min_labels: int
    max_out_of_range_share: float
    max_failed_share: float
    trial: ABRules

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of `retraining` and `monitoring`."""
        return cls(
            days=settings.retraining.probation_days,
            min_answers=MIN_ANSWERS,
            min_labels=settings.monitoring.min_labels,
            max_out_of_range_share=settings.monitoring.max_out_of_range_share,
            max_failed_share=settings.monitoring.alerts.error_share,
            trial=ABRules(**settings.retraining.trial.model_dump()),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ProbationFacts:
    """What is known of a new champion.

    Args:
        days: since it was promoted.
        asked: questions that it answered, or should have.
        failed: those of them that it gave no number for.
        out_of_range: answers that no battery of the profile can have.
        pairs: the champion before (as `champion`) and the new one (as `challenger`), on the same
            labelled questions; None where nothing stood before, or it cannot be asked any more.
    """

    days: float
    asked: int
    failed: int
    out_of_range: int
    pairs: Trial | None

    @property
    def answered(self) -> int:
        """Questions that it gave a number for."""
        return self.asked - self.failed


@dataclass(frozen=True, slots=True)
class ProbationVerdict:
    """What a look at a probation says.

    Args:
        decision: `good` when its days are over, `continue` before, `roll_back` at once.
        reasons: why, each with its numbers.
        look: at the errors beside those of the champion before; None where they are not known.
    """

    decision: Decision
    reasons: tuple[str, ...]
    look: ABVerdict | None

    def to_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`."""
        return {
            "decision": self.decision,
            "reasons": list(self.reasons),
            "look": None if self.look is None else self.look.to_json(),
        }


def judge_probation(facts: ProbationFacts, rules: ProbationRules) -> ProbationVerdict:
    """Look at a new champion; at any hour, as its bounds hold at all looks together.

    Args:
        facts: until now.
        rules: what sends it back.

    Examples:
        >>> rules = ProbationRules(14.0, 100, 30, 0.10, 0.05, ABRules())
        >>> bad = ProbationFacts(days=1.0, asked=400, failed=0, out_of_range=60, pairs=None)
        >>> judge_probation(bad, rules).reasons
        ('60 of 400 answers are out of the physical range, 15 percent; at most 10 are allowed',)
        >>> few = ProbationFacts(days=1.0, asked=40, failed=0, out_of_range=6, pairs=None)
        >>> judge_probation(few, rules).decision
        'continue'
    """
    look = None if facts.pairs is None else judge(facts.pairs, rules.trial)
    if reasons := (*_of_shares(facts, rules), *_of_errors(look, rules)):
        return ProbationVerdict("roll_back", reasons, look)
    known = _known(facts, look, rules)
    if facts.days >= rules.days:
        return ProbationVerdict("good", (f"{facts.days:.3g} days without a fault", *known), look)
    since = f"{facts.days:.3g} of {rules.days:g} days without a fault"
    return ProbationVerdict("continue", (since, *known), look)


def _of_shares(facts: ProbationFacts, rules: ProbationRules) -> list[str]:
    found = []
    for what, part, whole, most in (
        (
            "answers are out of the physical range",
            facts.out_of_range,
            facts.answered,
            rules.max_out_of_range_share,
        ),
        ("questions got no number", facts.failed, facts.asked, rules.max_failed_share),
    ):
        if whole >= rules.min_answers and part > most * whole:
            found.append(
                f"{part} of {whole} {what}, {100 * part / whole:.3g} percent; "
                f"at most {100 * most:g} are allowed"
            )
    return found


def _of_errors(look: ABVerdict | None, rules: ProbationRules) -> list[str]:
    if look is None or look.improvement is None:
        return []
    mine = look.challenger
    few = mine.compared < rules.min_labels or mine.vehicles < rules.trial.min_vehicles
    if few or not look.improvement.high < 0.0:
        return []
    said = (
        f"on {mine.compared} labelled questions of {mine.vehicles} vehicles it errs "
        f"{-look.improvement.effect:.3g} Ah more than the champion before, at least "
        f"{-look.improvement.high:.3g} with {100 * (1 - rules.trial.level):g} percent confidence "
        "at every look"
    )
    return [said]


def _known(facts: ProbationFacts, look: ABVerdict | None, rules: ProbationRules) -> list[str]:
    """What nothing could be concluded of yet."""
    told = []
    if facts.asked < rules.min_answers:
        told.append(f"{facts.asked} questions, too few to judge shares of")
    compared = 0 if look is None else look.challenger.compared
    if compared < rules.min_labels:
        told.append(f"{compared} labelled questions, too few to judge errors by")
    return told
