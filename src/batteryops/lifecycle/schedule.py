"""The loop on a timer of its own: monitoring at its pace, checks at theirs, until told to stop."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from batteryops.errors import BatteryOpsError
from batteryops.lifecycle.controller import Checked, check
from batteryops.lifecycle.monitoring import Monitored, run_monitoring
from batteryops.lifecycle.progress import Progress
from batteryops.settings import Settings

Heard = Callable[[Checked | Monitored | BatteryOpsError], None]
"""Told what each look came to, or why it could not be had; called from several threads."""

_JOBS: Final = 2


def keep_checking(
    settings: Settings, progress: Callable[[], Progress], heard: Heard, stop: threading.Event
) -> None:
    """Monitor and check again and again.

    A job that is still at work is not begun a second time; of starts that were missed meanwhile,
    one is made up for. What one look could not do for a store that was out of reach, the next does.

    Args:
        settings: the paces, and where everything is.
        progress: of each look.
        heard: told what came of it.
        stop: set by whoever wants it to end; what is under way is finished first.
    """
    rules = settings.retraining

    def monitor() -> None:
        heard(_tried(lambda: run_monitoring(settings, progress())))

    def look() -> None:
        heard(_tried(lambda: check(settings, progress())))

    scheduler = BackgroundScheduler(
        executors={"default": ThreadPoolExecutor(_JOBS)},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        timezone=UTC,
    )
    start = datetime.now(UTC)
    later = start + timedelta(minutes=rules.monitor_every_minutes)  # the first check does both
    scheduler.add_job(monitor, "interval", minutes=rules.monitor_every_minutes, next_run_time=later)
    scheduler.add_job(look, "interval", minutes=rules.check_every_minutes, next_run_time=start)
    scheduler.start()
    try:
        stop.wait()
    finally:
        scheduler.shutdown(wait=True)


def _tried(
    look: Callable[[], Checked | Monitored],
) -> Checked | Monitored | BatteryOpsError:
    try:
        return look()
    except BatteryOpsError as error:
        return error
