"""The data of a trial: what champion and challenger answered, beside the labels that came since.

Only labels that neither model can have learned from count: those received after the newer of the
two was made. Of the questions that belong to a label, the nearest in time stands for it: one label
is one pair.

Where the challenger shadows, its answers and the champion's to the same questions are pairs. Labels
come weeks late, and those that come during a trial belong mostly to questions from before it. These
are replayed: both models answer the logged features again, which is the answer that they would
have given, as they give the same every time. A replayed pair has no latency, and the days of a
trial count from when the challenger stood in service. Where vehicles are split, each model's own
answers are all there is: nothing is replayed, so that both samples stay as they were drawn.
"""

from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.errors import DataError, RegistryError, UnknownAssetError
from batteryops.evaluation.ab_rules import ABRules
from batteryops.evaluation.ab_testing import judge
from batteryops.evaluation.ab_trial import ROLES, Trial, hides_end_of_life
from batteryops.evaluation.ab_verdict import ABVerdict
from batteryops.features.views import matrix
from batteryops.lifecycle.loading import load_model, open_registry
from batteryops.lifecycle.new_labels import fresh_labels
from batteryops.lifecycle.trial_log import Contender, LiveAnswers, live_answers
from batteryops.lifecycle.update_package import labels_until, realignments
from batteryops.models.package import ModelPackage
from batteryops.monitoring.label_join import label_table
from batteryops.monitoring.performance import UNKNOWN, band_name
from batteryops.records.labels import Labels
from batteryops.records.ledger import MODEL_PROMOTED, Ledger
from batteryops.records.predictions import PredictionLog
from batteryops.registry.versions import CHALLENGER, CHAMPION
from batteryops.schema import LABEL
from batteryops.settings import Settings

