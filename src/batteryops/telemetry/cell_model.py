"""The equivalent circuit: many cells at once through a discharge or a charge.

Thevenin's circuit with one RC pair, G. L. Plett, Battery Management Systems vol. 1, Artech House
2015, ch. 2 (current I positive on discharge, z the state of charge, Q the capacity in Ah):

    dz/dt  = -I / (3600 Q)
    dv1/dt = I / C1 - v1 / (R1 C1)
    v      = U(z) - I R0 - v1

and one lump of heat, D. Bernardi et al., J. Electrochem. Soc. 132 (1985) 5 without its reversible
term: m c dT/dt = I**2 R0 + v1**2 / R1 - h A (T - T_ambient). Resistances follow Arrhenius' law.

Within a step the current, and the resistances of the temperature at its beginning, are held; then
each equation has a closed solution, which is what is evaluated: a step may be as long as the
sampling interval. Cells are lanes of arrays: nothing loops over cells.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from batteryops.telemetry.ageing import ZERO_CELSIUS_K, FloatArray, arrhenius
from batteryops.telemetry.chemistry import Chemistry

IndexArray = NDArray[np.intp]

FIRST_STEP_S: Final = 1.0  # a tester samples at once after it has switched the load
_CURVE_STEPS: Final = 4096
_BISECTIONS: Final = 32
_NEWTON_STEPS: Final = 6


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells of one chemistry as they stand before a cycle, one lane each, arrays of shape (n,).

    Args:
        chemistry: what they have in common.
        capacity_ah: charge between state of charge 1 and 0, Ah.
        r0_ohm: ohmic resistance at 25 degC.
        r1_ohm: resistance of the RC pair at 25 degC.
        ambient_c: temperature of the air, and of the cell when the cycle begins.
        cooling: heat transfer to the air over the chemistry's own.
    """

    chemistry: Chemistry
    capacity_ah: FloatArray
    r0_ohm: FloatArray
    r1_ohm: FloatArray
    ambient_c: FloatArray
    cooling: FloatArray | float = 1.0

    @property
    def heat_transfer_w_k(self) -> FloatArray:
        """From each cell to the air around it, shape (n,)."""
        return np.full(len(self), self.chemistry.heat_transfer_w_k) * self.cooling

    def resistances(self, temperature_c: FloatArray) -> tuple[FloatArray, FloatArray]:
        """R0 and R1 at a temperature: a resistance falls as the process behind it quickens."""
        kelvin = temperature_c + ZERO_CELSIUS_K
        return (
            self.r0_ohm / arrhenius(self.chemistry.r0_activation_j_mol, kelvin),
            self.r1_ohm / arrhenius(self.chemistry.r1_activation_j_mol, kelvin),
        )

    def __len__(self) -> int:
        return len(self.capacity_ah)


@dataclass(frozen=True, slots=True)
class Trace:
    """What happened, free of measurement error: the cells' samples one after another, in time.

    Args:
        lane: which cell each sample belongs to, shape (m,).
        time_s: since the beginning of the cycle, shape (m,).
        voltage_v: terminal voltage, shape (m,).
        current_a: negative on discharge, shape (m,).
        temperature_c: of the cell, shape (m,).
        n_samples: samples per cell, shape (n,).
        end_row: which of a cell's samples is the end of the load (cutoff or taper), shape (n,).
        end_s: when that is, shape (n,).
        end_soc: state of charge there, shape (n,).
        charge_ah: integral of the current's magnitude until then, shape (n,).
    """

    lane: IndexArray
    time_s: FloatArray
    voltage_v: FloatArray
    current_a: FloatArray
    temperature_c: FloatArray
    n_samples: IndexArray
    end_row: IndexArray
    end_s: FloatArray
    end_soc: FloatArray
    charge_ah: FloatArray

    @property
    def row(self) -> IndexArray:
        """Position of each sample within its cell's record, shape (m,)."""
        return _rows(self.n_samples)


