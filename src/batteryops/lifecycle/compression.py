"""What a smaller model costs and buys: accuracy, size and speed of each way to compress one."""

import gzip
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.evaluation.metrics import Interval, Predictions, intervals
from batteryops.evaluation.owners import Owners
from batteryops.evaluation.protocol_run import Fit, ProtocolResult, evaluate_protocol
from batteryops.evaluation.protocols import PROTOCOLS
from batteryops.features.files import read_feature_table
from batteryops.features.views import get_view, matrix
from batteryops.lifecycle.evaluation import nominal_capacities
from batteryops.lifecycle.preparation import Prepared, prepare, prepare_table
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.sources import default_source, open_source
from batteryops.lifecycle.speed import Speed, measure_speeds
from batteryops.models.compact_trees import pack
from batteryops.models.compression import Shape, Slim, half_leaf_bound_ah, shape_of
from batteryops.models.compression_variants import VARIANTS, Fits, Variant
from batteryops.models.onnx_twin import max_difference_ah, to_onnx
from batteryops.schema import LABEL
from batteryops.settings import Settings

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]

COMPARED: Final = ("random", "unseen_assets")
"""Protocols that are run when none is named."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of the files of one model.

    Args:
        booster: XGBoost's own file, UBJ.
        booster_gzip: the same, compressed by gzip at its highest level.
        onnx: the ONNX twin.
        onnx_gzip: compressed.
        compact: `batteryops.models.compact_trees`, which keeps what prediction needs.
        compact_gzip: compressed.
    """

    booster: int
    booster_gzip: int
    onnx: int
    onnx_gzip: int
    compact: int
    compact_gzip: int


