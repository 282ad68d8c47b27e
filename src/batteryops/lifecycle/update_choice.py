"""Which update of a model is made, if any: candidates compared on batteries that none has seen."""

import time
from dataclasses import dataclass, replace
from typing import Final

from batteryops.errors import BatteryOpsError, DataError
from batteryops.files import first_line
from batteryops.lifecycle.decisions import Decision
from batteryops.lifecycle.evaluation import task_of
from batteryops.lifecycle.tournament import decision_of
from batteryops.lifecycle.update_rows import UpdateRows
from batteryops.models.algorithms import Boosted, Predict
from batteryops.models.boosting import Parameters
from batteryops.models.continuing import ROUNDS
from batteryops.models.labelled import LabelledRows
from batteryops.models.manifest import json_name
from batteryops.models.online_learning import online_learning_update
from batteryops.models.package import ModelPackage
from batteryops.models.setting_aside import set_aside
from batteryops.models.strategies import Candidate, Comparison, Plan, choose, run_strategies
from batteryops.settings import Settings

MONOTONE: Final = "xgboost_monotone"
"""The algorithm whose trees follow the trends of the view."""


UNSEEN: Final = "unseen_assets"
"""Where what a package measured on batteries held out stands among its metrics."""


@dataclass(frozen=True, slots=True)
class Parent:
    """The model that is brought up to date.

    Args:
        package: its own.
        version: its number.
    """

    package: ModelPackage
    version: int


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """What came of a comparison.

    Args:
        comparison: of all candidates.
        model: the chosen one, made on all rows; None where the current model stays.
    """

    comparison: Comparison
    model: Predict | None


@dataclass(frozen=True, slots=True)
class Refitting:
    """How the algorithm of a package is fitted again.

    Args:
        decision: its algorithm, with the values and shares that it was given.
        parameters: XGBoost's, as configured, and searched ones above them.
        seed: of every fit and draw.
        trends: that its trees are held to; empty where they are not.
    """

    decision: Decision
    parameters: Parameters
    seed: int
    trends: tuple[int, ...]

    @classmethod
    def of(cls, package: ModelPackage, settings: Settings) -> "Refitting":
        """That of a package, with the configured parameters.

        Raises:
            SettingsError: an algorithm that there is not here.
        """
        algorithm = package.manifest.algorithm
        return cls(
            decision_of(algorithm, task_of(package.view, settings)),
            {**settings.training.parameters, **algorithm.values.get(algorithm.name, {})},
            settings.training.seed,
            package.view.trends if algorithm.name == MONOTONE else (),
        )


def plan_of(settings: Settings) -> Plan:
    """What is tried, as `retraining` has it."""
    given = settings.retraining
    return Plan(
        strategies=given.strategies,
        held_out=given.held_out_share,
        replay=given.replay,
        replay_rows=given.replay_rows,
        max_trees=given.max_trees,
        budget_s=given.budget_s,
    )


def choose_update(parent: Parent, rows: UpdateRows, settings: Settings) -> Chosen:
    """Compare the ways to bring a package up to date, and make the one that is chosen.

    A package of one booster is continued, tuned, combined or fitted anew; any other algorithm can
    only be fitted anew. Candidates are judged on whole groups of batteries that are set aside of
    the old and of the new rows. The current model has learned from the old ones among them, so
    what is judged beside the candidates is its like, fitted without them; see
    `models.strategies.run_strategies`. Where rows of before a software update were realigned, its
    like would know the update already: then the current model itself is judged.

    Args:
        parent: the current model.
        rows: old and new.
        settings: what is tried, parameters, seed.

    Raises:
        DataError: nothing can be set aside, as all new rows are of one group of batteries.
        SettingsError: a parameter is unknown or out of range.
    """
    package = parent.package
    how, plan = Refitting.of(package, settings), plan_of(settings)
    if not package.manifest.booster:
        return _refitted(how, rows, plan)
    judges = None
    if rows.realigned:
        judges = set_aside(rows.new, rows.old, share=plan.held_out, seed=how.seed).judges
    comparison = run_strategies(
        package.booster,
        rows.new,
        rows.old,
        parameters=how.parameters,
        seed=how.seed,
        plan=plan,
        judges=judges,
        trends=how.trends,
    )
    booster = comparison.booster
    return Chosen(comparison, None if booster is None else Boosted(booster))


