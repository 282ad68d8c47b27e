"""Whether a challenger harms any group of vehicles: non-inferiority by profile and SoH band."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from batteryops.evaluation.ab_rules import ABRules
from batteryops.evaluation.ab_statistics import Estimate, holm
from batteryops.evaluation.ab_trial import UNKNOWN, Answers, improvement
from batteryops.evaluation.confidence_sequence import anytime_p

Status = Literal["not inferior", "inferior", "open", "too few"]


@dataclass(frozen=True, slots=True)
class GroupResult:
    """What a trial says of one group.

    Args:
        by: `profile` or `soh_band`.
        name: of the group.
        n_champion: its answers that count.
        n_challenger: likewise.
        n_vehicles: of the model with fewer of them.
        champion_mae_ah: mean absolute error, Ah; None without answers.
        challenger_mae_ah: likewise.
        effect_ah: improvement, Ah; None where it cannot be told.
        margin_ah: by how much the challenger may be worse, Ah.
        p_not_inferior: Holm's, that it is worse by the margin or more; valid at every look.
        p_inferior: Holm's, that it is worse by less than the margin, or better; likewise.
        status: what follows.
    """

    by: str
    name: str
    n_champion: int
    n_challenger: int
    n_vehicles: int
    champion_mae_ah: float | None
    challenger_mae_ah: float | None
    effect_ah: float | None
    margin_ah: float | None
    p_not_inferior: float | None
    p_inferior: float | None
    status: Status

    def to_json(self) -> dict[str, Any]:
        """By name."""
        return asdict(self)


def judge_groups(
    champion: Answers, challenger: Answers, rules: ABRules, *, paired: bool
) -> tuple[GroupResult, ...]:
    """Judge each profile and each SoH band.

    Not inferior means: worse by less than a share m of the champion's mean error in that group. As
    that mean is itself an estimate, the ratio is tested: (1 + m) champion - challenger above zero
    (Hauschke, Kieser, Diletti and Burke 1999, Stat. Med. 18:93), with `anytime_p`, whose scale is
    the margin, so that it holds at every look, and Holm's procedure, so that it holds for all
    groups together. Inferior means that the contrary is shown. A group of too few vehicles is told
    and decides nothing.

    Args:
        champion: answers with errors.
        challenger: likewise.
        rules: `margin_share`, `level` and `min_group_vehicles` count here.
        paired: as `Trial` says.
    """
    if paired:  # a pair belongs to one group
        challenger = replace(challenger, profile=champion.profile, soh_band=champion.soh_band)
    both = (champion, challenger)
    found = [
        (by, name, *_one(both, by, name, paired=paired))
        for by in ("profile", "soh_band")
        for name in _names(both, by)
    ]
    ps = []
    for *_, first, second, estimate in found:
        if estimate is None or _vehicles(first, second) < rules.min_group_vehicles:
            ps.append((np.nan, np.nan))
            continue
        allowed = replace(first, error=(1.0 + rules.margin_share) * first.error)
        within = improvement(allowed, second, paired=paired)
        beyond = Estimate(-within.effect, within.se, within.df)
        scale = max(rules.margin_share * float(first.error.mean()), np.finfo(float).tiny)
        ps.append((float(anytime_p(within, scale)), float(anytime_p(beyond, scale))))
    kept, worse = holm([p for p, _ in ps]), holm([p for _, p in ps])
    return tuple(
        _result(one, (float(p), float(q)), rules)
        for one, p, q in zip(found, kept, worse, strict=True)
    )


def _names(both: tuple[Answers, Answers], by: str) -> list[str]:
    """The groups there are; none where no answer's is known, which would be the whole again."""
    names = sorted({name for one in both for name in getattr(one, by)})
    return [] if names == [UNKNOWN] else names


def _one(
    both: tuple[Answers, Answers], by: str, name: str, *, paired: bool
) -> tuple[Answers, Answers, Estimate | None]:
    champion, challenger = both
    first = champion.take(getattr(champion, by) == name)
    second = challenger.take(getattr(challenger, by) == name)
    if not len(first.vehicle) or not len(second.vehicle):
        return first, second, None
    return first, second, improvement(first, second, paired=paired)


def _vehicles(first: Answers, second: Answers) -> int:
    return min(len(set(first.vehicle)), len(set(second.vehicle)))


def _result(
    one: tuple[str, str, Answers, Answers, Estimate | None],
    p: tuple[float, float],
    rules: ABRules,
) -> GroupResult:
    by, name, first, second, estimate = one
    maes = [float(one.error.mean()) if len(one.error) else None for one in (first, second)]
    status: Status = "open"
    if np.isnan(p[0]):
        status = "too few"
    elif p[0] < rules.level:
        status = "not inferior"
    elif p[1] < rules.level:
        status = "inferior"
    return GroupResult(
        by=by,
        name=name,
        n_champion=len(first.error),
        n_challenger=len(second.error),
        n_vehicles=_vehicles(first, second),
        champion_mae_ah=maes[0],
        challenger_mae_ah=maes[1],
        effect_ah=None if estimate is None else float(estimate.effect),
        margin_ah=None if maes[0] is None else rules.margin_share * maes[0],
        p_not_inferior=None if np.isnan(p[0]) else p[0],
        p_inferior=None if np.isnan(p[1]) else p[1],
        status=status,
    )
