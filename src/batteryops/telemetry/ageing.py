"""How a cell ages: published laws of capacity fade and resistance growth, summed over a life.

Each law is a sum of a calendar part and a cycle part, a power of time and a power of charge
throughput, with rates that depend on the conditions (`Stress`). Conditions change over a life; the
parts are carried across changes by damage accumulation: a part `x = k * s**p` is continued from
the stretch `s` at which the new rate would have reached the damage that is already there, so

    x**(1/p) = sum over intervals of k_i**(1/p) * (s_i - s_(i-1)),

which is exact while conditions hold, and makes a whole life one cumulative sum.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

GAS_CONSTANT: Final = 8.314462618  # J/(mol K)
ZERO_CELSIUS_K: Final = 273.15
REFERENCE_K: Final = 298.15
SECONDS_PER_DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Stress:
    """Conditions that a cell lives under, one value per interval; shapes broadcast together.

    Args:
        temperature_k: cell temperature, K.
        soc: state of charge that it rests at and cycles around, 0 to 1.
        voltage_v: open-circuit voltage at that state of charge, V.
        depth: depth of discharge of its cycles, 0 to 1.
        c_rate: current of its cycles over nominal capacity, 1/h.
    """

    temperature_k: FloatArray
    soc: FloatArray
    voltage_v: FloatArray
    depth: FloatArray
    c_rate: FloatArray


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates of the four parts, as shares of the new cell's value.

    Args:
        capacity_calendar: loss per day to the power of the law's calendar exponent.
        capacity_cycle: loss per equivalent full cycle to the power of the cycle exponent.
        resistance_calendar: growth per day to the power of its calendar exponent.
        resistance_cycle: growth per equivalent full cycle to the power of its cycle exponent.
    """

    capacity_calendar: FloatArray
    capacity_cycle: FloatArray
    resistance_calendar: FloatArray
    resistance_cycle: FloatArray


@dataclass(frozen=True, slots=True)
class AgeingLaw:
    """A published law: the exponents, and the rates under given conditions.

    Args:
        source: where it is published.
        capacity_calendar_exponent: power of time (days) in the capacity loss.
        capacity_cycle_exponent: power of throughput (equivalent full cycles) in the capacity loss.
        resistance_calendar_exponent: the same for resistance growth.
        resistance_cycle_exponent: the same for resistance growth.
        rates: the four rates under given conditions, none negative.
    """

    source: str
    capacity_calendar_exponent: float
    capacity_cycle_exponent: float
    resistance_calendar_exponent: float
    resistance_cycle_exponent: float
    rates: Callable[[Stress], Rates]


@dataclass(frozen=True, slots=True)
class Damage:
    """What a life has done, at the end of each interval.

    Args:
        capacity_loss: share of the new cell's capacity that is gone.
        resistance_growth: rise of resistance as a share of the new cell's.
    """

    capacity_loss: FloatArray
    resistance_growth: FloatArray


def accumulate(rate: FloatArray, stretch: FloatArray, exponent: float) -> FloatArray:
    """Carry one part of a law through intervals of changing rate.

    Args:
        rate: rate in each interval, along the last axis, not negative.
        stretch: length of each interval (days or equivalent full cycles), not negative.
        exponent: the power `p` of the law, above 0.

    Returns:
        The damage at the end of each interval, shape of the inputs broadcast.

    Examples:
        Under one rate it is the plain power law, however time is cut up:

        >>> import numpy as np
        >>> halves = accumulate(np.full(2, 0.01), np.array([50.0, 50.0]), 0.5)
        >>> [round(float(x), 6) for x in halves]
        [0.070711, 0.1]
    """
    damage: FloatArray = np.cumsum(rate ** (1.0 / exponent) * stretch, axis=-1) ** exponent
    return damage


def age(law: AgeingLaw, stress: Stress, days: FloatArray, full_cycles: FloatArray) -> Damage:
    """Age cells through successive intervals.

    Args:
        law: how the chemistry ages.
        stress: conditions in each interval, along the last axis.
        days: length of each interval, days.
        full_cycles: throughput in each interval, equivalent full cycles (one is twice the nominal
            capacity in Ah, charge and discharge counted).

    Returns:
        Damage at the end of each interval.
    """
    rates = law.rates(stress)
    return Damage(
        capacity_loss=accumulate(rates.capacity_calendar, days, law.capacity_calendar_exponent)
        + accumulate(rates.capacity_cycle, full_cycles, law.capacity_cycle_exponent),
        resistance_growth=accumulate(
            rates.resistance_calendar, days, law.resistance_calendar_exponent
        )
        + accumulate(rates.resistance_cycle, full_cycles, law.resistance_cycle_exponent),
    )


def arrhenius(activation_j_mol: float, temperature_k: FloatArray) -> FloatArray:
    """Factor on a rate against 25 degC: exp(-Ea/R (1/T - 1/298.15 K))."""
    factor: FloatArray = np.exp(
        -activation_j_mol / GAS_CONSTANT * (1.0 / temperature_k - 1.0 / REFERENCE_K)
    )
    return factor


SCHMALSTIEG_CELL_AH: Final = 2.05


