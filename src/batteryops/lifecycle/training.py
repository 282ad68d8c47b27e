"""Evaluate under every protocol, fit on all rows, and let the gates judge."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from warnings import catch_warnings, simplefilter

import polars as pl
from sklearn.exceptions import ConvergenceWarning

from batteryops.evaluation.gates import Gate, Verdict, judge
from batteryops.evaluation.metrics import nominal_per_row
from batteryops.evaluation.protocol_run import ProtocolResult
from batteryops.evaluation.protocols import PROTOCOLS
from batteryops.features.views import matrix
from batteryops.lifecycle.decisions import (
    Decide,
    always,
    as_it_is,
    fewer_calibrating,
    fewer_folds,
    search_budget,
    searching,
)
from batteryops.lifecycle.drift_reference import training_reference
from batteryops.lifecycle.evaluation import (
    algorithm_for,
    evaluate_protocols,
    look_for_leakage,
    nominal_capacities,
    task_of,
)
from batteryops.lifecycle.leakage import PROTOCOL, ViewLeakage
from batteryops.lifecycle.preparation import Prepared
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.ranges import count_out_of_range
from batteryops.lifecycle.tournament import TUNED, Tournament, run_tournament
from batteryops.lifecycle.uncertainty import Uncertainty, fit_uncertainty, package_owners
from batteryops.models.algorithm_onnx import to_onnx_any
from batteryops.models.algorithms import Predict
from batteryops.models.manifest import ChosenAlgorithm
from batteryops.models.onnx_twin import max_difference_ah
from batteryops.models.search import Found
from batteryops.monitoring.reference import Reference
from batteryops.schema import LABEL
from batteryops.settings import Settings

DIAGNOSED: Final = "unseen_assets"
"""The protocol whose predictions the diagnostic plots show: the one that decides promotion."""

TIE_AH: Final = 1e-4
"""Mean absolute errors no further apart are told as equal: a ridge beside the baseline ridge."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be fitted.

    Args:
        algorithm: one of `models.algorithms.ALGORITHMS`; when None what the configuration has for
            the view. No part in a tournament.
        tournament: compare the configured entrants first, and take the best.
        search_s: seconds in all to search for the algorithm's values, or in a tournament for
            XGBoost's, which then enters once more; 0 for no search.
    """

    algorithm: str | None = None
    tournament: bool = False
    search_s: float = 0.0


CONFIGURED_CHOICE: Final = Choice()


@dataclass(frozen=True, slots=True)
class Trained:
    """A fitted model and everything that was found out about it; nothing is written yet.

    Args:
        model: fitted on all rows of `prepared`.
        onnx: its ONNX twin, serialised.
        algorithm: what it is.
        prepared: what it was fitted on, and what was set aside.
        results: by protocol; measured by models fitted on that protocol's training rows.
        facts: time of the fit, parity of the twin, and how many predictions lie out of range: of
            the model on its own rows, and of the protocols' models on the rows they tested.
        leakage: what the leakage checks found.
        uncertainty: prediction intervals, training domain, residuals of unseen assets.
        reference: what drift is measured against.
        verdict: what the gates said.
        found: what a search on all rows found; None where there was none.
        tournament: None where there was none.
        notes: for whoever reads the results.
    """

    model: Predict
    onnx: bytes
    algorithm: ChosenAlgorithm
    prepared: Prepared
    results: Mapping[str, ProtocolResult]
    facts: Mapping[str, float]
    leakage: ViewLeakage
    uncertainty: Uncertainty
    reference: Reference
    verdict: Verdict
    found: Found | None
    tournament: Tournament | None
    notes: tuple[str, ...]

    @property
    def shortfalls(self) -> tuple[str, ...]:
        """Where a baseline does better than the model, whatever the gates say."""
        return tuple(
            f"{protocol}: {baseline.replace('_', ' ')} has MAE {found.mae_ah:.4f} Ah, "
            f"the model {result.metrics.mae_ah:.4f} Ah"
            for protocol, result in self.results.items()
            for baseline, found in result.baselines.items()
            if result.metrics.mae_ah - found.mae_ah > TIE_AH
        )

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric as `protocol.metric`, baselines as `protocol.baseline.metric`."""
        found = {f"training.{name}": value for name, value in self.facts.items()}
        found |= {f"{PROTOCOL}.{name}": value for name, value in self.leakage.facts.items()}
        for protocol, result in self.results.items():
            found |= {f"{protocol}.{name}": value for name, value in result.facts().items()}
            for baseline, facts in result.baseline_facts().items():
                found |= {f"{protocol}.{baseline}.{name}": value for name, value in facts.items()}
        return found | (self.tournament.metrics if self.tournament else {})


