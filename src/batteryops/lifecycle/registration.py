"""From cycles to a packaged and registered model version, every decision in the ledger."""

import os
import platform
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

import xgboost as xgb

from batteryops import __version__
from batteryops.errors import DataError, PackageError
from batteryops.evaluation.diagnostics import diagnostics_png
from batteryops.evaluation.protocols import CLOCK
from batteryops.features.files import read_feature_table
from batteryops.features.views import get_view, matrix
from batteryops.files import beside
from batteryops.lifecycle.asset_baselines import RESIDUALS
from batteryops.lifecycle.evaluation import algorithm_for
from batteryops.lifecycle.loading import open_registry
from batteryops.lifecycle.preparation import Prepared, prepare, prepare_table
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.report import Page, render
from batteryops.lifecycle.sources import default_source, open_source, source_note
from batteryops.lifecycle.training import CONFIGURED_CHOICE, DIAGNOSED, Choice, Trained, train
from batteryops.models.algorithms import Boosted, get_algorithm
from batteryops.models.manifest import code_version
from batteryops.models.package import ModelPackage, load_package
from batteryops.models.package_writing import write_package
from batteryops.monitoring.error_estimate import ERROR_ESTIMATE
from batteryops.monitoring.production_quality import REPEATING, repeating_features
from batteryops.monitoring.reference import DRIFT_REFERENCE
from batteryops.records.ledger import GATE_VERDICT, MODEL_REGISTERED, Ledger
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
        _check_free(out)  # before minutes of work
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
    progress.step("write the model package")
    draft = settings.packages / f".draft-{secrets.token_hex(8)}"
    try:
        package = _write(trained, settings, draft)
        with Ledger(settings.ledger_url) as ledger:
            ledger.append(
                GATE_VERDICT,
                f"package {package.fingerprint}",
                {
                    **trained.verdict.to_json(),
                    "data_fingerprint": trained.prepared.fingerprint,
                    "source": trained.prepared.source,
                },
            )
            progress.step("log the run and register the version")
            registry = open_registry(settings)
            run_id = registry.log_run(
                run_name=f"{trained.prepared.view.name} on {trained.prepared.source}",
                package_folder=draft,
                parameters=_parameters(trained, settings),
                metrics=trained.metrics
                | {"soh_error_pct": trained.results["random"].metrics.soh_error_pct},
                tags={
                    "environment": settings.environment,
                    "algorithm": str(trained.algorithm),
                    "data_set": trained.prepared.source,
                    "git_commit": package.manifest.code.git_commit or "unknown",
                    "data_fingerprint": trained.prepared.fingerprint,
                },
            )
            version = registry.register(
                run_id,
                tags={
                    "gates_passed": str(trained.verdict.passed).lower(),
                    "package_fingerprint": package.fingerprint,
                },
            )
            ledger.append(
                MODEL_REGISTERED,
                f"{settings.registry.model_name}/{version.version}",
                {
                    "run_id": run_id,
                    "package_fingerprint": package.fingerprint,
                    "gates_passed": trained.verdict.passed,
                },
            )
        if out is not None:
            _copy(draft, out)
        folder = out or registry.package_of(version.version, settings.packages)
        return Registered(trained, load_package(folder, verify=False), version)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _check_free(out: Path) -> None:
    if out.exists():
        raise DataError(f"{out} exists already; name a folder that does not")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out.parent} cannot be made: {error.strerror}") from error
    if not os.access(out.parent, os.W_OK):
        raise DataError(f"{out.parent} cannot be written to; name another folder for --out")


def _copy(package: Path, out: Path) -> None:
    """Leave a copy of a package, whole or not at all."""
    try:
        with beside(out) as partial:
            shutil.copytree(package, partial)
            partial.rename(out)
    except OSError as error:
        raise PackageError(
            f"{out} cannot be written: {error.strerror}; the version is registered all the same"
        ) from error


def _write(trained: Trained, settings: Settings, folder: Path) -> ModelPackage:
    prepared = trained.prepared
    assets = prepared.table["asset_id"].unique(maintain_order=True).to_list()
    profiles = {profile.name: profile for profile in map(settings.profile_of, assets)}
    page = Page(
        trained=trained,
        title=f"{settings.registry.model_name}, trained on {prepared.source}",
        subtitle=f"{prepared.view.name} v{prepared.view.version}, {len(assets)} batteries",
        source_note=source_note(prepared.source),
        provenance=provenance(prepared, settings) | {"algorithm": str(trained.algorithm)},
    )
    tournament = {"tournament": trained.tournament.to_json()} if trained.tournament else {}
    residuals = trained.uncertainty.residuals
    learned = {RESIDUALS: residuals.to_json()} if residuals else {}
    if trained.uncertainty.errors:
        learned[ERROR_ESTIMATE] = trained.uncertainty.errors.to_json()
    search = {"search": trained.found.to_json()} if trained.found else {}
    return write_package(
        folder,
        model=trained.model.booster if isinstance(trained.model, Boosted) else trained.model,
        onnx=trained.onnx,
        algorithm=trained.algorithm,
        model_name=settings.registry.model_name,
        view=prepared.view,
        profiles=list(profiles.values()),
        parameters=settings.training.parameters,
        seed=settings.training.seed,
        features=matrix(prepared.view, prepared.table),
        training_assets=assets,
        data_fingerprint=prepared.fingerprint,
        domain=trained.uncertainty.domain,
        intervals=trained.uncertainty.intervals,
        documents={
            "gates": trained.verdict.to_json(),
            "metrics": {name: result.to_json() for name, result in trained.results.items()}
            | {"training": dict(trained.facts)},
            "quality": prepared.report.to_json(),
            "leakage": trained.leakage.to_json(),
            DRIFT_REFERENCE: trained.reference.to_json(),
            REPEATING: [*repeating_features(prepared.table, prepared.view.names)],
            **learned,
            **tournament,
            **search,
        },
        attachments={
            "diagnostics.png": diagnostics_png(trained.results[DIAGNOSED].predictions),
            "report.html": render(page).encode(),
        },
    )


def _parameters(trained: Trained, settings: Settings) -> dict[str, object]:
    """What was fitted, as a run's parameters: searched values by the algorithm they are for."""
    searched = {
        f"{name}.{parameter}": value
        for name, values in trained.algorithm.values.items()
        for parameter, value in values.items()
    }
    shares = {f"share.{name}": share for name, share in trained.algorithm.shares.items()}
    return {**settings.training.parameters, **searched, **shares}


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
