"""A model brought up to date by labels that came: made, judged and registered, or not and why.

An update is made on a copy and judged on batteries that no candidate has seen. It becomes a version
of its own only where it is better on what is new and no worse on what was known before; otherwise
the current model stays, and nothing is registered.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl

from batteryops.errors import DataError
from batteryops.evaluation.gates import Verdict
from batteryops.features.files import read_feature_table
from batteryops.lifecycle.loading import load_model, refuse_other_levels
from batteryops.lifecycle.new_labels import fresh_labels
from batteryops.lifecycle.packaging import (
    Draft,
    RegisteredPackage,
    find_registered,
    register_draft,
)
from batteryops.lifecycle.preparation import check_prepared, refuse_wrong_units
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.promotion import Promoted
from batteryops.lifecycle.promotion import promote as put_in_service
from batteryops.lifecycle.realignment import Realignment, find_realignments, realign
from batteryops.lifecycle.training_rows import rows_of
from batteryops.lifecycle.update_choice import Chosen, Parent, choose_online, choose_update
from batteryops.lifecycle.update_package import draft_update, labels_until, realignments
from batteryops.lifecycle.update_rows import UpdateRows, rows_together
from batteryops.models.strategies import Comparison
from batteryops.records.labels import CLOCKS_DIFFER
from batteryops.records.predictions import PredictionLog
from batteryops.registry.mlflow_tracking import CHAMPION, ModelVersion
from batteryops.schema import LABEL
from batteryops.settings import Settings

_LATELY: Final = timedelta(weeks=8)  # what was asked before says nothing of an update now
_NOT_ACCEPTED: Final = "there is no update to register: the current model stays, as {reason}"


@dataclass(frozen=True, slots=True, eq=False)
class Updated:
    """What came of an attempt to bring the champion up to date; nothing is registered yet.

    Args:
        parent_version: the champion's.
        parent_fingerprint: of its package.
        reason: one sentence: why the update is taken, or why the current model stays.
        labels: what there was to learn from, in numbers.
        labels_until: labels were looked at that were received before; None where there was none.
        run_id: of the retraining; None where it is none.
        comparison: None where nothing could be compared.
        verdict: of the gates; None where no candidate came so far.
        draft: what is to be registered; None where the current model stays.
        seconds: of all of it.
    """

    parent_version: int
    parent_fingerprint: str
    reason: str
    labels: Mapping[str, Any]
    labels_until: datetime | None
    run_id: str | None
    comparison: Comparison | None
    verdict: Verdict | None
    draft: Draft | None
    seconds: float

    @property
    def accepted(self) -> bool:
        """Whether there is an update to register."""
        return self.draft is not None

    @property
    def strategy(self) -> str | None:
        """How it was made; None where the current model stays."""
        chosen = self.comparison.chosen if self.comparison else None
        return chosen.name if chosen and self.accepted else None

    def to_json(self) -> dict[str, Any]:
        """Everything but what is to be registered, ready for `json.dumps`."""
        return {
            "accepted": self.accepted,
            "reason": self.reason,
            "strategy": self.strategy,
            "parent_version": self.parent_version,
            "parent_fingerprint": self.parent_fingerprint,
            "labels": dict(self.labels),
            "labels_until": self.labels_until and self.labels_until.isoformat(),
            "comparison": self.comparison.to_json() if self.comparison else None,
            "gates": self.verdict.to_json() if self.verdict else None,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True, eq=False)
class LearnedOnline:
    """What came of a batch of labels.

    Args:
        updated: the update, or why the current model stays.
        registered: its version; None where the current model stays.
        promoted: None where it was not put in service.
    """

    updated: Updated
    registered: RegisteredPackage | None
    promoted: Promoted | None

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return {
            **self.updated.to_json(),
            "version": self.registered.version.version if self.registered else None,
            "package": str(self.registered.package.folder) if self.registered else None,
            "promoted": self.promoted.to_json() if self.promoted else None,
        }


def update_model(
    settings: Settings,
    progress: Progress,
    *,
    until: datetime,
    run_id: str | None = None,
    changed: Sequence[str] = (),
) -> Updated:
    """Bring the champion up to date with the labels that came since it was made. Registers nothing.

    Args:
        settings: where everything is, and what is tried.
        progress: told what is being done.
        until: first time of arrival of a label that is not learned from any more, with a zone.
        run_id: of the retraining that this is for.
        changed: features that software computes otherwise by now, as drift said: rows of before
            are realigned.

    Returns:
        The update, or why the current model stays: there is no label, or all are of one vehicle;
        the rows that the current model was trained on are gone; no candidate is better on new
        batteries and as good on old ones; or what was chosen fails a gate.

    Raises:
        RegistryError: there is no champion, or the registry is out of reach.
        PackageError: its package is changed or cannot be computed here.
        RecordsError: the prediction log is out of reach.
        SettingsError: a parameter is unknown or out of range.
    """
    attempt = replace(_Attempt.begin(settings, progress, run_id), changed=tuple(changed))
    labels = _from_log(attempt, until)
    return attempt.settle(labels, choose_update)


def register_update(updated: Updated, settings: Settings, progress: Progress) -> RegisteredPackage:
    """Write the package of an update, log its run, register its version, put both on the ledger.

    A retraining registers one version: where it has one already, that is given back.

    Args:
        updated: by `update_model`, accepted.
        settings: where it goes.
        progress: told what is being done.

    Raises:
        DataError: the current model stays, so that there is nothing to register.
        PackageError, RegistryError, RecordsError: a store refuses.
    """
    if updated.draft is None:
        raise DataError(_NOT_ACCEPTED.format(reason=updated.reason))
    if updated.run_id is not None:
        before = find_update(updated.run_id, settings)
        if before is not None:
            package = load_model(str(before.version), settings).package
            return RegisteredPackage(package, before)
    return register_draft(updated.draft, settings, progress=progress)


def find_update(run_id: str, settings: Settings) -> ModelVersion | None:
    """The version that a retraining registered, also where its process was killed right after.

    A registration that did not come as far as the ledger is put there.

    Args:
        run_id: of the retraining.
        settings: where registry and ledger are.

    Raises:
        RegistryError, RecordsError: a store is out of reach.
    """
    return find_registered(run_id, settings)


def online_learning_update(
    settings: Settings,
    progress: Progress,
    *,
    table: Path | None = None,
    promote: bool = False,
) -> LearnedOnline:
    """Let the champion learn from a batch of labels, on a copy, and register that if it is better.

    A few trees are added to the copy, fitted to the batch and to a sample of old rows; see
    `models.online_learning.online_learning_update`. Servers that are running take a promoted one
    up without being started again.

    Args:
        settings: where everything is.
        progress: told what is being done.
        table: a labelled feature table; where None, the labels that came since the champion was
            made, with the features that are in the prediction log.
        promote: put an accepted update in service.

    Raises:
        DataError: the table cannot be read, is of another unit, or of batteries of another level.
        PackageError: the champion is not one booster, is changed, or cannot be computed here.
        RegistryError, RecordsError: a store is out of reach, or there is no champion.
    """
    attempt = _Attempt.begin(settings, progress, None)
    _ = attempt.parent.package.booster  # refused before the work
    labels = _from_log(attempt, datetime.now(UTC)) if table is None else _from_file(attempt, table)
    updated = attempt.settle(labels, choose_online)
    if not updated.accepted:
        return LearnedOnline(updated, None, None)
    registered = register_update(updated, settings, progress)
    promoted = None
    if promote:
        progress.step("put it in service")
        promoted = put_in_service(registered.version.version, settings, reason=updated.reason)
    return LearnedOnline(updated, registered, promoted)


@dataclass(frozen=True, slots=True, eq=False)
class _Labels:
    """New rows, how many there are and were left out, and until when labels were looked at."""

    table: pl.DataFrame
    told: Mapping[str, Any]
    until: datetime | None


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What all ways to an update share."""

    settings: Settings
    progress: Progress
    parent: Parent
    run_id: str | None
    started: float
    changed: tuple[str, ...] = ()

    @classmethod
    def begin(cls, settings: Settings, progress: Progress, run_id: str | None) -> "_Attempt":
        started = time.perf_counter()
        progress.step("load the model in service")
        champion = load_model(CHAMPION, settings)
        parent = Parent(champion.package, int(champion.version))
        return cls(settings, progress, parent, run_id, started)

    def settle(
        self, labels: _Labels, choose: Callable[[Parent, UpdateRows, Settings], Chosen]
    ) -> Updated:
        """Choose an update, find out about it what a package says, and let the gates judge."""
        comparison, verdict, draft = None, None, None
        try:
            rows = self._rows(labels)
            self.progress.step(f"try updates on {len(rows.new)} new rows and {len(rows.old)} old")
            found = choose(self.parent, rows, self.settings)
        except DataError as error:
            reason = str(error)
        else:
            comparison, reason = found.comparison, _told(found.comparison)
            if found.model is not None:
                draft = draft_update(
                    found,
                    rows,
                    self.parent,
                    self.settings,
                    self.progress,
                    until=labels.until,
                    run_id=self.run_id,
                )
                verdict = draft.verdict
                if not verdict.passed:
                    reason, draft = "; ".join(verdict.reasons), None
        return Updated(
            parent_version=self.parent.version,
            parent_fingerprint=self.parent.package.fingerprint,
            reason=reason,
            labels=labels.told,
            labels_until=labels.until,
            run_id=self.run_id,
            comparison=comparison,
            verdict=verdict,
            draft=draft,
            seconds=time.perf_counter() - self.started,
        )

    def _rows(self, labels: _Labels) -> UpdateRows:
        if labels.table.is_empty():
            dropped = labels.told["dropped"]
            left = ", ".join(f"{reason} {count}" for reason, count in dropped.items())
            raise DataError(
                "there are no new labels to learn from"
                + (f": {sum(dropped.values())} were left out ({left})" if dropped else "")
            )
        package = self.parent.package
        known = realignments(package)
        found: tuple[Realignment, ...] = ()
        old, new = rows_of(package, self.settings), realign(labels.table, known)
        if self.changed:
            self.progress.step("realign rows of before a software update")
            found = find_realignments(
                package.view,
                self.changed,
                old,
                realign(self._asked(), known),
                seed=self.settings.training.seed,
            )
            old, new = realign(old, found), realign(new, found)
        rows = rows_together(old, new, package.view, self.settings)
        return replace(rows, realigned=(*known, *found))

    def _asked(self) -> pl.DataFrame:
        """What was asked lately, of before and after an update of some library."""
        now = datetime.now(UTC)
        names = self.parent.package.view.names
        with PredictionLog(self.settings.predictions_url) as log:
            frames = log.frames(now - _LATELY, now + CLOCKS_DIFFER, features=names)
            served = [frame.filter("served").select("answered_at", *names) for frame in frames]
        kinds = {"answered_at": pl.Datetime("us", "UTC"), **dict.fromkeys(names, pl.Float64())}
        return pl.concat([pl.DataFrame(schema=kinds), *served])