def schmalstieg_rates(stress: Stress) -> Rates:
    """Rates of Schmalstieg et al. for a Sanyo UR18650E (NMC/graphite, 2.05 Ah, 18650).

    C = 1 - alpha_C t**0.75 - beta_C Q**0.5 and R = 1 + alpha_R t**0.75 + beta_R Q, with t in days,
    Q in Ah of charge throughput, and

        alpha_C = (7.543 V - 23.75) 1e6 exp(-6976 K / T)
        beta_C  = 7.348e-3 (V - 3.667)**2 + 7.6e-4 + 4.081e-3 DoD
        alpha_R = (5.270 V - 16.32) 1e5 exp(-5986 K / T)
        beta_R  = 2.153e-4 (V - 3.725)**2 - 1.521e-5 + 2.798e-4 DoD

    V is the storage voltage in alpha and the quadratic mean voltage of a cycle in beta; here both
    are the open-circuit voltage at the mean state of charge. The cycle part was measured at 35 degC
    and 1C and knows neither temperature nor rate. Rates that the fit makes negative, below 3.15 V
    or for very shallow cycles, are 0.

    Source: J. Schmalstieg, S. Kaebitz, M. Ecker, D. U. Sauer, J. Power Sources 257 (2014) 325-334.
    """
    voltage, depth = stress.voltage_v, stress.depth
    inverse_k = 1.0 / stress.temperature_k
    throughput_ah = 2.0 * SCHMALSTIEG_CELL_AH  # of one equivalent full cycle
    alpha_c = (7.543 * voltage - 23.75) * 1e6 * np.exp(-6976.0 * inverse_k)
    beta_c = 7.348e-3 * (voltage - 3.667) ** 2 + 7.6e-4 + 4.081e-3 * depth
    alpha_r = (5.270 * voltage - 16.32) * 1e5 * np.exp(-5986.0 * inverse_k)
    beta_r = 2.153e-4 * (voltage - 3.725) ** 2 - 1.521e-5 + 2.798e-4 * depth
    return Rates(
        capacity_calendar=np.maximum(alpha_c, 0.0),
        capacity_cycle=np.maximum(beta_c, 0.0) * throughput_ah**0.5,
        resistance_calendar=np.maximum(alpha_r, 0.0),
        resistance_cycle=np.maximum(beta_r, 0.0) * throughput_ah,
    )


SCHMALSTIEG: Final = AgeingLaw(
    source="Schmalstieg et al., J. Power Sources 257 (2014) 325-334",
    capacity_calendar_exponent=0.75,
    capacity_cycle_exponent=0.5,
    resistance_calendar_exponent=0.75,
    resistance_cycle_exponent=1.0,
    rates=schmalstieg_rates,
)


def naumann_rates(stress: Stress) -> Rates:
    """Rates of Naumann et al. for a Sony US26650FTC1 (LFP/graphite, 3 Ah).

    Capacity loss = k_T k_SoC t**0.5 + k_C k_D FEC**0.5 / 100, with t in seconds and FEC in
    equivalent full cycles (so that the law carries over to a cell of another size), and

        k_T   = 1.2571e-5 exp(-17126/R (1/T - 1/298.15))
        k_SoC = 2.8575 (SoC - 0.5)**3 + 0.60225
        k_C   = 0.0630 C + 0.0971
        k_D   = 4.0253 (DoD - 0.6)**3 + 1.0923

    Resistance growth is linear in both, with k_T = 3.4194e-10 exp(-71827/R (1/T - 1/298.15)),
    k_SoC = -3.3903 (SoC - 0.5)**2 + 1.5604, k_C = -0.0020 C + 0.0021 and
    k_D = 6.8477 (DoD - 0.5)**3 + 0.9182. The cycle part was measured at 40 degC and knows no
    temperature. Rates that the fit makes negative are 0.

    Sources: M. Naumann, M. Schimpe, P. Keil, H. Hesse, A. Jossen, J. Energy Storage 17 (2018)
    153-169 (calendar); M. Naumann, F. Spingler, A. Jossen, J. Power Sources 451 (2020) 227666
    (cycle).
    """
    temperature, soc, depth, c_rate = (
        stress.temperature_k,
        stress.soc,
        stress.depth,
        stress.c_rate,
    )
    capacity_soc = 2.8575 * (soc - 0.5) ** 3 + 0.60225
    capacity_depth = 4.0253 * (depth - 0.6) ** 3 + 1.0923
    resistance_soc = -3.3903 * (soc - 0.5) ** 2 + 1.5604
    resistance_c = np.maximum(-0.0020 * c_rate + 0.0021, 0.0)
    resistance_depth = 6.8477 * (depth - 0.5) ** 3 + 0.9182
    return Rates(
        capacity_calendar=1.2571e-5
        * arrhenius(17_126.0, temperature)
        * capacity_soc
        * SECONDS_PER_DAY**0.5,
        capacity_cycle=(0.0630 * c_rate + 0.0971) * capacity_depth / 100.0,
        resistance_calendar=3.4194e-10
        * arrhenius(71_827.0, temperature)
        * resistance_soc
        * SECONDS_PER_DAY,
        resistance_cycle=resistance_c * np.maximum(resistance_depth, 0.0) / 100.0,
    )


NAUMANN: Final = AgeingLaw(
    source="Naumann et al., J. Energy Storage 17 (2018) 153; J. Power Sources 451 (2020) 227666",
    capacity_calendar_exponent=0.5,
    capacity_cycle_exponent=0.5,
    resistance_calendar_exponent=1.0,
    resistance_cycle_exponent=1.0,
    rates=naumann_rates,
)
