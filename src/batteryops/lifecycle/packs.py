"""How well the SoH of packs never seen is met from one short charging segment of each."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from batteryops.errors import DataError
from batteryops.features.pack_segment import CHARGE, PACK_FEATURES, segment_table
from batteryops.models.pack_soh import LEAST_PACKS, fit_pack_estimator
from batteryops.telemetry.charging_tests import (
    ChargingTest,
    ChargingTests,
    read_charging_tests,
)

STARTS_V: Final = (3.55, 3.60, 3.65, 3.70, 3.75, 3.80, 3.85)
"""Where candidate segments start, V of mean cell voltage; training packs alone choose among them.

Below, not all packs of NCM cells have a record; above, some are full.
"""

PUBLISHED: Final = {
    "mae_points": 3.2,
    "rmse_points": 3.9,
    "source": "ten packs, transfer-learned network, doi 10.1016/j.jechem.2023.10.056",
}


@dataclass(frozen=True, slots=True)
class Errors:
    """How far estimates of several packs are from what was measured, points of rated capacity.

    Args:
        mae_points: mean absolute error.
        rmse_points: root mean square error.
        bias_points: mean of estimated - measured.
        largest_points: largest absolute error.
        n_packs: packs that were estimated.
    """

    mae_points: float
    rmse_points: float
    bias_points: float
    largest_points: float
    n_packs: int


@dataclass(frozen=True, slots=True)
class PackAnswer:
    """One pack that had no part in training, estimated from one segment.

    Args:
        asset_id: the pack.
        start_v: where its segment starts, V; chosen by the training packs. None where the record
            covers no segment, as are all estimates then.
        soh_points: estimate.
        low_points: lower end of the interval.
        high_points: upper end of the interval.
        measured_points: the label.
        baseline_points: mean of the training packs.
        ratio_points: the charge of the segment over the share of its capacity that the mean
            training pack takes in it: the textbook estimate.
        by_start: estimate from each segment on its own, by its start in V.
    """

    asset_id: str
    start_v: float | None
    soh_points: float | None
    low_points: float | None
    high_points: float | None
    measured_points: float
    baseline_points: float
    ratio_points: float | None
    by_start: Mapping[str, float]

    @property
    def error_points(self) -> float | None:
        """Estimated - measured; None where nothing was estimated."""
        return None if self.soh_points is None else self.soh_points - self.measured_points


@dataclass(frozen=True, slots=True)
class PackEvaluation:
    """What was measured on packs that had no part in training.

    Args:
        protocol: `unseen_packs` (each left out in turn) or `train_test` (another folder).
        sources: the folder, or the folders of training and test.
        answers: one per pack, sorted by name.
        errors: of the estimates.
        baseline: of the training packs' mean for the same packs.
        ratio: of the textbook estimate from the same segments.
        by_start: errors of each candidate segment on its own, by its start in V. To pick the best
            of them here would be to tune on the packs that judge.
        coverage: share of packs whose measured SoH lies within the interval.
        nominal_coverage: least share that the intervals were made for.
        notes: what a reader must know, such as packs left out.
    """

    protocol: str
    sources: tuple[str, ...]
    answers: tuple[PackAnswer, ...]
    errors: Errors
    baseline: Errors
    ratio: Errors
    by_start: Mapping[str, Errors]
    coverage: float
    nominal_coverage: float
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The whole result as one document."""
        return {
            "protocol": self.protocol,
            "sources": list(self.sources),
            "metrics": asdict(self.errors),
            "baselines": {
                "mean_of_training_packs": asdict(self.baseline),
                "charge_ratio": asdict(self.ratio),
                "published": PUBLISHED,
            },
            "interval": {"coverage": self.coverage, "nominal_coverage": self.nominal_coverage},
            "packs": [asdict(one) | {"error_points": one.error_points} for one in self.answers],
            "segments": {start: asdict(errors) for start, errors in self.by_start.items()},
            "features": [
                {"name": one.name, "unit": one.unit, "why_safe": one.why_safe}
                for one in PACK_FEATURES
            ],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class _Packs:
    """Labelled packs with the features of each candidate segment."""

    features: pl.DataFrame
    soh_points: dict[str, float]

    def of(self, names: Collection[str]) -> "_Packs":
        return _Packs(
            self.features.filter(pl.col("asset_id").is_in(list(names))),
            {name: soh for name, soh in self.soh_points.items() if name in names},
        )


def evaluate_packs(
    folder: Path,
    *,
    rated_ah: Mapping[str, float] | None = None,
    without: Collection[str] = (),
) -> PackEvaluation:
    """Leave each pack of a folder out in turn and estimate it from one segment.

    Standardisation, fit, and the choice of the segment see the other packs only.

    Args:
        folder: as `telemetry.charging_tests.read_charging_tests` takes it.
        rated_ah: another rated capacity for a pack, where the published one is in doubt; its SoH
            is then relative to this one.
        without: packs to leave out altogether.

    Raises:
        DataError: unreadable data, a name that is not there, or fewer than five labelled packs.
    """
    read = read_charging_tests(folder)
    _check_names([read], rated_ah or {}, without)
    packs = _packs(read, rated_ah or {}, without)
    names = sorted(packs.soh_points)
    if len(names) <= LEAST_PACKS:
        raise DataError(
            f"{folder}: {len(names)} packs with a measured capacity; to leave one out and train "
            f"on the others takes at least {LEAST_PACKS + 1}; or give --train and --test"
        )
    answers = [
        answer
        for name in names
        for answer in _answers(
            packs.of([other for other in names if other != name]), packs.of([name])
        )
    ]
    notes = _notes([read], rated_ah or {}, without)
    return _result("unseen_packs", [read], answers, len(names) - 1, notes)


def evaluate_transfer(
    train: Path,
    test: Path,
    *,
    rated_ah: Mapping[str, float] | None = None,
    without: Collection[str] = (),
) -> PackEvaluation:
    """Train on the packs of one folder and estimate those of another.

    Args:
        train: folder of packs to train on.
        test: folder of packs to estimate; those with a measured capacity are judged.
        rated_ah: as `evaluate_packs` takes it; names may be of either folder.
        without: likewise.

    Raises:
        DataError: as `evaluate_packs` does, or when a pack stands in both folders.
    """
    read = [read_charging_tests(folder) for folder in (train, test)]
    _check_names(read, rated_ah or {}, without)
    trained, tested = (_packs(one, rated_ah or {}, without) for one in read)
    if both := sorted(set(trained.soh_points) & set(tested.soh_points)):
        raise DataError(
            f"{', '.join(both)} stand in {train} and in {test}; a pack to be tested must not be "
            "trained on: leave it out of one of them"
        )
    answers = _answers(trained, tested)
    notes = _notes(read, rated_ah or {}, without)
    return _result("train_test", read, answers, len(trained.soh_points), notes)


def _check_names(
    read: Sequence[ChargingTests], rated_ah: Mapping[str, float], without: Collection[str]
) -> None:
    there = sorted(test.asset_id for one in read for test in one.tests)
    if strangers := sorted({*rated_ah, *without} - set(there)):
        raise DataError(f"no pack named {', '.join(strangers)}; there are {', '.join(there)}")
    for name, rated in rated_ah.items():
        if not 0 < rated < float("inf"):
            raise DataError(f"rated capacity {rated:g} Ah of {name}; expected above 0")


def _notes(
    read: Sequence[ChargingTests], rated_ah: Mapping[str, float], without: Collection[str]
) -> tuple[str, ...]:
    tests = [test for one in read for test in one.tests]
    notes = [
        f"{test.asset_id}: no measured capacity, so it has no part in this"
        for test in tests
        if test.capacity_ah is None and test.asset_id not in without
    ]
    notes += [
        f"{test.asset_id}: {test.left_out} impossible samples left out"
        for test in tests
        if test.left_out and test.asset_id not in without
    ]
    notes += [
        f"{', '.join(one.without_record)}: listed in {one.source}, but without a record"
        for one in read
        if one.without_record
    ]
    notes += [f"{name}: rated at {rated:g} Ah as asked" for name, rated in rated_ah.items()]
    notes += [f"{name}: left out as asked" for name in sorted(without)]
    return tuple(notes)


def _packs(read: ChargingTests, rated_ah: Mapping[str, float], without: Collection[str]) -> _Packs:
    tests = [
        replace(test, rated_capacity_ah=rated_ah.get(test.asset_id, test.rated_capacity_ah))
        for test in read.tests
        if test.asset_id not in without
    ]
    labelled = {test.asset_id: soh for test in tests if (soh := test.soh_points) is not None}
    tables = [_features(test) for test in tests if test.asset_id in labelled]
    if not tables:
        raise DataError(
            f"{read.source}: no pack with a measured capacity; vehicles.csv gives it as "
            "capacity_measured_ah, or as soh_measured times rated_capacity_ah"
        )
    return _Packs(pl.concat(tables), labelled)


def _features(test: ChargingTest) -> pl.DataFrame:
    table = segment_table(test.samples, rated_capacity_ah=test.rated_capacity_ah, starts_v=STARTS_V)
    return table.select(pl.lit(test.asset_id).alias("asset_id"), pl.all())


def _answers(trained: _Packs, tested: _Packs) -> list[PackAnswer]:
    """Each pack of `tested`, estimated by what was learned from `trained` alone."""
    estimator = fit_pack_estimator(trained.features, trained.soh_points)
    preferred = {row["asset_id"]: row for row in estimator.estimate(tested.features).to_dicts()}
    every = estimator.estimate_segments(tested.features).drop_nulls("soh_points")
    mean = float(np.mean(list(trained.soh_points.values())))
    answers = []
    for name, measured in sorted(tested.soh_points.items()):
        own, best = every.filter(asset_id=name).sort("start_v"), preferred[name]
        answers.append(
            PackAnswer(
                asset_id=name,
                start_v=best["start_v"],
                soh_points=best["soh_points"],
                low_points=best["low_points"],
                high_points=best["high_points"],
                measured_points=measured,
                baseline_points=mean,
                ratio_points=_ratio(trained, tested.of([name]).features, best["start_v"]),
                by_start={
                    f"{start:.2f}": soh for start, soh in own.select("start_v", "soh_points").rows()
                },
            )
        )
    return answers


def _ratio(trained: _Packs, own: pl.DataFrame, start_v: float | None) -> float | None:
    """Charge in the segment over the mean share of capacity that training packs take in it."""
    if start_v is None:
        return None
    there = trained.features.filter(start_v=start_v).drop_nulls(CHARGE)
    shares = [
        charge / trained.soh_points[name]
        for name, charge in there.select("asset_id", CHARGE).rows()
    ]
    return float(own.filter(start_v=start_v)[CHARGE].item()) / float(np.mean(shares))


def _result(
    protocol: str,
    read: Sequence[ChargingTests],
    answers: Sequence[PackAnswer],
    n_trained: int,
    notes: tuple[str, ...],
) -> PackEvaluation:
    judged = [one for one in answers if one.soh_points is not None]
    if not judged:
        raise DataError(
            f"{', '.join(one.source for one in read)}: no pack has a record of any segment that "
            f"starts at {', '.join(f'{start:.2f}' for start in STARTS_V)} V and ends 0.1 V above"
        )
    covered = [
        one.low_points <= one.measured_points <= one.high_points
        for one in judged
        if one.low_points is not None and one.high_points is not None
    ]
    missed = tuple(
        f"{one.asset_id}: its record covers no segment that training packs cover, not estimated"
        for one in answers
        if one.soh_points is None
    )
    starts = sorted({start for one in judged for start in one.by_start})
    return PackEvaluation(
        protocol=protocol,
        sources=tuple(one.source for one in read),
        answers=tuple(answers),
        errors=_errors((one.soh_points, one.measured_points) for one in judged),
        baseline=_errors((one.baseline_points, one.measured_points) for one in judged),
        ratio=_errors((one.ratio_points, one.measured_points) for one in judged),
        by_start={
            start: _errors((one.by_start.get(start), one.measured_points) for one in judged)
            for start in starts
        },
        coverage=float(np.mean(covered)),
        nominal_coverage=n_trained / (n_trained + 1),
        notes=(*notes, *missed),
    )


def _errors(pairs: Iterable[tuple[float | None, float]]) -> Errors:
    """Of those pairs of estimated and measured that have an estimate; at least one has."""
    away = np.array(
        [estimated - measured for estimated, measured in pairs if estimated is not None]
    )
    return Errors(
        mae_points=float(np.abs(away).mean()),
        rmse_points=float(np.sqrt(np.square(away).mean())),
        bias_points=float(away.mean()),
        largest_points=float(np.abs(away).max()),
        n_packs=len(away),
    )