class OpenCircuitTable:
    """A chemistry's open-circuit curve and slope, looked up between 4,097 even points."""

    def __init__(self, chemistry: Chemistry) -> None:
        self._soc = np.linspace(0.0, 1.0, _CURVE_STEPS + 1)
        self._voltage = chemistry.open_circuit(self._soc)
        self._rise = np.diff(self._voltage)

    def _segment(self, soc: FloatArray) -> tuple[IndexArray, FloatArray]:
        position = soc * _CURVE_STEPS
        segment = np.clip(position.astype(np.intp), 0, _CURVE_STEPS - 1)
        return segment, position - segment

    def voltage(self, soc: FloatArray) -> FloatArray:
        """Open-circuit voltage, continued in a straight line beyond 0 and 1."""
        segment, fraction = self._segment(soc)
        voltage: FloatArray = self._voltage[segment] + fraction * self._rise[segment]
        return voltage

    def slope(self, soc: FloatArray) -> FloatArray:
        """Derivative of the voltage by the state of charge, V."""
        segment, _ = self._segment(soc)
        slope: FloatArray = self._rise[segment] * _CURVE_STEPS
        return slope

    def soc(self, voltage: FloatArray) -> FloatArray:
        """State of charge at which the open-circuit voltage is this, 0 to 1."""
        soc: FloatArray = np.interp(voltage, self._voltage, self._soc)
        return soc


def fully_charged_soc(cells: Cells) -> FloatArray:
    """State of charge at which constant-voltage charging ends.

    The taper is slow against the RC pair, so at its end U(z) = V_max - I_taper (R0 + R1).
    """
    chemistry = cells.chemistry
    r0, r1 = cells.resistances(cells.ambient_c)
    taper_a = chemistry.taper_c_rate * chemistry.nominal_ah
    return OpenCircuitTable(chemistry).soc(chemistry.charge_cutoff_v - taper_a * (r0 + r1))


def discharge(
    cells: Cells,
    current_a: FloatArray,
    start_soc: FloatArray,
    *,
    interval_s: float,
    rest_samples: IndexArray,
) -> Trace:
    """Discharge rested cells at constant current to the cutoff, then let them rest.

    Samples: one at rest before the load, one a second into it, then every `interval_s`; one at the
    instant of the cutoff, still under load; then `rest_samples` at rest, every `interval_s`.

    Args:
        cells: n cells.
        current_a: magnitude of the current, above 0, shape (n,).
        start_soc: state of charge, 0 to 1, shape (n,).
        interval_s: sampling interval, above 1 s.
        rest_samples: samples after the cutoff, shape (n,).
    """
    curve = OpenCircuitTable(cells.chemistry)
    voltage, temperature, before = _to_cutoff(cells, curve, current_a, start_soc, interval_s)
    end_s, end = _bisect_cutoff(cells, curve, current_a, before)

    n_samples = before.row + 1 + rest_samples
    lane, row = np.repeat(np.arange(len(cells)), n_samples), _rows(n_samples)
    after = row - before.row[lane]
    loaded = after < 0
    rest_s = np.maximum(after, 0) * interval_s
    # at rest the current is 0: v1 and the excess temperature fade
    chemistry = cells.chemistry
    v1 = end.v1[lane] * np.exp(-rest_s / (end.r1[lane] * chemistry.c1_farad))
    cooling = np.exp(-rest_s * (cells.heat_transfer_w_k / chemistry.heat_capacity_j_k)[lane])
    drop = np.where(after == 0, (current_a * end.r0)[lane], 0.0)
    trace = Trace(
        lane=lane,
        time_s=end_s[lane] + rest_s,
        voltage_v=curve.voltage(end.soc)[lane] - drop - v1,
        current_a=np.where((row > 0) & (after <= 0), -current_a[lane], 0.0),
        temperature_c=cells.ambient_c[lane] + (end.temperature_c - cells.ambient_c)[lane] * cooling,
        n_samples=n_samples,
        end_row=before.row,
        end_s=end_s,
        end_soc=end.soc,
        charge_ah=current_a * end_s / 3600.0,
    )
    in_grid = row[loaded], lane[loaded]
    trace.time_s[loaded] = _sampling_grid(len(voltage) - 1, interval_s)[row[loaded]]
    trace.voltage_v[loaded] = voltage[in_grid]
    trace.temperature_c[loaded] = temperature[in_grid]
    return trace