def choose_online(parent: Parent, rows: UpdateRows, settings: Settings) -> Chosen:
    """Let a package's booster learn from a batch, and look whether it is better for it.

    What was judged is what is given back: whole groups of the batch, and of the past, judge and are
    not learned from. The current model was fitted on those of the past, so that the error on
    batteries that its package measured says which loss matters.

    Args:
        parent: the current model, one booster.
        rows: old ones, and the batch.
        settings: parameters, seed.

    Raises:
        DataError: nothing can be set aside, as all new rows are of one group of batteries.
        PackageError: the package is not one booster.
        SettingsError: a parameter is unknown or out of range.
    """
    package = parent.package
    how = Refitting.of(package, settings)
    update = online_learning_update(
        package.booster,
        rows.new,
        rows.old,
        parameters=how.parameters,
        seed=how.seed,
        unseen_ah=_unseen_ah(package),
        trends=how.trends,
    )
    if update.current is None or update.allowed is None:
        raise DataError(update.reason)
    trees = update.booster.num_boosted_rounds()
    candidate = Candidate(
        f"online_{ROUNDS}",
        "passed" if update.accepted else "refused",
        update.reason,
        ROUNDS * len(rows.new),
        update.candidate,
        trees,
        len(update.booster.save_raw("ubj")),
        update.seconds,
    )
    if update.accepted and trees > settings.retraining.max_trees:
        most = settings.retraining.max_trees
        reason = f"it has {trees} trees, at most {most} are wanted"
        candidate = replace(candidate, outcome="refused", reason=reason)
    chosen, reason = choose((candidate,), plan_of(settings))
    comparison = Comparison(
        current=update.current,
        allowed=update.allowed,
        candidates=(candidate,),
        chosen=chosen,
        booster=update.booster if chosen else None,
        reason=reason,
        rows={"new": len(rows.new), "old": len(rows.old)},
    )
    return Chosen(comparison, Boosted(update.booster) if chosen else None)


def _unseen_ah(package: ModelPackage) -> float:
    """Mean absolute error on batteries held out, as the package measured it; 0 where it did not."""
    if json_name("metrics") not in package.manifest.files:
        return 0.0
    told = package.document("metrics").get(UNSEEN, {}).get("mae_ah")
    return 0.0 if told is None else float(told)


def _refitted(how: Refitting, every: UpdateRows, plan: Plan) -> Chosen:
    """The same algorithm fitted to all rows, beside its like that never saw the new ones."""
    parts = set_aside(every.new, every.old, share=plan.held_out, seed=how.seed)
    current = parts.judges.errors(_fit(how, parts.past))
    learned = parts.past + parts.learned
    candidate = Candidate("full", "failed", "", len(learned))
    started = time.perf_counter()
    try:
        errors = parts.judges.errors(_fit(how, learned))
    except BatteryOpsError as error:
        candidate = replace(candidate, reason=first_line(error))
    else:
        looked = parts.judges.look(current, errors, plan.limits)
        candidate = replace(
            candidate,
            outcome="passed" if looked.passed else "refused",
            reason=looked.reason,
            errors=errors,
            seconds=time.perf_counter() - started,
        )
    chosen, reason = choose((candidate,), plan)
    rows = {
        "new_learned": len(parts.learned),
        "new_judged": len(parts.judges.new),
        "old_learned": len(parts.past),
        "old_judged": len(parts.judges.old),
    }
    comparison = Comparison(
        current=current,
        allowed=parts.judges.allowed(current, plan.limits),
        candidates=(candidate,),
        chosen=chosen,
        booster=None,
        reason=reason,
        rows=rows,
    )
    return Chosen(comparison, _fit(how, every.learned) if chosen else None)


def _fit(how: Refitting, rows: LabelledRows) -> Predict:
    return how.decision.fit(rows.features, rows.labels, rows.owners)
