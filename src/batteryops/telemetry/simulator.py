"""Simulate a fleet of ageing cells: a plan in, canonical samples and cycles out.

What the cells are stands in `chemistry`, how they age in `ageing`, how they answer a load in
`cell_model`, who the vehicles are in `fleet`. Here their records are measured and written down.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
import polars as pl
from numpy.random import Generator

from batteryops.errors import DataError
from batteryops.schema import CYCLE_KEY, CYCLES, Kind, Recording
from batteryops.telemetry.ageing import SECONDS_PER_DAY, FloatArray
from batteryops.telemetry.cell_model import Trace, charge, discharge, fully_charged_soc
from batteryops.telemetry.chemistry import Chemistry
from batteryops.telemetry.fleet import Lives, Vehicle, live, vehicles
from batteryops.telemetry.fleet_plan import FleetPlan
from batteryops.telemetry.scenario import Event, happen

CHARGE_LEAD_S: Final = 6 * 3600.0
"""A charge begins this long before its discharge."""

CHARGE_LIMIT_S: Final = 5 * 3600.0
"""A charge that has not tapered off by then is stopped."""


def simulate_fleet(plan: FleetPlan, events: Sequence[Event] = ()) -> Recording:
    """Simulate a whole fleet.

    Each reference cycle is a charge (recorded when the plan says so, always counted) and a
    discharge, so that discharges have the cycle indices 2, 4, 6, ... The label `capacity_ah` is the
    integral of the discharge current until the terminal voltage reaches the cutoff, with a tester's
    error: it depends on rate, temperature and resistance, as it does in reality. The first sample
    of a discharge that reads below the cutoff is where it ended.

    Args:
        plan: what to simulate.
        events: what happens to the fleet meanwhile, see `scenario`.

    Returns:
        Samples and cycles, sorted by asset, cycle and time.

    Examples:
        >>> recording = simulate_fleet(FleetPlan(n_vehicles=2, n_cycles=3))
        >>> recording.cycles.select("asset_id", "cycle_index").rows()[:4]
        [('EV-0001', 2), ('EV-0001', 4), ('EV-0001', 6), ('EV-0002', 2)]
    """
    parts = list(simulate_chunks(plan, events))
    return Recording(
        samples=pl.concat([part.samples for part in parts]),
        cycles=pl.concat([part.cycles for part in parts]),
        source=_source(plan),
    )


def simulate_chunks(
    plan: FleetPlan, events: Sequence[Event] = (), *, vehicles_per_chunk: int = 16
) -> Iterator[Recording]:
    """Simulate a fleet a few vehicles at a time, in the order of their names.

    The chunks, one after another, are what `simulate_fleet` gives; memory holds one.

    Args:
        plan: what to simulate.
        events: what happens to the fleet meanwhile.
        vehicles_per_chunk: at most so many vehicles in a chunk, 1 or more.

    Raises:
        DataError: when there would be no vehicle in a chunk.
    """
    if vehicles_per_chunk < 1:
        raise DataError(f"vehicles_per_chunk is {vehicles_per_chunk}, expected 1 or more")
    return _chunks(plan, events, vehicles_per_chunk)


def _chunks(
    plan: FleetPlan, events: Sequence[Event], vehicles_per_chunk: int
) -> Iterator[Recording]:
    for _, kin in groupby(vehicles(plan), key=lambda vehicle: vehicle.chemistry.name):
        alike = list(kin)
        for first in range(0, len(alike), vehicles_per_chunk):
            yield _simulate(plan, events, alike[first : first + vehicles_per_chunk])


def _simulate(plan: FleetPlan, events: Sequence[Event], group: list[Vehicle]) -> Recording:
    """Simulate vehicles of one chemistry."""
    chemistry = group[0].chemistry
    lives = happen(events, live(plan, group, chemistry), plan, chemistry)
    cells = lives.cells(chemistry)
    rest_samples = np.rint(lives.rest_s.ravel() / plan.sample_interval_s).astype(np.intp)
    trace = discharge(
        cells,
        lives.current_a.ravel(),
        fully_charged_soc(cells),
        interval_s=plan.sample_interval_s,
        rest_samples=rest_samples,
    )
    streams = [vehicle.streams(plan) for vehicle in group]
    measured = _measure(plan, trace, [own.discharge_noise for own in streams])
    measured = _end_at_cutoff(measured, trace, chemistry, plan.noise.voltage_step_v)
    cycles = _cycles(plan, group, lives, trace, "discharge")
    samples = _samples(cycles, trace, measured)
    if plan.record_charges:
        trace = charge(
            cells,
            np.full(len(cells), plan.charge_c_rate * chemistry.nominal_ah),
            lives.arrival_soc.ravel(),
            interval_s=plan.charge_interval_s,
            limit_s=CHARGE_LIMIT_S,
        )
        measured = _measure(plan, trace, [own.charge_noise for own in streams])
        charges = _cycles(plan, group, lives, trace, "charge")
        samples = pl.concat([samples, _samples(charges, trace, measured)])
        samples = samples.sort("asset_id", "cycle_index", "time_s")
        cycles = pl.concat([cycles, charges]).sort("asset_id", "cycle_index")
    if not lives.recorded.all():
        cycles = cycles.filter(_recorded(lives, kinds=cycles.height // lives.recorded.size))
        samples = samples.join(cycles, on=CYCLE_KEY, how="semi", maintain_order="left")
    return Recording(samples, cycles, _source(plan))


def _recorded(lives: Lives, *, kinds: int) -> pl.Series:
    """Which cycles are on record; a charge is where its discharge is."""
    return pl.Series(np.repeat(lives.recorded.ravel(), kinds))


class _Measured(NamedTuple):
    """What the sensors read, each of shape (m,)."""

    voltage_v: FloatArray
    current_a: FloatArray
    temperature_c: FloatArray


def _measure(plan: FleetPlan, trace: Trace, noise: list[Generator]) -> _Measured:
    """Read a trace with noisy sensors of finite resolution, each vehicle with its own noise."""
    per_vehicle = trace.n_samples.reshape(len(noise), -1).sum(axis=1)
    drawn = np.concatenate(
        [own.standard_normal((int(m), 3)) for own, m in zip(noise, per_vehicle, strict=True)]
    )
    sensors = plan.noise

    def read(true: FloatArray, column: int, sigma: float, step: float) -> FloatArray:
        reading: FloatArray = np.rint((true + sigma * drawn[:, column]) / step) * step
        return reading

    return _Measured(
        read(trace.voltage_v, 0, sensors.voltage_v, sensors.voltage_step_v),
        read(trace.current_a, 1, sensors.current_a, sensors.current_step_a),
        read(trace.temperature_c, 2, sensors.temperature_c, sensors.temperature_step_c),
    )


def _end_at_cutoff(
    measured: _Measured, trace: Trace, chemistry: Chemistry, step_v: float
) -> _Measured:
    """Hold voltage readings to what the tester did: the first one below the cutoff ended the load.

    A lower reading before would have ended it there, a higher one at the end would not have.
    """
    cutoff = chemistry.discharge_cutoff_v
    to_end = trace.row - trace.end_row[trace.lane]
    voltage = np.where(to_end < 0, np.maximum(measured.voltage_v, cutoff), measured.voltage_v)
    voltage = np.where(to_end == 0, np.minimum(voltage, cutoff - step_v), voltage)
    return measured._replace(voltage_v=voltage)


def _samples(cycles: pl.DataFrame, trace: Trace, measured: _Measured) -> pl.DataFrame:
    """The canonical samples of these cycles."""
    of_cycle = cycles.select("asset_id", "cycle_index", "kind", "started_at")
    return of_cycle[trace.lane].with_columns(
        pl.Series("time_s", trace.time_s),
        pl.Series("voltage_v", measured.voltage_v),
        pl.Series("current_a", measured.current_a),
        pl.Series("temperature_c", measured.temperature_c),
    )


def _cycles(
    plan: FleetPlan, group: list[Vehicle], lives: Lives, trace: Trace, kind: Kind
) -> pl.DataFrame:
    """The canonical cycles of one kind: charges are 1, 3, 5, ..., discharges 2, 4, 6, ..."""
    n = trace.n_samples.size
    first, lead_s = (2, 0.0) if kind == "discharge" else (1, CHARGE_LEAD_S)
    seconds = np.rint(lives.day.ravel() * SECONDS_PER_DAY) - lead_s
    start = np.datetime64(plan.start, "us")
    capacity = trace.charge_ah * (1.0 + lives.capacity_error.ravel())
    columns = {
        "asset_id": np.repeat([vehicle.asset_id for vehicle in group], plan.n_cycles),
        "cycle_index": np.tile(2 * np.arange(plan.n_cycles, dtype=np.int32), len(group)) + first,
        "kind": [kind] * n,
        "started_at": start + (seconds * 1e6).astype("timedelta64[us]"),
        "ambient_temperature_c": np.round(lives.ambient_c.ravel(), 1),
        "n_samples": trace.n_samples.astype(np.int64),
        "capacity_ah": capacity if kind == "discharge" else [None] * n,
        "re_ohm": [None] * n,
        "rct_ohm": [None] * n,
    }
    return pl.DataFrame(columns, schema=CYCLES)


def _source(plan: FleetPlan) -> str:
    return f"simulated fleet of {plan.n_vehicles} vehicles, seed {plan.seed}"
