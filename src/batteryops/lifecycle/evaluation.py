"""Measure the configured model under protocols, on cycles or on a feature table as it is."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.errors import DataError, UnknownAssetError
from batteryops.evaluation.protocol_run import Fit, ProtocolResult, evaluate_protocol
from batteryops.evaluation.protocols import CLOCK, PROTOCOLS, asset_groups, schedule_groups
from batteryops.features.files import read_feature_table
from batteryops.features.validation import problems
from batteryops.features.views import FeatureView, get_view
from batteryops.lifecycle.leakage import ViewLeakage, check_view
from batteryops.lifecycle.preparation import prepare
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.sources import default_source, open_source
from batteryops.lifecycle.uncertainty import bounds_fit
from batteryops.models import boosting
from batteryops.schema import LABEL, Recording
from batteryops.settings import Settings

NAMED_ASSETS: Final = 5
"""How many assets a note names before it says that there are more."""


def booster_fit(names: tuple[str, ...], parameters: Mapping[str, Any], seed: int) -> Fit:
    """A `fit` for the protocols: XGBoost with these parameters, afresh for every fold."""

    def fit(
        features: NDArray[np.float32], labels: NDArray[np.float64]
    ) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
        booster = boosting.fit(
            features, labels, feature_names=names, parameters=parameters, seed=seed
        )
        return lambda rows: boosting.predict(booster, rows)

    return fit


def nominal_capacities(
    table: pl.DataFrame, settings: Settings, profile: str | None = None
) -> dict[str, float]:
    """Nominal capacity (Ah) of every asset of a table.

    Args:
        table: rows with `asset_id`.
        settings: says which asset has which profile.
        profile: take every asset to have this one instead.

    Raises:
        UnknownAssetError: an asset without a profile.
        SettingsError: no such profile.
        DataError: a profile without nominal capacity.
    """
    return {
        asset: (settings.profile(profile) if profile else settings.profile_of(asset)).nominal_ah
        for asset in table["asset_id"].unique(maintain_order=True)
    }


def evaluate_table(  # noqa: PLR0913 - what is evaluated, and how
    table: pl.DataFrame,
    view: FeatureView,
    protocol: str,
    settings: Settings,
    *,
    profile: str | None = None,
    progress: Progress | None = None,
) -> ProtocolResult:
    """Run one protocol with the configured model on a labelled feature table.

    Prediction intervals are made in every fold anew, calibrated on groups of its training rows.

    Args:
        table: `asset_id`, `op_index`, the view's features, `capacity_ah`; row order matters to the
            protocol `random`.
        view: names the features.
        protocol: one of `evaluation.protocols.PROTOCOLS`.
        settings: parameters, seed, groups, shares.
        profile: take every asset to have this profile.
        progress: told how many folds are done.

    Raises:
        DataError: an unknown protocol, or too few rows or assets for it.
        UnknownAssetError: an asset without a profile.
    """
    training = settings.training
    # one thread for each fold and several folds at a time: threads within a fit wait for each other
    workers = int(training.parameters.get("n_jobs", 1))
    parameters = {**training.parameters, "n_jobs": 1}
    fit = booster_fit(view.names, parameters, training.seed)
    return evaluate_protocol(
        table,
        view.names,
        protocol,
        fit,
        settings=settings.evaluation,
        nominal_ah=nominal_capacities(table, settings, profile),
        seed=training.seed,
        progress=progress.within if progress is not None else None,
        workers=max(1, workers),
        fit_bounds=bounds_fit(fit, view.names, settings, profile),
    )


def _refuse_wrong_units(view: FeatureView, table: pl.DataFrame, file: Path) -> None:
    """Raise when a whole column stands in another unit, as its median tells.

    Single rows may be anything: a table is evaluated as it is.
    """
    medians: dict[str, object] = {}
    for feature in view.features:
        median = table[feature.name].drop_nans().median()
        medians[feature.name] = feature.low if median is None else median
    slips = [problem for problem in problems(view, medians) if "it looks like" in problem]
    if slips:
        raise DataError(f"{file}, medians of its columns: {'; '.join(slips)}")


def evaluate_protocols(  # noqa: PLR0913 - what is evaluated, and how
    table: pl.DataFrame,
    view: FeatureView,
    protocols: Iterable[str],
    settings: Settings,
    progress: Progress,
    *,
    profile: str | None = None,
) -> dict[str, ProtocolResult]:
    """Run protocols one after the other.

    Where no two assets share a schedule, `unseen_schedules` asks what `unseen_assets` asks, and is
    not computed again.

    Args:
        table: as `evaluate_table` takes it.
        view: names the features.
        protocols: names of protocols.
        settings: parameters, seed, groups, shares.
        progress: told which protocol is run, and how many folds are done.
        profile: take every asset to have this profile.

    Raises:
        DataError: too few rows or assets for a protocol.
        UnknownAssetError: an asset without a profile.
    """
    results: dict[str, ProtocolResult] = {}
    for name in protocols:
        progress.step(f"evaluate {name}")
        if name == "unseen_schedules" and "unseen_assets" in results:
            groups = settings.evaluation.groups
            alone = asset_groups(table["asset_id"], groups)
            if schedule_groups(table, groups=groups) == alone:
                results[name] = replace(results["unseen_assets"], protocol=name)
                continue
        results[name] = evaluate_table(
            table, view, name, settings, profile=profile, progress=progress
        )
    return results


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Results by protocol, what a reader should know of them, and what leakage checks found.

    Args:
        results: by protocol.
        notes: for the reader.
        leakage: None where it was not looked for.
    """

    results: Mapping[str, ProtocolResult]
    notes: tuple[str, ...]
    leakage: ViewLeakage | None


