"""Does monitoring see what it should? Known shifts planted into a copy of recent traffic.

Traffic is split at random into two halves, by assets. A reference is fitted to one; the other is
fed in order, in windows that grow, with a shift planted from its first row on. How many rows it
takes until the shift raises an alarm that there is not without it, and which cause is named then,
is what the self-test tells; how often two halves without a shift raise one is its share of false
alarms. So it says how well drift is seen in this traffic, whatever the model in service was trained
on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from batteryops.errors import DataError
from batteryops.monitoring.causes import DRIFTS, explain
from batteryops.monitoring.context import ORDER
from batteryops.monitoring.counts import Counts
from batteryops.monitoring.drift_detection import (
    DEFAULT_LIMITS,
    DriftLimits,
    DriftReport,
    detect,
)
from batteryops.monitoring.planted_shifts import shifts_of
from batteryops.monitoring.reference import Reference

RUNS: Final = 40
"""Draws without a shift: one false alarm is 2.5 percent."""

FEWEST_ROWS: Final = 400
FEWEST_ASSETS: Final = 20
"""With fewer, halves are drawn by rows."""

_FIRST_WINDOW: Final = 100
_GROWTH: Final = 1.5

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What was found.

    Args:
        delay_rows: by shift, rows until an alarm on a feature where it has to show; None where the
            traffic holds too few.
        named: the cause named then.
        right: whether that is the one that was planted.
        false_alarm_share: of draws without a shift.
        runs: so many draws.
        rows: that a shift could be found in.
    """

    delay_rows: Mapping[str, int | None]
    named: Mapping[str, str]
    right: Mapping[str, bool]
    false_alarm_share: float
    runs: int
    rows: int

    def to_json(self) -> dict[str, Any]:
        """For the monitoring run."""
        return {
            "delay_rows": dict(self.delay_rows),
            "named": dict(self.named),
            "right": dict(self.right),
            "false_alarm_share": self.false_alarm_share,
            "runs": self.runs,
            "rows": self.rows,
        }


def run_self_test(  # noqa: PLR0913 - what can be chosen of a test
    traffic: pl.DataFrame,
    features: Sequence[str],
    *,
    asset: str = "asset_id",
    limits: DriftLimits = DEFAULT_LIMITS,
    sentinels: Sequence[float] = (),
    runs: int = RUNS,
    seed: int = 42,
    progress: Progress | None = None,
) -> SelfTest:
    """Plant shifts, and count how long it takes to see them.

    Args:
        traffic: one row per prediction, in the order they came; ordered by `op_index` where it has
            that column.
        features: of the model.
        asset: the column that says whose row it is; without it every row counts for itself.
        limits: from where on a difference matters.
        sentinels: values that mean "no measurement".
        runs: draws without a shift, 1 or more.
        seed: of the draws.
        progress: told how many of the parts are done, and of how many.

    Raises:
        DataError: when there are too few rows, or features are missing.
    """
    missing = [name for name in features if name not in traffic.columns]
    if missing or not features:
        raise DataError(
            f"the self-test needs {', '.join(missing) or 'features'}; the traffic has "
            f"{', '.join(traffic.columns)}"
        )
    if traffic.height < FEWEST_ROWS or runs < 1:
        raise DataError(
            f"the self-test was given {traffic.height} rows and {runs} runs; expected "
            f"{FEWEST_ROWS} rows and one run at least"
        )
    rng = np.random.default_rng(seed)
    traffic = _in_order(traffic, asset)
    feature = next((name for name in limits.critical_features if name in features), features[0])
    sigma = float(traffic[feature].fill_nan(None).std() or 0.0)  # type: ignore[arg-type]  # numeric
    shifts = shifts_of(features, feature, sigma, asset=asset)
    total, done = len(shifts) + runs, 0

    def tell() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    half = _half(traffic, asset, rng)
    reference = Reference.fit(traffic.filter(half), features, asset=asset)
    stream = traffic.filter(~half)
    quiet = _alarms(reference, stream, asset=asset, limits=limits)
    delays: dict[str, int | None] = {}
    named: dict[str, str] = {}
    for shift in shifts:
        delays[shift.name], cause = None, None
        planted = shift.plant(stream)
        for rows, counts, report in _fed(reference, planted, asset=asset, limits=limits):
            new = _drifting(report) - quiet[rows]
            if new & {*shift.features}:
                told = explain(reference, counts, report, limits=limits, sentinels=sentinels)
                delays[shift.name], cause = rows, _cause(told, new & {*shift.features})
                break
        if cause is not None:
            named[shift.name] = cause
        tell()
    alarms = 0
    for _ in range(runs):
        half = _half(traffic, asset, rng)
        drawn = Reference.fit(traffic.filter(half), features, asset=asset)
        counts = Counts.of(drawn, traffic.filter(~half), asset=asset)
        alarms += bool(_drifting(detect(drawn, counts, limits)))
        tell()
    causes = {shift.name: shift.cause for shift in shifts}
    return SelfTest(
        delay_rows=delays,
        named=named,
        right={name: cause == causes[name] for name, cause in named.items()},
        false_alarm_share=alarms / runs,
        runs=runs,
        rows=stream.height,
    )


def _in_order(traffic: pl.DataFrame, asset: str) -> pl.DataFrame:
    if asset not in traffic.columns:
        each = pl.int_range(pl.len()).cast(pl.String).alias(asset)
        traffic = traffic.with_columns(each)
    return traffic.sort(ORDER, maintain_order=True) if ORDER in traffic.columns else traffic


def _half(traffic: pl.DataFrame, asset: str, rng: np.random.Generator) -> pl.Series:
    """Which rows are of the first half: whole assets, where there are enough."""
    names = traffic[asset].unique(maintain_order=True)
    if len(names) < FEWEST_ASSETS:
        return pl.Series(rng.permutation(traffic.height) % 2 == 0)
    drawn = names.gather(rng.permutation(len(names))[: len(names) // 2].tolist())
    return traffic[asset].is_in(drawn.implode())


def _fed(
    reference: Reference, stream: pl.DataFrame, *, asset: str, limits: DriftLimits
) -> Iterator[tuple[int, Counts, DriftReport]]:
    """Windows that grow: how many rows each has, what was counted, and what is found."""
    fed, counts = 0, None
    for end in _windows(stream.height):
        piece = Counts.of(reference, stream[fed:end], asset=asset)
        counts = piece if counts is None else counts + piece
        fed = end
        yield end, counts, detect(reference, counts, limits)


def _alarms(
    reference: Reference, stream: pl.DataFrame, *, asset: str, limits: DriftLimits
) -> dict[int, set[str]]:
    """The features that drift by themselves, by rows of the window."""
    fed = _fed(reference, stream, asset=asset, limits=limits)
    return {rows: _drifting(report) for rows, _, report in fed}


def _drifting(report: DriftReport) -> set[str]:
    return {name for name, found in report.features.items() if found.status in DRIFTS}


def _windows(rows: int) -> list[int]:
    steps = int(np.log(rows / _FIRST_WINDOW) / np.log(_GROWTH)) + 1
    ends = (_FIRST_WINDOW * _GROWTH ** np.arange(steps)).astype(np.int64)
    return sorted({*ends.tolist(), rows})


def _cause(report: DriftReport, features: set[str]) -> str:
    """The cause of most of these features."""
    causes = [report.features[name].cause or "" for name in sorted(features)]
    return max(sorted(set(causes)), key=causes.count)
