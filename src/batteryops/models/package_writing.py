"""Write a model package: whole or not at all."""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import xgboost as xgb
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from batteryops.errors import PackageError
from batteryops.features.views import FeatureView
from batteryops.files import beside
from batteryops.models.boosting import Parameters, as_matrix, predict
from batteryops.models.domain import Domain
from batteryops.models.intervals import Intervals
from batteryops.models.manifest import (
    BOOSTER,
    DOMAIN,
    FORMAT_VERSION,
    INTERVALS,
    MANIFEST,
    TWIN,
    ChosenAlgorithm,
    Manifest,
    code_version,
    json_name,
)
from batteryops.models.package import ModelPackage, load_package
from batteryops.schema import Profile

Answering = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""A fitted model: answers rows (n, k), NaN where missing, with capacities (n,) in Ah."""

_RECORDED_ROWS: Final = 16


def write_package(  # noqa: PLR0913 - one argument per fact that the manifest must state
    folder: Path,
    *,
    model: xgb.Booster | Answering,
    onnx: bytes,
    algorithm: ChosenAlgorithm,
    model_name: str,
    view: FeatureView,
    profiles: Collection[Profile],
    parameters: Parameters,
    seed: int,
    features: ArrayLike,
    training_assets: Collection[str],
    data_fingerprint: str,
    domain: Domain,
    intervals: Intervals,
    documents: Mapping[str, Any] | None = None,
    attachments: Mapping[str, Path | bytes] | None = None,
    created_at: datetime | None = None,
) -> ModelPackage:
    """Write a model package into a folder that does not exist yet, and load it back.

    Everything is written and verified in a hidden folder beside it, which then takes the name:
    whoever sees the folder sees a whole package, also when the writer is killed.

    Args:
        folder: the package; its parents are made.
        model: a booster, which goes into the package, or anything else that was fitted on the
            view's features: then its twin is all that answers.
        onnx: its twin, from `onnx_twin.to_onnx` or `algorithm_onnx.to_onnx_any`.
        algorithm: which one answers.
        model_name: the registered model it is meant for.
        view: what the features are.
        profiles: those of the training assets, all cells or all packs.
        parameters: XGBoost's, as configured.
        seed: of whatever was random in the fit.
        features: (n, k) the model was fitted on; some rows are recorded with their answers.
        training_assets: whose cycles these are.
        data_fingerprint: `schema.fingerprint` of the training table.
        domain: what the training rows cover, from `domain_fit.fit_domain`.
        intervals: from `intervals.calibrate`.
        documents: JSON documents by name, with or without `.json` (`gates`, `metrics`).
        attachments: further files by name, as a path to copy or as content.
        created_at: now, when None.

    Raises:
        PackageError: when the folder exists or cannot be written, a document is not JSON, or
            model, twin and view do not belong together.
    """
    if os.path.lexists(folder):
        raise PackageError(f"{folder} exists already; name a folder that does not")
    matrix = as_matrix(features, len(view.names))
    chosen = np.unique(np.linspace(0, len(matrix) - 1, _RECORDED_ROWS).astype(int))
    recorded = matrix[chosen] if len(matrix) else matrix
    told = {DOMAIN: domain.to_json(), INTERVALS: intervals.to_json()}
    for name in told.keys() & set(map(json_name, documents or {})):
        raise PackageError(f"a package has one {name}; give the document another name")
    booster = model if isinstance(model, xgb.Booster) else None
    answers = predict(booster, recorded) if booster is not None else model(recorded)
    contents = _contents(booster, onnx, {**told, **(documents or {})}, attachments or {})
    levels = {profile.level for profile in profiles}
    try:
        manifest = Manifest.model_validate(
            {
                "format_version": FORMAT_VERSION,
                "model_name": model_name,
                "view": view.name,
                "view_version": view.version,
                "schema_hash": view.schema_hash,
                "feature_names": view.names,
                "level": levels.pop() if len(levels) == 1 else sorted(levels),
                "nominal_capacities_ah": {
                    profile.name: profile.nominal_capacity_ah for profile in profiles
                },
                "algorithm": algorithm,
                "booster": booster is not None,
                "parameters": dict(parameters),
                "seed": seed,
                "created_at": (created_at or datetime.now(UTC)).astimezone(UTC),
                "training_rows": len(matrix),
                "training_assets": sorted(set(training_assets)),
                "data_fingerprint": data_fingerprint,
                "code": code_version(xgb.__version__),
                "recorded": {
                    "rows": [
                        [None if np.isnan(value) else float(value) for value in row]
                        for row in recorded
                    ],
                    "outputs_ah": answers.tolist(),
                },
                "files": {
                    name: hashlib.sha256(content).hexdigest() for name, content in contents.items()
                },
            }
        )
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'manifest'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise PackageError(f"{folder} cannot be written: {problems}") from error
    _write_whole(folder, contents | {MANIFEST: manifest.to_text().encode()})
    return load_package(folder, verify=False)  # verified before it took its name


def _contents(
    booster: xgb.Booster | None,
    onnx: bytes,
    documents: Mapping[str, Any],
    attachments: Mapping[str, Path | bytes],
) -> dict[str, bytes]:
    contents = {TWIN: onnx}
    if booster is not None:
        contents[BOOSTER] = bytes(booster.save_raw("ubj"))
    for name, document in documents.items():
        try:
            text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise PackageError(
                f"document {name} is not JSON: {error}; give numbers, text, lists and mappings, "
                "and null where a number is not known"
            ) from error
        _add(contents, json_name(name), (text + "\n").encode())
    for name, attachment in attachments.items():
        if isinstance(attachment, bytes):
            _add(contents, name, attachment)
            continue
        try:
            _add(contents, name, attachment.read_bytes())
        except OSError as error:
            raise PackageError(
                f"attachment {name} cannot be read from {attachment}: {error.strerror}"
            ) from error
    return contents


def _add(contents: dict[str, bytes], name: str, content: bytes) -> None:
    if name in contents or name == MANIFEST:
        raise PackageError(f"a package has one {name}; give the document another name")
    contents[name] = content


def _write_whole(folder: Path, contents: Mapping[str, bytes]) -> None:
    try:
        with beside(folder) as partial:
            partial.mkdir(parents=True)
            for name, content in contents.items():
                (partial / name).write_bytes(content)
            load_package(partial)
            partial.rename(folder)  # fails when another writer was faster
    except OSError as error:
        raise PackageError(f"{folder} cannot be written: {error.strerror}") from error
    except PackageError as error:
        raise PackageError(str(error).replace(str(partial), str(folder))) from error
