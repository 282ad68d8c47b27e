"""The world of the time lapse: vehicles that drive, labels that come weeks later, and what happens.

What the loop may know is a `World`: rows of features as trips end, and labels as they arrive. What
happens and when, and the capacity that each trip truly had, is the `Truth`, which only the scoring
gets.

The physical causes are events of the simulated fleet (`telemetry.scenario`). The library update is
not: from a moment on the gateways' library ends the record with the load, and `discharge_time_s`
is without the rest that stood in it before.
"""

from collections.abc import Collection
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import polars as pl
from numpy.random import Generator, default_rng

from batteryops.errors import DataError
from batteryops.features.views import feature_table, get_view
from batteryops.schema import LABEL, Recording
from batteryops.telemetry.fleet_plan import Climate, FleetPlan, SensorNoise
from batteryops.telemetry.scenario import (
    Event,
    NewChemistry,
    RouteChange,
    ThermalManagement,
    Winter,
)
from batteryops.telemetry.simulator import simulate_chunks

VIEW: Final = "discharge_summary"

START: Final = datetime(2025, 1, 5, 2, 0, tzinfo=UTC)
"""When week 0 begins: a Sunday at 02:00, when the weekly retraining is due."""

WEEK: Final = timedelta(days=7)

NEW_CHEMISTRY: Final = "new_chemistry"
THERMAL: Final = "thermal_management"
ROUTES: Final = "operating_mode"
WINTER: Final = "climate"
SOFTWARE: Final = "software_update"
CAUSES: Final = (NEW_CHEMISTRY, THERMAL, ROUTES, WINTER, SOFTWARE)
"""The source system's five causes of decay, as monitoring names them."""

UPLOADS_PER_DAY: Final = 2
"""Gateways send what they recorded so often; trips of one vehicle lie further apart."""

WINTER_WEEKS: Final = 8
_QUIET_WEEKS: Final = 4  # before the first cause, so that something has been learned of the fleet
_LAST_WEEKS: Final = 4  # after the last one, in which it may be found
_APART_WEEKS: Final = 7
_AFTER_WINTER_WEEKS: Final = 5
_SHORT_YEAR: Final = 12
_SOONEST_LABEL: Final = timedelta(weeks=2)
_LATEST_LABEL: Final = timedelta(weeks=6)
_ASKED_SPREAD: Final = timedelta(days=3)
_TESTER_SHARE: Final = 0.002  # of the capacity: a tester's error
_LOAD_A: Final = 0.05  # a current of less is no load
_SPARE: Final = 1.15  # more cycles than the mean needs, so that every vehicle drives to the end


