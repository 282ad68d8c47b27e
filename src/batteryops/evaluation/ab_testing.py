"""Champion against challenger on live traffic: promote, reject, continue, or stop for harm.

`judge` may be called at every hour of a trial and knows nothing of the calls before: its p-value
and bounds hold at all looks together (`confidence_sequence`). Unit of all statistics is the vehicle
(`ab_statistics`). An improvement is positive: the champion's absolute error less the challenger's.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from batteryops.evaluation.ab_groups import GroupResult, judge_groups
from batteryops.evaluation.ab_rules import ABRules
from batteryops.evaluation.ab_statistics import one_sided_p, sample_ratio_p
from batteryops.evaluation.ab_trial import Answers, Trial, improvement
from batteryops.evaluation.ab_verdict import ABVerdict, Decision, Improvement, ModelFacts
from batteryops.evaluation.confidence_sequence import anytime_bounds, anytime_p
from batteryops.evaluation.effect_size import paired_effect_size, split_effect_size

__all__ = ["ABRules", "ABVerdict", "Answers", "Decision", "Trial", "judge"]

_PAIR: Final = 2


def judge(trial: Trial, rules: ABRules | None = None) -> ABVerdict:
    """Look at a trial.

    In this order, what ends it: a split that was not by chance (reject); a challenger that leaves
    questions unanswered, or errs more at any look (stop for harm); one that harms a group, is too
    slow, or can no longer reach the effect that is asked for (reject). It is promoted when all
    rules hold at one look, and rejected when they do not within `max_days`. Where it is sure that
    the champion errs by far more, fewer days and answers are asked for, and no group has to be
    shown to be unharmed; one that is harmed still rejects. What is not known never promotes.

    Args:
        trial: what was answered until now.
        rules: the source system's by default.

    Raises:
        DataError: when hidden errors are to cost more and it is not known which they are.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> vehicle = [f"V{at:02}" for at in range(40) for _ in range(20)]
        >>> error = np.abs(rng.normal(0, 0.02, 800))
        >>> found = judge(Trial(
        ...     Answers.of(vehicle, error, latency_ms=np.full(800, 2.0)),
        ...     Answers.of(vehicle, 0.7 * error, latency_ms=np.full(800, 2.1)),
        ...     paired=True,
        ...     days=8.0,
        ... ))
        >>> found.decision, round(found.improvement.size.d, 2), found.improvement.p < 0.001
        ('promote', 0.47, True)
    """
    rules = ABRules() if rules is None else rules
    first, second = trial.compared
    facts = _facts(trial.champion, first), _facts(trial.challenger, second)
    if rules.hidden_cost > 1.0:
        first, second = first.weighted(rules.hidden_cost), second.weighted(rules.hidden_cost)
    slow, fast = facts[1].latency_p50_ms, facts[0].latency_p50_ms
    groups: tuple[GroupResult, ...] = ()
    if facts[0].compared or facts[1].compared:
        groups = judge_groups(first, second, rules, paired=trial.paired)
    look = ABVerdict(
        decision="continue",
        reasons=(),
        design="paired" if trial.paired else "split",
        days=trial.days,
        champion=facts[0],
        challenger=facts[1],
        unpaired=trial.unpaired,
        improvement=_improvement(first, second, rules, paired=trial.paired),
        latency_ratio=slow / fast if slow is not None and fast else None,
        sample_ratio_p=_sample_ratio(trial, rules),
        groups=groups,
        rules=rules,
    )
    decision, reasons = _decide(trial, look)
    return replace(look, decision=decision, reasons=reasons)


def _decide(trial: Trial, look: ABVerdict) -> tuple[Decision, tuple[str, ...]]:
    if reasons := tuple(_spoilt(trial, look)):
        return "reject", reasons
    if reasons := tuple(_harm(look)):
        return "stop_for_harm", reasons
    if reasons := tuple(_lost(look)):
        return "reject", reasons
    missing = tuple(_missing(look))
    if not missing:
        return "promote", tuple(_won(look))
    if look.days >= look.rules.max_days:
        ended = f"not shown to be better within {look.rules.max_days:g} days"
        return "reject", (ended, *missing)
    return "continue", missing


def _spoilt(trial: Trial, look: ABVerdict) -> Iterator[str]:
    """Why no comparison can be trusted."""
    if trial.paired:
        return
    both = set(trial.champion.vehicle) & set(trial.challenger.vehicle)
    if both:
        yield (
            f"{len(both)} vehicles were answered by both models, among them {min(both)}: "
            "the split is not by vehicle"
        )
    p = look.sample_ratio_p
    if p is not None and p < look.rules.sample_ratio_level:
        yield (
            f"{len(set(trial.challenger.vehicle))} vehicles of the challenger and "
            f"{len(set(trial.champion.vehicle))} of the champion do not fit a share of "
            f"{look.rules.challenger_share:g} (chi-square p = {p:.2g}): it was not chance that "
            "split them"
        )


def _harm(look: ABVerdict) -> Iterator[str]:
    """Why the challenger must not answer any longer."""
    rules, mine = look.rules, look.challenger
    excess = _share(mine.failed, mine.answers) - _share(look.champion.failed, look.champion.answers)
    if mine.failed >= rules.min_failures and excess > rules.max_failed_share:
        yield (
            f"the challenger gave no number for {mine.failed} of {mine.answers} questions, "
            f"{100 * excess:.2g} percent more than the champion; at most "
            f"{100 * rules.max_failed_share:g} percent are allowed"
        )
    found = look.improvement
    if found is not None and _enough_vehicles(look) and found.high < 0.0:
        yield (
            f"the challenger errs {-found.effect:.3g} Ah more, at least {-found.high:.3g} "
            f"with {100 * (1 - rules.level):g} percent confidence at every look"
        )


def _lost(look: ABVerdict) -> Iterator[str]:
    """Why it can no longer be promoted."""
    rules = look.rules
    for group in look.groups:
        if group.status == "inferior":
            yield (
                f"{group.by} {group.name}: the challenger errs {-(group.effect_ah or 0.0):.3g} Ah "
                f"more, shown to exceed the margin of {group.margin_ah:.3g} "
                f"(Holm's p = {group.p_inferior:.2g})"
            )
    if not (_enough_answers(look) and _enough_vehicles(look)):
        return
    if look.latency_ratio is not None and look.latency_ratio > rules.max_latency_ratio:
        yield _latency_text(look)
    found = look.improvement
    if found is not None and look.days >= rules.min_days:
        best = found.high / found.size.sd if found.size.sd > 0.0 else 0.0
        if best < rules.min_effect_size:
            yield (
                f"Cohen's d is {found.size.d:.3g} and at most {best:.3g} with "
                f"{100 * (1 - rules.level):g} percent confidence at every look; above "
                f"{rules.min_effect_size:g} is asked for"
            )


def _missing(look: ABVerdict) -> Iterator[str]:
    """What is to be shown yet."""
    rules, found = look.rules, look.improvement
    yield from _too_little(look)
    if look.latency_ratio is None:
        yield "how long the models take is not known"
    elif look.latency_ratio > rules.max_latency_ratio:
        yield _latency_text(look)
    asked = max(look.champion.answers, look.challenger.answers) + look.unpaired
    if look.unpaired > rules.max_unpaired_share * asked:
        yield (
            f"{look.unpaired} of {asked} questions were answered by one model alone; at most "
            f"{100 * rules.max_unpaired_share:g} percent are allowed"
        )
    if found is None:
        return
    if not found.p < rules.level:
        yield f"p = {found.p:.3g} at every look, expected < {rules.level:g}"
    if not found.size.d > rules.min_effect_size:
        yield f"Cohen's d = {found.size.d:.3g}, expected > {rules.min_effect_size:g}"
    for group in look.groups:
        if group.status == "open" and not is_urgent(look):
            yield (
                f"{group.by} {group.name}: not shown to be at most {group.margin_ah:.3g} Ah worse "
                f"(Holm's p = {group.p_not_inferior:.2g}, expected < {rules.level:g})"
            )


def is_urgent(look: ABVerdict) -> bool:
    """Whether it is sure at every look that the champion errs by far more."""
    found = look.improvement
    return found is not None and found.low > look.rules.urgent_gain_ah and _enough_vehicles(look)


def _too_little(look: ABVerdict) -> Iterator[str]:
    rules, urgent = look.rules, is_urgent(look)
    min_days = rules.urgent_days if urgent else rules.min_days
    least = rules.urgent_predictions if urgent else rules.min_predictions
    if look.days < min_days:
        yield f"{look.days:.3g} days, expected {min_days:g}"
    for name, facts in (("champion", look.champion), ("challenger", look.challenger)):
        if not facts.answers:
            yield f"the {name} has answered nothing"
        elif not facts.compared:
            yield f"no label has come for the {name}'s {facts.answers} answers"
        elif facts.compared < least:
            yield f"{facts.compared} labelled answers of the {name}, expected {least}"
        if facts.compared and facts.vehicles < rules.min_vehicles:
            one = "one vehicle says nothing of others; " if facts.vehicles == 1 else ""
            yield (
                f"labels of {facts.vehicles} of the {name}'s vehicles: {one}"
                f"expected {rules.min_vehicles}"
            )


def _won(look: ABVerdict) -> Iterator[str]:
    found, rules = look.improvement, look.rules
    if found is None:  # without an improvement something is missing
        return
    yield (
        f"the challenger errs {found.effect:.3g} Ah less, at least {found.low:.3g} at every look "
        f"(p = {found.p:.2g}, expected < {rules.level:g})"
    )
    yield f"Cohen's d = {found.size.d:.3g}, expected > {rules.min_effect_size:g}"
    if is_urgent(look) and look.days < rules.min_days:
        yield (
            f"urgent, after {look.days:.3g} days: more than {rules.urgent_gain_ah:g} Ah are to be "
            "gained at every look"
        )
    yield _latency_text(look)
    kept = [f"{group.by} {group.name}" for group in look.groups if group.status == "not inferior"]
    if kept:
        yield f"not inferior for {', '.join(kept)}"
    unsure = [f"{group.by} {group.name}" for group in look.groups if group.status == "open"]
    if unsure:
        yield f"urgent, though not shown to be no worse for {', '.join(unsure)}"
    few = [f"{group.by} {group.name}" for group in look.groups if group.status == "too few"]
    if few:
        yield f"too few vehicles to judge {', '.join(few)}"


def _latency_text(look: ABVerdict) -> str:
    return (
        f"the challenger takes {look.latency_ratio or 0.0:.3g} times as long as the champion "
        f"(median), at most {look.rules.max_latency_ratio:g} is allowed"
    )


def _enough_answers(look: ABVerdict) -> bool:
    least = min(look.champion.compared, look.challenger.compared)
    return least >= look.rules.min_predictions


def _enough_vehicles(look: ABVerdict) -> bool:
    return min(look.champion.vehicles, look.challenger.vehicles) >= look.rules.min_vehicles


def _facts(answers: Answers, compared: Answers) -> ModelFacts:
    timed = answers.latency_ms[np.isfinite(answers.latency_ms)]
    return ModelFacts(
        answers=len(answers.vehicle),
        compared=len(compared.vehicle),
        vehicles=len(set(compared.vehicle)),
        failed=int(answers.failed.sum()),
        mae_ah=float(compared.error.mean()) if len(compared.error) else None,
        latency_p50_ms=float(np.median(timed)) if timed.size else None,
        latency_p95_ms=float(np.quantile(timed, 0.95)) if timed.size else None,
    )


def _improvement(
    champion: Answers, challenger: Answers, rules: ABRules, *, paired: bool
) -> Improvement | None:
    if (
        min(len(set(champion.vehicle)), len(set(challenger.vehicle))) < _PAIR
    ):  # one says nothing of others
        return None
    estimate = improvement(champion, challenger, paired=paired)
    codes = [np.unique(one.vehicle, return_inverse=True)[1] for one in (champion, challenger)]
    size = (
        paired_effect_size(codes[0], champion.error, challenger.error)
        if paired
        else split_effect_size((codes[0], champion.error), (codes[1], challenger.error))
    )
    scale = max(rules.min_effect_size * size.sd, np.finfo(float).tiny)
    low, high = anytime_bounds(estimate, scale, rules.level)
    return Improvement(
        effect=float(estimate.effect),
        se=float(estimate.se),
        df=float(estimate.df),
        p_one_look=float(one_sided_p(estimate)),
        p=float(anytime_p(estimate, scale)),
        low=float(low),
        high=float(high),
        size=size,
    )


def _sample_ratio(trial: Trial, rules: ABRules) -> float | None:
    counts = [len(set(one.vehicle)) for one in (trial.champion, trial.challenger)]
    if trial.paired or not any(counts):
        return None
    return sample_ratio_p(counts[0], counts[1], rules.challenger_share)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