def _from_log(attempt: _Attempt, until: datetime) -> _Labels:
    attempt.progress.step("join new labels to their questions")
    package = attempt.parent.package
    since = labels_until(package)
    found = fresh_labels(attempt.settings, package.view, since=since, until=until)
    return _Labels(found.table, found.to_json(), found.looked_until)


def _from_file(attempt: _Attempt, path: Path) -> _Labels:
    attempt.progress.step(f"read {path.name}")
    package, settings = attempt.parent.package, attempt.settings
    table = read_feature_table(path, package.view.names, labelled=True).drop_nulls(LABEL)
    refuse_other_levels(table["asset_id"].unique(maintain_order=True), package, settings)
    report = check_prepared(table, package.view, settings)
    refuse_wrong_units(report, str(path))
    kept = report.kept(table)
    dropped = report.summary().group_by("check").agg(pl.col("cycles").sum()).sort("check")
    told = {
        "labels": kept.height,
        "vehicles": kept["asset_id"].n_unique(),
        "newest": None,
        "dropped": dict(dropped.iter_rows()),
    }
    # labels in the prediction log were not looked at
    return _Labels(kept, told, labels_until(package))


def _told(comparison: Comparison) -> str:
    """Why, with what each candidate was refused for where none passed."""
    if comparison.chosen is not None:
        return f"{comparison.reason}; {comparison.chosen.reason}"
    refused = "; ".join(f"{one.name}: {one.reason}" for one in comparison.candidates)
    return f"{comparison.reason}: {refused}"
