"""Measure a model on a feature table: under protocols, with intervals, looked over for leakage."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import polars as pl

from batteryops.errors import DataError
from batteryops.evaluation.protocol_run import ProtocolResult, evaluate_protocol
from batteryops.evaluation.protocols import (
    Split,
    SplitPlan,
    asset_groups,
    make_splits,
    reveal,
    schedule_groups,
)
from batteryops.features.views import FeatureView
from batteryops.lifecycle.baselines import correction_fit
from batteryops.lifecycle.decisions import (
    Decide,
    always,
    as_it_is,
    deciding_bounds,
    deciding_fit,
)
from batteryops.lifecycle.leakage import ViewLeakage, check_view
from batteryops.lifecycle.progress import Progress
from batteryops.models.algorithms import Task
from batteryops.schema import LABEL, Recording
from batteryops.settings import Settings

CONFIGURED: Final = "xgboost"
"""The algorithm whose parameters the configuration sets."""

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

    @property
    def note(self) -> str:
        """What a reader of results must know.

        Examples:
            >>> Known(10).note
            "corrected by each tested battery's first 10 measurements, which are not tested"
        """
        told = "measurements before the cycle asked about"
        if self.first is not None:
            told = f"first {self.first} measurements, which are not tested"
        return f"corrected by each tested battery's {told}"


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


def named(assets: Sequence[str]) -> str:
    """The first few of these assets, for a note.

    Examples:
        >>> named(["B0005"]), named(list("abcdefg"))
        ('B0005', 'a, b, c, d, e, …')
    """
    return ", ".join(assets[:NAMED_ASSETS]) + ", …" * (len(assets) > NAMED_ASSETS)


def look_for_leakage(  # noqa: PLR0913 - what is looked at, and how
    table: pl.DataFrame,
    view: FeatureView,
    settings: Settings,
    progress: Progress,
    *,
    recording: Recording | None,
    profile: str | None = None,
) -> ViewLeakage:
    """Run the leakage checks on a view's feature table.

    Args:
        table: `asset_id`, the view's features, `capacity_ah`.
        view: what computed the features.
        settings: says which asset has which profile.
        progress: told that it begins.
        recording: the cycles, for computing features again without later ones; None when the
            features were given as a table.
        profile: take every asset to have this profile.

    Raises:
        UnknownAssetError: an asset without a profile.
        DataError: a profile without nominal capacity.
    """
    progress.step("look for leakage")
    nominal_ah = nominal_capacities(table, settings, profile)
    return check_view(table, view, recording=recording, nominal_ah=nominal_ah)


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
