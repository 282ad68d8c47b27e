"""Which way brings a model up to date: tried side by side, chosen by cost and gain.

None is best everywhere. A warm start costs the least and adds trees, a fine tuning adds none, an
ensemble doubles the model, a full fit costs the most and forgets nothing. What each is worth is
measured on new and on old batteries that no candidate learned from.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

import polars as pl
import xgboost as xgb

from batteryops.errors import BatteryOpsError, DataError, SettingsError
from batteryops.files import first_line
from batteryops.models.acceptance import Errors, Judges, Limits
from batteryops.models.algorithms import Boosted
from batteryops.models.boosting import DEFAULT_TREES, Parameters, fit, read_parameters
from batteryops.models.combining import NEW_SHARE, ensemble
from batteryops.models.continuing import names_of, warm_start
from batteryops.models.labelled import LabelledRows
from batteryops.models.refitting import fine_tune
from batteryops.models.replay import replay_sample
from batteryops.models.setting_aside import set_aside

Outcome = Literal["passed", "refused", "failed", "skipped"]

STRATEGIES: Final = ("warm_start", "fine_tune", "ensemble", "full")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is tried, and how it is chosen.

    Args:
        strategies: some of `STRATEGIES`.
        rounds: trees that a warm start adds; one candidate for each number.
        last: trees that a fine tuning refits; one candidate for each number.
        shares: of the new model in an ensemble; one candidate for each, None for a fitted one.
        held_out: share of the groups of new assets that judge, and of old ones where none are
            given that the current model has not seen.
        replay: old rows for each new one, above 0.
        replay_rows: at most so many.
        old_weight: of the error on old rows when candidates are compared, 0 to 1.
        tie: candidates whose error is at most this share above the least are as good; of these
            the cheapest is chosen.
        max_trees: a candidate of more is refused: each costs time with every answer.
        budget_s: seconds; no strategy begins after, nor a full fit that would end after. Where a
            stand-in is judged, carrying out what was chosen comes on top.
        limits: of the gate.

    Raises:
        SettingsError: an unknown strategy, or a number out of its range.
    """

    strategies: tuple[str, ...] = STRATEGIES
    rounds: tuple[int, ...] = (10, 50)
    last: tuple[int, ...] = (30, 100)
    shares: tuple[float | None, ...] = (NEW_SHARE, None)
    held_out: float = 0.3
    replay: float = 2.0
    replay_rows: int = 5000
    old_weight: float = 0.5
    tie: float = 0.05
    max_trees: int = 2000
    budget_s: float = 120.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Refuse what cannot be tried."""
        if strange := [name for name in self.strategies if name not in STRATEGIES]:
            raise SettingsError(
                f"no strategy {', '.join(strange)}; expected some of {', '.join(STRATEGIES)}"
            )
        if not (
            self.strategies
            and self.replay > 0.0
            and self.replay_rows >= 1
            and 0.0 <= self.old_weight <= 1.0
            and self.tie >= 0.0
        ):
            raise SettingsError(
                f"strategies cannot be compared by {self}; expected one or more, replay above 0, "
                "old_weight of 0 to 1, tie of 0 or more"
            )


CONFIGURED: Final = Plan()


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One way, tried.

    Args:
        name: the strategy and its number, such as `warm_start_10`.
        outcome: of the gate, or why there was none.
        reason: one sentence.
        work: rows learned from times trees fitted to them: what it costs, on any machine.
        errors: None where it was not judged.
        trees: of the booster, 0 where there is none.
        size: of the booster in XGBoost's format, bytes.
        seconds: of the fit.
    """

    name: str
    outcome: Outcome
    reason: str
    work: int
    errors: Errors | None = None
    trees: int = 0
    size: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`."""
        return {
            "name": self.name,
            "outcome": self.outcome,
            "reason": self.reason,
            "work": self.work,
            "errors": self.errors.to_json() if self.errors else None,
            "trees": self.trees,
            "bytes": self.size,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """All of them, and the one chosen.

    Args:
        current: errors of the current model on the same rows.
        allowed: the largest errors with which a candidate passes.
        candidates: in the order in which they were tried.
        chosen: None where the current model stays.
        booster: what the chosen way made, to serve; None where the current model stays, or is no
            booster.
        reason: one sentence.
        rows: how many were learned from and judged by, by name.
    """

    current: Errors
    allowed: Errors
    candidates: tuple[Candidate, ...]
    chosen: Candidate | None
    booster: xgb.Booster | None
    reason: str
    rows: Mapping[str, int]

    def table(self) -> pl.DataFrame:
        """One row for each candidate, for people and for MLflow."""
        return pl.DataFrame(
            [
                {
                    "strategy": one.name,
                    "chosen": one is self.chosen,
                    "outcome": one.outcome,
                    "mae_new_ah": one.errors.new_ah if one.errors else None,
                    "mae_old_ah": one.errors.old_ah if one.errors else None,
                    "seconds": one.seconds,
                    "bytes": one.size,
                    "trees": one.trees,
                    "work": one.work,
                    "reason": one.reason,
                }
                for one in self.candidates
            ],
            schema_overrides={"mae_new_ah": pl.Float64, "mae_old_ah": pl.Float64},
            nan_to_null=True,
        )

    @property
    def metrics(self) -> dict[str, float]:
        """Numbers as `strategies.candidate.metric`, as MLflow takes them."""
        found = {
            "strategies.current.mae_new_ah": self.current.new_ah,
            "strategies.current.mae_old_ah": self.current.old_ah,
        }
        for one in self.candidates:
            if one.errors is not None:
                found |= {
                    f"strategies.{one.name}.mae_new_ah": one.errors.new_ah,
                    f"strategies.{one.name}.mae_old_ah": one.errors.old_ah,
                    f"strategies.{one.name}.seconds": one.seconds,
                    f"strategies.{one.name}.bytes": float(one.size),
                }
        return found

    def to_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`."""
        return {
            "current": self.current.to_json(),
            "allowed": self.allowed.to_json(),
            "chosen": self.chosen.name if self.chosen else None,
            "reason": self.reason,
            "rows": dict(self.rows),
            "candidates": [one.to_json() for one in self.candidates],
        }


@dataclass(frozen=True, slots=True)
class _Way:
    """A strategy with its number."""

    name: str
    work: int
    make: Callable[[], xgb.Booster]


def run_strategies(  # noqa: PLR0913 - the model, the data of a fit, and how to choose
    booster: xgb.Booster,
    new: LabelledRows,
    old: LabelledRows,
    *,
    parameters: Parameters,
    seed: int,
    plan: Plan = CONFIGURED,
    judges: Judges | None = None,
    trends: Sequence[int] = (),
) -> Comparison:
    """Try the strategies on one part of the assets, judge them on the others, and choose.

    Where no judges are given, assets are set aside that the current model was fitted on, and it
    would be judged by what it knows by heart. So it is fitted once more without them, the
    strategies are tried on that stand-in, and the chosen one is then carried out on the current
    model itself with all rows. With judges that it has not seen, the strategies are tried on the
    current model, and what was judged is what is given back.

    Args:
        booster: the current model; stays as it is.
        new: labelled rows that it has not learned from, of two groups of assets or more.
        old: rows that it was fitted on, likewise.
        parameters: as for `boosting.fit`.
        seed: of every draw and fit.
        plan: what is tried.
        judges: rows to judge by that the current model has not seen; groups that are among them
            are not learned from.
        trends: as for `boosting.fit`; a fine tuning does not hold them, and is not tried.

    Raises:
        DataError: rows of other features, or all of one group.
        SettingsError: when a parameter is unknown or out of range.
    """
    new.expect(names_of(booster))
    started = time.perf_counter()
    parts = set_aside(new, old, share=plan.held_out, seed=seed, judges=judges)
    make = _Making(parameters, seed, plan, tuple(trends))
    model = make.fitted(parts.past) if judges is None else booster
    current = parts.judges.errors(Boosted(model))
    made: dict[str, xgb.Booster] = {}
    candidates: list[Candidate] = []
    for way in make.ways(model, parts.learned, parts.past):
        late = _too_late(way, candidates, time.perf_counter() - started, plan)
        candidates.append(
            Candidate(way.name, "skipped", late, way.work)
            if late
            else _tried(way, parts.judges, current, plan, made)
        )
    chosen, reason = choose(candidates, plan)
    if judges is None:
        ways = {way.name: way for way in make.ways(booster, new, old)}
        found = ways[chosen.name].make() if chosen else None
    else:
        found = made[chosen.name] if chosen else None
    rows = {
        "new_learned": len(parts.learned),
        "new_judged": len(parts.judges.new),
        "old_learned": len(parts.past),
        "old_judged": len(parts.judges.old),
    }
    allowed = parts.judges.allowed(current, plan.limits)
    return Comparison(current, allowed, tuple(candidates), chosen, found, reason, rows)


@dataclass(frozen=True, slots=True)
class _Making:
    """What all ways have in common."""

    parameters: Parameters
    seed: int
    plan: Plan
    trends: tuple[int, ...]

    def fitted(self, rows: LabelledRows) -> xgb.Booster:
        return fit(
            rows.features,
            rows.labels,
            feature_names=rows.names,
            parameters=self.parameters,
            seed=self.seed,
            trends=self.trends,
        )

    def ways(self, booster: xgb.Booster, new: LabelledRows, old: LabelledRows) -> Iterator[_Way]:
        """The cheap ones first."""
        plan = self.plan
        size = max(1, min(plan.replay_rows, round(plan.replay * len(new))))
        replay = replay_sample(old, size, seed=self.seed)
        few = len(new) + len(replay)
        trees = int(read_parameters(self.parameters).get("n_estimators", DEFAULT_TREES))
        if "warm_start" in plan.strategies:
            for rounds in plan.rounds:
                make = partial(self._warm_start, booster, new, replay, rounds)
                yield _Way(f"warm_start_{rounds}", rounds * few, make)
        if "fine_tune" in plan.strategies and not any(self.trends):
            for last in plan.last:
                make = partial(self._fine_tune, booster, new, replay, last)
                yield _Way(f"fine_tune_{last}", last * few, make)
        if "ensemble" in plan.strategies:
            for share in plan.shares:
                make = partial(self._ensemble, booster, new, replay, share)
                fits = 2 if share is None else 1
                name = "fitted" if share is None else f"{share:g}"
                yield _Way(f"ensemble_{name}", fits * trees * few, make)
        if "full" in plan.strategies:
            every = old + new
            yield _Way("full", trees * len(every), partial(self.fitted, every))

    def _warm_start(
        self, booster: xgb.Booster, new: LabelledRows, replay: LabelledRows, rounds: int
    ) -> xgb.Booster:
        return warm_start(
            booster,
            new,
            parameters=self.parameters,
            seed=self.seed,
            rounds=rounds,
            replay=replay,
            trends=self.trends,
        )

    def _fine_tune(
        self, booster: xgb.Booster, new: LabelledRows, replay: LabelledRows, last: int
    ) -> xgb.Booster:
        return fine_tune(booster, new, parameters=self.parameters, replay=replay, last=last)

    def _ensemble(
        self, booster: xgb.Booster, new: LabelledRows, replay: LabelledRows, share: float | None
    ) -> xgb.Booster:
        return ensemble(
            booster,
            new,
            parameters=self.parameters,
            seed=self.seed,
            replay=replay,
            share=share,
            trends=self.trends,
        ).booster


def _too_late(way: _Way, tried: Sequence[Candidate], spent: float, plan: Plan) -> str:
    """Why a strategy is not begun any more; empty when it is."""
    if spent > plan.budget_s:
        return f"the budget of {plan.budget_s:g} s is spent"
    rates = [
        one.seconds / one.work for one in tried if one.name.startswith("ensemble") and one.work
    ]
    if way.name == "full" and rates and spent + min(rates) * way.work > plan.budget_s:
        return (
            f"it would take about {min(rates) * way.work:.0f} s, which the budget of "
            f"{plan.budget_s:g} s does not have left"
        )
    return ""


def _tried(
    way: _Way, judges: Judges, current: Errors, plan: Plan, made: dict[str, xgb.Booster]
) -> Candidate:
    """Make it, judge it, and put it among those made."""
    started = time.perf_counter()
    try:
        booster = way.make()
        seconds = time.perf_counter() - started
        errors = judges.errors(Boosted(booster))
    except (BatteryOpsError, xgb.core.XGBoostError) as error:
        return Candidate(way.name, "failed", first_line(error), way.work)
    made[way.name] = booster
    trees = booster.num_boosted_rounds()
    looked = judges.look(current, errors, plan.limits)
    passed, reason = looked.passed, looked.reason
    if trees > plan.max_trees:
        passed, reason = False, f"it has {trees} trees, at most {plan.max_trees} are wanted"
    return Candidate(
        way.name,
        "passed" if passed else "refused",
        reason,
        way.work,
        errors,
        trees,
        len(booster.save_raw("ubj")),
        seconds,
    )


def choose(candidates: Sequence[Candidate], plan: Plan) -> tuple[Candidate | None, str]:
    """The cheapest of those that pass and are as good as the best; None where none passes.

    Args:
        candidates: what was tried.
        plan: what weighs how much.

    Returns:
        It, and why.
    """

    def error_ah(one: Candidate) -> float:
        if one.errors is None:
            raise DataError(f"{one.name} was not judged")
        return plan.old_weight * one.errors.old_ah + (1.0 - plan.old_weight) * one.errors.new_ah

    passed = [one for one in candidates if one.outcome == "passed"]
    if not passed:
        return None, "no candidate passes, so the current model stays"
    best = min(passed, key=error_ah)
    good = [one for one in passed if error_ah(one) <= (1.0 + plan.tie) * error_ah(best)]
    chosen = min(good, key=lambda one: (one.work, error_ah(one)))
    told = f"{chosen.name}: error {error_ah(chosen):.4f} Ah over old and new"
    if chosen is best:
        return chosen, f"{told}, the least of {len(passed)} that pass"
    return chosen, (
        f"{told}; {best.name} has {error_ah(best):.4f} for {best.work / chosen.work:.1f} times the "
        "work"
    )
