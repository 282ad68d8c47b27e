"""The laws of ageing against their published equations, worked out apart from the code."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batteryops.telemetry.ageing import (
    NAUMANN,
    SCHMALSTIEG,
    AgeingLaw,
    Damage,
    Stress,
    accumulate,
    age,
    arrhenius,
)

LAWS = pytest.mark.parametrize("law", [SCHMALSTIEG, NAUMANN], ids=["Schmalstieg", "Naumann"])


def conditions(
    temperature_c: float = 25.0, soc: float = 0.5, voltage_v: float = 3.75, depth: float = 0.5
) -> Stress:
    return Stress(
        temperature_k=np.array([temperature_c + 273.15]),
        soc=np.array([soc]),
        voltage_v=np.array([voltage_v]),
        depth=np.array([depth]),
        c_rate=np.array([0.5]),
    )


def damage(law: AgeingLaw, stress: Stress, days: float, full_cycles: float) -> Damage:
    return age(law, stress, np.array([days]), np.array([full_cycles]))


def test_schmalstieg_equals_the_published_equation_written_out_for_one_condition() -> None:
    days, throughput_ah, kelvin, volts, depth = 500.0, 1000.0, 308.15, 3.7, 0.5
    alpha = (7.543 * volts - 23.75) * 1e6 * math.exp(-6976 / kelvin)
    beta = 7.348e-3 * (volts - 3.667) ** 2 + 7.6e-4 + 4.081e-3 * depth
    loss = alpha * days**0.75 + beta * math.sqrt(throughput_ah)
    alpha_r = (5.270 * volts - 16.32) * 1e5 * math.exp(-5986 / kelvin)
    beta_r = 2.153e-4 * (volts - 3.725) ** 2 - 1.521e-5 + 2.798e-4 * depth
    growth = alpha_r * days**0.75 + beta_r * throughput_ah

    stress = conditions(temperature_c=35.0, voltage_v=volts, depth=depth)
    done = damage(SCHMALSTIEG, stress, days, throughput_ah / (2 * 2.05))
    assert done.capacity_loss[0] == pytest.approx(loss, rel=1e-12)
    assert done.resistance_growth[0] == pytest.approx(growth, rel=1e-12)


def test_naumann_calendar_loss_after_a_year_at_25_degrees_and_half_charge() -> None:
    # 1.2571e-5 * 0.60225 * sqrt(31,557,600 s) at the reference temperature and SoC 0.5
    done = damage(NAUMANN, conditions(), days=365.25, full_cycles=0.0)
    assert done.capacity_loss[0] == pytest.approx(0.04253, abs=1e-5)


def test_calendar_loss_follows_the_square_root_of_time() -> None:
    once = damage(NAUMANN, conditions(), 100.0, 0.0).capacity_loss[0]
    four_times = damage(NAUMANN, conditions(), 400.0, 0.0).capacity_loss[0]
    assert four_times == pytest.approx(2.0 * once, rel=1e-12)


def test_naumann_cycle_loss_after_1000_full_cycles() -> None:
    loss_percent = (0.0630 * 0.5 + 0.0971) * (4.0253 * (0.5 - 0.6) ** 3 + 1.0923) * 1000**0.5
    done = damage(NAUMANN, conditions(), days=0.0, full_cycles=1000.0)
    assert done.capacity_loss[0] == pytest.approx(loss_percent / 100.0, rel=1e-12)


@given(cuts=st.lists(st.floats(0.1, 300.0), min_size=1, max_size=20), exponent=st.floats(0.3, 1.0))
def test_one_rate_gives_the_power_law_however_time_is_cut(
    cuts: list[float], exponent: float
) -> None:
    stretch = np.array(cuts)
    carried = accumulate(np.full(len(cuts), 1e-3), stretch, exponent)
    assert carried == pytest.approx(1e-3 * np.cumsum(stretch) ** exponent, rel=1e-9)


def test_a_change_of_rate_continues_from_the_damage_that_is_there() -> None:
    # by hand: 0.02 * sqrt(100) = 0.2, which the rate 0.01 reaches after 400; then 100 more of it
    carried = accumulate(np.array([0.02, 0.01]), np.array([100.0, 100.0]), 0.5)
    assert carried == pytest.approx([0.2, 0.01 * math.sqrt(500.0)], rel=1e-12)


@LAWS
@given(
    days=st.floats(1.0, 4000.0),
    more_days=st.floats(1.0, 1000.0),
    cycles=st.floats(0.0, 2000.0),
    more_cycles=st.floats(1.0, 1000.0),
    temperature_c=st.floats(-10.0, 50.0),
    warmer=st.floats(0.1, 10.0),
)
def test_more_time_more_throughput_and_more_heat_each_age_more(  # noqa: PLR0913  # drawn values
    law: AgeingLaw,
    *,
    days: float,
    more_days: float,
    cycles: float,
    more_cycles: float,
    temperature_c: float,
    warmer: float,
) -> None:
    base = damage(law, conditions(temperature_c), days, cycles)
    worse = (
        damage(law, conditions(temperature_c), days + more_days, cycles),
        damage(law, conditions(temperature_c), days, cycles + more_cycles),
        damage(law, conditions(temperature_c + warmer), days, cycles),
    )
    for done in worse:
        assert done.capacity_loss[0] > base.capacity_loss[0]
        assert done.resistance_growth[0] > base.resistance_growth[0]


@LAWS
@given(soc=st.floats(0.0, 1.0), depth=st.floats(0.0, 1.0), voltage_v=st.floats(2.5, 4.2))
def test_no_condition_makes_a_cell_younger(
    law: AgeingLaw, soc: float, depth: float, voltage_v: float
) -> None:
    stress = conditions(soc=soc, depth=depth, voltage_v=voltage_v)
    done = damage(law, stress, 100.0, 100.0)
    assert done.capacity_loss[0] >= 0.0
    assert done.resistance_growth[0] >= 0.0


def test_arrhenius_is_1_at_25_degrees_and_rises_with_temperature() -> None:
    factor = arrhenius(50_000.0, np.array([278.15, 298.15, 308.15]))
    assert factor[1] == 1.0
    ten_warmer = math.exp(50_000.0 / 8.314462618 * (1 / 298.15 - 1 / 308.15))
    assert factor[2] == pytest.approx(ten_warmer, rel=1e-12)
    assert factor[0] < 1.0
