"""Drive a fleet through its year: trips and labels over HTTP, the loop looking in between."""

import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batteryops.features.views import get_view, matrix
from batteryops.files import write_table
from batteryops.lifecycle.loading import load_model
from batteryops.lifecycle.progress import Progress, Silent
from batteryops.lifecycle.promotion import promote
from batteryops.lifecycle.registration import train_and_register
from batteryops.lifecycle.time_lapse.clock import Clock
from batteryops.lifecycle.time_lapse.fleets import WeeklyFleet
from batteryops.lifecycle.time_lapse.gateway import Gateway, own_key
from batteryops.lifecycle.time_lapse.loop import Loop, LoopWeek, MakeLoop
from batteryops.lifecycle.time_lapse.scoring import Score, score
from batteryops.lifecycle.time_lapse.server import server_in_time
from batteryops.lifecycle.time_lapse.world import (
    VIEW,
    TimeLapsePlan,
    Truth,
    World,
    make_world,
)
from batteryops.schema import LABEL
from batteryops.settings import Settings

FROZEN: Final = "frozen"
WEEKLY: Final = "weekly"
AT_ONCE: Final = "weekly_at_once"
LOOP: Final = "loop"
FLEETS: Final = (FROZEN, WEEKLY, AT_ONCE, LOOP)

_TRAINED_BEFORE: Final = timedelta(days=1)
_CALM: Final = timedelta(days=3.5)  # between two looks
_HURRY: Final = timedelta(days=1.75)  # while something goes on; a controller looks every hour

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WeekSeen:
    """One week.

    Args:
        week: from 0.
        trips: that were answered.
        labels: that arrived.
        mae_ah: by fleet of models, against the true capacities.
        loop: what the loop saw and did at its end.
    """

    week: int
    trips: int
    labels: int
    mae_ah: Mapping[str, float]
    loop: LoopWeek


@dataclass(frozen=True, slots=True)
class TimeLapse:
    """A year that passed.

    Args:
        plan: of the world.
        settings: that it passed under.
        weeks: in order.
        truth: what had been injected.
        score: what was found of it.
        weekly_retrainings: of the fleet of models that is refitted each week.
        seconds: of real time, by part.
    """

    plan: TimeLapsePlan
    settings: Settings
    weeks: tuple[WeekSeen, ...]
    truth: Truth
    score: Score
    weekly_retrainings: int
    seconds: Mapping[str, float]

    @property
    def mae_ah(self) -> dict[str, float]:
        """Of each fleet of models, over all trips, Ah."""
        trips = sum(week.trips for week in self.weeks)
        return {
            fleet: sum(week.mae_ah[fleet] * week.trips for week in self.weeks) / trips
            for fleet in FLEETS
        }

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return {
            "mae_ah": self.mae_ah,
            "injected": [
                {"week": found.week, "cause": found.cause} for found in self.truth.injections
            ],
            "detected": [found.to_json() for found in self.score.detected],
            "retrainings": [
                done.to_json(week.week) for week in self.weeks for done in week.loop.retrainings
            ],
            "promotions": [
                done.to_json(week.week) for week in self.weeks for done in week.loop.promotions
            ],
            "rollbacks": [
                done.to_json(week.week) for week in self.weeks for done in week.loop.rollbacks
            ],
            "false_alarms": [alarm.to_json() for alarm in self.score.false_alarms],
        }


class Watch:
    """Adds up the real time that parts take."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def on(self, part: str) -> Iterator[None]:
        """This part is at work."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[part] += time.perf_counter() - begun

    @property
    def seconds(self) -> dict[str, float]:
        """By part."""
        return {part: round(seconds, 2) for part, seconds in self._seconds.items()}


