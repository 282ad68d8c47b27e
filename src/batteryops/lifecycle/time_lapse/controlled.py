"""The loop of the time lapse: the real controller, called as a timer would call it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from batteryops.lifecycle.controller import Checked, check
from batteryops.lifecycle.monitoring import run_monitoring
from batteryops.lifecycle.progress import Progress, Silent
from batteryops.lifecycle.time_lapse.loop import Done, LoopWeek, causes_in_alert
from batteryops.records.predictions import PredictionLog
from batteryops.records.retraining_runs import TRIAL, RetrainingRun, RetrainingRuns
from batteryops.settings import Settings

KEY_FILE: Final = "controller.key"

_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATELY: Final = timedelta(days=7)
_PRESSING: Final = frozenset({"manual", "error", "drift"})


class Controlled:
    """Monitors, then has the controller look.

    Args:
        settings: of the time lapse.
        url: of its server, which is asked after a promotion what it answers with.
        secret: of an API key that the server lets in.
        progress: told what is being done.
    """

    def __init__(
        self, settings: Settings, url: str, secret: str, progress: Progress | None = None
    ) -> None:
        file = settings.home / KEY_FILE
        file.touch(mode=0o600)
        file.write_text(secret, "utf-8")
        rules = settings.retraining.model_copy(
            update={"servers": (url,), "servers_key_file": str(file)}
        )
        self._settings = settings.model_copy(update={"retraining": rules})
        self._progress = progress or Silent()
        self._known: dict[str, RetrainingRun] = {}

    def look(self, now: datetime) -> LoopWeek:
        """See `Loop`."""
        monitored = run_monitoring(self._settings, self._progress)
        checked = check(self._settings, self._progress)
        before, self._known = self._known, {run.run_id: run for run in self._runs()}
        news = [
            (run, before.get(run.run_id))
            for run in self._known.values()
            if run != before.get(run.run_id)
        ]
        return LoopWeek(
            causes=causes_in_alert(monitored.document),
            retrainings=tuple(
                Done(run.started_at, None, run.trigger, run.reason, run_id=run.run_id)
                for run, had in news
                if had is None
            ),
            promotions=tuple(
                Done(now, run.document["version"], run.trigger, run.document["why"])
                for run, had in news
                if _is_promoted(run) and not _is_promoted(had)
            ),
            rollbacks=tuple(
                Done(now, run.document.get("rolled_back_to"), run.trigger, run.document["why"])
                for run, _ in news
                if run.state == "rolled_back"
            ),
            ask=self._asked(checked, now),
            hurry=_is_pressing(checked),
        )

    def outcomes(self) -> Mapping[str, str]:
        """See `Loop`."""
        return {run.run_id: run.state for run in self._runs()}

    def _runs(self) -> list[RetrainingRun]:
        with RetrainingRuns(self._settings.predictions_url) as runs:
            return runs.since(_EVER)

    def _asked(self, checked: Checked, now: datetime) -> tuple[str, ...]:
        """Whose labels are wanted, where the controller asks for some: of all who drive."""
        if checked.decision is None or checked.decision.action != "ask_for_labels":
            return ()
        with PredictionLog(self._settings.predictions_url) as log:
            drove = {
                vehicle
                for frame in log.frames(now - _LATELY, now)
                for vehicle in frame["vehicle_id"]
            }
        return tuple(sorted(drove))


def _is_promoted(run: RetrainingRun | None) -> bool:
    return run is not None and "promoted_at" in run.document


def _is_pressing(checked: Checked) -> bool:
    """Whether an error or drift is being dealt with."""
    decided = checked.decision is not None and checked.decision.trigger in _PRESSING
    tried = any(run.trigger in _PRESSING and run.state == TRIAL for run in checked.runs)
    return decided or tried