_NEIGHBOURS: Final = timedelta(days=90)  # labels from before that may contradict those that count

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A version of a trial.

    Args:
        number: in the registry.
        package: verified.
        learned_until: no label that was received later can have made it.
    """

    number: int
    package: ModelPackage
    learned_until: datetime


@dataclass(frozen=True, slots=True, eq=False)
class TrialLook:
    """A trial at one look, and where its answers come from.

    Args:
        champion: its version.
        challenger: likewise.
        since: when the challenger began to stand in service.
        until: when it was looked.
        unseen_since: labels that were received before do not count.
        trial: what was answered.
        verdict: what follows.
        asked: questions of each model since then, all of them.
        failed: those that got no number.
        replayed: labelled pairs from before the trial that both models answered again.
        sampled: whether only a sample of the questions without a label was looked at.
    """

    champion: int
    challenger: int
    since: datetime
    until: datetime
    unseen_since: datetime
    trial: Trial
    verdict: ABVerdict
    asked: dict[str, int]
    failed: dict[str, int]
    replayed: int
    sampled: bool

    def to_json(self) -> dict[str, Any]:
        """The verdict, and where its numbers come from."""
        return {
            "champion_version": self.champion,
            "challenger_version": self.challenger,
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "labels_received_since": self.unseen_since.isoformat(),
            "asked": self.asked,
            "got_no_number": self.failed,
            "replayed_pairs": self.replayed,
            "sampled": self.sampled,
            **self.verdict.to_json(),
        }


def judge_trial(  # noqa: PLR0913 - a trial, its span and its rules
    settings: Settings,
    *,
    champion: int,
    challenger: int,
    since: datetime,
    until: datetime,
    rules: ABRules | None = None,
    asked_since: datetime | None = None,
) -> ABVerdict:
    """Look at a trial: `evaluation.ab_testing.judge` on what `trial_of` finds.

    Args:
        settings: log, labels, registry; and the rules, where no others are given.
        champion: its version.
        challenger: likewise.
        since: when the challenger began to stand in service, with a zone.
        until: when it is looked.
        rules: others than those of `retraining.trial`.
        asked_since: only questions from then on are replayed; None: all.

    Raises:
        DataError, RegistryError, PackageError, RecordsError: as `look_at_trial`.
    """
    return look_at_trial(
        settings,
        champion=champion,
        challenger=challenger,
        since=since,
        until=until,
        rules=rules,
        asked_since=asked_since,
    ).verdict


def trial_of(
    settings: Settings, *, champion: int, challenger: int, since: datetime, until: datetime
) -> Trial:
    """What both versions answered, ready to be judged.

    Raises:
        DataError, RegistryError, PackageError, RecordsError: as `look_at_trial`.
    """
    return look_at_trial(
        settings, champion=champion, challenger=challenger, since=since, until=until
    ).trial


def look_at_trial(  # noqa: PLR0913 - as judge_trial
    settings: Settings,
    *,
    champion: int,
    challenger: int,
    since: datetime,
    until: datetime,
    rules: ABRules | None = None,
    asked_since: datetime | None = None,
) -> TrialLook:
    """Gather a trial and judge it.

    Args:
        settings: log, labels, registry; and the rules, where no others are given.
        champion: its version.
        challenger: likewise.
        since: when the challenger began to stand in service, with a zone.
        until: when it is looked.
        rules: others than those of `retraining.trial`; where vehicles are split, the share is
            always that of `serving.routing`.
        asked_since: only questions from then on are replayed: what was asked before a fleet changed
            says little of what it asks now. None: all.

    Raises:
        DataError: both are one version, or the span is none.
        RegistryError: there is no such version.
        PackageError: a package is damaged.
        RecordsError: log or labels are out of reach.
    """
    if champion == challenger:
        raise DataError(f"version {champion} cannot be compared with itself; name another")
    if not since <= until:
        raise DataError(f"a trial from {since} to {until}; expected an earlier time first")
    versions = {
        CHAMPION: open_version(settings, champion),
        CHALLENGER: open_version(settings, challenger),
    }
    unseen_since = max(one.learned_until for one in versions.values())
    live = _live(settings, versions, since, until, unseen_since)
    rows = _live_rows(live)
    replayed = 0
    if _is_paired(live.sample) or not live.asked[CHALLENGER]:
        again = _replayed(settings, versions, rows, since, until, unseen_since, asked_since)
        rows, replayed = pl.concat([rows, again]), again.height // len(ROLES)
    trial = Trial.from_frame(_with_facts(rows, settings), days=(until - since) / timedelta(days=1))
    return TrialLook(
        champion=champion,
        challenger=challenger,
        since=since,
        until=until,
        unseen_since=unseen_since,
        trial=trial,
        verdict=judge(trial, _rules(settings, rules, paired=trial.paired)),
        asked=live.asked,
        failed=live.failed,
        replayed=replayed,
        sampled=sum(live.asked.values()) > live.sample.height,
    )


def open_version(settings: Settings, number: int) -> Version:
    """A version with its package, and until when it can have learned.

    Raises:
        RegistryError: there is none, or its package cannot be had.
        PackageError: its package is damaged.
    """
    found = open_registry(settings).version(number)
    package = load_model(str(number), settings).package
    until = labels_until(package)
    return Version(number, package, found.created_at if until is None else until)


def stands_since(settings: Settings, version: int, alias: str) -> datetime:
    """When a version was put at an alias last, as the ledger has it.

    Raises:
        RegistryError: the ledger does not know.
        RecordsError: the ledger is out of reach.
    """
    subject = f"{settings.registry.model_name}/{version}"
    with Ledger(settings.ledger_url) as ledger:
        for entry in reversed(ledger.entries(MODEL_PROMOTED)):
            if entry.subject == subject and entry.details.get("alias") == alias:
                return entry.at
    raise RegistryError(
        f"the ledger does not say since when version {version} is @{alias}; say it with --since"
    )


def replayed_pairs(  # noqa: PLR0913 - two versions, and which questions
    settings: Settings,
    first: Version,
    second: Version,
    *,
    asked_before: datetime,
    until: datetime,
    unseen_since: datetime,
    asked_since: datetime | None = None,
) -> pl.DataFrame:
    """What both versions say to questions whose labels came since either was made.

    Questions from before a software update that either has learned of are left out: nobody will
    ask them again, and who knows the new software cannot answer them.

    Args:
        settings: log, labels, profiles.
        first: the one.
        second: the other.
        asked_before: questions from then on are left out.
        until: labels received from then on are.
        unseen_since: labels received before are.
        asked_since: questions from before are; None: none.

    Returns:
        One row per label: `vehicle_id`, `label_ah`, `answered_at`, `first_ah` and `second_ah`, what
        they say, NaN where one fails. Questions that lack what either takes are left out.

    Raises:
        RecordsError: log or labels are out of reach.
    """
    keys = ["asset_id", "answered_at", "received_at", LABEL]
    table = fresh_labels(settings, first.package.view, since=unseen_since, until=until).table
    if second.package.view.names != first.package.view.names:
        other = fresh_labels(settings, second.package.view, since=unseen_since, until=until).table
        further = [name for name in other.columns if name not in table.columns]
        table = table.join(other.select(*keys, *further), on=keys)
    levels = {one.package.manifest.level for one in (first, second)}
    own = [
        asset
        for asset in table["asset_id"].unique()
        if levels == {settings.profile_of(asset).level}
    ]
    rows = table.filter(pl.col("asset_id").is_in(own), pl.col("answered_at") < asked_before)
    changed = [step.since for one in (first, second) for step in realignments(one.package)]
    begins = [*changed, *([] if asked_since is None else [asked_since])]
    if begins:
        rows = rows.filter(pl.col("answered_at") >= max(begins))
    return rows.select(
        vehicle_id="asset_id",
        label_ah=LABEL,
        answered_at="answered_at",
        first_ah=pl.Series(answers_again(first.package, rows), dtype=pl.Float64),
        second_ah=pl.Series(answers_again(second.package, rows), dtype=pl.Float64),
    )


def answers_again(package: ModelPackage, rows: pl.DataFrame) -> Floats:
    """What a model says to logged features, (rows,), Ah; NaN where it crashes or answers none."""
    features = matrix(package.view, rows)
    if not len(features):
        return np.empty(0)
    try:
        return np.asarray(package.predict_batch(features), dtype=np.float64)
    except Exception:  # noqa: BLE001 - whatever a broken model raises is what is looked for
        return np.array([_answer_again(package, row) for row in features])


def _answer_again(package: ModelPackage, row: NDArray[np.float32]) -> float:
    try:
        return float(package.predict_batch(row[None, :])[0])
    except Exception:  # noqa: BLE001 - as above: this question is one that it fails at
        return float("nan")


def _live(
    settings: Settings,
    versions: dict[str, Version],
    since: datetime,
    until: datetime,
    unseen_since: datetime,
) -> LiveAnswers:
    tolerance = timedelta(days=settings.monitoring.label_tolerance_days)
    contenders = tuple(
        Contender(role, str(one.number), one.package.fingerprint) for role, one in versions.items()
    )
    with closing(PredictionLog(settings.predictions_url)) as log:
        received = Labels.beside(log).frame(unseen_since - _NEIGHBOURS, corrected=True)
        labels = label_table(received.filter(pl.col("received_at") < until), tolerance=tolerance)
        return live_answers(
            log.frames(since, until, failed=True), labels, contenders, unseen_since=unseen_since
        )


def _is_paired(sample: pl.DataFrame) -> bool:
    """Whether any question was answered by both."""
    return bool((sample.group_by("question").agg(pl.col("by").n_unique())["by"] > 1).any())


def _live_rows(live: LiveAnswers) -> pl.DataFrame:
    """One row per answer, with `label_ah` where the question stands for a label."""
    near = live.near
    if _is_paired(live.sample):
        near = near.filter(pl.col("by").n_unique().over("label", "question") == len(ROLES))
    first = pl.col("question") == pl.col("question").first().over("label")
    chosen = near.sort("label", "away", "question").filter(first)
    told = chosen.select("question", "by", "label_ah")
    extra = chosen.select(live.sample.columns)
    whole = pl.concat([live.sample, extra]).unique(
        ["question", "by"], keep="first", maintain_order=True
    )
    return whole.join(told, on=["question", "by"], how="left").select(
        answer_id=pl.col("question").cast(pl.String),
        vehicle_id="vehicle_id",
        role="by",
        label_ah="label_ah",
        capacity_ah="capacity_ah",
        latency_ms="latency_ms",
        failed="failed",
    )


def _replayed(  # noqa: PLR0913, PLR0917 - what both answered already, and where to look
    settings: Settings,
    versions: dict[str, Version],
    live: pl.DataFrame,
    since: datetime,
    until: datetime,
    unseen_since: datetime,
    asked_since: datetime | None,
) -> pl.DataFrame:
    """Two rows, as `_live_rows` has them, per label that came for a question from before."""
    pairs = replayed_pairs(
        settings,
        versions[CHAMPION],
        versions[CHALLENGER],
        asked_before=since,
        until=until,
        unseen_since=unseen_since,
        asked_since=asked_since,
    ).with_row_index("number")
    sides = [
        pairs.select(
            answer_id=pl.format("replayed {}", "number"),
            vehicle_id="vehicle_id",
            role=pl.lit(role),
            label_ah="label_ah",
            capacity_ah=answered,
            latency_ms=pl.lit(None, pl.Float64),
            failed=~pl.col(answered).is_finite(),
        )
        for role, answered in ((CHAMPION, "first_ah"), (CHALLENGER, "second_ah"))
    ]
    return pl.concat(sides).cast(live.schema)


def _with_facts(rows: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """Errors, and what a trial wants to know of labelled rows."""
    facts = {
        asset: _profile(asset, settings)
        for asset in rows.filter(pl.col("label_ah").is_not_null())["vehicle_id"].unique()
    }
    nothing = (UNKNOWN, None)
    names = [facts.get(asset, nothing)[0] for asset in rows["vehicle_id"]]
    nominal = [facts.get(asset, nothing)[1] for asset in rows["vehicle_id"]]
    table = rows.with_columns(
        profile=pl.Series(names, dtype=pl.String),
        nominal=pl.Series(nominal, dtype=pl.Float64),
        absolute_error_ah=pl.when("failed")
        .then(pl.when(pl.col("label_ah").is_not_null()).then(pl.lit(float("nan"))))
        .otherwise((pl.col("capacity_ah") - pl.col("label_ah")).abs()),
    )
    soh = table["label_ah"] / table["nominal"]
    told = table["capacity_ah"].fill_nan(None) / table["nominal"]
    nan = float("nan")
    return table.with_columns(
        soh_band=pl.Series(
            [UNKNOWN if one is None else band_name(one) for one in soh], dtype=pl.String
        ),
        hides=pl.Series(hides_end_of_life(soh.fill_null(nan), told.fill_null(nan))),
    )


def _profile(asset: str, settings: Settings) -> tuple[str, float | None]:
    """Name and nominal capacity of an asset's profile, as far as they are known."""
    try:
        profile = settings.profile_of(asset)
    except UnknownAssetError:
        return UNKNOWN, None
    return profile.name, profile.nominal_capacity_ah


def _rules(settings: Settings, rules: ABRules | None, *, paired: bool) -> ABRules:
    found = ABRules(**settings.retraining.trial.model_dump()) if rules is None else rules
    share = settings.serving.routing.share
    if paired or not 0.0 < share < 1.0:
        return found
    return replace(found, challenger_share=share)
