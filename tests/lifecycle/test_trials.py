"""Trials of two versions on a real log with real labels; wrong models at `open_version`."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from batteryops.errors import DataError, RegistryError
from batteryops.evaluation.ab_rules import ABRules
from batteryops.features.views import get_view
from batteryops.lifecycle import probation_facts as probation_module
from batteryops.lifecycle import trials
from batteryops.lifecycle.loading import open_registry
from batteryops.lifecycle.probation_facts import probation_facts
from batteryops.lifecycle.promotion import promote
from batteryops.lifecycle.realignment import Realignment
from batteryops.lifecycle.trial_log import Contender, live_answers
from batteryops.lifecycle.trials import Version, judge_trial, look_at_trial, stands_since, trial_of
from batteryops.models.package import ModelPackage
from batteryops.monitoring.label_join import label_table
from batteryops.records.batches import BatchVersion, PredictionBatch
from batteryops.records.identifiers import new_id, uuid7
from batteryops.records.labels import Label, Labels
from batteryops.records.predictions import PredictionLog, PredictionRecord
from batteryops.settings import Settings, load_settings

NOW = datetime.now(UTC)
SINCE = NOW - timedelta(days=8)
VIEW = get_view("discharge_summary")
VEHICLES = tuple(f"EV-{n:03}" for n in range(12))
EASY = ABRules(min_predictions=40, urgent_predictions=40, min_vehicles=10)
_numbers = count()


class Biased:
    """A package at the seam where answers are computed: off by so much, or broken.

    It crashes where it is asked of a row whose discharge took longer than `crashes_above_s`.
    """

    def __init__(self, package: ModelPackage, off_ah: float, crashes_above_s: float = 1e9) -> None:
        self._package, self._off_ah, self._limit = package, off_ah, crashes_above_s

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a package has
        return getattr(self._package, name)

    def predict_batch(self, features: Any) -> Any:  # noqa: ANN401 - an array
        if (features[:, VIEW.names.index("discharge_time_s")] > self._limit).any():
            raise RuntimeError("this model is broken")
        return TRUTH(features) + self._off_ah


def TRUTH(features: Any) -> Any:  # noqa: ANN401, N802 - capacities of rows
    """What a battery with these features delivers, Ah."""
    return -features[:, 1].astype(float) * features[:, 4].astype(float) / 3600


@dataclass
class World:
    """A log and labels that a test writes into, with versions 1 and 2 registered.

    Attributes:
        off: by how much each version's package errs when it answers again, Ah.
        learned_until: of both versions.
    """

    settings: Settings
    package: ModelPackage
    log: PredictionLog
    labels: Labels
    off: dict[int, float] = field(default_factory=lambda: {1: 0.05, 2: 0.01})
    crashes_above_s: dict[int, float] = field(default_factory=dict)
    learned_until: datetime = NOW - timedelta(minutes=1)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(3))

    def open_version(self, _settings: Settings, number: int) -> Version:
        broken = Biased(self.package, self.off[number], self.crashes_above_s.get(number, 1e9))
        return Version(number, cast("ModelPackage", broken), self.learned_until)

    def features(self) -> dict[str, float]:
        seconds = float(self.random.uniform(2400, 3400))
        return {
            "voltage_V_mean": 3.5,
            "current_A_mean": -2.0,
            "temperature_C_mean": 30.0,
            "temperature_C_max": 38.0,
            "discharge_time_s": seconds,
            "delta_T_C": 12.0,
            "voltage_drop_time_s": 0.7 * seconds,
        }

    def record(  # noqa: PLR0913 - what a row of the log has
        self,
        vehicle: str,
        at: datetime,
        features: dict[str, float],
        *,
        version: int,
        off_ah: float | None,
        request_id: str,
        latency_ms: float = 2.0,
        served: bool = True,
    ) -> None:
        truth = float(TRUTH(np.array([list(features.values())]))[0])
        answered = off_ah is not None
        capacity = truth + (off_ah or 0.0) if answered else 0.0
        self.log.append(
            [
                PredictionRecord(
                    prediction_id=uuid7(int(at.timestamp() * 1000), 0, next(_numbers)),
                    request_id=request_id,
                    answered_at=at,
                    vehicle_id=vehicle,
                    model_name="ev-soh-predictor",
                    model_version=str(version),
                    package_fingerprint=self.package.fingerprint,
                    role="champion" if version == 1 else "challenger",
                    features=features,
                    capacity_ah=capacity,
                    soh=capacity / 2.0,
                    latency_ms=latency_ms,
                    capacity_low_ah=None,
                    capacity_high_ah=None,
                    status="ok" if answered else "failed",
                    served=served and answered,
                )
            ]
        )

    def ask(  # noqa: PLR0913 - a question and its answers
        self,
        vehicle: str,
        at: datetime,
        answers: dict[int, float | None],
        *,
        request_id: str | None = None,
        labelled: bool = True,
        latency_ms: dict[int, float] | None = None,
    ) -> None:
        """One question, what versions are off by (None: no number), and the truth an hour later."""
        features, named = self.features(), request_id or new_id()
        for version, off_ah in answers.items():
            self.record(
                vehicle,
                at,
                features,
                version=version,
                off_ah=off_ah,
                request_id=named,
                latency_ms=(latency_ms or {}).get(version, 2.0),
                served=version == 1 or len(answers) == 1,
            )
        if labelled:
            self.measure(vehicle, at + timedelta(hours=1), features)

    def measure(self, vehicle: str, at: datetime, features: dict[str, float]) -> None:
        truth = float(TRUTH(np.array([list(features.values())]))[0])
        self.labels.add([Label(vehicle, at, truth, "bench")])

    def look(self, **given: Any) -> trials.TrialLook:  # noqa: ANN401 - of look_at_trial
        rules = given.pop("rules", EASY)
        return look_at_trial(
            self.settings,
            champion=1,
            challenger=2,
            since=given.pop("since", SINCE),
            until=datetime.now(UTC) + timedelta(seconds=1),
            rules=rules,
            **given,
        )


@pytest.fixture
def world(
    tmp_path: Path, trained_home: Path, quick_config: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    shutil.copytree(trained_home, tmp_path / "trained")
    settings = load_settings(quick_config, home=tmp_path / "trained")
    package = trials.open_version(settings, 1).package
    with PredictionLog(settings.predictions_url) as log:
        built = World(settings, package, log, Labels.beside(log))
        monkeypatch.setattr(trials, "open_version", built.open_version)
        monkeypatch.setattr(probation_module, "open_version", built.open_version)
        yield built


def every_vehicle(
    world: World,
    answers: Callable[[int], dict[int, float | None]],
    *,
    times: int = 4,
    begin: datetime = SINCE + timedelta(hours=1),
    vehicles: Sequence[str] = VEHICLES,
    **given: Any,  # noqa: ANN401 - of World.ask
) -> None:
    for n in range(times):
        for at, vehicle in enumerate(vehicles):
            when = begin + n * timedelta(days=1) + at * timedelta(minutes=7)
            world.ask(vehicle, when, answers(n * len(vehicles) + at), **given)


def alternating(n: int) -> dict[int, float | None]:
    """A champion off by 50 or 60 mAh, a challenger by 10 or 12."""
    return {1: 0.05 + 0.01 * (n % 2), 2: 0.01 + 0.002 * (n % 2)}


def test_shadowed_answers_are_pairs_beside_their_labels(world: World) -> None:
    every_vehicle(world, alternating)
    look = world.look()
    assert (look.trial.paired, look.trial.unpaired, look.replayed) == (True, 0, 0)
    assert look.verdict.champion.mae_ah == pytest.approx(0.055)
    assert look.verdict.challenger.mae_ah == pytest.approx(0.011)
    assert look.verdict.champion.compared == look.verdict.challenger.compared == 48
    assert look.verdict.latency_ratio == pytest.approx(1.0)
    assert {group.name for group in look.verdict.groups if group.by == "profile"} == {
        "simulated_nmc_18650"
    }
    assert look.verdict.days == pytest.approx(8.0, abs=0.1)
    assert look.verdict.decision == "promote", look.verdict.reasons
    judged = judge_trial(
        world.settings, champion=1, challenger=2, since=SINCE, until=look.until, rules=EASY
    )
    assert judged.to_json() == look.verdict.to_json()
    assert look.to_json()["replayed_pairs"] == 0


def test_one_label_is_one_pair_that_of_the_nearest_question_both_answered(world: World) -> None:
    features, at = world.features(), SINCE + timedelta(days=1)
    for hours, off in ((-6, 0.3), (-2, 0.02), (-1, None)):
        both = {1: 0.1} if off is None else {1: off, 2: off / 2}
        for version, far in both.items():
            world.record(
                "EV-000",
                at + timedelta(hours=hours),
                features,
                version=version,
                off_ah=far,
                request_id=f"asked {hours}",
                served=version == 1,
            )
    world.measure("EV-000", at, features)
    trial = trial_of(world.settings, champion=1, challenger=2, since=SINCE, until=datetime.now(UTC))
    assert trial.compared[0].error == pytest.approx([0.02])
    assert trial.compared[1].error == pytest.approx([0.01])
    assert (len(trial.champion.vehicle), trial.unpaired) == (2, 1)


def test_without_any_label_it_goes_on_and_says_what_is_missing(world: World) -> None:
    every_vehicle(world, alternating, times=1, labelled=False)
    verdict = world.look().verdict
    assert verdict.decision == "continue"
    assert verdict.improvement is None
    assert "no label has come for the champion's 12 answers" in verdict.reasons


def test_labels_of_one_vehicle_say_nothing_of_others(world: World) -> None:
    every_vehicle(world, alternating, times=1, labelled=False)
    every_vehicle(world, alternating, times=4, vehicles=["EV-000"])
    verdict = world.look(rules=ABRules(min_predictions=2)).verdict
    assert verdict.decision == "continue"
    assert any("one vehicle says nothing of others" in reason for reason in verdict.reasons)


def test_a_challenger_that_gives_no_number_does_harm(world: World) -> None:
    every_vehicle(world, lambda n: {1: 0.05, 2: None if n % 4 == 0 else 0.01})
    look = world.look()
    assert look.failed == {"champion": 0, "challenger": 12}
    assert look.verdict.challenger.failed == 12
    assert look.verdict.champion.compared == 36
    assert look.verdict.decision == "stop_for_harm"


def test_a_challenger_that_is_slower_is_rejected(world: World) -> None:
    every_vehicle(world, alternating, latency_ms={1: 2.0, 2: 2.6})
    verdict = world.look().verdict
    assert verdict.latency_ratio == pytest.approx(1.3)
    assert verdict.decision == "reject"


def test_where_vehicles_are_split_each_models_own_answers_are_all_there_is(world: World) -> None:
    share = world.settings.serving.routing.share
    vehicles = [f"EV-{n:03}" for n in range(60)]
    every_vehicle(
        world,
        lambda n: {2: 0.01} if (n % 60) % 5 == 0 else {1: 0.05},
        vehicles=vehicles,
        times=2,
    )
    every_vehicle(world, lambda _: {1: 0.05}, begin=SINCE - timedelta(days=20), times=1)
    look = world.look(rules=ABRules(min_predictions=20, min_vehicles=10))
    assert (look.trial.paired, look.replayed) == (False, 0)
    assert look.asked == {"champion": 96, "challenger": 24}
    assert look.verdict.rules.challenger_share == share == 0.2
    assert look.verdict.sample_ratio_p == pytest.approx(1.0)
    assert look.verdict.improvement is not None
    assert look.verdict.improvement.effect == pytest.approx(0.04)


def test_labels_that_a_model_may_have_learned_from_do_not_count(world: World) -> None:
    every_vehicle(world, alternating, times=1)
    world.learned_until = datetime.now(UTC)
    every_vehicle(world, alternating, times=1, begin=SINCE + timedelta(days=5))
    look = world.look()
    assert look.verdict.champion.compared == 12
    assert look.verdict.champion.answers == 24


def test_labels_that_come_late_are_answered_again_by_both(world: World) -> None:
    world.off = {1: 0.05, 2: 0.01}
    every_vehicle(world, alternating, times=1)
    # three weeks before the trial, answered by a version that is neither
    every_vehicle(world, lambda _: {7: 0.4}, begin=SINCE - timedelta(days=21), times=3)
    look = world.look()
    assert (look.replayed, look.trial.paired, look.trial.unpaired) == (36, True, 0)
    first, second = look.trial.compared
    assert len(first.error) == 48
    assert np.sort(first.error)[:36] == pytest.approx(0.05, abs=1e-6)
    assert np.isnan(first.latency_ms).sum() == 36
    assert np.sort(second.error)[:36] == pytest.approx(0.01, abs=1e-6)
    assert look.verdict.days == pytest.approx(8.0, abs=0.1)  # from when it stood in service


def test_a_challenger_that_crashes_is_seen_in_what_is_answered_again(world: World) -> None:
    world.crashes_above_s = {2: 2900.0}
    every_vehicle(world, lambda _: {1: 0.05}, begin=SINCE - timedelta(days=21), times=3)
    look = world.look()
    failed = int(look.trial.challenger.failed.sum())
    assert 0 < failed < look.replayed == 36
    assert look.trial.champion.failed.sum() == 0
    assert look.verdict.decision == "stop_for_harm"


def test_only_questions_from_a_time_on_are_answered_again_where_that_is_asked_for(
    world: World,
) -> None:
    every_vehicle(world, alternating, times=1)
    begin = SINCE - timedelta(days=21)
    every_vehicle(world, lambda _: {7: 0.4}, begin=begin, times=3)
    assert world.look(asked_since=begin + timedelta(days=1)).replayed == 24
    later = world.look(asked_since=SINCE + timedelta(days=1))
    assert (later.replayed, later.verdict.champion.compared) == (0, 12)  # what is live counts
    verdict = judge_trial(
        world.settings,
        champion=1,
        challenger=2,
        since=SINCE,
        until=later.until,
        rules=EASY,
        asked_since=begin + timedelta(days=1),
    )
    assert verdict.champion.compared == 36


@pytest.mark.parametrize("learned_by", [1, 2])
def test_questions_from_before_a_software_update_that_either_knows_are_left_out(
    world: World, monkeypatch: pytest.MonkeyPatch, learned_by: int
) -> None:
    begin = SINCE - timedelta(days=21)
    every_vehicle(world, lambda _: {1: 0.05}, begin=begin, times=3)
    steps = [
        Realignment("discharge_time_s", 1.0, -900.0, begin + timedelta(days=days))
        for days in (1, 2)
    ]
    packages = {n: world.open_version(world.settings, n) for n in (1, 2)}
    monkeypatch.setattr(trials, "open_version", lambda _, number: packages[number])
    known = packages[learned_by].package
    monkeypatch.setattr(trials, "realignments", lambda one: steps if one is known else [])
    assert world.look().replayed == 12
    assert world.look(asked_since=begin).replayed == 12
    assert world.look(asked_since=begin + timedelta(days=2, hours=1)).replayed == 3


def test_requests_of_one_name_are_told_apart(world: World) -> None:
    every_vehicle(world, alternating, times=2, request_id="always this")
    look = world.look()
    assert look.trial.unpaired == 0
    assert look.verdict.champion.compared == 24


def test_rows_of_a_batch_pair_with_those_of_the_shadow(world: World) -> None:
    features = [world.features() for _ in VEHICLES]
    at = SINCE + timedelta(days=1)
    for version, off, served in ((1, 0.05, True), (2, 0.01, False)):
        truth = TRUTH(np.array([list(one.values()) for one in features])) + off
        table = pl.DataFrame(features).select(
            pl.int_range(len(features), dtype=pl.Int32).alias("row"),
            pl.Series("vehicle_id", VEHICLES),
            *VIEW.names,
            pl.Series("capacity_ah", truth),
            pl.Series("soh", truth / 2),
            pl.lit(None, pl.Float64).alias("low"),
            pl.lit(None, pl.Float64).alias("high"),
            pl.lit("ok").alias("status"),
            pl.lit(None, pl.List(pl.String)).alias("outside"),
            pl.lit(value=False).alias("outside_jointly"),
            pl.lit(str(version)).alias("version"),
            pl.lit("champion" if served else "challenger").alias("role"),
            pl.lit(None, pl.String).alias("error"),
        )
        if not served:  # it crashed at one of them
            gone = pl.col("row") == 3
            table = table.with_columns(
                *(
                    pl.when(~gone).then(name).alias(name)
                    for name in ("capacity_ah", "soh", "outside")
                ),
                status=pl.when(gone).then(pl.lit("failed")).otherwise("status"),
                error=pl.when(gone).then(pl.lit("it failed")),
            )
        role = "champion" if served else "challenger"
        by = BatchVersion(str(version), role, world.package.fingerprint, served)
        world.log.append_batch(
            PredictionBatch(
                batch_id=new_id(),
                request_id="batch",
                answered_at=at,
                model_name="ev-soh-predictor",
                model_versions=[by],
                table=table,
                latency_ms=40.0,
            )
        )
    for vehicle, one in zip(VEHICLES, features, strict=True):
        world.measure(vehicle, at + timedelta(hours=2), one)
    look = world.look()
    assert (look.trial.paired, look.trial.unpaired) == (True, 0)
    assert (look.verdict.champion.answers, look.verdict.champion.compared) == (12, 11)
    assert look.verdict.challenger.failed == 1
    assert sum(frame.height for frame in world.log.frames(SINCE, NOW)) == 23


def test_memory_does_not_grow_with_the_log_and_chunks_change_nothing() -> None:
    n = 3000
    random = np.random.default_rng(1)
    labelled = random.permutation(n)[:200]
    at = [SINCE + timedelta(minutes=int(m)) for m in range(n)]
    rows = pl.DataFrame(
        {
            "prediction_id": [new_id() for _ in range(2 * n)],
            "request_id": [f"r{m}" for m in range(n)] * 2,
            "answered_at": pl.Series(at * 2, dtype=pl.Datetime("us", "UTC")),
            "vehicle_id": [f"V{m}" for m in range(n)] * 2,
            "model_version": ["1"] * n + ["2"] * n,
            "package_fingerprint": ["a"] * n + ["b"] * n,
            "role": ["champion"] * n + ["challenger"] * n,
            "capacity_ah": random.uniform(1.5, 2.0, 2 * n),
            "capacity_low_ah": pl.Series([None] * 2 * n, dtype=pl.Float64),
            "capacity_high_ah": pl.Series([None] * 2 * n, dtype=pl.Float64),
            "status": "ok",
            "served": [True] * n + [False] * n,
            "latency_ms": 1.0,
        }
    ).with_columns(vehicle_id=pl.col("vehicle_id").str.slice(0, 3))
    labels = label_table(
        pl.DataFrame(
            {
                "label_id": [new_id() for _ in labelled],
                "asset_id": [rows["vehicle_id"][int(m)] for m in labelled],
                "measured_at": pl.Series([at[m] for m in labelled], dtype=pl.Datetime("us", "UTC")),
                "capacity_ah": 1.8,
                "source": "bench",
                "received_at": pl.Series([NOW] * 200, dtype=pl.Datetime("us", "UTC")),
                "key_name": pl.Series([None] * 200, dtype=pl.String),
            }
        ),
        tolerance=timedelta(days=1),
        same_measurement=timedelta(0),
    )
    both = (Contender("champion", "1", "a"), Contender("challenger", "2", "b"))

    def read(frames: Sequence[pl.DataFrame]) -> Any:  # noqa: ANN401 - LiveAnswers
        return live_answers(frames, labels, both, unseen_since=SINCE)

    whole, chunks = (
        read([rows]),
        read(list(rows.sample(2 * n, shuffle=True, seed=2).iter_slices(97))),
    )
    assert whole.asked == chunks.asked == {"champion": n, "challenger": n}
    order = ["label", "by", "away", "question"]
    assert whole.near.sort(order).equals(chunks.near.sort(order))
    assert whole.near.height <= 200 * 2 * 5
    key = ["question", "by"]
    assert whole.sample.sort(key).equals(chunks.sample.sort(key))


def test_a_trial_needs_two_versions_and_a_span(world: World) -> None:
    with pytest.raises(DataError, match="with itself"):
        look_at_trial(world.settings, champion=1, challenger=1, since=SINCE, until=NOW)
    with pytest.raises(DataError, match="earlier time first"):
        look_at_trial(world.settings, champion=1, challenger=2, since=NOW, until=SINCE)


def test_since_when_a_version_stands_is_on_the_ledger(world: World) -> None:
    registry = open_registry(world.settings)
    second = registry.register(registry.version(1).run_id, tags={"gates_passed": "true"}).version
    with pytest.raises(RegistryError, match="does not say since when version 2"):
        stands_since(world.settings, second, "challenger")
    promote(1, world.settings)
    promoted = promote(second, world.settings, to="challenger")
    assert stands_since(world.settings, second, "challenger") == promoted.entry.at


def test_probation_compares_with_the_champion_before_on_the_same_questions(world: World) -> None:
    world.off = {1: 0.06, 2: 0.02}
    every_vehicle(world, lambda _: {2: 0.02}, begin=SINCE - timedelta(days=21), times=2)
    begin = SINCE + timedelta(hours=1)
    every_vehicle(world, lambda n: {1: 5.0 if n < 3 else 0.06}, begin=begin, times=2)
    world.ask("EV-000", begin + timedelta(days=4), {1: None})
    until = datetime.now(UTC) + timedelta(seconds=1)
    facts = probation_facts(world.settings, 1, SINCE, until, before=2)
    assert (facts.asked, facts.failed, facts.out_of_range, facts.answered) == (25, 1, 3, 24)
    assert facts.pairs is not None
    former, new = facts.pairs.compared
    assert len(new.error) == 48
    assert new.error == pytest.approx(0.06, abs=1e-6)
    assert former.error == pytest.approx(0.02, abs=1e-6)
    since = SINCE + timedelta(days=1)
    late = probation_facts(world.settings, 1, SINCE, until, before=2, asked_since=since)
    assert late.pairs is not None
    assert (late.asked, len(late.pairs.champion.error)) == (25, 12)  # shares are of all
    with pytest.raises(DataError, match="earlier time first"):
        probation_facts(world.settings, 1, until, SINCE)


def test_probation_leaves_out_questions_from_before_a_software_update(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    every_vehicle(world, lambda _: {2: 0.02}, begin=SINCE - timedelta(days=21), times=2)
    every_vehicle(world, lambda _: {1: 0.02}, begin=SINCE + timedelta(hours=1), times=2)
    step = Realignment("discharge_time_s", 1.0, -900.0, SINCE)
    monkeypatch.setattr(trials, "realignments", lambda _: (step,))
    until = datetime.now(UTC) + timedelta(seconds=1)
    facts = probation_facts(world.settings, 1, SINCE, until, before=2)
    assert facts.pairs is not None
    assert len(facts.pairs.champion.error) == 24
