"""Why features drift: age, climate, load, chemistry, cooling, software, or a sensor's fault.

What the counts cannot tell is told from samples of whole assets on both sides (`context`):

1. A feature's own values: marks, one value repeated, another unit (`sensor_faults`).
2. Another cooling, or another software, in nearly all of the same assets (`changes`). Where assets
   of another chemistry joined, they are told by those that drive beside them, and the others are
   looked at by themselves.
3. Ageing beyond what the reference saw: the same assets, later in their lives, are empty sooner, at
   lower voltage, and warm more; all that capacity rises with falls together.
4. Temperature and load move for themselves, and other features follow them. What should have
   followed is told by the ties of the reference (`ties`). Where it did, or where the drift goes
   away once current rows are weighted to the reference's strata of temperature or load, the climate
   or the operating mode changed; what follows from the age of the rows is ageing. Where temperature
   or load moved and nothing followed, the sensor did.
5. What remains in one sensor's features alone is an offset, if a constant takes it away; what
   remains in several, of assets that the reference does not know, is a new chemistry.
6. Where that names nothing, and only some assets are far from all others, they are looked at by
   themselves.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from batteryops.monitoring.changes import changes, names_explained
from batteryops.monitoring.counts import Counts
from batteryops.monitoring.diagnosis import NEW_CHEMISTRY, UNKNOWN, Found, diagnose
from batteryops.monitoring.drift_detection import (
    DEFAULT_LIMITS,
    DriftLimits,
    DriftReport,
    FeatureDrift,
)
from batteryops.monitoring.pairs import Pair, Sample
from batteryops.monitoring.quantities import is_level
from batteryops.monitoring.reference import PREDICTION, Reference
from batteryops.monitoring.sensor_faults import SHARE, Fault, distance, fault_of
from batteryops.monitoring.ties import means

DRIFTS: Final = ("warning", "alert")

_FAR: Final = 4.0
_WORTH: Final = 0.5
_FEW: Final = 3
_RARE: Final = 0.1
_FEW_ROWS: Final = 30
_HALF: Final = 0.5


def explain(
    reference: Reference,
    counts: Counts,
    report: DriftReport,
    *,
    limits: DriftLimits = DEFAULT_LIMITS,
    sentinels: Sequence[float] = (),
) -> DriftReport:
    """The report with the cause of each warning and alert.

    Ageing is expected: a report in which nothing else drifts says OK, and asks for no new model.

    Args:
        reference: what was compared with.
        counts: of the current rows.
        report: what `detect` found.
        limits: that it was given.
        sentinels: values that mean "no measurement" (`settings.quality.sentinels`).
    """
    drifting = {name: found for name, found in _columns(report).items() if found.status in DRIFTS}
    if reference.context is None or counts.context is None:
        why = "the reference or the counts keep no sample of rows to tell causes from"
        found: Mapping[str, Found] = dict.fromkeys(drifting, Found(UNKNOWN, why))
    elif drifting:
        found = _causes(reference, counts, drifting, limits, sentinels)
    else:
        found = {}
    gone = Found("sensor_fault: missing", "")
    absent = {name: gone for name, had in report.features.items() if had.status == "missing"}
    told = {
        name: _with_cause(had, {**found, **absent}.get(name))
        for name, had in _columns(report).items()
    }
    return replace(
        report,
        prediction=told.pop(PREDICTION, None),
        features={name: told[name] for name in report.features},
    )


def _columns(report: DriftReport) -> dict[str, FeatureDrift]:
    predicted = {} if report.prediction is None else {PREDICTION: report.prediction}
    return {**report.features, **predicted}


def _with_cause(had: FeatureDrift, found: Found | None) -> FeatureDrift:
    if found is None:
        return had
    return replace(had, cause=found.cause, evidence=found.detail)


def _causes(
    reference: Reference,
    counts: Counts,
    drifting: Mapping[str, FeatureDrift],
    limits: DriftLimits,
    sentinels: Sequence[float],
) -> Mapping[str, Found]:
    before, after = reference.context, counts.context
    assert before is not None  # noqa: S101 - the caller looked
    assert after is not None  # noqa: S101 - the caller looked
    names = before.names
    pair = Pair(
        names,
        Sample.of(before, names),
        Sample.of(after, names),
        before.by_asset and after.by_asset,
        complete=reference.assets is None or reference.assets <= before.assets.height,
    )
    faults, pair = _without_faults(pair, drifting, sentinels)
    left = [name for name in drifting if name not in faults]
    changed, pair = _without_changes(pair, left)
    left = [name for name in left if name not in changed]
    found = _of_new_assets(pair, left, limits) or diagnose(pair, left, limits.psi_warning)
    found = {**found, **changed}
    if any(found[name].cause == UNKNOWN for name in left):
        found = {**found, **_of_some_assets(pair, left, found, limits)}
    found = {**found, **_missing(pair, left, found, drifting)}
    found = {
        **found,
        **{
            name: Found(f"sensor_fault: {fault.kind}", fault.detail)
            for name, fault in faults.items()
        },
    }
    return {**found, **_prediction(found)}


def _without_faults(
    pair: Pair, drifting: Mapping[str, FeatureDrift], sentinels: Sequence[float]
) -> tuple[dict[str, Fault], Pair]:
    """Faults that values show by themselves, and the samples without them."""
    faults: dict[str, Fault] = {}
    values = pair.after.values.copy()
    for name in drifting:
        if name == PREDICTION:
            continue
        place = pair.names.index(name)
        fault = fault_of(name, pair.before.column(place), pair.after.column(place), sentinels)
        if fault is not None and not _is_of_others(pair, name, fault):
            faults[name] = fault
            values[:, place] = fault.values
    return faults, replace(pair, after=replace(pair.after, values=values))


def _is_of_others(pair: Pair, name: str, fault: Fault) -> bool:
    """Whether a time repeats itself in batteries that are new to the reference, and only there.

    Another kind of battery may pass a voltage between the same two samples always.
    """
    if fault.kind != "stuck" or is_level(name) or not pair.by_asset:
        return False
    struck = np.isnan(fault.values) & ~np.isnan(pair.after.values[:, pair.names.index(name)])
    weights = pair.after.weights
    new, known, joined = (
        float(weights[rows].sum())
        for rows in (struck & pair.is_new, struck & pair.is_known, pair.is_new)
    )
    return known < _RARE * (new + known) and new > _HALF * joined


def _without_changes(pair: Pair, drifting: Sequence[str]) -> tuple[dict[str, Found], Pair]:
    """Another cooling or software, and the samples without them."""
    found = changes(pair, drifting)
    told = {
        name: Found(change.cause, change.detail) for name, change in names_explained(found).items()
    }
    return told, found[-1].pair if found else pair


def _of_new_assets(pair: Pair, left: list[str], limits: DriftLimits) -> dict[str, Found]:
    """Causes where assets of another chemistry joined: of these, and of the others apart.

    Assets that the reference does not know are compared with those that it knows and that drive at
    the same time, in the same weather. Empty where no other chemistry is among them.
    """
    share = 1.0 - pair.known_assets
    known, new = pair.after.only(pair.is_known), pair.after.only(pair.is_new)
    if not SHARE <= share < 1.0 - SHARE or min(known.weights.size, new.weights.size) < _FEW_ROWS:
        return {}
    joined = diagnose(replace(pair, before=known, after=new), left, limits.psi_warning)
    others = [name for name in left if joined[name].cause != NEW_CHEMISTRY]
    if len(others) == len(left):
        return {}
    alone = replace(pair, after=known)
    detail = f"of {share:.0%} of the rows: {joined[_other(left, others)].detail}"
    told = {name: Found(NEW_CHEMISTRY, detail) for name in left}
    still = [name for name in left if name == PREDICTION or _drifts_too(pair, alone, name)]
    return {**told, **diagnose(alone, still, limits.psi_warning)}


def _other(left: list[str], others: list[str]) -> str:
    return next(name for name in left if name not in others)


def _drifts_too(pair: Pair, alone: Pair, name: str) -> bool:
    """Whether a feature drifts about as far where the new assets are left out."""
    place = pair.names.index(name)
    before = pair.before.column(place)
    whole, part = (
        distance(before, side.after.values[:, place], side.after.weights) for side in (pair, alone)
    )
    return part > _HALF * whole


def _of_some_assets(
    pair: Pair, left: list[str], found: Mapping[str, Found], limits: DriftLimits
) -> dict[str, Found]:
    """What is found of the assets that are far from all others, by themselves."""
    far = _far_assets(pair, [name for name in left if name != PREDICTION])
    share = float(pair.after.weights[far].sum() / pair.after.weights.sum())
    if not SHARE <= share < 1.0 - SHARE:
        return {}
    some = replace(pair, after=pair.after.only(far))
    again = diagnose(some, left, limits.psi_warning)
    return {
        name: Found(again[name].cause, f"of {share:.0%} of the rows: {again[name].detail}")
        for name in left
        if found[name].cause == UNKNOWN and again[name].cause != UNKNOWN
    }


def _far_assets(pair: Pair, names: list[str]) -> NDArray[np.bool_]:
    """Rows of assets whose means lie far from those of all assets of the reference."""
    places = [pair.names.index(name) for name in names]
    rows = np.zeros(pair.after.weights.size, dtype=np.bool_)
    if not pair.by_asset or not places:
        return rows
    old, new = (scaled[:, places] for scaled in pair.scaled)
    usual = np.array(
        [
            means(old[own], pair.before.weights[own])
            for asset in np.unique(pair.before.assets)
            if (own := pair.before.assets == asset).any()
        ]
    )
    usual = usual[np.isfinite(usual).all(axis=1)]
    if len(usual) < _FEW:
        return rows
    centre = np.median(usual, axis=0)
    width = 1.4826 * np.median(np.abs(usual - centre), axis=0)
    for asset in np.unique(pair.after.assets):
        own = pair.after.assets == asset
        away = np.abs(means(new[own], pair.after.weights[own]) - centre)
        if (away > np.maximum(_FAR * width, _WORTH)).any():
            rows |= own
    return rows


def _missing(
    pair: Pair,
    left: list[str],
    found: Mapping[str, Found],
    drifting: Mapping[str, FeatureDrift],
) -> dict[str, Found]:
    """Values that stopped coming, where nothing else explains the drift."""
    told = {}
    for name in left:
        usual = float(np.isnan(pair.before.values[:, pair.names.index(name)]).mean())
        more = drifting[name].missing_share - usual
        if name != PREDICTION and found[name].cause == UNKNOWN and more >= SHARE:
            detail = f"{more:.0%} more of the values are missing than in the reference"
            told[name] = Found("sensor_fault: missing", detail)
    return told


def _prediction(found: Mapping[str, Found]) -> dict[str, Found]:
    """Predictions follow the features: without a cause of their own they drift for theirs."""
    if PREDICTION not in found or found[PREDICTION].cause != UNKNOWN:
        return {}
    causes = Counter(
        had.cause for name, had in found.items() if name != PREDICTION and had.cause != UNKNOWN
    )
    if not causes:
        return {}
    return {PREDICTION: Found(causes.most_common(1)[0][0], "as the features that they are made of")}
