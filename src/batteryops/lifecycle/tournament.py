"""A tournament: every algorithm under one protocol, the best three combined, nothing seen twice.

Each entrant is fitted without the group that it is asked about. Those predictions choose the best
three and their shares, which are then fitted on all rows. What the combination is worth is
measured apart: in each fold the choice is made anew, on groups held out of that fold's training
rows, so that the batteries that judge it had no part in it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final
from warnings import catch_warnings, simplefilter

import numpy as np
import polars as pl
from sklearn.exceptions import ConvergenceWarning

from batteryops.evaluation.protocol_run import ProtocolResult, evaluate_protocol
from batteryops.evaluation.protocols import SplitPlan, asset_groups
from batteryops.features.views import FeatureView, matrix
from batteryops.lifecycle.evaluation import CONFIGURED, nominal_capacities, task_of
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.uncertainty import package_groups
from batteryops.models.algorithms import ALGORITHMS, GroupedFit, get_algorithm
from batteryops.models.search import Budget, Found, Rows, search, searched
from batteryops.models.stacking import Stack, choose, stacked
from batteryops.schema import LABEL
from batteryops.settings import Settings

STACK: Final = "stack"
"""The name of the combination among the results."""

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
    """

    protocol: str
    results: Mapping[str, ProtocolResult]
    stack: Stack
    found: Found | None

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return {
            "protocol": self.protocol,
            "stack": dict(zip(self.stack.members, self.stack.weights, strict=True)),
            "search": None
            if self.found is None
            else {
                "values": self.found.values,
                "mae_ah": self.found.mae_ah,
                "default_mae_ah": self.found.default_mae_ah,
                "trials": self.found.trials,
                "pruned": self.found.pruned,
            },
            "entrants": {
                name: {
                    "family": ALGORITHMS[name].family if name in ALGORITHMS else name,
                    **result.to_json(),
                }
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
    entrants: Collection[str] = tuple(ALGORITHMS),
    search_s: float = 0.0,
) -> Tournament:
    """Compare algorithms under one protocol, and combine the best three.

    Args:
        table: rows that may train, as `evaluate_table` takes them.
        view: names the features, and says which way capacity goes with them.
        settings: parameters, seed, groups, folds.
        progress: told what is being done.
        protocol: one of `evaluation.protocols.PROTOCOLS`.
        entrants: names of algorithms.
        search_s: seconds in all for a search of XGBoost's values, which enters as well; it is
            searched anew in every fold, on groups of that fold's training rows. 0 for no search.

    Raises:
        SettingsError: an unknown algorithm or protocol.
        DataError: too few assets or rows for the protocol.
        RecordsError: the database of searches is out of reach.
    """
    rules = settings.tournament
    task = task_of(view, settings)
    fits: dict[str, GroupedFit] = {name: get_algorithm(name).make(task, {}) for name in entrants}
    budget = Budget(
        seconds=search_s / (rules.folds + 1),  # one search per fold, one on all rows
        url=settings.predictions_url,
        folds=rules.inner_folds,
    )
    if search_s:
        fits[TUNED] = searched(get_algorithm(CONFIGURED), task, budget)
    nominal_ah = nominal_capacities(table, settings)

    def judge(fit: GroupedFit) -> ProtocolResult:
        return evaluate_protocol(
            table,
            view.names,
            protocol,
            fit,
            settings=settings.evaluation.model_copy(update={"max_folds": rules.folds}),
            nominal_ah=nominal_ah,
            seed=settings.training.seed,
            progress=progress.within,
            workers=max(1, int(settings.training.parameters.get("n_jobs", 1))),
        )

    results: dict[str, ProtocolResult] = {}
    with catch_warnings():
        simplefilter("ignore", ConvergenceWarning)  # its error tells how far a fit got
        for name, fit in fits.items():
            progress.step(f"{name} under {protocol}")
            results[name] = judge(fit)
        stack = _chosen(results, settings)
        progress.step(f"the best {rules.combined} combined, chosen anew in every fold")
        combined = judge(stacked(fits, folds=rules.inner_folds, top=rules.combined))
        found = None
        if search_s:
            progress.step("search on all rows")
            groups = package_groups(table, settings)
            rows = Rows(matrix(view, table), table[LABEL].to_numpy(), groups)
            found = search(get_algorithm(CONFIGURED), task, rows, budget)
    results[STACK] = combined
    ranked = sorted(results, key=lambda name: results[name].metrics.mae_ah)
    return Tournament(protocol, {name: results[name] for name in ranked}, stack, found)


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