@dataclass(slots=True)
class _State:
    """Cells within a discharge; the resistances are those that hold through the step."""

    row: IndexArray  # of the sample that ends the step
    begun_s: FloatArray  # when the step began
    step_s: FloatArray
    soc: FloatArray
    v1: FloatArray
    temperature_c: FloatArray
    r0: FloatArray
    r1: FloatArray


def _to_cutoff(
    cells: Cells,
    curve: OpenCircuitTable,
    current_a: FloatArray,
    start_soc: FloatArray,
    interval_s: float,
) -> tuple[FloatArray, FloatArray, _State]:
    """Step all cells until each has passed the cutoff.

    Returns:
        Voltage and temperature per (row of the sampling grid, cell), valid before each cell's
        cutoff, and the cells at the beginning of the step in which they pass it.
    """
    chemistry, n = cells.chemistry, len(cells)
    charge_as = 3600.0 * cells.capacity_ah
    # when empty, the open-circuit voltage is at or below the cutoff: nothing lasts longer than this
    last = int(np.ceil((charge_as * start_soc / current_a).max() / interval_s)) + 2
    grid_s = _sampling_grid(last, interval_s)
    voltage, temperature = np.empty((2, last + 1, n))

    soc, v1, temp = start_soc, np.zeros(n), cells.ambient_c
    voltage[0], temperature[0] = curve.voltage(soc), temp
    before = _State(np.zeros(n, dtype=np.intp), *np.zeros((7, n)))
    running = np.ones(n, dtype=bool)
    for row in range(1, last + 1):
        dt = float(grid_s[row] - grid_s[row - 1])
        r0, r1 = cells.resistances(temp)
        next_soc, next_v1 = _advance(cells, current_a, (soc, v1), r1, dt)
        volt = curve.voltage(next_soc) - current_a * r0 - next_v1
        ended = running & (volt <= chemistry.discharge_cutoff_v)
        if ended.any():
            before.row[ended], before.begun_s[ended], before.step_s[ended] = (
                row,
                grid_s[row - 1],
                dt,
            )
            before.soc[ended], before.v1[ended] = soc[ended], v1[ended]
            before.temperature_c[ended] = temp[ended]
            before.r0[ended], before.r1[ended] = r0[ended], r1[ended]
            running &= ~ended
            if not running.any():
                break
        temp = _warm(cells, temp, _heat(current_a, r0, v1, r1), dt)
        soc, v1 = next_soc, next_v1
        voltage[row], temperature[row] = volt, temp
    return voltage, temperature, before


def _bisect_cutoff(
    cells: Cells, curve: OpenCircuitTable, current_a: FloatArray, before: _State
) -> tuple[FloatArray, _State]:
    """When within its last step each cell reaches the cutoff (s), and how it stands then."""
    low, high = np.zeros(len(cells)), before.step_s
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        soc, v1 = _advance(cells, current_a, (before.soc, before.v1), before.r1, middle)
        volt = curve.voltage(soc) - current_a * before.r0 - v1
        below = volt <= cells.chemistry.discharge_cutoff_v
        high, low = np.where(below, middle, high), np.where(below, low, middle)
    soc, v1 = _advance(cells, current_a, (before.soc, before.v1), before.r1, high)
    heat = _heat(current_a, before.r0, before.v1, before.r1)
    warmed = _warm(cells, before.temperature_c, heat, high)
    return before.begun_s + high, replace(before, soc=soc, v1=v1, temperature_c=warmed)


