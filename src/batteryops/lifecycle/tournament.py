"""A tournament: every algorithm under one protocol, the best three combined, nothing seen twice.

Each entrant is fitted without the group that it is asked about. Those predictions choose the best
three and their shares, which are then fitted on all rows. What the combination is worth is
measured apart: in each fold the choice is made anew, on groups held out of that fold's training
rows, so that the batteries that judge it had no part in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from batteryops.evaluation.protocol_run import ProtocolResult, evaluate_protocol
from batteryops.evaluation.protocols import SplitPlan, asset_groups
from batteryops.features.views import FeatureView, matrix
from batteryops.lifecycle.decisions import (
    STACK,
    Decide,
    Decision,
    always,
    as_it_is,
    combined,
    deciding_fit,
    fewer_folds,
    search_budget,
    searching,
    stacking,
)
from batteryops.lifecycle.evaluation import CONFIGURED, nominal_capacities, task_of
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.uncertainty import package_owners
from batteryops.models.algorithms import ALGORITHMS, Task, get_algorithm
from batteryops.models.manifest import ChosenAlgorithm
from batteryops.models.search import Found
from batteryops.models.stacking import Stack, choose
from batteryops.schema import LABEL
from batteryops.settings import Settings

TUNED: Final = "xgboost_searched"
"""The name of XGBoost with the values that a search found."""


@dataclass(frozen=True, slots=True)
class Tournament:
    """Who entered, what each achieved, and what was combined.

    Args:
        protocol: which question was asked.
        results: by algorithm, the best first; the combination as `stack`.
        stack: chosen by the entrants' predictions of groups that they had not seen.
        found: what the search found on all rows; None when there was none.
        decide: how the winner decides on a fold's training rows.
        decision: what the winner decided on all rows.
    """

    protocol: str
    results: Mapping[str, ProtocolResult]
    stack: Stack
    found: Found | None
    decide: Decide
    decision: Decision

    @property
    def winner(self) -> str:
        """The entrant with the least mean absolute error."""
        return next(iter(self.results))

    def family(self, name: str) -> str:
        """What sort of method an entrant is."""
        if name == TUNED:
            return ALGORITHMS[CONFIGURED].family
        return ALGORITHMS[name].family if name in ALGORITHMS else "combination"

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of each entrant as `tournament.entrant.metric`."""
        return {
            f"tournament.{name}.{metric}": result.facts()[metric]
            for name, result in self.results.items()
            for metric in ("mae_ah", "rmse_ah", "r2", "worst_asset_mae_ah")
        }

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return {
            "protocol": self.protocol,
            "winner": self.winner,
            "stack": dict(zip(self.stack.members, self.stack.weights, strict=True)),
            "search": self.found.to_json() if self.found is not None else None,
            "entrants": {
                name: {"family": self.family(name), **result.to_json()}
                for name, result in self.results.items()
            },
        }


def run_tournament(  # noqa: PLR0913 - what is compared, on what, how
    table: pl.DataFrame,
    view: FeatureView,
    settings: Settings,
    progress: Progress,
    *,
    protocol: str = "unseen_assets",
    search_s: float = 0.0,
) -> Tournament:
    """Compare algorithms under one protocol, and combine the best three.

    Args:
        table: rows that may train, as `evaluate_table` takes them.
        view: names the features, and says which way capacity goes with them.
        settings: who enters, parameters, seed, groups, folds.
        progress: told what is being done.
        protocol: one of `evaluation.protocols.PROTOCOLS`.
        search_s: seconds in all for a search of XGBoost's values, which enters as well; it is
            searched anew in every fold, on groups of that fold's training rows. 0 for no search.

    Raises:
        SettingsError: an unknown algorithm or protocol.
        DataError: too few assets or rows for the protocol.
        RecordsError: the database of searches is out of reach.
    """
    rules = settings.tournament
    task = task_of(view, settings)
    entrants = {name: always(as_it_is(name, task)) for name in rules.entrants or ALGORITHMS}
    if search_s:
        budget = search_budget(settings, search_s)
        entrants[TUNED] = searching(CONFIGURED, task, budget, entrant=TUNED)
    contest = entrants | {STACK: stacking(entrants, folds=rules.inner_folds, top=rules.combined)}
    nominal_ah = nominal_capacities(table, settings)
    results: dict[str, ProtocolResult] = {}
    for name, decide in contest.items():
        chosen_anew = ", chosen anew in every fold" if name == STACK else ""
        progress.step(f"{name}{chosen_anew}, under {protocol}")
        results[name] = evaluate_protocol(
            table,
            view.names,
            protocol,
            deciding_fit(decide),
            settings=fewer_folds(settings, calibration=False).evaluation,
            nominal_ah=nominal_ah,
            seed=settings.training.seed,
            progress=progress.within,
            workers=max(1, int(settings.training.parameters.get("n_jobs", 1))),
        )
    ranked = sorted(results, key=lambda name: results[name].metrics.mae_ah)
    stack = _chosen({name: results[name] for name in entrants}, settings)
    if search_s:
        progress.step("search on all rows")
    owners = package_owners(table, settings)
    rows = matrix(view, table), table[LABEL].to_numpy(), owners
    settled = {name: decide(*rows) for name, decide in entrants.items()}
    winner = ranked[0]
    return Tournament(
        protocol=protocol,
        results={name: results[name] for name in ranked},
        stack=stack,
        found=settled[TUNED].found if search_s else None,
        decide=contest[winner],
        decision=combined(stack, settled) if winner == STACK else settled[winner],
    )


def decision_of(algorithm: ChosenAlgorithm, task: Task) -> Decision:
    """How to fit once more what a package names: its searched values and its shares are kept.

    Raises:
        SettingsError: an algorithm that there is not here.
    """

    def settled(name: str) -> Decision:
        values = algorithm.values.get(name, {})
        made = get_algorithm(CONFIGURED if name == TUNED else name).make(task, dict(values))
        chosen = {name: values} if values else {}
        return Decision(made, ChosenAlgorithm(name=name, values=chosen))

    if not algorithm.shares:
        return settled(algorithm.name)
    stack = Stack(tuple(algorithm.shares), tuple(algorithm.shares.values()))
    return combined(stack, {name: settled(name) for name in stack.members})


def _chosen(results: Mapping[str, ProtocolResult], settings: Settings) -> Stack:
    """The best few, by predictions of groups that they had not seen."""
    rows = next(iter(results.values())).predictions  # all have the same rows in the same order
    plan = SplitPlan.from_settings(settings.evaluation, settings.training.seed)
    known = asset_groups(rows["asset_id"], plan.groups)
    return choose(
        {name: result.predictions["predicted_ah"].to_numpy() for name, result in results.items()},
        rows[LABEL].to_numpy(),
        np.array([known[asset] for asset in rows["asset_id"]], dtype=object),
        top=settings.tournament.combined,
    )
