"""The model package on disk: written whole or not at all, and checked before it answers."""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import xgboost as xgb
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from batteryops.errors import DataError, PackageError
from batteryops.features.views import FeatureView, get_view
from batteryops.models.boosting import Parameters, as_matrix, booster_from_bytes, predict
from batteryops.models.domain import Domain, Position
from batteryops.models.intervals import Intervals
from batteryops.models.manifest import (
    BOOSTER,
    DOMAIN,
    FORMAT_VERSION,
    INTERVALS,
    MANIFEST,
    TWIN,
    ChosenAlgorithm,
    CodeVersion,
    Manifest,
    RecordedSample,
    code_version,
    read_manifest,
)
from batteryops.models.onnx_twin import OnnxRow
from batteryops.schema import Profile

__all__ = [
    "PARITY_AH",
    "ChosenAlgorithm",
    "CodeVersion",
    "Estimate",
    "Manifest",
    "ModelPackage",
    "RecordedSample",
    "load_package",
    "read_manifest",
    "write_package",
]

PARITY_AH: Final = 1e-5
"""How far an answer may lie from the recorded one."""

_RECORDED_ROWS: Final = 16

Answering = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""A fitted model: answers rows (n, k), NaN where missing, with capacities (n,) in Ah."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a model says of one row, and how far it is to be believed.

    Args:
        capacity_ah: predicted, Ah. Where the row is outside of the training domain it is what the
            model happens to say, and must not be relied on.
        low_ah: lower end of the interval, Ah.
        high_ah: upper end, Ah. Outside of the training domain the interval is all that the asset's
            profile allows: nothing more is known.
        position: where the row lies relative to the training rows.
    """

    capacity_ah: float
    low_ah: float
    high_ah: float
    position: Position


class ModelPackage:
    """A model package whose view can be computed here; `load_package` yields it.

    Model files and documents are read when they are first needed, and their SHA-256 is compared
    with the manifest's each time.

    Args:
        folder: where it lies.
        manifest: read from it.
        view: the feature view whose features the model takes.
    """

    def __init__(self, folder: Path, manifest: Manifest, view: FeatureView) -> None:
        self.folder = folder
        self.manifest = manifest
        self.view = view

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical manifest, 64 hex digits."""
        return self.manifest.fingerprint

    def predict_one(self, row: NDArray[np.float32]) -> float:
        """Predicted capacity in Ah of one row (k,), by ONNX Runtime; NaN where missing.

        Raises:
            DataError: when the row is not (k,).
        """
        return self._row(row)

    def predict_batch(self, features: ArrayLike) -> NDArray[np.float64]:
        """Predicted capacities in Ah, (n,), of rows (n, k); NaN where missing.

        A booster's by XGBoost, all others by ONNX Runtime.

        Raises:
            DataError: when the features are not (n, k) numbers.
        """
        if self.manifest.booster:
            return predict(self.booster, features)
        return self._row.batch(features)

    def estimate(self, row: NDArray[np.float32], range_ah: tuple[float, float]) -> Estimate:
        """Capacity, interval and training domain of one row (k,); NaN where missing.

        Args:
            row: features in the order of the view.
            range_ah: least and largest capacity that the asset can have, Ah.

        Raises:
            DataError: when the row is not (k,).
        """
        return self._estimate(self.predict_one(row), self.domain.look(row), range_ah)

    def estimate_batch(
        self, features: ArrayLike, ranges_ah: Iterable[tuple[float, float]]
    ) -> list[Estimate]:
        """The same for rows (n, k), as `predict_batch` answers them, with one range per row."""
        return list(
            map(
                self._estimate,
                self.predict_batch(features).tolist(),
                self.domain.look_all(features),
                ranges_ah,
            )
        )

    def _estimate(
        self, capacity_ah: float, position: Position, range_ah: tuple[float, float]
    ) -> Estimate:
        low_ah, high_ah = (
            self.intervals.around(capacity_ah, position.distance, range_ah)
            if position.inside
            else range_ah
        )
        return Estimate(capacity_ah, low_ah, high_ah, position)

    @cached_property
    def domain(self) -> Domain:
        """What training covered."""
        return Domain.from_json(self.document(DOMAIN))

    @cached_property
    def intervals(self) -> Intervals:
        """How wide prediction intervals are."""
        return Intervals.from_json(self.document(INTERVALS))

    @cached_property
    def booster(self) -> xgb.Booster:
        """The booster itself, to explain or to continue; a copy is advised for the latter.

        Raises:
            PackageError: when the package's model is not one booster, or the file was changed.
        """
        if not self.manifest.booster:
            raise PackageError(
                f"package {self.folder} answers by {self.manifest.algorithm}, which is not one "
                "XGBoost booster; this needs one: `batteryops train` without --algorithm and "
                "--tournament makes it"
            )
        return booster_from_bytes(
            self.read(BOOSTER), self.manifest.feature_names, what=f"{self.folder / BOOSTER}"
        )

    @cached_property
    def _row(self) -> OnnxRow:
        return OnnxRow(self.read(TWIN))

    def document(self, name: str) -> Any:  # noqa: ANN401 - JSON is what it is
        """A JSON document of the package, by the name it was written under, `gates` say.

        Raises:
            PackageError: when the package has none of that name, or it was changed.
        """
        return json.loads(self.read(_json_name(name)))

    def read(self, name: str) -> bytes:
        """Content of a file of the package.

        Raises:
            PackageError: when the manifest does not list it, it is missing, or it was changed.
        """
        expected = self.manifest.files.get(name)
        if expected is None:
            raise PackageError(
                f"package {self.folder} holds no {name}; it holds "
                f"{', '.join(sorted(self.manifest.files))}"
            )
        try:
            content = (self.folder / name).read_bytes()
        except OSError as error:
            raise PackageError(
                f"package {self.folder} lacks {name} ({error.strerror}), which its manifest "
                "lists; fetch the package from the registry again"
            ) from error
        given = _sha256(content)
        if given != expected:
            raise PackageError(
                f"package {self.folder}: {name} has SHA-256 {given}, its manifest says {expected}; "
                "it was changed after it was written: fetch the package from the registry again"
            )
        return content

    def verify(self) -> None:
        """Check every file, and that the model still answers as it did when new.

        Raises:
            PackageError: naming the file or the answer that differs.
        """
        for name in self.manifest.files:
            self.read(name)
        if self.domain.names != self.manifest.feature_names:
            raise PackageError(
                f"package {self.folder}: {DOMAIN} is of features {', '.join(self.domain.names)}, "
                f"expected {', '.join(self.manifest.feature_names)}: train again"
            )
        _ = self.intervals  # can be read
        recorded = self.manifest.recorded
        rows = np.array(recorded.rows, dtype=np.float32)  # None becomes NaN
        answers = (
            (BOOSTER if self.manifest.booster else TWIN, self.predict_batch(rows)),
            (TWIN, np.array([self.predict_one(row) for row in rows])),
        )
        for name, given in answers:
            # written so that NaN counts as a difference
            off = ~(np.abs(given - np.array(recorded.outputs_ah)) <= PARITY_AH)
            if off.any():
                row = int(off.argmax())
                raise PackageError(
                    f"package {self.folder}: {name} answers {given[row]:.6f} Ah to recorded row "
                    f"{row}, expected {recorded.outputs_ah[row]:.6f} Ah within {PARITY_AH:g}; it "
                    "was written with other libraries "
                    f"({', '.join(f'{n} {v}' for n, v in self.manifest.code.libraries.items())}) "
                    "or is not one model: train again"
                )