@dataclass(frozen=True, slots=True)
class TimeLapsePlan:
    """How long the world lasts, and what it is made of. Equal plans give equal worlds.

    Args:
        vehicles: in the fleet once all of them drive, 10 to 9,999.
        weeks: that are driven through, 2 or more.
        seed: of all randomness, the weeks of the causes too; 0 or more.
        history_weeks: driven before, with a label for every trip: what the first model learns.
        trips_per_week: of each vehicle, about.
        label_share: of the trips that get a label by themselves.
        asked_share: of the trips of vehicles whose labels were asked for.
        new_share: of the vehicles, those of the new chemistry.

    Raises:
        DataError: naming what makes no sense.
    """

    vehicles: int = 200
    weeks: int = 52
    seed: int = 42
    history_weeks: int = 10
    trips_per_week: float = 5.0
    label_share: float = 0.65
    asked_share: float = 0.9
    new_share: float = 0.3

    def __post_init__(self) -> None:
        """Refuse nonsense at the door."""
        for name, least in (("vehicles", 10), ("weeks", 2), ("seed", 0), ("history_weeks", 1)):
            if getattr(self, name) < least:
                raise DataError(
                    f"time lapse: {name} is {getattr(self, name)}, expected {least} or more"
                )
        for name in ("label_share", "asked_share", "new_share"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise DataError(
                    f"time lapse: {name} is {getattr(self, name)}, expected above 0 and at most 1"
                )

    @property
    def history_days(self) -> float:
        """How long the fleet is on record before week 0."""
        return 7.0 * self.history_weeks

    def fleet(self) -> FleetPlan:
        """The fleet: city driving, no seasons but the winter that may come."""
        gap = 7.0 / self.trips_per_week
        days = self.history_days + 7.0 * self.weeks
        return FleetPlan(
            n_vehicles=self.vehicles,
            n_cycles=int(np.ceil(_SPARE * days / gap)),
            seed=self.seed,
            chemistry_shares={"NMC": 1.0 - self.new_share, "LFP": self.new_share},
            climate=Climate(seasonal_c=0.0),
            c_rate=(0.5, 1.0),
            start=(START - timedelta(days=self.history_days)).date(),
            mean_days_between=gap,
            sample_interval_s=30.0,
            rest_s=(885.0, 915.0),  # recorders go to sleep a quarter of an hour after the load
            noise=SensorNoise(capacity_share=0.0),  # labels get theirs where they are measured
        )


@dataclass(frozen=True, slots=True)
class Injection:
    """A cause of decay, and the week from whose beginning on it shows.

    Args:
        week: from 0.
        cause: of `CAUSES`.
        until: the week in which it is over; None of what stays.
    """

    week: int
    cause: str
    until: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What only the scoring may know.

    Args:
        injections: in order of their weeks.
        capacities: `asset_id`, `op_index`, `week`, `capacity_ah` without any error, of all trips.
    """

    injections: tuple[Injection, ...]
    capacities: pl.DataFrame


class World:
    """The fleet as an operator sees it.

    Args:
        plan: of which it is.
        history: labelled feature rows of before week 0.
        trips: those of the weeks: `asset_id`, `op_index`, `at`, `week` and the features.
        measured: one row per trip, what would be measured: `capacity_ah`.
        rng: of the labels.
    """

    def __init__(
        self,
        plan: TimeLapsePlan,
        history: pl.DataFrame,
        trips: pl.DataFrame,
        measured: pl.Series,
        rng: Generator,
    ) -> None:
        self.plan = plan
        self.history = history
        drawn = rng.random((trips.height, 2))
        fates = trips.select("asset_id", "at", "week").with_columns(
            measured.alias(LABEL), pl.Series("luck", drawn[:, 0]), pl.Series("lag", drawn[:, 1])
        )
        self._trips = _by_week(trips, plan.weeks)
        self._fates = _by_week(fates, plan.weeks)
        self._decided = 0
        self._asked: dict[str, datetime] = {}
        self._pending = _no_labels()

    @property
    def start(self) -> datetime:
        """When week 0 begins."""
        return START

    def begins(self, week: int) -> datetime:
        """When a week begins; the one before it ends then."""
        return START + week * WEEK

    def trips(self, week: int) -> pl.DataFrame:
        """Trips of a week in the order in which they are sent.

        Returns:
            `asset_id`, `op_index`, `at` (when it is sent, UTC) and the features of `VIEW`.
        """
        return self._trips[week].drop("week")

    def ask_for_labels(self, vehicles: Collection[str], *, now: datetime, weeks: int = 3) -> None:
        """Have trips of these vehicles measured: those to come, and those of the week before.

        Recorders keep the last week, so that most of its trips can still be measured, and most of
        those to come will be. Labels then arrive two weeks after the trip, as soon as a workshop
        can be had, and so do those that were on their way.

        Args:
            vehicles: their names.
            now: from when on.
            weeks: for how long.
        """
        newly = [name for name in vehicles if self._asked.get(name, now) <= now]
        for name in vehicles:
            self._asked[name] = now + weeks * WEEK
        theirs = pl.col("asset_id").is_in(list(vehicles))
        soon = pl.max_horizontal(pl.lit(now), pl.col("measured_at") + _lag(_ASKED_SPREAD))
        sooner = pl.when(theirs).then(pl.min_horizontal("due_at", soon)).otherwise("due_at")
        self._pending = self._pending.with_columns(due_at=sooner)
        share = self.plan.label_share, self.plan.asked_share
        for fates in self._fates[max(self._decided - 2, 0) : self._decided]:
            more = fates.filter(
                pl.col("asset_id").is_in(newly),
                pl.col("at").is_between(now - WEEK, now),
                pl.col("luck").is_between(*share, closed="left"),
            )
            self._pending = pl.concat([self._pending, _labels(more, _ASKED_SPREAD)])

    def labels(self, until: datetime) -> pl.DataFrame:
        """Labels that have arrived since they were last asked for, and none twice.

        Args:
            until: the time that it is.

        Returns:
            `asset_id`, `measured_at` (the time of the trip), `capacity_ah`, `due_at` (when it
            arrived), in order of arrival.
        """
        while self._decided < self.plan.weeks and self.begins(self._decided) <= until:
            self._pending = pl.concat([self._pending, self._to_come(self._decided)])
            self._decided += 1
        due = self._pending["due_at"] <= until
        arrived = self._pending.filter(due).sort("due_at", "asset_id").drop("lag")
        self._pending = self._pending.filter(~due)
        return arrived

    def unasked(self) -> "World":
        """The same fleet, from the beginning, with nobody who asks for labels."""
        other = copy(self)
        other.begin_again()
        return other

    def begin_again(self) -> None:
        """As if nobody had asked for labels, and none had arrived."""
        self._decided = 0
        self._asked = {}
        self._pending = _no_labels()

    def _to_come(self, week: int) -> pl.DataFrame:
        """The labels that trips of a week will have: settled as it begins."""
        begins = self.begins(week)
        names = [name for name, until in self._asked.items() if until > begins]
        fates = self._fates[week]
        asked = fates["asset_id"].is_in(names)
        plan = self.plan
        return pl.concat(
            [
                _labels(some.filter(pl.col("luck") < share), spread)
                for some, share, spread in (
                    (fates.filter(asked), plan.asked_share, _ASKED_SPREAD),
                    (fates.filter(~asked), plan.label_share, _LATEST_LABEL - _SOONEST_LABEL),
                )
            ]
        )


def _labels(fates: pl.DataFrame, spread: timedelta) -> pl.DataFrame:
    """Labels of trips, which arrive two weeks after them at the soonest, and so much later."""
    return fates.select("asset_id", measured_at="at", capacity_ah=LABEL, lag="lag").with_columns(
        due_at=pl.col("measured_at") + _lag(spread)
    )


def _lag(spread: timedelta) -> pl.Expr:
    micros = pl.col("lag") * (spread / timedelta(microseconds=1))
    return pl.lit(_SOONEST_LABEL) + micros.cast(pl.Int64).cast(pl.Duration("us"))


def make_world(plan: TimeLapsePlan) -> tuple[World, Truth]:
    """Make a world, and the truth about it.

    Examples:
        >>> world, truth = make_world(TimeLapsePlan(vehicles=10, weeks=2, history_weeks=1))
        >>> world.trips(0).columns[:3], len(truth.injections)
        (['asset_id', 'op_index', 'voltage_V_mean'], 1)
    """
    seeds = np.random.SeedSequence(plan.seed).spawn(2)
    injections = _injections(plan, default_rng(seeds[0]))
    labels = default_rng(seeds[1])
    fleet, events = plan.fleet(), _events(plan, injections)
    parts = simulate_chunks(fleet, events)
    # of a chemistry that never joins nothing is on record
    rows = pl.concat([_rows(part) for part in parts if not part.cycles.is_empty()])
    rows = _in_slots(rows).sort("at", "asset_id")
    updated = next((found.week for found in injections if found.cause == SOFTWARE), None)
    if updated is not None:
        new = pl.col("at") >= START + updated * WEEK
        ended = pl.when(new).then("load_time_s").otherwise("discharge_time_s")
        rows = rows.with_columns(discharge_time_s=ended)
    rows = rows.drop("load_time_s")
    week = (
        (pl.col("at") - START).dt.total_microseconds().floordiv(WEEK // timedelta(microseconds=1))
    )
    rows = rows.with_columns(week=week.cast(pl.Int32)).filter(pl.col("week") < plan.weeks)
    error = np.clip(labels.standard_normal(rows.height), -2.0, 2.0)
    rows = rows.with_columns(true_ah=LABEL).with_columns(
        pl.col(LABEL) * (1.0 + pl.Series(_TESTER_SHARE * error))
    )
    before = pl.col("week") < 0
    history = rows.filter(before).drop("week", "true_ah", "at").sort("asset_id", "op_index")
    driven = rows.filter(~before)
    world = World(plan, history, driven.drop("true_ah", LABEL), driven[LABEL], labels)
    truth = driven.select("asset_id", "op_index", "week", capacity_ah="true_ah")
    return world, Truth(injections, truth)


def _injections(plan: TimeLapsePlan, rng: Generator) -> tuple[Injection, ...]:
    """Causes in random order at random weeks, far enough apart to be told apart."""
    first = _QUIET_WEEKS if plan.weeks >= _SHORT_YEAR else 1
    last = max(first, plan.weeks - (_LAST_WEEKS if plan.weeks >= _SHORT_YEAR else 1))
    order = [CAUSES[place] for place in rng.permutation(len(CAUSES))]
    while sum(gaps := _gaps(order)) > last - first:
        order.pop()
    spare = np.sort(rng.integers(0, last - first - sum(gaps) + 1, size=len(order)))
    weeks = first + np.cumsum([0, *gaps]) + spare
    return tuple(
        Injection(int(week), cause, int(week) + WINTER_WEEKS if cause == WINTER else None)
        for week, cause in zip(weeks, order, strict=True)
    )


def _gaps(order: list[str]) -> list[int]:
    """Weeks at least from each cause to the next: a winter is over some weeks before that."""
    after = {WINTER: WINTER_WEEKS + _AFTER_WINTER_WEEKS}
    return [after.get(cause, _APART_WEEKS) for cause in order[:-1]]


def _events(plan: TimeLapsePlan, injections: tuple[Injection, ...]) -> list[Event]:
    """The physical causes, on days of the fleet's plan."""
    weeks = {found.cause: found.week for found in injections}
    days = {cause: _day(plan, week) for cause, week in weeks.items()}
    joins = days.get(NEW_CHEMISTRY, _day(plan, plan.weeks + 1))
    events: list[Event] = [NewChemistry(joins, "LFP")]
    if ROUTES in days:
        events.append(RouteChange(days[ROUTES], c_rate=(0.8, 1.5)))
    if THERMAL in days:
        events.append(ThermalManagement(days[THERMAL], factor=2.5))
    if WINTER in days:
        events.append(Winter(days[WINTER], days=7.0 * WINTER_WEEKS, fall_k=15.0, onset_days=7.0))
    return events


def _day(plan: TimeLapsePlan, week: int) -> float:
    """The day of the fleet's plan, which begins at midnight, on which a week begins."""
    midnight = datetime.combine(plan.fleet().start, datetime.min.time(), tzinfo=UTC)
    return (START + week * WEEK - midnight) / timedelta(days=1)


def _rows(part: Recording) -> pl.DataFrame:
    """One row per trip: features, capacity, when it was, and the time to its cutoff."""
    view = get_view(VIEW)
    key = ["asset_id", "op_index"]
    loaded = part.samples.filter(pl.col("current_a") < -_LOAD_A)
    load = loaded.group_by("asset_id", op_index="cycle_index").agg(
        load_time_s=pl.col("time_s").max()
    )
    begun = part.cycles.select("asset_id", "started_at", op_index="cycle_index")
    return feature_table(view, part).join(load, on=key).join(begun, on=key)


def _in_slots(rows: pl.DataFrame) -> pl.DataFrame:
    """When each trip is sent: with the next upload after it began."""
    slot = timedelta(days=1) / UPLOADS_PER_DAY
    place = pl.col("started_at").dt.replace_time_zone("UTC") - START
    uploads = (place.dt.total_microseconds() / (slot / timedelta(microseconds=1))).floor()
    micros = (uploads + 1) * (slot / timedelta(microseconds=1))
    at = START + micros.cast(pl.Int64).cast(pl.Duration("us"))
    return rows.with_columns(at=at).drop("started_at")


def _by_week(rows: pl.DataFrame, weeks: int) -> list[pl.DataFrame]:
    parts = rows.partition_by("week", as_dict=True, maintain_order=True)
    return [parts.get((week,), rows.clear()) for week in range(weeks)]


def _no_labels() -> pl.DataFrame:
    time = pl.Datetime("us", "UTC")
    return pl.DataFrame(
        schema={
            "asset_id": pl.String,
            "measured_at": time,
            "capacity_ah": pl.Float64,
            "lag": pl.Float64,
            "due_at": time,
        }
    )
