"""The model package on disk: checked before it answers."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import xgboost as xgb
from numpy.typing import ArrayLike, NDArray

from batteryops.errors import DataError, PackageError
from batteryops.features.views import FeatureView, get_view
from batteryops.models.boosting import booster_from_bytes, predict
from batteryops.models.domain import Domain, Position
from batteryops.models.intervals import Intervals
from batteryops.models.manifest import (
    BOOSTER,
    DOMAIN,
    INTERVALS,
    TWIN,
    Manifest,
    json_name,
    read_manifest,
)
from batteryops.models.onnx_twin import OnnxRow

PARITY_AH: Final = 1e-5
"""How far an answer may lie from the recorded one."""


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
        return json.loads(self.read(json_name(name)))

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
        given = hashlib.sha256(content).hexdigest()
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
        folder: where `package_writing.write_package` wrote it, or a copy.
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
