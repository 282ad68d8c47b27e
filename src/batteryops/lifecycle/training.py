"""Evaluate under every protocol, fit on all rows, and let the gates judge."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl
import xgboost as xgb

from batteryops.evaluation.gates import Gate, Verdict, judge
from batteryops.evaluation.protocol_run import ProtocolResult
from batteryops.evaluation.protocols import PROTOCOLS
from batteryops.features.views import matrix
from batteryops.lifecycle.evaluation import evaluate_protocols, model_fit, nominal_capacities
from batteryops.lifecycle.leakage import PROTOCOL, ViewLeakage, check_view
from batteryops.lifecycle.preparation import Prepared
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.ranges import count_out_of_range
from batteryops.lifecycle.uncertainty import Uncertainty, fit_uncertainty, package_groups
from batteryops.models import boosting
from batteryops.models.onnx_twin import max_difference_ah, to_onnx
from batteryops.schema import LABEL
from batteryops.settings import Settings

DIAGNOSED: Final = "unseen_assets"
"""The protocol whose predictions the diagnostic plots show: the one that decides promotion."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A fitted model and everything that was found out about it; nothing is written yet.

    Args:
        booster: fitted on all rows of `prepared`.
        onnx: its ONNX twin, serialised.
        prepared: what it was fitted on, and what was set aside.
        results: by protocol; measured by models fitted on that protocol's training rows.
        facts: time of the fit, parity of the twin, and how many predictions lie out of range: of
            the booster on its own rows, and of the protocols' models on the rows they tested.
        leakage: what the leakage checks found.
        uncertainty: prediction intervals and training domain.
        verdict: what the gates said.
    """

    booster: xgb.Booster
    onnx: bytes
    prepared: Prepared
    results: Mapping[str, ProtocolResult]
    facts: Mapping[str, float]
    leakage: ViewLeakage
    uncertainty: Uncertainty
    verdict: Verdict

    @property
    def shortfalls(self) -> tuple[str, ...]:
        """Where a baseline does better than the model, whatever the gates say."""
        return tuple(
            f"{protocol}: {baseline.replace('_', ' ')} has MAE {found.mae_ah:.4f} Ah, "
            f"the model {result.metrics.mae_ah:.4f} Ah"
            for protocol, result in self.results.items()
            for baseline, found in result.baselines.items()
            if found.mae_ah < result.metrics.mae_ah
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
        return found


def train(prepared: Prepared, settings: Settings, progress: Progress) -> Trained:
    """Look for leakage, evaluate under every protocol, fit on all rows, and let the gates judge.

    The models of the protocols are thrown away; what they measured stands for the model that is
    fitted on all rows. Writes nothing.

    Raises:
        DataError: too few assets or rows for a protocol.
    """
    table, view, training = prepared.table, prepared.view, settings.training
    gates = [Gate.parse(gate) for gate in training.gates]  # refused before minutes of work
    progress.step("look for leakage")
    leakage = check_view(
        table,
        view,
        recording=prepared.recording,
        nominal_ah=nominal_capacities(table, settings),
    )
    results = evaluate_protocols(table, view, PROTOCOLS, settings, progress)
    progress.step(f"fit on {table.height} rows")
    features, labels = matrix(view, table), table[LABEL].to_numpy()
    started = time.perf_counter()
    booster = boosting.fit(
        features,
        labels,
        feature_names=view.names,
        parameters=training.parameters,
        seed=training.seed,
    )
    training_time_s = time.perf_counter() - started
    progress.step("calibrate intervals on batteries held out; learn what training covers")
    uncertainty = fit_uncertainty(
        model_fit(view, settings),
        features,
        labels,
        package_groups(table, settings),
        view.names,
        folds=settings.evaluation.calibration_folds,
        workers=max(1, int(training.parameters.get("n_jobs", 1))),
    )
    progress.step("convert to ONNX and compare")
    onnx = to_onnx(booster, len(view.names))
    own = table.select("asset_id").with_columns(
        predicted_ah=pl.Series(boosting.predict(booster, features))
    )
    every = [own, *(result.predictions for result in results.values())]
    facts = {
        "training_time_s": training_time_s,
        "predictions_out_of_range": float(
            sum(
                count_out_of_range(rows["asset_id"], rows["predicted_ah"].to_numpy(), settings)
                for rows in every
            )
        ),
        "onnx_max_difference_ah": max_difference_ah(booster, onnx, features),
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
    verdict = Verdict(verdict.results + leakage.gates)
    return Trained(booster, onnx, prepared, results, facts, leakage, uncertainty, verdict)