def evaluate_source(  # noqa: PLR0913 - all by name: what to evaluate on, and how
    settings: Settings,
    *,
    features_file: Path | None,
    source: str | None,
    view: str | None,
    protocol: str,
    profile: str | None,
    leakage: bool,
    progress: Progress,
) -> Evaluated:
    """Evaluate a feature table as it is, or cycles after the quality checks.

    Args:
        settings: parameters, seed, groups, shares.
        features_file: a feature table; none of its labelled rows is left out. Where it has assets
            without a profile, SoH is stated for the default profile, and a note says so.
        source: cycles, when no table is given.
        view: the feature view; the configured one when None.
        protocol: a protocol's name, or `all`.
        profile: take every asset to have this profile.
        leakage: also look for features that give the label away.
        progress: told what is being done.

    Raises:
        DataError: both or neither can be used, a whole column stands in another unit, or the
            protocol is unknown.
        UnknownAssetError: cycles of an asset without a profile.
    """
    if protocol not in (*PROTOCOLS, "all"):
        raise DataError(f"protocol {protocol!r}; expected one of {', '.join(PROTOCOLS)}, or all")
    if features_file is not None and source is not None:
        raise DataError("given both --features and --source; expected one of them")
    chosen = get_view(view or settings.training.view)
    recording: Recording | None = None
    notes: list[str] = []
    if features_file is not None:
        progress.step(f"read {features_file}")
        table = read_feature_table(
            features_file, chosen.names, labelled=True, further=(CLOCK,)
        ).drop_nulls(LABEL)
        _refuse_wrong_units(chosen, table, features_file)
        strangers = _without_profile(table, settings)
        if strangers and profile is None:
            profile = settings.evaluation.default_profile
            notes.append(
                f"{len(strangers)} assets have no profile ({', '.join(strangers[:NAMED_ASSETS])}"
                f"{', …' if len(strangers) > NAMED_ASSETS else ''}); SoH points of all assets are "
                f"those of profile {profile}, name another with --profile"
            )
    else:
        progress.step("read cycles, check them, compute features")
        recording = open_source(source or default_source(settings), settings, kinds=chosen.kinds)
        prepared = prepare(recording, chosen, settings)
        table = prepared.table
        if prepared.set_aside.height:
            notes.append(
                f"{prepared.set_aside.height} of {table.height + prepared.set_aside.height} "
                "discharges were set aside by the quality checks and are not among these"
            )
    found = None
    if leakage:
        progress.step("look for leakage")
        nominal_ah = nominal_capacities(table, settings, profile)
        found = check_view(table, chosen, recording=recording, nominal_ah=nominal_ah)
    names = PROTOCOLS if protocol == "all" else (protocol,)
    results = evaluate_protocols(table, chosen, names, settings, progress, profile=profile)
    return Evaluated(results, tuple(notes), found)


def _without_profile(table: pl.DataFrame, settings: Settings) -> list[str]:
    strangers = []
    for asset in table["asset_id"].unique().sort():
        try:
            settings.profile_of(asset)
        except UnknownAssetError:
            strangers.append(asset)
    return strangers