def drive(
    plan: TimeLapsePlan,
    settings: Settings,
    make_loop: MakeLoop,
    progress: Progress,
    *,
    seen: Callable[[WeekSeen], None] = lambda _week: None,
) -> TimeLapse:
    """Let the weeks of a plan pass.

    Args:
        plan: of the world.
        settings: as `time_lapse_settings` makes them. What stands in their home is removed first.
        make_loop: makes what is called each week; it never sees the truth.
        progress: told what is being done.
        seen: told of each week when it is over.

    Raises:
        BatteryOpsError: what any of the steps refuses.
    """
    watch = Watch()
    shutil.rmtree(settings.home, ignore_errors=True)
    settings.home.mkdir(parents=True)
    progress.step("make the world")
    with watch.on("world"):
        world, truth = make_world(plan)
    clock = Clock.create(settings.home / "clock", world.start - _TRAINED_BEFORE)
    with clock.lived_by():
        progress.step("train the first model")
        with watch.on("first model"):
            _first_model(world, settings)
        progress.step("start the server")
        with own_key(settings) as secret, server_in_time(settings, clock) as url:
            loop = make_loop(settings, url, secret)
            with Gateway.to(url, secret) as gateway:
                year = _Year(
                    world, truth=truth, settings=settings, clock=clock, gateway=gateway, watch=watch
                )
                progress.step(f"drive {plan.weeks} weeks")
                weeks = []
                for week in range(plan.weeks):
                    progress.within(week, plan.weeks)
                    weeks.append(year.drive(week, loop))
                    seen(weeks[-1])
                progress.within(plan.weeks, plan.weeks)
                outcomes = loop.outcomes()
    weeks = [replace(week, loop=week.loop.settled(outcomes)) for week in weeks]
    found = score([week.loop.causes for week in weeks], truth.injections)
    retrained = year.weekly.retrainings
    return TimeLapse(plan, settings, tuple(weeks), truth, found, retrained, watch.seconds)


def _first_model(world: World, settings: Settings) -> None:
    """What was learned before week 0, in service as version 1.

    A fleet of few vehicles gives no model that passes the gates. The year is to be seen all the
    same: it is put in service by force, and the ledger says why.
    """
    table = settings.home / "history.parquet"
    write_table(world.history, table)
    registered = train_and_register(
        settings, source=None, features_file=table, out=None, progress=Silent()
    )
    passed = registered.trained.verdict.passed
    reason = f"the best that {world.plan.vehicles} vehicles give, for a time lapse"
    promote(registered.version.version, settings, force=not passed, reason=reason)


class _Year:
    """What the weeks share."""

    def __init__(  # noqa: PLR0913 - the whole world
        self,
        world: World,
        *,
        truth: Truth,
        settings: Settings,
        clock: Clock,
        gateway: Gateway,
        watch: Watch,
    ) -> None:
        self._world = world
        self._truth = truth.capacities.partition_by("week", as_dict=True)
        self._clock = clock
        self._gateway = gateway
        self._watch = watch
        self._view = get_view(VIEW)
        self._frozen = load_model("champion", settings).package
        self.weekly = WeeklyFleet(world, settings)
        self._next_look = world.start + _CALM

    def drive(self, week: int, loop: Loop) -> WeekSeen:
        """Let one week pass; the loop looks at its end, and now and then before."""
        trips = self._world.trips(week)
        now = self._world.begins(week + 1)
        said, labels, looks = [np.empty(0)], 0, LoopWeek({})
        for upload in trips.partition_by("at", maintain_order=True):
            at = upload["at"][0]
            self._clock.set(at)
            with self._watch.on("predictions over HTTP"):
                said.append(self._gateway.predict(upload))
            if self._next_look <= at < now:
                labels += self._label(at)
                looks += self._look(loop, at)
        self._clock.set(now)
        labels += self._label(now)
        looks += self._look(loop, now)
        true_ah = trips.join(
            self._truth[(week,)], on=["asset_id", "op_index"], how="left", maintain_order="left"
        )[LABEL].to_numpy()
        with self._watch.on("frozen and weekly fleets"):
            answers = {
                FROZEN: self._frozen.predict_batch(matrix(self._view, trips)),
                WEEKLY: self.weekly.predict(trips),
                AT_ONCE: self.weekly.predict_at_once(trips),
                LOOP: np.concatenate(said),
            }
            self.weekly.end_week(week)
        errors = {
            fleet: float(np.abs(answers[fleet] - true_ah).mean()) if trips.height else 0.0
            for fleet in FLEETS
        }
        return WeekSeen(week, trips.height, labels, errors, looks)

    def _label(self, at: datetime) -> int:
        """Send the labels that have arrived by now; how many these are."""
        with self._watch.on("labels over HTTP"):
            arrived = self._world.labels(at)
            self._gateway.label(arrived)
        return arrived.height

    def _look(self, loop: Loop, now: datetime) -> LoopWeek:
        with self._watch.on("loop"):
            done = loop.look(now)
        if done.ask:
            self._world.ask_for_labels(done.ask, now=now)
        self._next_look = now + (_HURRY if done.hurry else _CALM)
        return done
