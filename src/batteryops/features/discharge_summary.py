"""Feature view `discharge_summary` v1: the source system's seven features of a discharge."""

from typing import Final

import polars as pl

from batteryops.features.runs import Runs, in_runs
from batteryops.features.view import Feature, FeatureView

DROP_FROM_V: Final = 3.9
DROP_TO_V: Final = 3.4

_PUBLISHED: Final = "source system's published matrix of NASA discharges"
_WHOLE_RECORD: Final = "over all samples of the record, the rest after the load included"

SUMMARY: Final = (
    Feature(
        name="voltage_V_mean",
        unit="V",
        low=0.0,
        high=5.0,
        meaning=f"plain mean of the terminal voltage {_WHOLE_RECORD}",
        source=_PUBLISHED,
    ),
    Feature(
        name="current_A_mean",
        unit="A",
        low=-20.0,
        high=0.0,
        meaning=f"plain mean of the current {_WHOLE_RECORD}; discharge is negative",
        source=_PUBLISHED,
        leaks_label=(
            "times discharge_time_s it is the charge that flowed, "
            "and a full discharge's charge is the capacity"
        ),
    ),
    Feature(
        name="temperature_C_mean",
        unit="degC",
        low=-40.0,
        high=70.0,
        meaning=f"plain mean of the cell's temperature {_WHOLE_RECORD}",
        source=_PUBLISHED,
    ),
    Feature(
        name="temperature_C_max",
        unit="degC",
        low=-40.0,
        high=85.0,
        meaning=f"highest temperature of the cell {_WHOLE_RECORD}",
        source=_PUBLISHED,
    ),
    Feature(
        name="discharge_time_s",
        unit="s",
        low=0.0,
        high=86_400.0,
        meaning=(
            "time of the record's last sample; the length of the record, "
            "not the time to the cutoff voltage"
        ),
        source=_PUBLISHED,
        leaks_label=(
            "times current_A_mean it is the charge that flowed, "
            "and a full discharge's charge is the capacity"
        ),
        trend=1,
    ),
    Feature(
        name="delta_T_C",
        unit="K",
        low=0.0,
        high=60.0,
        meaning=f"highest minus lowest temperature of the cell {_WHOLE_RECORD}",
        source=_PUBLISHED,
    ),
    Feature(
        name="voltage_drop_time_s",
        unit="s",
        low=0.0,
        high=86_400.0,
        meaning=(
            f"time of the first sample at or below {DROP_TO_V} V minus time of the first sample "
            f"at or below {DROP_FROM_V} V; null where the record never falls to {DROP_TO_V} V"
        ),
        source=f"{_PUBLISHED}; found by fitting, equal on all its rows",
        leaks_label=(
            "times the load's current it is the charge that flowed between the two voltages, "
            "the larger part of the capacity at moderate load"
        ),
        trend=1,
    ),
)


def summarise(runs: Runs) -> pl.DataFrame:
    """The seven features per run, with the column `run`."""
    time, voltage, current, temperature = (
        pl.col(name) for name in ("time_s", "voltage_v", "current_a", "temperature_c")
    )
    return runs.samples.group_by("run").agg(
        voltage_V_mean=voltage.mean(),
        current_A_mean=current.mean(),
        temperature_C_mean=temperature.mean(),
        temperature_C_max=temperature.max(),
        discharge_time_s=time.max(),
        delta_T_C=temperature.max() - temperature.min(),
        voltage_drop_time_s=(
            time.filter(voltage <= DROP_TO_V).min() - time.filter(voltage <= DROP_FROM_V).min()
        ),
    )


def compute(samples: pl.DataFrame, cycles: pl.DataFrame) -> pl.DataFrame:
    """The seven features of every discharge among `samples`; `FeatureView` has the contract.

    A sample whose value is null or NaN is left out of that channel's mean and extremes.
    """
    del cycles  # the seven need no context
    runs = in_runs(samples, "discharge")
    return runs.table(summarise(runs))


DISCHARGE_SUMMARY: Final = FeatureView(
    name="discharge_summary",
    version=1,
    kind="discharge",
    features=SUMMARY,
    compute=compute,
)
