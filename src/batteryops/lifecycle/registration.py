"""From cycles to a packaged and registered model version, every decision in the ledger."""

import platform
from dataclasses import dataclass
from pathlib import Path

import xgboost as xgb

from batteryops import __version__
from batteryops.errors import DataError
from batteryops.evaluation.diagnostics import diagnostics_png
from batteryops.evaluation.protocols import CLOCK
from batteryops.features.files import read_feature_table
from batteryops.features.views import get_view
from batteryops.lifecycle.evaluation import algorithm_for
from batteryops.lifecycle.packaging import Draft, refuse_taken, register_draft
from batteryops.lifecycle.preparation import Prepared, prepare, prepare_table
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.report import Page, render
from batteryops.lifecycle.sources import default_source, open_source, source_note
from batteryops.lifecycle.training import CONFIGURED_CHOICE, DIAGNOSED, Choice, Trained, train
from batteryops.models.algorithms import get_algorithm
from batteryops.models.manifest import code_version
from batteryops.models.package import ModelPackage
from batteryops.registry.mlflow_tracking import ModelVersion
from batteryops.settings import Settings


@dataclass(frozen=True, slots=True)
class Registered:
    """A model on disk and in the registry."""

    trained: Trained
    package: ModelPackage
    version: ModelVersion


def train_and_register(  # noqa: PLR0913 - all by name: what to train on, what, where it goes
    settings: Settings,
    *,
    source: str | None,
    features_file: Path | None,
    out: Path | None,
    progress: Progress,
    choice: Choice = CONFIGURED_CHOICE,
) -> Registered:
    """The whole walk from cycles, or a feature table, to a registered version.

    Args:
        settings: what is fitted, how it is judged, where everything goes.
        source: cycles, as `sources.open_source` takes them; the lake, else the NASA cells.
        features_file: a labelled feature table, instead of cycles.
        out: also leave the package in this folder, which must not exist.
        progress: told what is being done.
        choice: what is fitted; what the configuration has for the view when not said.

    Raises:
        SettingsError: an unknown algorithm.
        DataError: data that cannot be read or may not be used.
        PackageError, RegistryError, RecordsError: a store refuses.
    """
    if features_file is not None and source is not None:
        raise DataError("given both --features and --source; expected one of them")
    if out is not None:
        refuse_taken(out)  # before minutes of work
    view = get_view(settings.training.view)
    for name in (algorithm_for(view, settings, choice.algorithm), *settings.tournament.entrants):
        get_algorithm(name)  # refused before minutes of work
    progress.step("read, check, compute features")
    if features_file is not None:
        table = read_feature_table(features_file, view.names, labelled=True, further=(CLOCK,))
        prepared = prepare_table(table, view, settings, source=str(features_file))
    else:
        recording = open_source(source or default_source(settings), settings, kinds=view.kinds)
        prepared = prepare(recording, view, settings)
    trained = train(prepared, settings, progress, choice)
    return register(trained, settings, out=out, progress=progress)


def register(
    trained: Trained, settings: Settings, *, out: Path | None, progress: Progress
) -> Registered:
    """Write the package, log the run, register the version, and put both on the ledger.

    A model that failed a gate is registered too, as a candidate that cannot be promoted: what was
    tried is worth knowing. The verdict is on the ledger before the version exists; a process that
    is killed in between leaves a verdict without a version, and nothing in service.

    Args:
        trained: what to write.
        settings: where it goes.
        out: also leave the package here.
        progress: told what is being done.

    Raises:
        PackageError: the package cannot be written, or does not answer as the model does.
        RegistryError, RecordsError: a store refuses.
    """
    written = register_draft(_draft(trained, settings), settings, progress=progress, out=out)
    return Registered(trained, written.package, written.version)


def _draft(trained: Trained, settings: Settings) -> Draft:
    prepared = trained.prepared
    page = Page(
        trained=trained,
        title=f"{settings.registry.model_name}, trained on {prepared.source}",
        subtitle=(
            f"{prepared.view.name} v{prepared.view.version}, "
            f"{prepared.table['asset_id'].n_unique()} batteries"
        ),
        source_note=source_note(prepared.source),
        provenance=provenance(prepared, settings) | {"algorithm": str(trained.algorithm)},
    )
    tournament = {"tournament": trained.tournament.to_json()} if trained.tournament else {}
    search = {"search": trained.found.to_json()} if trained.found else {}
    return Draft(
        table=prepared.table,
        view=prepared.view,
        source=prepared.source,
        model=trained.model,
        onnx=trained.onnx,
        algorithm=trained.algorithm,
        uncertainty=trained.uncertainty,
        reference=trained.reference,
        verdict=trained.verdict,
        documents={
            "metrics": {name: result.to_json() for name, result in trained.results.items()}
            | {"training": dict(trained.facts)},
            "quality": prepared.report.to_json(),
            "leakage": trained.leakage.to_json(),
            **tournament,
            **search,
        },
        attachments={
            "diagnostics.png": diagnostics_png(trained.results[DIAGNOSED].predictions),
            "report.html": render(page).encode(),
        },
        run_name=f"{prepared.view.name} on {prepared.source}",
        parameters=_searched(trained),
        metrics=trained.metrics
        | {"soh_error_pct": trained.results["random"].metrics.soh_error_pct},
    )


def _searched(trained: Trained) -> dict[str, object]:
    """What was found, as a run's parameters: values by the algorithm they are for, and shares."""
    searched = {
        f"{name}.{parameter}": value
        for name, values in trained.algorithm.values.items()
        for parameter, value in values.items()
    }
    shares = {f"share.{name}": share for name, share in trained.algorithm.shares.items()}
    return {**searched, **shares}


def provenance(prepared: Prepared, settings: Settings) -> dict[str, str]:
    """What one needs to make the same model again, for people."""
    code = code_version(xgb.__version__)
    parameters = settings.training.parameters
    return {
        "source": prepared.source,
        "data fingerprint": prepared.fingerprint,
        "view": f"{prepared.view.name} v{prepared.view.version}, {prepared.view.schema_hash}",
        "XGBoost's parameters": ", ".join(f"{name} {value}" for name, value in parameters.items()),
        "seed": str(settings.training.seed),
        "git commit": code.git_commit or "unknown",
        "batteryops": __version__,
        "python": platform.python_version(),
    }