def charge(
    cells: Cells,
    current_a: FloatArray,
    start_soc: FloatArray,
    *,
    interval_s: float,
    limit_s: float,
) -> Trace:
    """Charge rested cells at constant current, then at constant voltage down to the taper current.

    Samples: one at rest, one a second into the charge, then every `interval_s`, until the sample
    at which the current has fallen to the taper current, or `limit_s` has passed. The current of a
    sample has flowed since the sample before.

    Args:
        cells: n cells.
        current_a: magnitude of the constant current, above 0, shape (n,).
        start_soc: state of charge, 0 to 1, shape (n,).
        interval_s: sampling interval, above 1 s.
        limit_s: longest charge.
    """
    chemistry, n = cells.chemistry, len(cells)
    curve = OpenCircuitTable(chemistry)
    charge_as = 3600.0 * cells.capacity_ah
    taper_a = chemistry.taper_c_rate * chemistry.nominal_ah
    last = int(np.ceil(limit_s / interval_s)) + 1
    grid_s = _sampling_grid(last, interval_s)
    voltage, current, temperature = np.empty((3, last + 1, n))

    soc, v1, temp = start_soc, np.zeros(n), cells.ambient_c
    voltage[0], current[0], temperature[0] = curve.voltage(soc), 0.0, temp
    end_row = np.full(n, last, dtype=np.intp)
    amps, end_soc, charge_ah = current_a, start_soc, np.zeros(n)
    running = np.ones(n, dtype=bool)
    for row in range(1, last + 1):
        dt = float(grid_s[row] - grid_s[row - 1])
        r0, r1 = cells.resistances(temp)
        kept = np.exp(-dt / (r1 * chemistry.c1_farad))
        # the current that brings the step's end to the voltage limit, by Newton's method from the
        # last one, which was larger: the terminal voltage rises and is convex near full charge
        for _ in range(_NEWTON_STEPS):
            next_soc, next_v1 = _advance(cells, -amps, (soc, v1), r1, dt)
            volt = curve.voltage(next_soc) + amps * r0 - next_v1
            stiffness = r0 + r1 * (1.0 - kept) + curve.slope(next_soc) * dt / charge_as
            amps = np.clip(amps + (chemistry.charge_cutoff_v - volt) / stiffness, 0.0, current_a)
        temp = _warm(cells, temp, _heat(amps, r0, v1, r1), dt)
        soc, v1 = _advance(cells, -amps, (soc, v1), r1, dt)
        voltage[row] = curve.voltage(soc) + amps * r0 - v1
        current[row], temperature[row] = amps, temp
        charge_ah = np.where(running, charge_ah + amps * dt / 3600.0, charge_ah)
        end_soc = np.where(running, soc, end_soc)
        ended = running & (amps <= taper_a)
        end_row[ended] = row
        running &= ~ended
        if not running.any():
            break

    n_samples = end_row + 1
    lane, row_of = np.repeat(np.arange(n), n_samples), _rows(n_samples)
    return Trace(
        lane=lane,
        time_s=grid_s[row_of],
        voltage_v=voltage[row_of, lane],
        current_a=current[row_of, lane],
        temperature_c=temperature[row_of, lane],
        n_samples=n_samples,
        end_row=end_row,
        end_s=grid_s[end_row],
        end_soc=end_soc,
        charge_ah=charge_ah,
    )


def _sampling_grid(last: int, interval_s: float) -> FloatArray:
    """0, 1 s, then every interval; `last` + 1 times."""
    return np.concatenate([[0.0, FIRST_STEP_S], interval_s * np.arange(1, last)])


def _rows(n_samples: IndexArray) -> IndexArray:
    """0, 1, 2, ... for each cell in turn."""
    ends = np.cumsum(n_samples)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) - np.repeat(ends - n_samples, n_samples)


def _advance(
    cells: Cells,
    current_a: FloatArray,
    state: tuple[FloatArray, FloatArray],
    r1: FloatArray,
    dt: float | FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """State of charge and v1 after `dt` of constant current (positive on discharge)."""
    soc, v1 = state
    return (
        soc - current_a * dt / (3600.0 * cells.capacity_ah),
        _relax(v1, r1 * current_a, dt / (r1 * cells.chemistry.c1_farad)),
    )


def _relax(value: FloatArray, target: FloatArray, time_constants: FloatArray) -> FloatArray:
    """Where a first-order lag stands that started from `value` towards `target`."""
    relaxed: FloatArray = target + (value - target) * np.exp(-time_constants)
    return relaxed


def _heat(current_a: FloatArray, r0: FloatArray, v1: FloatArray, r1: FloatArray) -> FloatArray:
    """Joule heat of both resistances, W."""
    heat: FloatArray = current_a**2 * r0 + v1**2 / r1
    return heat


def _warm(
    cells: Cells, temperature_c: FloatArray, heat_w: FloatArray, dt: float | FloatArray
) -> FloatArray:
    """Cell temperature after `dt` of constant heat."""
    transfer = cells.heat_transfer_w_k
    lags = np.asarray(dt) * (transfer / cells.chemistry.heat_capacity_j_k)
    return _relax(temperature_c, cells.ambient_c + heat_w / transfer, lags)
