"""What the time lapse asks of the loop at each look, and what the loop says it did."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Protocol

from batteryops.lifecycle.monitoring import run_monitoring
from batteryops.lifecycle.progress import Progress, Silent
from batteryops.settings import Settings

ALERT: Final = "alert"


@dataclass(frozen=True, slots=True)
class Done:
    """A retraining that ended, a promotion or a rollback.

    Args:
        at: when, UTC.
        version: of the model that it is about; None where there is none.
        trigger: what asked for it: `weekly`, `error`, `drift`, ...
        reason: for people.
        outcome: what came of it, of a retraining: `promoted`, `kept`, `rejected`, ...
        run_id: of the retraining that it belongs to.
    """

    at: datetime
    version: int | None
    trigger: str
    reason: str
    outcome: str = ""
    run_id: str = ""

    def to_json(self, week: int) -> dict[str, Any]:
        """As a JSON document."""
        return {
            "week": week,
            "at": self.at.isoformat(),
            "version": self.version,
            "trigger": self.trigger,
            "reason": self.reason,
            **({"outcome": self.outcome} if self.outcome else {}),
        }


@dataclass(frozen=True, slots=True)
class LoopWeek:
    """What the loop saw and did in one look, or in all looks of a week.

    Args:
        causes: of the features in alert, and how many each has.
        retrainings: begun since the look before.
        promotions: of challengers to champions since then.
        rollbacks: of champions since then.
        ask: vehicles whose labels are wanted soon.
        hurry: whether something goes on that is to be looked at sooner.
    """

    causes: Mapping[str, int]
    retrainings: tuple[Done, ...] = ()
    promotions: tuple[Done, ...] = ()
    rollbacks: tuple[Done, ...] = ()
    ask: tuple[str, ...] = ()
    hurry: bool = False

    def __add__(self, later: "LoopWeek") -> "LoopWeek":
        """Both looks; of a cause the larger number of features."""
        return LoopWeek(
            causes=dict(Counter(self.causes) | Counter(later.causes)),
            retrainings=self.retrainings + later.retrainings,
            promotions=self.promotions + later.promotions,
            rollbacks=self.rollbacks + later.rollbacks,
            ask=tuple(dict.fromkeys(self.ask + later.ask)),
            hurry=later.hurry,
        )

    def settled(self, outcomes: Mapping[str, str]) -> "LoopWeek":
        """With what came of its retrainings in the end, by their runs."""
        ended = (replace(one, outcome=outcomes.get(one.run_id, "")) for one in self.retrainings)
        return replace(self, retrainings=tuple(ended))


class Loop(Protocol):
    """The loop as the time lapse sees it: it is called several times a week."""

    def look(self, now: datetime) -> LoopWeek:
        """Look at what is on record, and act.

        Args:
            now: the simulated time, which the process lives by.
        """
        ...

    def outcomes(self) -> Mapping[str, str]:
        """What came of each retraining, by its run."""
        ...


MakeLoop = Callable[[Settings, str, str], Loop]
"""From the settings of the time lapse, the URL of its server, and a key that it lets in."""


def causes_in_alert(document: Mapping[str, Any]) -> dict[str, int]:
    """How many features are in alert for each cause, in the document of a monitoring run.

    Examples:
        >>> features = {"x": {"status": "alert", "cause": "climate"}, "y": {"status": "ok"}}
        >>> causes_in_alert({"drift": {"features": features}})
        {'climate': 1}
    """
    features = document.get("drift", {}).get("features", {})
    causes = [had["cause"] for had in features.values() if had["status"] == ALERT]
    return dict(Counter(cause for cause in causes if cause is not None))


class Watching:
    """A loop that watches, and does nothing.

    Args:
        settings: of the time lapse.
        progress: told what is being done.
    """

    def __init__(self, settings: Settings, progress: Progress | None = None) -> None:
        self._settings = settings
        self._progress = progress or Silent()

    def look(self, now: datetime) -> LoopWeek:
        """See `Loop`."""
        monitored = run_monitoring(self._settings, self._progress, now=lambda: now)
        return LoopWeek(causes_in_alert(monitored.document))

    def outcomes(self) -> Mapping[str, str]:
        """See `Loop`."""
        return {}