def train(
    prepared: Prepared,
    settings: Settings,
    progress: Progress,
    choice: Choice = CONFIGURED_CHOICE,
) -> Trained:
    """Look for leakage, evaluate under every protocol, fit on all rows, and let the gates judge.

    The models of the protocols are thrown away; what they measured stands for the model that is
    fitted on all rows. Where that one searched, or was chosen and weighed, every fold of every
    protocol does the same on its own training rows, and there are fewer folds. Writes nothing.

    Args:
        prepared: what may train.
        settings: parameters, seed, folds, gates.
        progress: told what is being done.
        choice: what is fitted; what the configuration has for the view when not said.

    Raises:
        SettingsError: an unknown algorithm.
        DataError: too few assets or rows for a protocol.
        RecordsError: the database of searches is out of reach.
    """
    table, view, training = prepared.table, prepared.view, settings.training
    gates = [Gate.parse(gate) for gate in training.gates]  # refused before minutes of work
    with catch_warnings():
        simplefilter("ignore", ConvergenceWarning)  # how far a fit got, its error tells
        leakage = look_for_leakage(table, view, settings, progress, recording=prepared.recording)
        features, labels = matrix(view, table), table[LABEL].to_numpy()
        owners = package_owners(table, settings)
        made = _make_choice(choice, prepared, settings, progress)
        # a gate does not wait for intervals: their coverage is measured in a few folds here, in all
        # of them by `evaluate`
        quick = fewer_calibrating(made.settings)
        results = evaluate_protocols(table, view, PROTOCOLS, quick, progress, decide=made.decide)
        if choice.search_s and not choice.tournament:
            progress.step("search on all rows")
        decision = made.settle(features, labels, owners)
        progress.step(f"fit {decision.algorithm} on {table.height} rows")
        started = time.perf_counter()
        model = decision.fit(features, labels, owners)
        training_time_s = time.perf_counter() - started
        progress.step("calibrate intervals on batteries held out; learn what training covers")
        uncertainty = fit_uncertainty(
            decision.fit,
            features,
            labels,
            owners,
            view.names,
            folds=made.settings.evaluation.calibration_folds,
            workers=max(1, int(training.parameters.get("n_jobs", 1))),
            op_index=table["op_index"].to_numpy(),
            nominal_ah=nominal_per_row(table["asset_id"], nominal_capacities(table, settings)),
        )
    progress.step("convert to ONNX and compare")
    onnx = to_onnx_any(model, len(view.names))
    fitted_ah = model(features)
    own = table.select("asset_id").with_columns(predicted_ah=pl.Series(fitted_ah))
    every = [own, *(result.predictions for result in results.values())]
    facts = {
        "training_time_s": training_time_s,
        "predictions_out_of_range": float(
            sum(
                count_out_of_range(rows["asset_id"], rows["predicted_ah"].to_numpy(), settings)
                for rows in every
            )
        ),
        "onnx_max_difference_ah": max_difference_ah(model, onnx, features),
    }
    verdict = judge(
        gates,
        {
            "training": facts,
            PROTOCOL: leakage.facts,
            **{name: result.facts() for name, result in results.items()},
        },
        {name: result.baseline_facts() for name, result in results.items()},
    )
    return Trained(
        model=model,
        onnx=onnx,
        algorithm=decision.algorithm,
        prepared=prepared,
        results=results,
        facts=facts,
        leakage=leakage,
        uncertainty=uncertainty,
        reference=training_reference(
            table, view, settings, held_out_ah=uncertainty.held_out_ah, fitted_ah=fitted_ah
        ),
        verdict=Verdict(verdict.results + leakage.gates),
        found=made.tournament.found if made.tournament else decision.found,
        tournament=made.tournament,
        notes=made.notes,
    )


@dataclass(frozen=True, slots=True)
class _Made:
    """How a choice is fitted and evaluated.

    Args:
        decide: on a fold's training rows.
        settle: on all rows.
        settings: with the folds of its evaluation.
        tournament: None where there was none.
        notes: for whoever reads the results.
    """

    decide: Decide
    settle: Decide
    settings: Settings
    tournament: Tournament | None
    notes: tuple[str, ...]


def _make_choice(
    choice: Choice, prepared: Prepared, settings: Settings, progress: Progress
) -> _Made:
    table, view = prepared.table, prepared.view
    task, folds = task_of(view, settings), settings.tournament.folds
    if choice.tournament:
        found = run_tournament(table, view, settings, progress, search_s=choice.search_s)
        chosen = found.decision.algorithm
        if not chosen.shares and found.winner != TUNED:  # nothing is decided in a fold
            return _Made(found.decide, always(found.decision), settings, found, ())
        fewer = fewer_folds(settings, calibration=bool(chosen.shares))
        return _Made(found.decide, always(found.decision), fewer, found, (_note(chosen, folds),))
    name = algorithm_for(view, settings, choice.algorithm)
    if choice.search_s:
        decide = searching(name, task, search_budget(settings, choice.search_s))
        fewer = fewer_folds(settings, calibration=False)
        note = _note(ChosenAlgorithm(name=name), folds)
        return _Made(decide, decide, fewer, None, (note,))
    decide = always(as_it_is(name, task))
    return _Made(decide, decide, settings, None, ())


def _note(algorithm: ChosenAlgorithm, folds: int) -> str:
    what = "members and shares are chosen" if algorithm.shares else "values are searched"
    calibrated = ", and so are intervals calibrated" if algorithm.shares else ""
    return (
        f"{algorithm.name}: {what} anew in every fold, so groups of batteries are held out in at "
        f"most {folds} folds{calibrated}"
    )
