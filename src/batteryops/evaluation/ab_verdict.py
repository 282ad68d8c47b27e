"""What a look at a trial says, with the numbers it says so by."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from batteryops.evaluation.ab_groups import GroupResult
from batteryops.evaluation.ab_rules import ABRules
from batteryops.evaluation.effect_size import EffectSize

Decision = Literal["promote", "reject", "continue", "stop_for_harm"]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a trial has of one model.

    Args:
        answers: all of them.
        compared: those that count: labelled, where paired of both models.
        vehicles: that these are of.
        failed: questions that the model gave no number for.
        mae_ah: mean absolute error of those that count, Ah; None without any.
        latency_p50_ms: None where not known.
        latency_p95_ms: likewise.
    """

    answers: int
    compared: int
    vehicles: int
    failed: int
    mae_ah: float | None
    latency_p50_ms: float | None
    latency_p95_ms: float | None


@dataclass(frozen=True, slots=True)
class Improvement:
    """How much less the challenger errs; in Ah, or weighted Ah where hidden errors cost more.

    Args:
        effect: positive where it errs less.
        se: standard error, by vehicle.
        df: its degrees of freedom.
        p_one_look: one-sided, valid only if nobody looked before.
        p: one-sided, valid at every look; this one decides.
        low: lower bound, valid at every look at `1 - level`.
        high: upper bound, likewise.
        size: Cohen's d.
    """

    effect: float
    se: float
    df: float
    p_one_look: float
    p: float
    low: float
    high: float
    size: EffectSize

    def to_json(self) -> dict[str, Any]:
        """By name; null where undefined or unbounded."""
        numbers = {
            name: getattr(self, name) for name in self.__dataclass_fields__ if name != "size"
        }
        return {
            name: float(value) if np.isfinite(value) else None for name, value in numbers.items()
        } | {"size": self.size.to_json()}


@dataclass(frozen=True, slots=True)
class ABVerdict:
    """What a trial says now, with the numbers it says so by.

    Args:
        decision: promote, reject, continue or stop_for_harm.
        reasons: why; where it goes on, everything that is missing.
        design: `paired` or `split`.
        days: since it began.
        champion: what there is of it.
        challenger: likewise.
        unpaired: questions that one model alone answered, left out.
        improvement: None with labels of fewer than two vehicles.
        latency_ratio: of medians; None where not known.
        sample_ratio_p: of the vehicles' split; None where paired or without answers.
        groups: each profile and SoH band.
        rules: that were applied.
    """

    decision: Decision
    reasons: tuple[str, ...]
    design: Literal["paired", "split"]
    days: float
    champion: ModelFacts
    challenger: ModelFacts
    unpaired: int
    improvement: Improvement | None
    latency_ratio: float | None
    sample_ratio_p: float | None
    groups: tuple[GroupResult, ...]
    rules: ABRules

    def to_json(self) -> dict[str, Any]:
        """Everything by name, ready for `json.dumps`; null where unknown."""
        return {
            "decision": self.decision,
            "reasons": list(self.reasons),
            "design": self.design,
            "days": self.days,
            "champion": asdict(self.champion),
            "challenger": asdict(self.challenger),
            "unpaired": self.unpaired,
            "improvement": None if self.improvement is None else self.improvement.to_json(),
            "latency_ratio": self.latency_ratio,
            "sample_ratio_p": self.sample_ratio_p,
            "groups": [group.to_json() for group in self.groups],
            "rules": asdict(self.rules),
        }