@dataclass(frozen=True, slots=True)
class Change:
    """How much larger the mean absolute error is than the full model's, on the same cycles.

    Args:
        mae_ah: difference of both, Ah; negative where the variant does better.
        interval: of it, by bootstrap over assets; nothing is shown to differ when 0 is inside.
    """

    mae_ah: float
    interval: Interval

    def to_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`."""
        return {"mae_ah": self.mae_ah, "interval": self.interval.to_json()}


@dataclass(frozen=True, slots=True)
class Scored:
    """How good a variant is under one protocol.

    Args:
        result: of models fitted on the protocol's training rows.
        change: of the error, against the full model; None for that itself.
        chosen: in how many folds each feature was fitted on, the most frequent first.
    """

    result: ProtocolResult
    change: Change | None
    chosen: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Everything but predictions, ready for `json.dumps`."""
        return self.result.to_json() | {
            "change": self.change.to_json() if self.change else None,
            "chosen_in_folds": dict(self.chosen),
        }


@dataclass(frozen=True, slots=True)
class Compressed:
    """One variant, and what was measured.

    Args:
        variant: which.
        evaluated: by protocol.
        shape: of the model fitted on all rows.
        features: names that this model takes.
        sizes: of its files.
        speed: of its answers.
        twin_difference_ah: largest difference between booster and ONNX twin on all rows.
        rounding_ah: how far float16 leaves moved a prediction on all rows; 0 without them.
        rounding_bound_ah: how far they can move any; 0 without them.
    """

    variant: Variant
    evaluated: Mapping[str, Scored]
    shape: Shape
    features: tuple[str, ...]
    sizes: Sizes
    speed: Speed
    twin_difference_ah: float
    rounding_ah: float
    rounding_bound_ah: float

    def to_json(self) -> dict[str, Any]:
        """Everything but predictions, ready for `json.dumps`."""
        return {
            "variant": self.variant.name,
            "protocols": {name: found.to_json() for name, found in self.evaluated.items()},
            "features": list(self.features),
            "shape": asdict(self.shape),
            "bytes": asdict(self.sizes),
            "speed": asdict(self.speed),
            "onnx_max_difference_ah": self.twin_difference_ah,
            "rounding_ah": self.rounding_ah,
            "rounding_bound_ah": self.rounding_bound_ah,
        }


@dataclass(frozen=True, slots=True)
class Compression:
    """All variants, measured on the same rows in one run."""

    prepared: Prepared
    variants: tuple[Compressed, ...]

    def to_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`."""
        return {
            "source": self.prepared.source,
            "view": self.prepared.view.name,
            "view_version": self.prepared.view.version,
            "data_fingerprint": self.prepared.fingerprint,
            "rows": self.prepared.table.height,
            "set_aside": self.prepared.set_aside.height,
            "variants": [variant.to_json() for variant in self.variants],
        }


def compress_source(  # noqa: PLR0913 - all by name: what to compress, and how to judge it
    settings: Settings,
    *,
    features_file: Path | None,
    source: str | None,
    view: str | None,
    protocols: Sequence[str],
    progress: Progress,
) -> Compression:
    """Compress the configured model every way and measure what each costs and buys.

    Args:
        settings: parameters, seed, groups, shares.
        features_file: a labelled feature table; rows that may not train are set aside.
        source: cycles, when no table is given; the lake, else the NASA cells.
        view: the feature view; the configured one when None.
        protocols: names of protocols, or `all`; `COMPARED` when empty.
        progress: told what is being done.

    Raises:
        DataError: both or neither can be used, a protocol is unknown, too few rows or assets.
        UnknownAssetError: an asset without a profile.
    """
    if strange := [name for name in protocols if name not in {*PROTOCOLS, "all"}]:
        raise DataError(f"protocol {strange[0]!r}; expected one of {', '.join(PROTOCOLS)}, or all")
    wanted = PROTOCOLS if "all" in protocols else tuple(dict.fromkeys(protocols or COMPARED))
    if features_file is not None and source is not None:
        raise DataError("given both --features and --source; expected one of them")
    chosen = get_view(view or settings.training.view)
    progress.step("read, check, compute features")
    if features_file is not None:
        table = read_feature_table(features_file, chosen.names, labelled=True)
        prepared = prepare_table(table, chosen, settings, source=str(features_file))
    else:
        recording = open_source(source or default_source(settings), settings, kinds=chosen.kinds)
        prepared = prepare(recording, chosen, settings)
    return compress(prepared, settings, wanted, progress)


def compress(
    prepared: Prepared, settings: Settings, protocols: Iterable[str], progress: Progress
) -> Compression:
    """Measure every variant on rows that may train.

    Sizes and speeds are those of models fitted on all rows.

    Args:
        prepared: the rows, and the view.
        settings: parameters, seed, groups, shares.
        protocols: names of protocols.
        progress: told what is being done.

    Raises:
        DataError: too few rows or assets for a protocol.
        PackageError: a model cannot be compressed.
    """
    evaluated = {
        protocol: evaluate_variants(prepared, settings, protocol, progress)
        for protocol in protocols
    }
    table = prepared.table
    progress.step(f"fit every variant on {table.height} rows, convert to ONNX")
    features = matrix(prepared.view, table)
    models = _fits(prepared, settings).every(features, table[LABEL].to_numpy())
    twins: dict[Variant, bytes] = {}
    for variant, model in models.items():
        twins[variant] = to_onnx(model.booster, len(model.names))
        progress.within(len(twins), len(models))
    progress.step("time single rows and batches, in turns")
    speeds = measure_speeds(models, twins, features, progress.within)
    progress.step("weigh files, compare twins")
    compressed = []
    for variant in VARIANTS:
        compressed.append(
            _compressed(
                variant,
                models,
                twins[variant],
                features,
                evaluated={name: found[variant] for name, found in evaluated.items()},
                speed=speeds[variant],
            )
        )
        progress.within(len(compressed), len(VARIANTS))
    return Compression(prepared, tuple(compressed))


def evaluate_variants(
    prepared: Prepared, settings: Settings, protocol: str, progress: Progress
) -> dict[Variant, Scored]:
    """Run one protocol with every variant.

    In each fold the five features are chosen by the full model of that fold's training rows; the
    rows that test it have no say.

    Args:
        prepared: the rows, and the view.
        settings: parameters, seed, groups, shares.
        protocol: its name.
        progress: told how many folds are done.

    Raises:
        DataError: too few rows or assets for the protocol.
        PackageError: a model cannot be compressed.
    """
    progress.step(f"fit every variant under {protocol}")
    table, training = prepared.table, settings.training
    answers = _Answers(_fits(prepared, settings))
    nominal_ah = nominal_capacities(table, settings)
    results = {
        variant: evaluate_protocol(
            table,
            prepared.view.names,
            protocol,
            answers.fit_of(variant),
            settings=settings.evaluation,
            nominal_ah=nominal_ah,
            seed=training.seed,
            # the first variant waits for the fits of all; the others find theirs done
            progress=progress.within if variant is VARIANTS[0] else None,
            workers=max(1, int(training.parameters.get("n_jobs", 1))),
        )
        for variant in VARIANTS
    }
    full = results[Variant()]
    return {
        variant: Scored(
            result,
            None if result is full else change_of(result, full, settings),
            answers.chosen_by(variant),
        )
        for variant, result in results.items()
    }


def _fits(prepared: Prepared, settings: Settings) -> Fits:
    training = settings.training
    return Fits(prepared.view.names, {**training.parameters, "n_jobs": 1}, training.seed)


def _compressed(  # noqa: PLR0913 - what is known of a variant by now
    variant: Variant,
    models: Mapping[Variant, Slim],
    twin: bytes,
    features: Matrix,
    *,
    evaluated: Mapping[str, Scored],
    speed: Speed,
) -> Compressed:
    model = models[variant]
    rounding = bound = 0.0
    if variant.half:
        before = models[Variant(variant.shallow, variant.few)]
        rounding = float(np.abs(model.predict(features) - before.predict(features)).max())
        bound = half_leaf_bound_ah(before.booster)
    return Compressed(
        variant,
        evaluated,
        shape_of(model.booster),
        model.names,
        sizes_of(model, twin),
        speed,
        max_difference_ah(model.booster, twin, model.narrow(features)),
        rounding,
        bound,
    )


def change_of(one: ProtocolResult, full: ProtocolResult, settings: Settings) -> Change:
    """Compare two models that were tested on the same rows, row by row.

    The difference of the mean absolute errors is the bias between the rows' absolute errors, and
    so is its bootstrap over assets.
    """
    errors = [
        np.abs((result.predictions["predicted_ah"] - result.predictions[LABEL]).to_numpy())
        for result in (full, one)
    ]
    rows = full.predictions
    found = intervals(
        Predictions(
            rows["asset_id"].to_numpy().astype(object),
            errors[0],
            errors[1],
            rows["nominal_ah"].to_numpy(),
        ),
        resamples=settings.evaluation.bootstrap_resamples,
        confidence=settings.evaluation.confidence,
        rng=np.random.default_rng(settings.training.seed),
    )
    return Change(one.metrics.mae_ah - full.metrics.mae_ah, found["bias_ah"])


def sizes_of(model: Slim, twin: bytes) -> Sizes:
    """Bytes of a model's files."""
    files = bytes(model.booster.save_raw("ubj")), twin, pack(model.booster)
    sizes = [(len(file), len(gzip.compress(file, 9, mtime=0))) for file in files]
    return Sizes(*(size for pair in sizes for size in pair))


