"""From a recording to rows that may train a model, with every row set aside on record."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Final

import polars as pl

from batteryops.errors import DataError
from batteryops.evaluation.protocols import CLOCK
from batteryops.features.views import FeatureView, feature_table, get_view
from batteryops.lifecycle.sources import default_source, open_source
from batteryops.quality.checks import (
    MeanColumns,
    QualityReport,
    check_features,
    check_recording,
)
from batteryops.quality.quarantine import QuarantineStore
from batteryops.quality.report import NO_LABEL, QUARANTINED_SHARE
from batteryops.records.ledger import DATA_INGESTED, Entry, Ledger
from batteryops.schema import FEATURE_KEY, LABEL, Recording, fingerprint
from batteryops.settings import Settings
from batteryops.telemetry import Lake

MEANS: Final = MeanColumns(
    voltage="voltage_V_mean", current="current_A_mean", temperature="temperature_C_mean"
)

MESSAGES_TOLD: Final = 3
"""How many messages of one sort a refusal repeats before it counts the rest."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """A recording that was checked and stands in the lake."""

    recording: Recording
    report: QualityReport
    entry: Entry


@dataclass(frozen=True, slots=True)
class Prepared:
    """One row per cycle that may train.

    Args:
        table: `asset_id`, `op_index`, the view's features, `capacity_ah`, and the clock of the
            record where it is no feature; complete and labelled.
        set_aside: the rows that may not train, same columns.
        view: what computed the features.
        report: what was checked, and each row that was set aside with its reasons.
        source: where the cycles came from.
        fingerprint: SHA-256 of `table`.
        recording: the cycles; None where a feature table was given.
    """

    table: pl.DataFrame
    set_aside: pl.DataFrame
    view: FeatureView
    report: QualityReport
    source: str
    fingerprint: str
    recording: Recording | None = None


def ingest(source: str, settings: Settings) -> Ingested:
    """Read cycles, check them and take them into the lake; the ledger keeps a line.

    Raises:
        DataError: the source cannot be read, or `ingest_recording` refuses it.
    """
    return ingest_recording(open_source(source, settings), settings)


def ingest_recording(recording: Recording, settings: Settings) -> Ingested:
    """Check a recording and take it into the lake; the ledger keeps a line.

    Cycles with problems are taken in too: the quarantine says which, and why, and training leaves
    them out. Taking the same recording in again changes nothing in the lake.

    Raises:
        DataError: an asset has no profile, or the recording as a whole breaks a limit; then
            nothing is written.
        RecordsError: the ledger is out of reach; then nothing is written either.
    """
    report = check_recording(recording, settings.profile_of, settings.quality)
    refuse_unless_accepted(report, recording.source)
    with Ledger(settings.ledger_url) as ledger:
        ledger.ping()
        QuarantineStore(settings.quarantine).write(recording.source, report.quarantine)
        Lake(settings.lake).write(recording)
        entry = ledger.append(
            DATA_INGESTED,
            recording.source,
            {
                "assets": recording.asset_ids,
                "cycles": recording.cycles.height,
                "samples": recording.samples.height,
                "samples_sha256": fingerprint(recording.samples),
                "cycles_sha256": fingerprint(recording.cycles),
                "quarantined_cycles": report.quarantined_rows,
            },
        )
    return Ingested(recording, report, entry)


def refuse_unless_accepted(report: QualityReport, source: str) -> None:
    """Raise with the broken limits, and the commonest reasons, when a data set may not be used.

    Raises:
        DataError: when `report` does not accept the data.
    """
    broken = {check.name: check for check in report.checks if check.exceeded}
    if not broken:
        return
    share = broken.pop(QUARANTINED_SHARE, None)
    told = _told(
        [check.message for check in report.checks if check.exceeded and check is not share], "more"
    )
    reasons = _commonest_reasons(report, besides={NO_LABEL, *broken})
    if share and (reasons or not broken):
        told += [share.message, *_told(reasons, "more reasons")]
    raise DataError(
        f"{source} may not be used: {'; '.join(told)}; "
        "`batteryops data check --source SOURCE --list` names each cycle with its reason"
    )


def _commonest_reasons(report: QualityReport, besides: Collection[str]) -> list[str]:
    """One line per check that set cycles aside, the commonest first, each with an example."""
    reasons = (
        report.quarantine.filter(~pl.col("check").is_in(sorted(besides)))
        .group_by("check")
        .agg(pl.struct(FEATURE_KEY).n_unique().alias("cycles"), pl.col("reason").first())
        .sort("cycles", "check", descending=[True, False])
    )
    return [
        f"{cycles} for {check.replace('_', ' ')}, such as: {reason}"
        for check, cycles, reason in reasons.iter_rows()
    ]


def _told(messages: list[str], rest: str) -> list[str]:
    """The first few messages, and how many are not told."""
    told = messages[:MESSAGES_TOLD]
    if len(messages) > MESSAGES_TOLD:
        told.append(f"and {len(messages) - MESSAGES_TOLD} {rest}")
    return told


def refuse_wrong_units(report: QualityReport, source: str) -> None:
    """Raise when cycles stand in another unit than the canonical table's.

    Raises:
        DataError: naming the unit and the factor.
    """
    wrong = [check.message for check in report.checks if check.name == "unit" and check.exceeded]
    if wrong:
        raise DataError(f"{source} may not be used: {'; '.join(_told(wrong, 'more'))}")


def prepare(recording: Recording, view: FeatureView, settings: Settings) -> Prepared:
    """Compute a view's features and keep the rows that may train.

    Raises:
        DataError: when too much would be set aside, or nothing remains.
    """
    raw = check_recording(recording, settings.profile_of, settings.quality)
    table = with_clock(feature_table(view, recording), recording)
    prepared = prepare_table(table, view, settings, source=recording.source, raw=raw)
    return replace(prepared, recording=recording)


def with_clock(table: pl.DataFrame, recording: Recording) -> pl.DataFrame:
    """Add when each cycle's record ends, where the view has no such feature.

    Assets that were aged together are found by it, whatever the features are. A model never sees
    it: it takes the view's features by name.

    Args:
        table: `asset_id`, `op_index`, and whatever else.
        recording: the cycles that the table describes.
    """
    if CLOCK in table.columns:
        return table
    ends = recording.samples.group_by("asset_id", pl.col("cycle_index").alias("op_index")).agg(
        pl.col("time_s").max().cast(pl.Float64).alias(CLOCK)
    )
    return table.join(ends, on=FEATURE_KEY, how="left", maintain_order="left")


def prepare_table(
    table: pl.DataFrame,
    view: FeatureView,
    settings: Settings,
    *,
    source: str,
    raw: QualityReport | None = None,
) -> Prepared:
    """Check a feature table and keep the rows that may train.

    Args:
        table: `asset_id`, `op_index`, the view's features, `capacity_ah`.
        view: what computed the features.
        settings: limits and profiles.
        source: where it came from, for messages and the ledger.
        raw: what the checks of the raw cycles said, when there are any.

    Raises:
        DataError: when too much would be set aside, or nothing remains.
    """
    report = check_prepared(table, view, settings, raw)
    refuse_unless_accepted(report, source)
    kept = report.kept(table)
    if kept.is_empty():
        raise DataError(
            f"{source}: all {table.height} cycles were set aside; "
            "see `batteryops data check --list` for the reasons"
        )
    return Prepared(kept, report.set_aside(table), view, report, source, fingerprint(kept))


def check_source(source: str | None, settings: Settings) -> tuple[QualityReport, str]:
    """Check cycles, and their summary features, as training would; and say what was read.

    Raises:
        DataError: the source cannot be read.
        UnknownAssetError: an asset without a profile.
    """
    view = get_view(settings.training.view)
    recording = open_source(source or default_source(settings), settings)
    report = check_recording(recording, settings.profile_of, settings.quality)
    if (recording.cycles["kind"] == view.kind).any():  # trips and charges have no such summary
        report = check_prepared(feature_table(view, recording), view, settings, report)
    return report, recording.source


def check_prepared(
    table: pl.DataFrame, view: FeatureView, settings: Settings, raw: QualityReport | None = None
) -> QualityReport:
    """Check a feature table, on rows whose record is sound; a crashed run has no features.

    Args:
        table: `asset_id`, `op_index`, the view's features, `capacity_ah`.
        view: what computed the features.
        settings: limits and profiles.
        raw: what the checks of the raw cycles said, when there are any; it is merged in.
    """
    sound = table if raw is None else raw.kept(table, "prediction")
    means = MeanColumns(
        **{  # a view need not describe means
            quantity: name if name in view.names else None
            for quantity, name in asdict(MEANS).items()
        }
    )
    report = check_features(
        sound, settings.profile_of, settings.quality, means, required=(*view.required, LABEL)
    )
    return report if raw is None else raw.merge(report)
