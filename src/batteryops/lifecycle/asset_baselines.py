"""Baselines of assets: fitted to their measured capacities, and applied to answers."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import polars as pl

from batteryops.errors import DataError, PackageError
from batteryops.features.files import read_feature_table
from batteryops.features.validation import check_table
from batteryops.features.views import FeatureView, feature_table, matrix
from batteryops.lifecycle.baseline_store import (
    BaselineStore,
    KeptBaseline,
    refuse_unrecorded,
    some_of,
)
from batteryops.lifecycle.loading import load_model, refuse_other_levels
from batteryops.lifecycle.preparation import check_prepared, refuse_wrong_units
from batteryops.lifecycle.sources import default_source, open_source
from batteryops.models.asset_baseline import AssetBaseline, ResidualProcess, fit_baseline
from batteryops.models.package import Estimate, ModelPackage
from batteryops.quality.checks import check_recording
from batteryops.quality.report import QualityReport
from batteryops.records.ledger import Ledger
from batteryops.schema import LABEL, Recording
from batteryops.settings import Settings

RESIDUALS: Final = "residuals"
"""The document of a package that says how residuals of unseen assets behave."""


def residual_process(package: ModelPackage) -> ResidualProcess:
    """How residuals of unseen assets behave, as the package's training found.

    Raises:
        PackageError: when it does not say, or was changed.
    """
    if f"{RESIDUALS}.json" not in package.manifest.files:
        raise PackageError(
            f"package {package.folder} does not say how far an asset's own measurements are to be "
            f"believed ({RESIDUALS}.json), so that no baseline can be used with it: train again"
        )
    return ResidualProcess.from_json(package.document(RESIDUALS))


def baselines_for(
    assets: Iterable[str], package: ModelPackage, settings: Settings
) -> list[KeptBaseline]:
    """Each asset's newest baseline of this very package, where it has one.

    Raises:
        DataError, PackageError: one cannot be read, or is not what the ledger has.
        RecordsError: there are some, and the ledger is out of reach.
    """
    store = BaselineStore(settings.baselines)
    found = (store.newest(asset, package.fingerprint) for asset in assets)
    baselines = [kept for kept in found if kept is not None]
    if baselines:
        with Ledger(settings.ledger_url) as ledger:
            refuse_unrecorded(baselines, ledger)
    return baselines


def correct_estimates(
    table: pl.DataFrame,
    estimates: Sequence[Estimate],
    ranges_ah: Mapping[str, tuple[float, float]],
    package: ModelPackage,
    baselines: Sequence[KeptBaseline],
) -> tuple[list[Estimate], list[str | None]]:
    """Answers corrected by their assets' baselines.

    Only measurements at an earlier `op_index` correct an answer, and an answer out of domain stays
    as it is.

    The interval of a corrected answer is that of a Gaussian residual with the standard deviation
    that the process leaves after the measurements, and at most as wide as the model's own. This is
    an approximation, which nothing calibrates. With the first ten measurements of NASA cells left
    out of training (`unseen_assets` in 6 folds, 26 cells), 90 percent intervals held 90.4 percent
    of 1403 later capacities, 86.5 percent as the mean over cells, at a median width of 0.33 Ah
    where the model's own had 0.60 Ah; with the first three, 86 and 83 percent. Scaling the
    conformal width by how much the standard deviation falls would have held 81 and 78 percent
    with ten: most of the process is slow wander, whose variance without measurements is larger
    than what was calibrated.

    Args:
        table: (n rows) `asset_id`, `op_index`.
        estimates: n, of the package.
        ranges_ah: by asset, least and largest capacity that it can have, Ah.
        package: that answered.
        baselines: of the package, at most one of an asset, as `baselines_for` gives them.

    Returns:
        The n answers, and the version that corrected each; None where none did.

    Raises:
        PackageError: the package cannot be read.
    """
    corrected = list(estimates)
    by_row: list[str | None] = [None] * len(estimates)
    assets = table["asset_id"].to_numpy().astype(object)
    positions = table["op_index"].to_numpy()
    inside = np.array([estimate.position.inside for estimate in estimates], dtype=np.bool_)
    for kept in baselines:
        asset = kept.baseline.asset_id
        process = residual_process(package)
        known_from = kept.baseline.op_index[0]
        rows = np.flatnonzero((assets == asset) & inside & (positions > known_from)).tolist()
        capacities, spreads = kept.baseline.corrected(
            process, positions[rows], [estimates[row].capacity_ah for row in rows]
        )
        halves = _quantile(package.intervals.nominal) * spreads
        for row, capacity_ah, half_ah in zip(
            rows, capacities.tolist(), halves.tolist(), strict=True
        ):
            low_ah, high_ah = package.intervals.around(
                capacity_ah, estimates[row].position.distance, ranges_ah[asset], half_ah
            )
            corrected[row] = replace(
                estimates[row], capacity_ah=capacity_ah, low_ah=low_ah, high_ah=high_ah
            )
            by_row[row] = kept.version
    return corrected, by_row


def _quantile(nominal: float) -> float:
    """How many standard deviations around the mean hold that share of a Gaussian variable."""
    return NormalDist().inv_cdf(0.5 + 0.5 * nominal)


@dataclass(frozen=True, slots=True)
class FittedBaseline:
    """What was made of one asset's measurements.

    Args:
        kept: the baseline.
        new: whether it is a new version; else the newest had the same content.
        out_of_domain: measured cycles left out because they are unlike anything in training, where
            the model's answer means nothing.
        trained_on: whether the asset trained the model, whose answers then know it already.
    """

    kept: KeptBaseline
    new: bool
    out_of_domain: int
    trained_on: bool

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return self.kept.summary | {
            "new": self.new,
            "out_of_domain": self.out_of_domain,
            "trained_on": self.trained_on,
        }


@dataclass(frozen=True, slots=True)
class BaselineFit:
    """What was made of a source.

    Args:
        fitted: by asset, sorted.
        without_label: assets of the source that nobody asked for by name, without a usable label.
    """

    fitted: tuple[FittedBaseline, ...]
    without_label: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return {
            "baselines": [one.to_json() for one in self.fitted],
            "without_label": list(self.without_label),
        }


def fit_baselines(  # noqa: PLR0913 - all by name: what is read, of what, which model, where
    settings: Settings,
    *,
    source: str | None,
    features_file: Path | None,
    assets: Collection[str] = (),
    first: int | None = None,
    model: str = "champion",
) -> BaselineFit:
    """Pair measured capacities with what a model says of the same cycles, and keep them by asset.

    All baselines are made before the first is kept. Cycles whose record or label cannot be believed
    are left out as in training, and so are those out of domain.

    Args:
        settings: where the registry, the ledger and the baselines are.
        source: cycles, as `sources.open_source` takes them; the lake, else the NASA cells.
        features_file: a labelled feature table, instead of cycles.
        assets: only these; all with a label when empty.
        first: so many measurements at the start of each life; all when None.
        model: a package folder, a version number or an alias.

    Raises:
        DataError: both inputs, one that cannot be read, an asset that is not in it or has no
            usable label, one of another level than the model.
        UnknownAssetError: an asset without a profile.
        RegistryError, PackageError: the model cannot be had, or says nothing of residuals.
        RecordsError: the ledger is out of reach; then nothing is kept.
    """
    if features_file is not None and source is not None:
        raise DataError("given both --features and --source; expected one of them")
    package = load_model(model, settings).package
    residual_process(package)  # refused before anything is kept
    view = package.view
    if features_file is not None:
        what = str(features_file)
        table = read_feature_table(features_file, view.names, labelled=True)
        table = _only(table, assets, what)
        raw = None
    else:
        what = source or default_source(settings)
        recording = open_source(what, settings, kinds=view.kinds)
        cycles = _only(recording.cycles, assets, what)
        samples = recording.samples.filter(
            pl.col("asset_id").is_in(cycles["asset_id"].unique().to_list())
        )
        recording = Recording(samples, cycles, what)
        raw = check_recording(recording, settings.profile_of, settings.quality)
        refuse_wrong_units(raw, what)
        table = feature_table(view, recording)
    named = sorted(set(assets) or set(table["asset_id"]))
    measured = _measured(table, view, settings, raw)
    labelled = set(measured["asset_id"])
    without = [asset for asset in named if asset not in labelled]
    if without and (assets or not labelled):
        raise DataError(
            f"{what}: no measured capacity that can be used for {some_of(without)}; a baseline "
            "needs at least one (`batteryops data check --source SOURCE --list` names each cycle "
            "that was set aside)"
        )
    refuse_other_levels(measured["asset_id"].unique().sort(), package, settings)
    check_table(view, measured)
    made = _make(measured, package, settings, first)
    store = BaselineStore(settings.baselines)
    trained_on = set(package.manifest.training_assets)
    fitted = []
    with Ledger(settings.ledger_url) as ledger:
        for baseline, outside in made:
            kept, new = store.keep(baseline, ledger)
            fitted.append(FittedBaseline(kept, new, outside, baseline.asset_id in trained_on))
    return BaselineFit(tuple(fitted), tuple(without))


def _only(table: pl.DataFrame, assets: Collection[str], what: str) -> pl.DataFrame:
    """The rows of these assets; all when none is named."""
    there = table["asset_id"].unique().sort().to_list()
    if missing := sorted(set(assets) - set(there)):
        raise DataError(f"{what}: no cycles of asset {some_of(missing)}; it holds {some_of(there)}")
    return table.filter(pl.col("asset_id").is_in(sorted(assets))) if assets else table


def _measured(
    table: pl.DataFrame, view: FeatureView, settings: Settings, raw: QualityReport | None
) -> pl.DataFrame:
    report = check_prepared(table, view, settings, raw)
    return report.kept(table).drop_nulls([*view.required, LABEL])


def _make(
    measured: pl.DataFrame, package: ModelPackage, settings: Settings, first: int | None
) -> list[tuple[AssetBaseline, int]]:
    """Each asset's baseline, and how many of its measured cycles are out of domain."""
    made = []
    for (asset,), cycles in sorted(measured.partition_by("asset_id", as_dict=True).items()):
        possible = settings.profile_of(asset).capacity_range_ah
        estimates = package.estimate_batch(matrix(package.view, cycles), [possible] * cycles.height)
        inside = pl.Series([estimate.position.inside for estimate in estimates], dtype=pl.Boolean)
        if not inside.any():
            raise DataError(
                f"asset {asset!r}: all {cycles.height} measured cycles are unlike anything in the "
                "model's training, where its answers mean nothing; train on such cycles"
            )
        baseline = fit_baseline(
            asset,
            model=package.fingerprint,
            op_index=cycles.filter(inside)["op_index"].to_list(),
            measured_ah=cycles.filter(inside)[LABEL].to_list(),
            predicted_ah=[one.capacity_ah for one in estimates if one.position.inside],
            first=first,
        )
        made.append((baseline, int((~inside).sum())))
    return made