class _Answers:
    """What all variants answer in the folds of one protocol.

    The first variant that asks has all of them fitted, and only the answers are kept: variants
    share fits, and the boosters of all folds together would fill the memory.
    """

    def __init__(self, fits: Fits) -> None:
        self._fits = fits
        self._answers: dict[bytes, dict[Variant, Floats]] = {}
        self._names: dict[bytes, dict[Variant, tuple[str, ...]]] = {}

    def fit_of(self, variant: Variant) -> Fit:
        """For `evaluate_protocol`, which asks every fold once for each variant."""

        def fit_variant(
            features: Matrix, labels: Floats, owners: Owners
        ) -> Callable[[Matrix], Floats]:
            del owners  # nothing is held out within a fit
            return lambda asked: self._answer(features, labels, asked)[variant]

        return fit_variant

    def chosen_by(self, variant: Variant) -> dict[str, int]:
        """In how many folds the variant took each feature, the most frequent first."""
        taken = Counter(name for names in self._names.values() for name in names[variant])
        order = self._fits.names
        return dict(sorted(taken.items(), key=lambda item: (-item[1], order.index(item[0]))))

    def _answer(self, features: Matrix, labels: Floats, asked: Matrix) -> dict[Variant, Floats]:
        fold = hashlib.sha256()
        for part in (features, labels, asked):
            fold.update(np.ascontiguousarray(part).tobytes())
        key = fold.digest()
        if key not in self._answers:
            models = self._fits.every(features, labels)
            self._names[key] = {variant: model.names for variant, model in models.items()}
            self._answers[key] = {
                variant: model.predict(asked) for variant, model in models.items()
            }
        return self._answers[key]
