"""The time lapse as a demonstration: a year, and the page that shows it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batteryops.files import replacing
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.time_lapse.controlled import Controlled
from batteryops.lifecycle.time_lapse.drive import TimeLapse, WeekSeen, drive
from batteryops.lifecycle.time_lapse.loop import MakeLoop
from batteryops.lifecycle.time_lapse.page import render_year
from batteryops.lifecycle.time_lapse.setting import time_lapse_settings
from batteryops.lifecycle.time_lapse.world import TimeLapsePlan
from batteryops.settings import Settings

PAGE: Final = "time-lapse.html"


@dataclass(frozen=True, slots=True)
class ShownYear:
    """A year, and where its page is."""

    year: TimeLapse
    page: Path


def show_time_lapse(
    plan: TimeLapsePlan,
    settings: Settings,
    progress: Progress,
    *,
    seen: Callable[[WeekSeen], None] = lambda _week: None,
    make_loop: MakeLoop = Controlled,
) -> ShownYear:
    """Let a year pass in a home of its own, and write the page.

    Args:
        plan: of the world.
        settings: the user's; its state goes to `time-lapse/` under the home they name, which is
            emptied first.
        progress: told what is being done.
        seen: told of each week when it is over.
        make_loop: makes the loop that is shown.

    Raises:
        BatteryOpsError: what any of the steps refuses.
    """
    own = time_lapse_settings(settings)
    year = drive(plan, own, make_loop, progress, seen=seen)
    progress.step("write the page")
    page = own.home / PAGE
    with replacing(page) as file:
        file.write_text(render_year(year), "utf-8")
    return ShownYear(year, page)
