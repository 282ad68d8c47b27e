"""Time models side by side: each has its turn in every round, so that ratios mean something."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from batteryops.models.boosting import predict
from batteryops.models.compression import Slim
from batteryops.models.compression_variants import Variant
from batteryops.models.onnx_twin import OnnxRow

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]

ROUNDS: Final = 200
"""In each of so many rounds every variant has its turn."""
ROWS_PER_TURN: Final = 50
WARM_UP_ROWS: Final = 10
"""Untimed rows before each turn: a served model answers with its trees in the cache."""
BATCH_ROWS: Final = 1000
BATCH_EVERY: Final = 5
"""A batch is timed in one round of so many."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast one model answers on one thread, measured in turns with the others.

    Args:
        row_median_us: one row by ONNX Runtime, microseconds; half of the calls are faster.
        row_p99_us: 99 % of the calls are faster.
        row_ratio: median over rounds of this model's median by the full model's in that round.
        rows_per_s: rows a second, in batches, by XGBoost.
        batch_ratio: time of a batch, by the full model's in the same round; median.
    """

    row_median_us: float
    row_p99_us: float
    row_ratio: float
    rows_per_s: float
    batch_ratio: float


def measure_speeds(
    models: Mapping[Variant, Slim],
    twins: Mapping[Variant, bytes],
    features: Matrix,
    tell: Callable[[int, int], None],
) -> dict[Variant, Speed]:
    """Time all variants side by side: in each round each has its turn, another one first.

    What else the machine does then weighs on all of them alike, which is why the ratios to the
    full model hold where the microseconds are those of one machine in one moment.

    Args:
        models: among them the full one, `Variant()`.
        twins: their ONNX twins.
        features: (n, k) all columns; rows are drawn from these.
        tell: told how many rounds are done.
    """
    rows = {variant: OnnxRow(twin) for variant, twin in twins.items()}
    drawn = np.random.default_rng(0).integers(len(features), size=BATCH_ROWS)
    asked = {variant: model.narrow(features[drawn]) for variant, model in models.items()}
    for model in models.values():
        model.booster.set_param({"nthread": 1})
    calls_us: dict[Variant, list[Floats]] = {variant: [] for variant in models}
    batches_s: dict[Variant, list[float]] = {variant: [] for variant in models}
    turns = list(models)
    for done in range(ROUNDS):
        tell(done, ROUNDS)
        first = done % len(turns)
        start = done * ROWS_PER_TURN % BATCH_ROWS
        for variant in turns[first:] + turns[:first]:
            calls_us[variant].append(_time_rows(rows[variant], asked[variant], start))
            if done % BATCH_EVERY == 0:
                begun = time.perf_counter()
                predict(models[variant].booster, asked[variant])
                batches_s[variant].append(time.perf_counter() - begun)
    typical = {variant: np.median(np.array(found), axis=1) for variant, found in calls_us.items()}
    batches = {variant: np.array(found) for variant, found in batches_s.items()}
    return {
        variant: Speed(
            row_median_us=float(np.median(np.array(calls_us[variant]))),
            row_p99_us=float(np.quantile(np.array(calls_us[variant]), 0.99)),
            row_ratio=float(np.median(typical[variant] / typical[Variant()])),
            rows_per_s=float(BATCH_ROWS / np.median(batches[variant])),
            batch_ratio=float(np.median(batches[variant] / batches[Variant()])),
        )
        for variant in models
    }


def _time_rows(answer: OnnxRow, asked: Matrix, start: int) -> Floats:
    """Microseconds of each of one turn's calls."""
    clock = time.perf_counter_ns
    taken = np.empty(ROWS_PER_TURN)
    for row in asked[:WARM_UP_ROWS]:
        answer(row)
    for call, row in enumerate(asked[start : start + ROWS_PER_TURN]):
        begun = clock()
        answer(row)
        taken[call] = clock() - begun
    return taken / 1000.0
