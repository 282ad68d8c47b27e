"""What log and labels say of a new champion since it was promoted."""

from contextlib import closing
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from batteryops.errors import DataError, PackageError, UnknownAssetError
from batteryops.evaluation.ab_trial import Answers, Trial
from batteryops.lifecycle.champion_moves import moves
from batteryops.lifecycle.probation import ProbationFacts
from batteryops.lifecycle.trials import Version, open_version, replayed_pairs
from batteryops.records.ledger import Ledger
from batteryops.records.predictions import PredictionLog
from batteryops.registry.versions import CHAMPION
from batteryops.settings import Settings


def probation_facts(  # noqa: PLR0913 - a version, its span, and what it is compared with
    settings: Settings,
    version: int,
    since: datetime,
    until: datetime,
    *,
    before: int | None = None,
    asked_since: datetime | None = None,
) -> ProbationFacts:
    """Gather what a probation is judged by.

    Its errors are compared with those of the champion before it on all questions whose label came
    since either was made, whoever was asked them: both answer the logged features again.

    Args:
        settings: log, labels, registry, ledger.
        version: the new champion.
        since: when it was promoted, with a zone.
        until: when it is looked.
        before: the champion before it; None for the one that the ledger names.
        asked_since: errors are compared on questions from then on; None: on all.

    Raises:
        DataError: the span is none.
        RegistryError: there is no such version.
        PackageError: the package of the new champion is damaged.
        RecordsError: log, labels or ledger are out of reach.
    """
    if not since <= until:
        raise DataError(f"a probation from {since} to {until}; expected an earlier time first")
    mine = open_version(settings, version)
    asked, failed, out_of_range = _counts(settings, mine, since, until)
    former = _former(settings, version) if before is None else before
    return ProbationFacts(
        days=(until - since) / timedelta(days=1),
        asked=asked,
        failed=failed,
        out_of_range=out_of_range,
        pairs=None if former is None else _pairs(settings, former, mine, since, until, asked_since),
    )


def _former(settings: Settings, version: int) -> int | None:
    with Ledger(settings.ledger_url) as ledger:
        history = moves(ledger, settings.registry.model_name)
    return next(
        (move.before for move in reversed(history) if move.to == version and move.before), None
    )


def _counts(
    settings: Settings, mine: Version, since: datetime, until: datetime
) -> tuple[int, int, int]:
    """Questions asked of the champion, those that got no number, and impossible answers."""
    asked = failed = out_of_range = 0
    ranges: dict[str, tuple[float, float]] = {}
    with closing(PredictionLog(settings.predictions_url)) as log:
        for frame in log.frames(since, until, failed=True):
            own = frame.filter(
                pl.col("model_version") == str(mine.number),
                pl.col("package_fingerprint") == mine.package.fingerprint,
                pl.col("role") == CHAMPION,
            )
            answered = own.filter(pl.col("status") != "failed")
            asked += own.height
            failed += own.height - answered.height
            for asset in answered["vehicle_id"].unique():
                if asset not in ranges:
                    ranges[asset] = _range(asset, settings)
            low, high = (
                answered["vehicle_id"].replace_strict(
                    {asset: at[end] for asset, at in ranges.items()}, return_dtype=pl.Float64
                )
                for end in (0, 1)
            )
            out_of_range += int((~answered["capacity_ah"].is_between(low, high)).sum())
    return asked, failed, out_of_range


def _range(asset: str, settings: Settings) -> tuple[float, float]:
    """What the asset's capacity can be; anything where nothing is known of it any more."""
    try:
        return settings.profile_of(asset).capacity_range_ah
    except UnknownAssetError:
        return -np.inf, np.inf


def _pairs(  # noqa: PLR0913, PLR0917 - as `probation_facts`
    settings: Settings,
    former: int,
    mine: Version,
    since: datetime,
    until: datetime,
    asked_since: datetime | None,
) -> Trial | None:
    try:
        before = open_version(settings, former)
    except PackageError:  # it cannot be asked any more
        return None
    pairs = replayed_pairs(
        settings,
        before,
        mine,
        asked_before=until,
        until=until,
        unseen_since=max(before.learned_until, mine.learned_until),
        asked_since=asked_since,
    )
    theirs, own = (
        Answers.of(
            pairs["vehicle_id"].to_list(), (pairs[answered] - pairs["label_ah"]).abs().to_numpy()
        )
        for answered in ("first_ah", "second_ah")
    )
    return Trial(theirs, own, paired=True, days=(until - since) / timedelta(days=1))
