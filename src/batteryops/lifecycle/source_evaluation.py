"""Measure a model on what a user names: cycles, a feature table, or one source by another."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from batteryops.errors import DataError, UnknownAssetError
from batteryops.evaluation.protocol_run import ProtocolResult
from batteryops.evaluation.protocols import CLOCK, PROTOCOLS, Split, asset_groups
from batteryops.features.files import read_feature_table
from batteryops.features.validation import problems
from batteryops.features.views import FeatureView, get_view
from batteryops.lifecycle.evaluation import (
    Known,
    evaluate_protocols,
    evaluate_table,
    look_for_leakage,
    named,
)
from batteryops.lifecycle.leakage import ViewLeakage
from batteryops.lifecycle.preparation import Prepared, prepare
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.sources import default_source, open_source
from batteryops.schema import FEATURE_KEY, LABEL, Recording
from batteryops.settings import Settings

BETWEEN: Final = "held_out_source"
"""The name of what is asked when one source trains and another is tested."""


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
    algorithm: str | None = None,
    known: Known | None = None,
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
        algorithm: one of `models.algorithms.ALGORITHMS`; the view's own when None.
        known: measurements of the tested assets that correct the model.
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
    notes: list[str] = [known.note] if known else []
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
                f"{len(strangers)} assets have no profile ({named(strangers)}); SoH points "
                f"of all assets are those of profile {profile}, name another with --profile"
            )
    else:
        progress.step("read cycles, check them, compute features")
        recording = open_source(source or default_source(settings), settings, kinds=chosen.kinds)
        prepared = prepare(recording, chosen, settings)
        table = prepared.table
        notes += _set_aside_note(prepared)
    found = (
        look_for_leakage(table, chosen, settings, progress, recording=recording, profile=profile)
        if leakage
        else None
    )
    names = PROTOCOLS if protocol == "all" else (protocol,)
    results = evaluate_protocols(
        table, chosen, names, settings, progress, profile=profile, algorithm=algorithm, known=known
    )
    return Evaluated(results, tuple(notes), found)


def evaluate_between(  # noqa: PLR0913 - all by name: what to evaluate on, and how
    settings: Settings,
    *,
    train: str,
    test: str,
    view: str | None,
    algorithm: str | None = None,
    known: Known | None = None,
    leakage: bool,
    progress: Progress,
) -> Evaluated:
    """Train on the cycles of one source, test on those of another.

    Args:
        settings: parameters, seed, limits.
        train: cycles that train, after the quality checks.
        test: cycles that are tested, after the quality checks.
        view: the feature view; the configured one when None.
        algorithm: one of `models.algorithms.ALGORITHMS`; the view's own when None.
        known: measurements of the tested assets that correct the model.
        leakage: also look for features that give the label away, in what trains.
        progress: told what is being done.

    Raises:
        DataError: a source cannot be read or used, or a tested cycle trains as well.
        UnknownAssetError: an asset without a profile.
    """
    chosen = get_view(view or settings.training.view)
    prepared: list[Prepared] = []
    notes: list[str] = [known.note] if known else []
    for source in (train, test):
        progress.step(f"read {source}, check it, compute features")
        recording = open_source(source, settings, kinds=chosen.kinds)
        prepared.append(prepare(recording, chosen, settings))
        notes += _set_aside_note(prepared[-1], source)
    taught, asked = (one.table for one in prepared)
    both = taught.join(asked, on=FEATURE_KEY, how="semi")
    if both.height:
        asset, cycle = both.select(FEATURE_KEY).row(0)
        raise DataError(
            f"{both.height} cycles are in {train} and in {test} (such as {asset} {cycle}); a model "
            "must not be tested on what it was trained on: take their assets out of one of the two"
        )
    table = pl.concat([taught, asked])
    split = Split(
        BETWEEN, np.arange(taught.height), np.arange(taught.height, taught.height + asked.height)
    )
    group_of = asset_groups(table["asset_id"], settings.evaluation.groups)
    trained = {group_of[asset] for asset in taught["asset_id"].unique()}
    companions = [a for a in sorted(asked["asset_id"].unique()) if group_of[a] in trained]
    if companions:
        notes.append(
            f"{named(companions)} or what was aged together with them trains as well: this does "
            "not measure batteries never seen"
        )
    found = (
        look_for_leakage(taught, chosen, settings, progress, recording=prepared[0].recording)
        if leakage
        else None
    )
    progress.step(f"train on {taught.height} rows, test on {asked.height}")
    result = evaluate_table(
        table,
        chosen,
        BETWEEN,
        settings,
        algorithm=algorithm,
        splits=[split],
        known=known,
        progress=progress,
    )
    return Evaluated({BETWEEN: result}, tuple(notes), found)


def _set_aside_note(prepared: Prepared, source: str = "") -> list[str]:
    """How many cycles the quality checks set aside, where they did."""
    aside, kept = prepared.set_aside.height, prepared.table.height
    if not aside:
        return []
    of = f" of {source}" if source else ""
    told = f"{aside} of {aside + kept} discharges{of} were set aside by the quality checks"
    return [f"{told} and are not among these"]


def _without_profile(table: pl.DataFrame, settings: Settings) -> list[str]:
    strangers = []
    for asset in table["asset_id"].unique().sort():
        try:
            settings.profile_of(asset)
        except UnknownAssetError:
            strangers.append(asset)
    return strangers


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
