"""How `batteryops demo --time-lapse` looks while a year passes, and at its end."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from batteryops.cli import terminal

if TYPE_CHECKING:
    from rich.console import Group
    from rich.progress import Progress as Bar

    from batteryops.lifecycle.time_lapse.drive import WeekSeen
    from batteryops.lifecycle.time_lapse.show import ShownYear
    from batteryops.settings import Settings

_NEWS: Final = 8  # lines that stay in view
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_LOWEST_AH: Final = 0.005


def run(
    settings: "Settings", *, vehicles: int, weeks: int, seed: int, as_json: bool
) -> "ShownYear":
    """Let the year pass, show it, and print what came of it."""
    from batteryops.lifecycle.time_lapse.show import show_time_lapse
    from batteryops.lifecycle.time_lapse.world import TimeLapsePlan

    plan = TimeLapsePlan(vehicles=vehicles, weeks=weeks, seed=seed)
    with _view(weeks, quiet=as_json) as view:
        shown = show_time_lapse(plan, settings, view, seen=view.seen)
    if as_json:
        terminal.print_json(shown.year.to_json())
    else:
        _print(shown)
    return shown


class View:
    """Shows a year that passes: a bar, the errors of the three fleets, and the last news.

    Args:
        weeks: that there will be.
    """

    def __init__(self, weeks: int) -> None:
        self._weeks = weeks
        self._step, self._done = "", 0
        self._errors: dict[str, list[float]] = {}
        self._news: deque[str] = deque(maxlen=_NEWS)
        self._bar: Bar | None = None

    def step(self, name: str) -> None:
        """The next step begins."""
        self._step = name

    def within(self, done: int, total: int) -> None:
        """So many weeks have passed."""
        del total
        self._done = done

    def seen(self, week: "WeekSeen") -> None:
        """A week is over."""
        for fleet, error in week.mae_ah.items():
            self._errors.setdefault(fleet, []).append(error)
        loop = week.loop
        told = [
            f"{cause.replace('_', ' ')} in {terminal.counted(n, 'feature')}"
            for cause, n in sorted(loop.causes.items())
        ]
        told += [f"asked for labels of {len(loop.ask)} vehicles"] if loop.ask else []
        told += [f"retraining ({one.trigger}): {one.reason}" for one in loop.retrainings]
        told += [f"version {one.version} promoted" for one in loop.promotions]
        told += [f"rolled back to version {one.version}: {one.reason}" for one in loop.rollbacks]
        if told:
            self._news.append(f"week {week.week}: {'; '.join(told)}")

    def __rich__(self) -> "Group":
        """As it looks now."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Table.grid(padding=(0, 1))
        head.add_row(
            Text(self._step, style="bold"),
            ProgressBar(total=self._weeks, completed=self._done, width=40),
            Text(f"{self._done} of {self._weeks} weeks", style="dim"),
        )
        lines = Table.grid(padding=(0, 1))
        for fleet, errors in self._errors.items():
            last = f"{errors[-1]:.4f} Ah"
            lines.add_row(Text(fleet), Text(last), Text(sparkline(errors), no_wrap=True))
        return Group(head, lines, *(Text(line, style="dim") for line in self._news))


def sparkline(errors: list[float]) -> str:
    """Errors as small bars on a logarithmic scale, one a week.

    Examples:
        >>> sparkline([0.005, 0.05, 0.5])
        '▁▄█'
    """
    import math

    span = math.log(100.0)
    shares = (math.log(max(error, _LOWEST_AH) / _LOWEST_AH) / span for error in errors)
    return "".join(_BLOCKS[min(int(share * 7.999), 7)] for share in shares)


@contextmanager
def _view(weeks: int, *, quiet: bool) -> Iterator[View]:
    view = View(weeks)
    if quiet:
        yield view
        return
    from rich.live import Live

    with Live(view, console=terminal.console(stderr=True), refresh_per_second=4):
        yield view


def _print(shown: "ShownYear") -> None:
    from batteryops.lifecycle.time_lapse.page import done_rows, injection_rows

    year = shown.year
    terminal.table(
        "mean absolute error over all trips, Ah",
        ["fleet of models", "MAE"],
        [[fleet, round(error, 4)] for fleet, error in year.mae_ah.items()],
    )
    terminal.table(
        "what was injected, and what it was named",
        ["week", "what", "cause", "named", "weeks until", ""],
        injection_rows(year),
    )
    if rows := done_rows(year):
        terminal.table(
            "what the loop did",
            ["week", "what", "version", "trigger", "reason", "outcome"],
            rows,
            spare=["outcome"],
        )
    for alarm in year.score.false_alarms:
        terminal.note(f"false alarm in week {alarm.week}: {alarm.named_cause}")
    terminal.say(str(shown.page), label="the page", style="bold")
