"""The equivalent circuit against closed solutions, conservation of charge, and common sense."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batteryops.telemetry.ageing import FloatArray
from batteryops.telemetry.cell_model import (
    Cells,
    OpenCircuitTable,
    Trace,
    charge,
    discharge,
    fully_charged_soc,
)
from batteryops.telemetry.chemistry import CHEMISTRIES, Chemistry

NMC = CHEMISTRIES["NMC"]
BOTH = pytest.mark.parametrize("chemistry", CHEMISTRIES.values(), ids=CHEMISTRIES)


def straight(soc: FloatArray) -> FloatArray:
    return 2.5 + 1.7 * soc


# a cell whose equations can be solved with pencil and paper: a straight open-circuit curve, and so
# large a heat capacity that it stays at 25 degC
IDEAL = replace(NMC, open_circuit=straight, heat_capacity_j_k=1e12)


def lanes(
    chemistry: Chemistry,
    *,
    capacity_ah: float | FloatArray = 2.0,
    ambient_c: float | FloatArray = 25.0,
    resistance: float | FloatArray = 1.0,
) -> Cells:
    ones = np.ones(np.broadcast(capacity_ah, ambient_c, resistance, np.zeros(1)).shape)
    return Cells(
        chemistry,
        capacity_ah=capacity_ah * ones,
        r0_ohm=chemistry.r0_ohm * resistance * ones,
        r1_ohm=chemistry.r1_ohm * resistance * ones,
        ambient_c=ambient_c * ones,
    )


def discharged(
    cells: Cells,
    current_a: float | FloatArray = 2.0,
    start_soc: float = 1.0,
    interval_s: float = 25.0,
    rest: int = 10,
) -> Trace:
    n = len(cells)
    return discharge(
        cells,
        current_a * np.ones(n),
        np.full(n, start_soc),
        interval_s=interval_s,
        rest_samples=np.full(n, rest, dtype=np.intp),
    )


def charged(cells: Cells, current_a: float = 1.0, start_soc: float = 0.1) -> Trace:
    n = len(cells)
    return charge(
        cells, np.full(n, current_a), np.full(n, start_soc), interval_s=60.0, limit_s=18_000.0
    )


def test_with_ohmic_resistance_alone_the_cutoff_comes_when_the_closed_form_says() -> None:
    ohmic = lanes(replace(IDEAL, r1_ohm=1e-12))
    trace = discharged(ohmic)
    # 2.7 = 2.5 + 1.7 z - 2 A * 0.036 Ohm, and z = 1 - 2 A * t / (3600 * 2 Ah)
    end_soc = (2.7 - 2.5 + 2.0 * 0.036) / 1.7
    assert trace.end_soc[0] == pytest.approx(end_soc, abs=1e-6)
    assert trace.end_s[0] == pytest.approx(3600.0 * (1.0 - end_soc), abs=1e-3)
    assert trace.charge_ah[0] == pytest.approx(2.0 * (1.0 - end_soc), abs=1e-6)


def test_the_voltage_after_a_current_step_is_the_closed_form_of_the_rc_pair() -> None:
    trace = discharged(lanes(IDEAL), interval_s=7.0)
    loaded = (trace.row > 0) & (trace.row < trace.end_row[0])
    t = trace.time_s[loaded]
    tau = IDEAL.r1_ohm * IDEAL.c1_farad
    expected = (
        straight(1.0 - 2.0 * t / 7200.0)
        - 2.0 * IDEAL.r0_ohm
        - 2.0 * IDEAL.r1_ohm * (1.0 - np.exp(-t / tau))
    )
    assert trace.voltage_v[loaded] == pytest.approx(expected, abs=1e-6)


def test_at_rest_the_voltage_recovers_as_the_rc_pair_decays() -> None:
    trace = discharged(lanes(IDEAL), rest=20)
    resting = trace.row > trace.end_row[0]
    since = trace.time_s[resting] - trace.end_s[0]
    tau = IDEAL.r1_ohm * IDEAL.c1_farad
    expected = straight(trace.end_soc[0]) - 2.0 * IDEAL.r1_ohm * np.exp(-since / tau)
    assert trace.voltage_v[resting] == pytest.approx(expected, abs=1e-6)
    assert np.all(trace.current_a[resting] == 0.0)


def test_the_temperature_approaches_ambient_plus_joule_heat_over_heat_transfer() -> None:
    # resistances that know no temperature, and a cell so large that it reaches the steady state
    steady = replace(NMC, r0_activation_j_mol=0.0, r1_activation_j_mol=0.0)
    trace = discharged(lanes(steady, capacity_ah=20.0, ambient_c=10.0), rest=0)
    rise = 2.0**2 * (steady.r0_ohm + steady.r1_ohm) / steady.heat_transfer_w_k
    assert trace.temperature_c[-1] == pytest.approx(10.0 + rise, abs=1e-3)


def test_a_resistance_follows_arrhenius() -> None:
    r0, _ = lanes(NMC).resistances(np.array([0.0]))
    colder = math.exp(17_100.0 / 8.314462618 * (1 / 273.15 - 1 / 298.15))
    assert r0[0] == pytest.approx(NMC.r0_ohm * colder, rel=1e-12)


@BOTH
@settings(max_examples=40)
@given(
    capacity_ah=st.floats(0.8, 2.3),
    c_rate=st.floats(0.2, 3.0),
    ambient_c=st.floats(-5.0, 45.0),
    resistance=st.floats(0.8, 2.5),
    start_soc=st.floats(0.5, 1.0),
    interval_s=st.floats(2.0, 120.0),
)
def test_any_discharge_conserves_charge_and_stays_in_its_window(  # noqa: PLR0913  # drawn values
    chemistry: Chemistry,
    *,
    capacity_ah: float,
    c_rate: float,
    ambient_c: float,
    resistance: float,
    start_soc: float,
    interval_s: float,
) -> None:
    cells = lanes(chemistry, capacity_ah=capacity_ah, ambient_c=ambient_c, resistance=resistance)
    trace = discharged(cells, 2.0 * c_rate, start_soc, interval_s)
    drained = capacity_ah * (start_soc - trace.end_soc[0])
    assert trace.charge_ah[0] == pytest.approx(drained, abs=1e-9)
    assert trace.charge_ah[0] <= capacity_ah
    assert np.all(np.diff(trace.time_s) > 0.0)
    # until the cutoff it is above it, at the cutoff it is there, and it is never above full
    before = trace.row < trace.end_row[0]
    assert np.all(trace.voltage_v[before] > chemistry.discharge_cutoff_v)
    if trace.end_s[0] > 1e-3:  # else the ohmic drop alone had passed it
        at_end = trace.voltage_v[trace.end_row[0]]
        assert at_end == pytest.approx(chemistry.discharge_cutoff_v, abs=1e-4)
    assert trace.voltage_v.max() <= chemistry.charge_cutoff_v + 2e-3
    assert np.all(trace.temperature_c >= ambient_c - 1e-9)


def test_cold_fast_and_resistive_discharges_each_deliver_less() -> None:
    cold = discharged(lanes(NMC, ambient_c=np.array([25.0, 10.0, 0.0, -10.0]))).charge_ah
    fast = discharged(lanes(NMC, capacity_ah=2.0 * np.ones(4)), np.array([0.5, 1.0, 2.0, 4.0]))
    resistive = discharged(lanes(NMC, resistance=np.array([1.0, 1.5, 2.0, 3.0]))).charge_ah
    for delivered in (cold, fast.charge_ah, resistive):
        assert np.all(np.diff(delivered) < 0.0)


def test_the_sampling_interval_hardly_changes_what_is_delivered() -> None:
    fine = discharged(lanes(NMC), interval_s=2.0).charge_ah[0]
    coarse = discharged(lanes(NMC), interval_s=30.0).charge_ah[0]
    assert coarse == pytest.approx(fine, rel=2e-3)


def test_a_cell_that_cannot_carry_the_current_ends_at_once() -> None:
    trace = discharged(lanes(NMC, resistance=50.0), current_a=4.0, rest=2)
    assert trace.n_samples[0] == 4
    assert trace.charge_ah[0] == pytest.approx(0.0, abs=1e-6)


def test_many_cells_at_once_do_what_each_does_alone() -> None:
    ambient = np.array([0.0, 20.0, 40.0])
    together = discharged(lanes(NMC, ambient_c=ambient))
    for lane, celsius in enumerate(ambient):
        alone = discharged(lanes(NMC, ambient_c=float(celsius)))
        assert np.array_equal(together.voltage_v[together.lane == lane], alone.voltage_v)
        assert together.charge_ah[lane] == alone.charge_ah[0]


@BOTH
@settings(max_examples=25)
@given(
    ambient_c=st.floats(0.0, 40.0),
    resistance=st.floats(0.8, 2.0),
    start_soc=st.floats(0.0, 0.7),
    current_a=st.floats(0.6, 2.0),
)
def test_any_charge_conserves_charge_and_holds_the_voltage_limit(
    chemistry: Chemistry, ambient_c: float, resistance: float, start_soc: float, current_a: float
) -> None:
    cells = lanes(chemistry, ambient_c=ambient_c, resistance=resistance)
    trace = charged(cells, current_a, start_soc)
    # the current of a sample has flowed since the sample before
    moved = float(np.sum(trace.current_a[1:] * np.diff(trace.time_s))) / 3600.0
    assert moved == pytest.approx(2.0 * (trace.end_soc[0] - start_soc), abs=1e-9)
    assert trace.charge_ah[0] == pytest.approx(moved, abs=1e-9)
    assert trace.voltage_v.max() <= chemistry.charge_cutoff_v + 1e-3
    assert trace.current_a.max() <= current_a
    assert trace.current_a[-1] <= 0.05 * chemistry.nominal_ah
    assert trace.end_soc[0] == pytest.approx(fully_charged_soc(cells)[0], abs=5e-3)


def test_a_charge_stops_at_its_time_limit() -> None:
    ones = np.ones(1)
    trace = charge(lanes(NMC), ones, 0.1 * ones, interval_s=60.0, limit_s=600.0)
    assert trace.end_s[0] == 600.0


@BOTH
def test_the_table_of_the_open_circuit_curve_is_the_curve(chemistry: Chemistry) -> None:
    soc = np.random.default_rng(0).random(1000)
    table = OpenCircuitTable(chemistry)
    assert table.voltage(soc) == pytest.approx(chemistry.open_circuit(soc), abs=1e-4)
    assert table.soc(table.voltage(soc)) == pytest.approx(soc, abs=1e-4)
