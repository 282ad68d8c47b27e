"""Measure the configured model under protocols, on cycles or on a feature table as it is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import numpy as np
import polars as pl

from batteryops.errors import DataError, UnknownAssetError
from batteryops.evaluation.protocol_run import ProtocolResult, evaluate_protocol
from batteryops.evaluation.protocols import (
    CLOCK,
    PROTOCOLS,
    Split,
    SplitPlan,
    asset_groups,
    make_splits,
    reveal,
    schedule_groups,
)
from batteryops.features.files import read_feature_table
from batteryops.features.validation import problems
from batteryops.features.views import FeatureView, get_view
from batteryops.lifecycle.baselines import correction_fit
from batteryops.lifecycle.decisions import (
    Decide,
    always,
    as_it_is,
    deciding_bounds,
    deciding_fit,
)
from batteryops.lifecycle.leakage import ViewLeakage, check_view
from batteryops.lifecycle.preparation import Prepared, prepare
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.sources import default_source, open_source
from batteryops.models.algorithms import Task
from batteryops.schema import FEATURE_KEY, LABEL, Recording
from batteryops.settings import Settings

CONFIGURED: Final = "xgboost"
"""The algorithm whose parameters the configuration sets."""

BETWEEN: Final = "held_out_source"
"""The name of what is asked when one source trains and another is tested."""

NAMED_ASSETS: Final = 5
"""How many assets a note names before it says that there are more."""


def task_of(view: FeatureView, settings: Settings) -> Task:
    """What algorithms are told of a view, and of the configuration."""
    training = settings.training
    return Task(view.name, view.names, view.trends, training.parameters, training.seed)


def algorithm_for(view: FeatureView, settings: Settings, asked: str | None = None) -> str:
    """The algorithm that was asked for, else the one that the configuration has for the view."""
    return asked or settings.training.algorithms.get(view.name, CONFIGURED)


@dataclass(frozen=True, slots=True)
class Known:
    """Which measurements of tested assets are known when later cycles are asked about.

    Args:
        first: so many at the start of each life; None: all before the cycle asked about.
    """

    first: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """From a command line: a number, or `all`.

        Raises:
            DataError: anything else.

        Examples:
            >>> Known.parse("10"), Known.parse("all")
            (Known(first=10), Known(first=None))
        """
        if text == "all":
            return cls(None)
        if not text.isdecimal() or not int(text):
            raise DataError(f"known labels {text!r}; expected a number of 1 or more, or all")
        return cls(int(text))


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
    algorithm: str | None = None,
    decide: Decide | None = None,
    splits: Sequence[Split] | None = None,
    known: Known | None = None,
    progress: Progress | None = None,
) -> ProtocolResult:
    """Run one protocol on a labelled feature table.

    Prediction intervals are made in every fold anew, calibrated on groups of its training rows.

    Args:
        table: `asset_id`, `op_index`, the view's features, `capacity_ah`; row order matters to the
            protocol `random`.
        view: names the features.
        protocol: one of `evaluation.protocols.PROTOCOLS`.
        settings: parameters, seed, groups, shares.
        profile: take every asset to have this profile.
        algorithm: one of `models.algorithms.ALGORITHMS`; the configured one when not said.
        decide: what every fold decides on its training rows, instead of an algorithm.
        splits: as `evaluate_protocol` takes them.
        known: measurements of the tested assets that correct the model; they are not tested, and
            no intervals are made.
        progress: told how many folds are done.

    Raises:
        DataError: an unknown protocol, or too few rows or assets for it.
        UnknownAssetError: an asset without a profile.
    """
    training = settings.training
    # one thread for each fold and several folds at a time: threads within a fit wait for each other
    workers = int(training.parameters.get("n_jobs", 1))
    name = algorithm_for(view, settings, algorithm)
    decide = decide or always(as_it_is(name, task_of(view, settings)))
    fit = deciding_fit(decide)
    if known is not None:
        table = table.drop_nulls(LABEL)
        plan = SplitPlan.from_settings(settings.evaluation, training.seed)
        splits = reveal(splits or make_splits(table, protocol, plan), table, known.first)
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
        fit_bounds=None if known else deciding_bounds(decide, view, settings, profile),
        splits=splits,
        fit_correction=correction_fit(fit, folds=settings.tournament.inner_folds)
        if known
        else None,
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
    algorithm: str | None = None,
    decide: Decide | None = None,
    known: Known | None = None,
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
        algorithm: one of `models.algorithms.ALGORITHMS`; the configured one when not said.
        decide: what every fold decides on its training rows, instead of an algorithm.
        known: measurements of the tested assets that correct the model.

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
            table,
            view,
            name,
            settings,
            profile=profile,
            algorithm=algorithm,
            decide=decide,
            known=known,
            progress=progress,
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
                f"{len(strangers)} assets have no profile ({_named(strangers)}); SoH points "
                f"of all assets are those of profile {profile}, name another with --profile"
            )
    else:
        progress.step("read cycles, check them, compute features")
        recording = open_source(source or default_source(settings), settings, kinds=chosen.kinds)
        prepared = prepare(recording, chosen, settings)
        table = prepared.table
        notes += _set_aside_note(prepared)
    found = None
    if leakage:
        progress.step("look for leakage")
        nominal_ah = nominal_capacities(table, settings, profile)
        found = check_view(table, chosen, recording=recording, nominal_ah=nominal_ah)
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
    notes: list[str] = []
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
            f"{_named(companions)} or what was aged together with them trains as well: this does "
            "not measure batteries never seen"
        )
    found = None
    if leakage:
        progress.step("look for leakage")
        nominal_ah = nominal_capacities(taught, settings)
        found = check_view(taught, chosen, recording=None, nominal_ah=nominal_ah)
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


def _named(assets: Sequence[str]) -> str:
    return ", ".join(assets[:NAMED_ASSETS]) + ", …" * (len(assets) > NAMED_ASSETS)


def _without_profile(table: pl.DataFrame, settings: Settings) -> list[str]:
    strangers = []
    for asset in table["asset_id"].unique().sort():
        try:
            settings.profile_of(asset)
        except UnknownAssetError:
            strangers.append(asset)
    return strangers
