"""Online learning: a batch of labels, a few trees more on a copy, judged before they count."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import xgboost as xgb

from batteryops.errors import DataError
from batteryops.models.acceptance import Errors, Judges, Limits
from batteryops.models.algorithms import Boosted
from batteryops.models.boosting import Parameters
from batteryops.models.continuing import ROUNDS, warm_start
from batteryops.models.labelled import LabelledRows
from batteryops.models.replay import replay_sample
from batteryops.models.setting_aside import set_aside

HELD_OUT: Final = 0.3
"""Share of a batch's groups that judge, and of the past's."""

REPLAY: Final = 2.0
"""Old rows that are learned from along with each new one."""

LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True, eq=False)
class OnlineUpdate:
    """What came of a batch.

    Args:
        accepted: whether the update takes the current model's place.
        reason: one sentence.
        booster: what is to serve: the update, or the current model itself.
        current: errors of the current model; None where nothing could be held out.
        candidate: of the update.
        allowed: the largest with which it is accepted.
        learned_from: assets whose rows the update learned from.
        judged_by: assets whose rows it was judged by, old and new.
        seconds: of all of it.
    """

    accepted: bool
    reason: str
    booster: xgb.Booster
    current: Errors | None
    candidate: Errors | None
    allowed: Errors | None
    learned_from: tuple[str, ...]
    judged_by: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Everything but the booster."""
        return {
            "accepted": self.accepted,
            "reason": self.reason,
            "trees": self.booster.num_boosted_rounds(),
            "current": self.current.to_json() if self.current else None,
            "candidate": self.candidate.to_json() if self.candidate else None,
            "allowed": self.allowed.to_json() if self.allowed else None,
            "learned_from": list(self.learned_from),
            "judged_by": list(self.judged_by),
            "seconds": self.seconds,
        }


def online_learning_update(  # noqa: PLR0913 - the model, the data of a fit, and how to judge
    booster: xgb.Booster,
    rows: LabelledRows,
    old: LabelledRows,
    *,
    parameters: Parameters,
    seed: int,
    rounds: int = ROUNDS,
    judges: Judges | None = None,
    unseen_ah: float = 0.0,
    limits: Limits = LIMITS,
    trends: Sequence[int] = (),
) -> OnlineUpdate:
    """Learn from a batch, and keep the current model unless the update proves better.

    Args:
        booster: the current model; stays as it is. A package's is `package.booster`.
        rows: the batch. Whole groups of it judge, unless `judges` are given.
        old: rows that the current model was fitted on, for the replay sample; whole groups of
            them judge what is forgotten, unless `judges` are given.
        parameters: as for `boosting.fit`; `n_estimators` is passed over.
        seed: of every draw and fit.
        rounds: trees to add.
        judges: rows to judge by; groups that are among them are not learned from.
        unseen_ah: as for `Judges`, where none are given.
        limits: of the gate.
        trends: as for `boosting.fit`.

    Returns:
        The update, or the current model and why it stays; as well where the batch or the past is
        of one group only, so that nothing can be held out.

    Raises:
        DataError: rows of other features.
        SettingsError: when a parameter is unknown or out of range.
    """
    started = time.perf_counter()
    names = tuple(booster.feature_names or ())
    for given in (rows, old, *((judges.new, judges.old) if judges else ())):
        given.expect(names)
    try:
        parts = set_aside(rows, old, share=HELD_OUT, seed=seed, judges=judges, unseen_ah=unseen_ah)
    except DataError as error:
        return OnlineUpdate(
            False, str(error), booster, None, None, None, (), (), time.perf_counter() - started
        )
    learned, judges = parts.learned, parts.judges
    replay = replay_sample(parts.past, max(1, round(REPLAY * len(learned))), seed=seed)
    update = warm_start(
        booster,
        learned,
        parameters=parameters,
        seed=seed,
        rounds=rounds,
        replay=replay,
        trends=trends,
    )
    current, candidate = (judges.errors(Boosted(one)) for one in (booster, update))
    looked = judges.look(current, candidate, limits)
    return OnlineUpdate(
        accepted=looked.passed,
        reason=looked.reason,
        booster=update if looked.passed else booster,
        current=current,
        candidate=candidate,
        allowed=judges.allowed(current, limits),
        learned_from=(learned + replay).assets,
        judged_by=(judges.new + judges.old).assets,
        seconds=time.perf_counter() - started,
    )