def load_package(folder: Path, *, verify: bool = True) -> ModelPackage:
    """Open a model package.

    Args:
        folder: where `write_package` wrote it, or a copy.
        verify: also read every file and repeat the recorded answers, so that a package that
            loads is one that answers. Without, each file is checked when it is first used.

    Raises:
        PackageError: when it is no package, of another format, incomplete or changed; when its
            view does not exist here with the same schema hash; when it answers differently.
    """
    manifest = read_manifest(folder)
    package = ModelPackage(folder, manifest, _view(folder, manifest))
    if verify:
        package.verify()
    return package


def _view(folder: Path, manifest: Manifest) -> FeatureView:
    try:
        view = get_view(manifest.view)
    except DataError as error:
        raise PackageError(
            f"package {folder} needs feature view {manifest.view!r} version "
            f"{manifest.view_version}: {error}; load it with the batteryops that wrote it, "
            f"{manifest.code.package_version}, or train again"
        ) from error
    if view.schema_hash != manifest.schema_hash:
        raise PackageError(
            f"package {folder} was fitted on view {manifest.view} version {manifest.view_version} "
            f"with schema hash {manifest.schema_hash}; here it is version {view.version} with "
            f"{view.schema_hash}, which computes other features: train again"
        )
    if view.names != manifest.feature_names:
        raise PackageError(
            f"package {folder} names features {', '.join(manifest.feature_names)}; view "
            f"{view.name} has {', '.join(view.names)}: train again"
        )
    return view


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
        domain: what the training rows cover, from `domain.fit_domain`.
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
    for name in told.keys() & set(map(_json_name, documents or {})):
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
                "files": {name: _sha256(content) for name, content in contents.items()},
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
        _add(contents, _json_name(name), (text + "\n").encode())
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
    partial = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.partial"
    try:
        partial.mkdir(parents=True)
        for name, content in contents.items():
            (partial / name).write_bytes(content)
        load_package(partial)
        partial.rename(folder)  # fails when another writer was faster
    except OSError as error:
        raise PackageError(f"{folder} cannot be written: {error.strerror}") from error
    except PackageError as error:
        raise PackageError(str(error).replace(str(partial), str(folder))) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _json_name(name: str) -> str:
    return name if name.endswith(".json") else f"{name}.json"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
