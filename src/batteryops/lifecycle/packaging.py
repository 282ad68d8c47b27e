"""The one way from a fitted model to a registered version, whatever brought the model about.

In this order, so that a process which is killed in between leaves nothing half made in service: the
rows it learned from are kept, the package is written, the verdict is on the ledger, the run is
logged, the version is registered, and that is on the ledger too.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import polars as pl

from batteryops.errors import DataError, PackageError
from batteryops.evaluation.gates import Verdict
from batteryops.features.views import FeatureView, matrix
from batteryops.files import beside, write_table
from batteryops.lifecycle.asset_baselines import RESIDUALS
from batteryops.lifecycle.loading import open_registry
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.promotion import RECOVERED, unrecorded
from batteryops.lifecycle.training_rows import keep_rows
from batteryops.lifecycle.uncertainty import Uncertainty
from batteryops.models.algorithms import Boosted, Predict
from batteryops.models.manifest import ChosenAlgorithm
from batteryops.models.package import ModelPackage, load_package
from batteryops.models.package_writing import write_package
from batteryops.monitoring.error_estimate import ERROR_ESTIMATE
from batteryops.monitoring.production_quality import REPEATING, repeating_features
from batteryops.monitoring.reference import DRIFT_REFERENCE, Reference
from batteryops.records.ledger import GATE_VERDICT, MODEL_REGISTERED, Ledger
from batteryops.registry.mlflow_tracking import ModelVersion
from batteryops.registry.package_cache import folder_of
from batteryops.settings import Settings

RETRAINING_TAG: Final = "retraining_run"
"""Tag of a run and of its version: the retraining that made them."""


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """All that a version is made of; nothing is written yet.

    Args:
        table: the rows that it learned from: `asset_id`, `op_index`, the features, `capacity_ah`.
        view: what the features are.
        source: where the rows came from, in words.
        model: fitted.
        onnx: its ONNX twin, serialised.
        algorithm: what it is.
        uncertainty: prediction intervals, training domain, residuals of unseen assets.
        reference: what drift is measured against.
        verdict: what the gates said.
        documents: JSON documents of the package, besides those that every package has.
        attachments: its other files, by name.
        run_name: of the run, for people.
        parameters: of the run, besides XGBoost's.
        metrics: of the run.
        noted: beside the verdict on the ledger.
        retraining_run: that this is for, which its run and version are tagged with; None for none.
        tables: further files of the run, CSV, by name.
    """

    table: pl.DataFrame
    view: FeatureView
    source: str
    model: Predict
    onnx: bytes
    algorithm: ChosenAlgorithm
    uncertainty: Uncertainty
    reference: Reference
    verdict: Verdict
    documents: Mapping[str, Any]
    attachments: Mapping[str, bytes]
    run_name: str
    metrics: Mapping[str, float]
    parameters: Mapping[str, object] = field(default_factory=dict)
    noted: Mapping[str, Any] = field(default_factory=dict)
    retraining_run: str | None = None
    tables: Mapping[str, pl.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RegisteredPackage:
    """A package on disk, and its version in the registry."""

    package: ModelPackage
    version: ModelVersion


def register_draft(
    draft: Draft, settings: Settings, *, progress: Progress, out: Path | None = None
) -> RegisteredPackage:
    """Write the package, log the run, register the version, and put both on the ledger.

    A model that failed a gate is registered too, as a candidate that cannot be promoted: what was
    tried is worth knowing. The verdict is on the ledger before the version exists; a process that
    is killed in between leaves a verdict without a version, and nothing in service.

    Args:
        draft: what to write.
        settings: where it goes.
        progress: told what is being done.
        out: also leave the package here.

    Raises:
        DataError: the rows cannot be kept.
        PackageError: the package cannot be written, or does not answer as the model does.
        RegistryError, RecordsError: a store refuses.
    """
    progress.step("write the model package")
    run = draft.retraining_run
    fingerprint = keep_rows(draft.table, settings, partial=_partial_name(run) if run else None)
    with _folder(draft, settings) as folder:
        package = _write(draft, settings, folder, fingerprint)
        with Ledger(settings.ledger_url) as ledger:
            ledger.append(
                GATE_VERDICT,
                f"package {package.fingerprint}",
                {
                    **draft.verdict.to_json(),
                    "data_fingerprint": fingerprint,
                    "source": draft.source,
                    **draft.noted,
                },
            )
            progress.step("log the run and register the version")
            version = _register(draft, settings, package)
            _note_registration(ledger, version, package, draft.verdict, settings)
        if out is not None:
            _copy(folder, out)
        kept = out or open_registry(settings).package_of(version.version, settings.packages)
        return RegisteredPackage(load_package(kept, verify=False), version)


def find_registered(retraining_run: str, settings: Settings) -> ModelVersion | None:
    """The version that a retraining registered, None when it has not.

    Where the process was killed before the registration was on the ledger, it is written now.

    Raises:
        RegistryError, RecordsError: a store is out of reach.
    """
    registry = open_registry(settings)
    found = registry.tagged(RETRAINING_TAG, retraining_run)
    if not found:
        return None
    version = found[-1]
    with Ledger(settings.ledger_url) as ledger:
        if unrecorded([version], settings, ledger):
            package = load_package(registry.package_of(version.version, settings.packages))
            verdict = Verdict.from_json(package.document("gates"))
            _note_registration(ledger, version, package, verdict, settings, recovered=RECOVERED)
    return version


def discard_left(
    retraining_run: str, settings: Settings, version: ModelVersion | None = None
) -> None:
    """Remove what a killed process left of files that it was writing for a retraining.

    Args:
        retraining_run: its identifier; nobody else is at work for it.
        settings: where packages and rows are.
        version: that it registered, and that stands in no service yet; None where there is none.
    """
    packages, draft = settings.packages, _draft_name(retraining_run)
    left = [packages / draft, settings.training_rows / _partial_name(retraining_run)]
    left += packages.glob(f".{draft}.*.partial")
    if version is not None and version.package_fingerprint is not None:
        name = settings.registry.model_name
        kept = folder_of(packages, name, version.version, version.package_fingerprint)
        left += packages.glob(f".{kept.name}.*.partial")
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):  # it was a folder, or nothing can be done about it
            path.unlink()


def refuse_taken(out: Path) -> None:
    """Refuse a folder for a package before minutes of work.

    Raises:
        DataError: it exists, or its parent cannot be written to.
    """
    if out.exists():
        raise DataError(f"{out} exists already; name a folder that does not")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out.parent} cannot be made: {error.strerror}") from error
    if not os.access(out.parent, os.W_OK):
        raise DataError(f"{out.parent} cannot be written to; name another folder for --out")


@contextmanager
def _folder(draft: Draft, settings: Settings) -> Iterator[Path]:
    """Name a folder to write the package to; a retraining that is repeated has the same one."""
    folder = settings.packages / _draft_name(draft.retraining_run or secrets.token_hex(8))
    shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _draft_name(of: str) -> str:
    return f".draft-{of}"


def _partial_name(retraining_run: str) -> str:
    """Of the file that rows are written to first: known to whoever comes after a kill."""
    return f".{retraining_run}.partial"


def _write(draft: Draft, settings: Settings, folder: Path, fingerprint: str) -> ModelPackage:
    assets = draft.table["asset_id"].unique(maintain_order=True).to_list()
    profiles = {profile.name: profile for profile in map(settings.profile_of, assets)}
    learned: dict[str, Any] = {}
    if draft.uncertainty.residuals:
        learned[RESIDUALS] = draft.uncertainty.residuals.to_json()
    if draft.uncertainty.errors:
        learned[ERROR_ESTIMATE] = draft.uncertainty.errors.to_json()
    return write_package(
        folder,
        model=draft.model.booster if isinstance(draft.model, Boosted) else draft.model,
        onnx=draft.onnx,
        algorithm=draft.algorithm,
        model_name=settings.registry.model_name,
        view=draft.view,
        profiles=list(profiles.values()),
        parameters=settings.training.parameters,
        seed=settings.training.seed,
        features=matrix(draft.view, draft.table),
        training_assets=assets,
        data_fingerprint=fingerprint,
        domain=draft.uncertainty.domain,
        intervals=draft.uncertainty.intervals,
        documents={
            "gates": draft.verdict.to_json(),
            DRIFT_REFERENCE: draft.reference.to_json(),
            REPEATING: [*repeating_features(draft.table, draft.view.names)],
            **learned,
            **draft.documents,
        },
        attachments=draft.attachments,
    )


def _register(draft: Draft, settings: Settings, package: ModelPackage) -> ModelVersion:
    registry = open_registry(settings)
    retraining = {RETRAINING_TAG: draft.retraining_run} if draft.retraining_run else {}
    with _as_files(draft.tables) as files:
        run_id = registry.log_run(
            run_name=draft.run_name,
            package_folder=package.folder,
            parameters={**settings.training.parameters, **draft.parameters},
            metrics=draft.metrics,
            tags={
                "environment": settings.environment,
                "algorithm": str(draft.algorithm),
                "data_set": draft.source,
                "git_commit": package.manifest.code.git_commit or "unknown",
                "data_fingerprint": package.manifest.data_fingerprint,
                **retraining,
            },
            artifacts=files,
        )
    return registry.register(
        run_id,
        tags={
            "gates_passed": str(draft.verdict.passed).lower(),
            "package_fingerprint": package.fingerprint,
            **retraining,
        },
    )


@contextmanager
def _as_files(tables: Mapping[str, pl.DataFrame]) -> Iterator[Sequence[Path]]:
    """The tables as CSV files, for as long as they are needed."""
    with tempfile.TemporaryDirectory(prefix="batteryops-") as folder:
        files = [Path(folder) / f"{name}.csv" for name in tables]
        for file, table in zip(files, tables.values(), strict=True):
            write_table(table, file)
        yield files


def _note_registration(
    ledger: Ledger,
    version: ModelVersion,
    package: ModelPackage,
    verdict: Verdict,
    settings: Settings,
    **noted: str,
) -> None:
    ledger.append(
        MODEL_REGISTERED,
        f"{settings.registry.model_name}/{version.version}",
        {
            "run_id": version.run_id,
            "package_fingerprint": package.fingerprint,
            "gates_passed": verdict.passed,
            **noted,
        },
    )


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
